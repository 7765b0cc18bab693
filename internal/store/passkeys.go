package store

import "time"

// Passkey is a user's.
type Passkey struct {
	ID                string // the credential's, base64url
	Name              string // by which its user knows it
	RPID              string // the host that it is for
	CreatedAt, UsedAt time.Time
}
