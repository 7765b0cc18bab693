package auth

import (
	"context"
	"errors"

	"kwai/internal/store"
	"kwai/internal/token"
)

// LogoutExpired is Logout for a caller whose access token has expired. It still shows
// whose it is, which is enough to end the session of both tokens. ErrNotLoggedIn for
// anything else.
func (s *Service) LogoutExpired(ctx context.Context, client Client, caller Caller, refresh string) error {
	id, _, err := s.Keys.parseRefresh(ctx, refresh)
	switch {
	case errors.Is(err, token.ErrRefresh), err == nil && id.String() != caller.SessionID:
		return ErrNotLoggedIn
	case err != nil:
		return err
	}
	if err = s.Logout(ctx, client, caller, refresh); errors.Is(err, ErrNoSession) {
		return ErrNotLoggedIn
	}
	return err
}

// Logout ends the session that a refresh token belongs to, if it is one of the
// caller's own: from then on neither its refresh tokens nor its access tokens are
// accepted. A token that was replaced does as well as the current one.
// ErrNoSession for anything else.
func (s *Service) Logout(ctx context.Context, client Client, caller Caller, refresh string) (err error) {
	defer func() { s.counts.count(logouts, succeeded, err) }()
	id, _, err := s.Keys.parseRefresh(ctx, refresh)
	if errors.Is(err, token.ErrRefresh) {
		return ErrNoSession
	}
	if err != nil {
		return err
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		ended, err := tx.EndSession(id.String(), caller.ID, store.EndLogout, s.Settings.lifetimes())
		if err != nil {
			return err
		}
		if !ended {
			return ErrNoSession
		}
		return s.publish(tx, client, happening{kind: EventEnded, user: caller.ID, session: id.String()})
	})
	return err
}
