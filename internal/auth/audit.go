package auth

import (
	"context"
	"iter"
	"time"

	"kwai/internal/store"
)

// What is recorded beside the events.
const (
	AuditLoginFailed     = "login.failed"          // its reason says why, which the client isn't told
	AuditPasswordRefused = "user.password-refused" // a session's user gave a wrong current password
	AuditUnlocked        = "user.unlocked"         // an operator had an account's failures forgotten
	AuditMailResent      = "mail.resent"           // an operator had an undelivered mail sent again
	AuditMailDropped     = "mail.dropped"          // an operator gave an undelivered mail up
	AuditKeyMade         = "key.made"              // a server key, which becomes active later
	AuditKeyRevoked      = "key.revoked"           // what was made with it is refused from now on
	AuditKeyResealed     = "key.resealed"          // sealed under another master key
)

// AuditKinds are the kinds of all entries.
var AuditKinds = []string{
	EventCreated, EventInvitation, EventRevoked, EventReinstated, EventRecovery, EventPasswordChanged,
	EventOpened, EventNewNetwork, EventEnded, EventReplay,
	AuditLoginFailed, AuditPasswordRefused, AuditUnlocked, AuditMailResent, AuditMailDropped, AuditKeyMade, AuditKeyRevoked, AuditKeyResealed,
}

// Why a login failed, in the audit log.
const (
	reasonUnknown  = "no such account"
	reasonPassword = "wrong password"
	reasonRevoked  = "the user is revoked"
	reasonInvited  = "no password is chosen yet"
	reasonExcess   = "too many sessions" // of a session that was ended by a login
	reasonChanged  = "the password was changed meanwhile"
)

// How a password was changed, and much else, in the audit log.
const (
	ByRecovery = "by a recovery"
	ByCommand  = "by a command" // of an operator: there is no client
	ByUser     = "by the user"
)

// How a session was ended, in the audit log; a logout has no reason.
const reasonElsewhere = "by the user, from another session"

// record adds to the audit log, in the transaction of what it tells.
func record(tx *store.Tx, id, kind, reason, userID, sessionID string, c Client) error {
	t := store.AuditEntry{ID: id, At: tx.Now, Kind: kind, Reason: reason, UserID: userID, SessionID: sessionID, UserAgent: c.UserAgent}
	if c.Address.IsValid() {
		t.Address = c.Address.String()
	}
	return tx.Record(t)
}

// recordCommand records what an operator did to a user, where no event tells it.
func recordCommand(tx *store.Tx, kind, userID string) error {
	return record(tx, nextID(tx), kind, ByCommand, userID, "", Operator)
}

// recordKey records what became of a server key, in the transaction that did it.
// The key is named by its purpose and id; how says who did it: "by a command",
// "by the schedule".
func recordKey(tx *store.Tx, kind, purpose, id, how string) error {
	return record(tx, nextID(tx), kind, how+": "+purpose+" "+id, "", "", Operator)
}

// AuditLog reads what was recorded from then on, in the order of time; of one
// account unless email is "": ErrNoUser if there is none such.
//
// It reads in pages, each at its own moment. What happens while it reads may be
// left out.
func (s *Service) AuditLog(ctx context.Context, since time.Time, email string) iter.Seq2[store.AuditEntry, error] {
	return func(yield func(store.AuditEntry, error) bool) {
		var user store.User
		if email != "" {
			var err error
			if user, err = s.User(ctx, email); err != nil {
				yield(store.AuditEntry{}, err)
				return
			}
		}
		// Without an end, a flood could be read for ever. Another server's clock
		// may be ahead.
		end := s.Store.Now().Add(time.Minute)
		for after := firstID(since); ; {
			r := s.Store.Read(ctx)
			var entries []store.AuditEntry
			var err error
			if user.ID != "" {
				entries, err = r.AuditLogOfUserAfter(user.ID, after, auditPage)
			} else {
				entries, err = r.AuditLogAfter(after, auditPage)
			}
			if err != nil {
				yield(store.AuditEntry{}, err)
				return
			}
			for _, t := range entries {
				if user.ID != "" {
					t.Email = user.Email
				}
				if t.At.After(end) || !yield(t, nil) {
					return
				}
				after = t.ID
			}
			if len(entries) < auditPage {
				return
			}
		}
	}
}

const auditPage = 500
