package auth

import (
	"kwai/internal/store"
)

// What is recorded beside the events.
const (
	TraceLoginFailed = "login.failed"          // its reason says why, which the client isn't told
	TraceNotChanged  = "user.password-refused" // a session's user gave a wrong current password
	TraceUnlocked    = "user.unlocked"         // an operator had an account's failures forgotten
)

// Why a login failed, in the trail.
const (
	reasonUnknown  = "no such account"
	reasonPassword = "wrong password"
	reasonRevoked  = "the user is revoked"
	reasonInvited  = "no password is chosen yet"
	reasonChanged  = "the password was changed meanwhile"
)

// How a password was changed, in the trail.
const (
	ByRecovery = "by a recovery"
	ByCommand  = "by a command"
	ByUser     = "by the user"
)

// How a session was ended, in the trail; a logout has no reason.
const reasonElsewhere = "by the user, from another session"

// record adds to the trail, in the transaction of what it tells.
func record(tx *store.Tx, id, kind, reason, userID, sessionID string, c Client) error {
	t := store.Trace{ID: id, At: tx.Now, Kind: kind, Reason: reason, UserID: userID, SessionID: sessionID, UserAgent: c.UserAgent}
	if c.Address.IsValid() {
		t.Address = c.Address.String()
	}
	return tx.Record(t)
}
