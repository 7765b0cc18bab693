package auth

import (
	"context"
	"errors"

	"kwai/internal/store"
)

// ChangePassword gives a user who is logged in and knows the current password a
// new one, and ends the user's recoveries and all sessions but the caller's. The
// current password may be tried as often as at a login, and is counted with those:
// a stolen access token makes no guess cheaper. Its errors: ErrPassword for a wrong
// one, Invalid for a new one that breaks the policy, Throttled, and ErrNotLoggedIn
// where the session was ended meanwhile.
func (s *Service) ChangePassword(ctx context.Context, client Client, caller Caller, current, chosen string) error {
	err := s.changePassword(ctx, client, caller, current, chosen)
	how := outcomeOf(err)
	if errors.Is(err, ErrPassword) {
		how = refused
	}
	s.counts.count(changes, how)
	return err
}

func (s *Service) changePassword(ctx context.Context, client Client, caller Caller, current, chosen string) error {
	user, err := s.Store.Read(ctx).UserByID(caller.ID)
	if err != nil {
		return err
	}
	// First, as it tells nothing: no attempt is lost to it.
	if err := checkPassword("new_password", chosen, user); err != nil {
		return err
	}
	a, err := s.attempt(ctx, client, accountOfKey(user.EmailKey))
	if err != nil {
		return err
	}
	defer s.attemptEnded(a)
	ctx = a.inTurn(ctx)
	changed, err := s.replacePassword(ctx, client, a, caller, user, current, chosen)
	if err == nil && !changed {
		// Once more: it may be a login with the same password that has
		// replaced its old hash.
		if user, err = s.Store.Read(ctx).UserByID(caller.ID); err == nil {
			changed, err = s.replacePassword(ctx, client, a, caller, user, current, chosen)
		}
	}
	switch {
	case err != nil && inconclusive(err):
		s.refundAttempt(ctx, a)
	case err == nil && !changed:
		err = ErrNotLoggedIn // it was changed once more, or the user revoked: the session is over
	case errors.Is(err, ErrPassword):
		// Who hangs up in time isn't spared the record.
		recorded := s.Store.Statement(context.WithoutCancel(ctx), func(tx *store.Tx) error {
			return record(tx, nextID(tx), AuditPasswordRefused, reasonPassword, user.ID, caller.SessionID, client)
		})
		if recorded != nil {
			return recorded
		}
	}
	return err
}

// replacePassword says false if the stored hash was replaced while it hashed, or
// the user revoked.
func (s *Service) replacePassword(ctx context.Context, client Client, a attempt, caller Caller, user store.User, current, chosen string) (changed bool, err error) {
	if user.PasswordHash == "" {
		return false, ErrPassword
	}
	if ok, err := s.Passwords.Verify(ctx, user.PasswordHash, current); err != nil || !ok {
		if err == nil {
			err = ErrPassword
		}
		return false, err
	}
	fresh, err := s.hash(ctx, chosen)
	if err != nil {
		return false, err
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		if changed, err = tx.ChangePassword(user.ID, user.PasswordHash, fresh); err != nil || !changed {
			return err
		}
		// Whoever ends this session meets the change here.
		if live, err := tx.LockSession(caller.SessionID, user.ID, s.Settings.lifetimes()); err != nil {
			return err
		} else if !live {
			return ErrNotLoggedIn
		}
		if err := s.attemptSucceeded(tx, a); err != nil {
			return err
		}
		return s.passwordChanged(tx, client, user, caller.SessionID, ByUser)
	})
	return changed, err
}
