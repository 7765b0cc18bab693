package auth

import (
	"errors"

	"kwai/internal/store"
)

// actor is who changes an account: an operator by a command, or its own user on a page.
type actor struct {
	client  Client
	how     string   // as the audit log says it
	visitor *Visitor // nil: an operator
}

var operator = actor{client: Operator, how: ByCommand}

func byVisitor(client Client, v Visitor) actor { return actor{client, ByUser, &v} }

// lock locks the account's row for the rest of the transaction. A visitor's session
// must still be live then: an end of it and the change wait for each other.
func (s *Service) lock(tx *store.Tx, by actor, userID string) (store.User, error) {
	user, err := tx.LockUser(userID)
	if by.visitor == nil || err != nil && !errors.Is(err, store.ErrNotFound) {
		return user, gone(err)
	}
	live := false
	if err == nil {
		live, err = tx.LockSession(by.visitor.SessionID, userID, s.Settings.lifetimes())
	}
	if !live && (err == nil || errors.Is(err, store.ErrNotFound)) {
		err = ErrNotLoggedIn
	}
	return user, err
}
