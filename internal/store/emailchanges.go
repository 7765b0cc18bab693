package store

import (
	"time"

	"kwai/internal/database"
)

// EmailChange is the address that a user has asked for. It may be another user's.
type EmailChange struct {
	UserID, RequestID string
	Email, EmailKey   string
	AuthVersion       int64 // of the user, when it was requested
	ExpiresAt         time.Time
}

// RequestEmailChange stores a request instead of the user's last one.
func (tx *Tx) RequestEmailChange(c EmailChange) error {
	_, err := tx.Exec(`INSERT INTO email_changes (user_id, request_id, email, email_key, auth_version, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (user_id) DO UPDATE SET request_id = excluded.request_id, email = excluded.email, email_key = excluded.email_key,
			auth_version = excluded.auth_version, expires_at = excluded.expires_at`,
		c.UserID, c.RequestID, c.Email, c.EmailKey, c.AuthVersion, micros(c.ExpiresAt))
	return err
}

// EmailChange finds what a user has asked for; ErrNotFound if there is nothing.
func (r Reader) EmailChange(userID string) (EmailChange, error) {
	return database.QueryRow(r.db, func(scan database.Scan) (c EmailChange, err error) {
		return c, scan(&c.UserID, &c.RequestID, &c.Email, &c.EmailKey, &c.AuthVersion, (*instant)(&c.ExpiresAt))
	}, `SELECT user_id, request_id, email, email_key, auth_version, expires_at FROM email_changes WHERE user_id = $1`, userID)
}

// RenewEmailChange gives a request another id and time, if it is still the user's last.
func (tx *Tx) RenewEmailChange(userID, requestID, id string, expires time.Time) error {
	_, err := tx.Exec(`UPDATE email_changes SET request_id = $1, expires_at = $2 WHERE user_id = $3 AND request_id = $4`, id, micros(expires), userID, requestID)
	return err
}

// DropEmailChange forgets what a user has asked for.
func (tx *Tx) DropEmailChange(userID string) error {
	_, err := tx.Exec(`DELETE FROM email_changes WHERE user_id = $1`, userID)
	return err
}
