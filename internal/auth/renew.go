package auth

import (
	"context"
	"errors"
	"time"

	"kwai/internal/store"
)

// Renew exchanges a refresh token, in a request that arrived at that time, for
// new tokens.
//
// A token that was replaced within the reuse window gets the session's current
// tokens: an answer that got lost, a retry, several tabs at once. That writes
// nothing and prolongs nothing. An older one is a replay: either its holder or
// the owner is not the one the tokens were made for, so the session ends and
// the owner is told. ErrRefresh whatever the reason; ErrBusy where the request is
// so old that it can't be known which it is.
func (s *Service) Renew(ctx context.Context, refresh string, arrived time.Time) (Tokens, error) {
	id, number, err := s.Keys.ParseRefresh(refresh)
	if err != nil {
		return Tokens{}, ErrRefresh // before any I/O
	}
	counter := int64(number)
	var session store.Session
	var now time.Time
	err = s.Store.One(ctx, func(tx *store.Tx) error {
		var err error
		now = tx.Now
		session, err = tx.Renew(id.String(), counter, s.Settings.lives(), s.Settings.ReuseWindow)
		return err
	})
	switch {
	case err == nil:
		return s.tokens(session, now)
	case !errors.Is(err, store.ErrNotFound):
		return Tokens{}, err
	}
	return s.renewReplaced(ctx, id.String(), counter, arrived)
}

func (s *Service) renewReplaced(ctx context.Context, id string, counter int64, arrived time.Time) (Tokens, error) {
	session, err := s.Store.Read(ctx).SessionByID(id)
	now := s.Store.Now()
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Tokens{}, ErrRefresh
	case err != nil:
		return Tokens{}, err
	case !session.Live(now, s.Settings.lives()):
		return Tokens{}, ErrRefresh
	case session.Reusable(counter, arrived, s.Settings.ReuseWindow):
		return s.tokens(session, now)
	case now.Sub(arrived) >= s.Settings.ReuseWindow:
		// The server stood still with this request in its hands: the token may
		// have been current when it came, which the row remembers no longer.
		return Tokens{}, ErrBusy
	}
	ended := false
	err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		ended, err = tx.EndSession(id, session.UserID, store.EndReplay, s.Settings.lives())
		if err == nil && ended {
			err = s.publish(tx, EventReplay, session.UserID, id)
		}
		return err
	})
	if err != nil {
		return Tokens{}, err
	}
	if ended {
		s.Log.Warn("a replaced refresh token came back: its session was ended", "user", session.UserID, "session", id)
		s.published(EventReplay)
	}
	return Tokens{}, ErrRefresh
}
