package auth

import (
	"context"
	"errors"

	"kwai/internal/password"
	"kwai/internal/store"
	"kwai/internal/token"
)

// Reset gives the user of a recovery a new password and ends the user's
// sessions and recoveries. The id is looked at before anything is hashed, and
// is used up only by success. Its errors: ErrRecovery, ErrRevoked, Invalid for
// a password that breaks the policy.
func (s *Service) Reset(ctx context.Context, client Client, id, pw string) (err error) {
	defer func() { s.counts.count(resets, succeeded, err) }()
	user, err := s.RecoveryUser(ctx, id)
	if err != nil {
		return err
	}
	fresh, err := s.choose(password.InTurn(ctx, client.network(), accountOfKey(user.EmailKey)), pw, user)
	if err != nil {
		return err
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		now, err := tx.SetPassword(user.ID, fresh)
		if errors.Is(err, store.ErrNotFound) {
			return ErrRecovery // the user was deleted, and the recovery with it
		}
		if err != nil {
			return err
		}
		if !now.RevokedAt.IsZero() {
			return ErrRevoked
		}
		// Two resets with one id meet here: the second finds it used.
		if used, err := tx.UseRecovery(token.HashRecoveryID(id)); err != nil {
			return err
		} else if !used {
			return ErrRecovery
		}
		if err := tx.ProveEmail(user.ID); err != nil { // the id was mailed
			return err
		}
		how := ByRecovery
		if user.PasswordHash == "" {
			how = ByInvitation
		}
		return s.passwordChanged(tx, client, user, "", how)
	})
	if errors.Is(err, ErrRecovery) {
		// It has ended meanwhile: perhaps the same reset was sent twice.
		if _, why := s.RecoveryUser(ctx, id); why != nil {
			err = why
		}
	}
	return err
}

// RecoveryUser is the user of a valid recovery. ErrRecovery for any other id: more
// precisely ErrRecoveryID if it has not the form of one, and ErrRecoveryOver if the
// user's password was last changed when it ended (nearly always by it). ErrRevoked if
// its user is revoked.
func (s *Service) RecoveryUser(ctx context.Context, id string) (store.User, error) {
	if !token.ValidRecoveryID(id) {
		return store.User{}, ErrRecoveryID
	}
	recovery, user, err := s.Store.Read(ctx).RecoveryByIDHash(token.HashRecoveryID(id))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return store.User{}, ErrRecovery
	case err != nil:
		return store.User{}, err
	case !recovery.EndedAt.IsZero() && recovery.EndedAt.Equal(user.PasswordSetAt):
		return store.User{}, ErrRecoveryOver
	case !recovery.EndedAt.IsZero() || !s.Store.Now().Before(recovery.ExpiresAt):
		return store.User{}, ErrRecovery
	case !user.RevokedAt.IsZero():
		return store.User{}, ErrRevoked
	}
	return user, nil
}
