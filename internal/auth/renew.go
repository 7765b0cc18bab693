package auth

import (
	"context"
	"errors"
	"time"

	"kwai/internal/store"
	"kwai/internal/token"
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
func (s *Service) Renew(ctx context.Context, client Client, refresh string, arrived time.Time) (Tokens, error) {
	tokens, how, err := s.renew(ctx, client, refresh, arrived)
	if err != nil && how != replayed {
		how = outcomeOf(err)
	}
	s.counts.count(renewals, how)
	return tokens, err
}

// renew also says how a renewal that succeeded did, and whether one that was
// refused was a replay.
func (s *Service) renew(ctx context.Context, client Client, refresh string, arrived time.Time) (tokens Tokens, how outcome, err error) {
	id, number, err := s.Keys.parseRefresh(ctx, refresh)
	if errors.Is(err, token.ErrRefresh) {
		return Tokens{}, refused, ErrRefresh
	}
	if err != nil {
		return Tokens{}, failed, err
	}
	counter := int64(number)
	var session store.Session
	var now time.Time
	err = s.Store.Statement(ctx, func(tx *store.Tx) error {
		var err error
		now = tx.Now
		session, err = tx.Renew(id.String(), counter, s.Settings.lifetimes(), s.Settings.ReuseWindow)
		return err
	})
	switch {
	case err == nil:
		tokens, err = s.tokens(ctx, session, now)
		return tokens, renewed, err
	case !errors.Is(err, store.ErrNotFound):
		return Tokens{}, failed, err
	}
	return s.renewReplaced(ctx, client, id.String(), counter, arrived)
}

func (s *Service) renewReplaced(ctx context.Context, client Client, id string, counter int64, arrived time.Time) (tokens Tokens, how outcome, err error) {
	session, err := s.Store.Read(ctx).SessionByID(id)
	now := s.Store.Now()
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Tokens{}, refused, ErrRefresh
	case err != nil:
		return Tokens{}, failed, err
	case !session.Live(now, s.Settings.lifetimes()):
		return Tokens{}, refused, ErrRefresh
	case session.Reusable(counter, arrived, s.Settings.ReuseWindow):
		tokens, err = s.tokens(ctx, session, now)
		return tokens, reused, err
	case now.Sub(arrived) >= s.Settings.ReuseWindow:
		// The server stood still with this request in its hands: the token may
		// have been current when it came, which the row remembers no longer.
		return Tokens{}, failed, ErrBusy
	}
	ended := false
	err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		ended, err = tx.EndSession(id, session.UserID, store.EndReplay, s.Settings.lifetimes())
		if err == nil && ended {
			err = s.publish(tx, client, happening{kind: EventReplay, user: session.UserID, session: id})
		}
		return err
	})
	if err != nil {
		return Tokens{}, failed, err
	}
	how = refused
	if ended {
		how = replayed
		s.Log.Warn("a replaced refresh token came back: its session was ended", "user", session.UserID, "session", id)
	}
	return Tokens{}, how, ErrRefresh
}
