package auth

import (
	"context"
	"errors"
	"slices"
	"time"

	"kwai/internal/store"
	"kwai/internal/token"
)

// Renew exchanges a refresh token, in a request that arrived at that time, for
// new tokens.
//
// A token that was replaced within the reuse window gets the session's current
// tokens: an answer that got lost, a retry, several tabs at once. That writes
// nothing and prolongs nothing. An older one is a replay: somebody else may have a
// token of the session, so the session ends and the user gets a mail. ErrRefresh for
// every reason; ErrBusy where the request is so old that it can't be known which it is.
func (s *Service) Renew(ctx context.Context, client Client, refresh string, arrived time.Time) (Tokens, error) {
	tokens, how, err := s.renew(ctx, client, refresh, arrived)
	s.counts.count(renewals, how, err)
	return tokens, err
}

// renew also says how a renewal succeeded: renewed or reused.
func (s *Service) renew(ctx context.Context, client Client, refresh string, arrived time.Time) (tokens Tokens, how outcome, err error) {
	id, number, err := s.Keys.parseRefresh(ctx, refresh)
	if errors.Is(err, token.ErrRefresh) {
		err = ErrRefresh
	}
	if err != nil {
		return Tokens{}, renewed, err
	}
	counter := int64(number)
	var session store.Session
	var now time.Time
	err = s.Store.Statement(ctx, func(tx *store.Tx) (err error) {
		now = tx.Now
		session, err = tx.Renew(id.String(), counter, s.Settings.lifetimes(), s.Settings.ReuseWindow)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		tokens, err = s.renewReplaced(ctx, client, id.String(), counter, arrived)
		return tokens, reused, err
	}
	if err != nil {
		return Tokens{}, renewed, err
	}
	tokens, err = s.tokens(ctx, session, now)
	return tokens, renewed, err
}

// renewReplaced judges a token that isn't the session's current one.
func (s *Service) renewReplaced(ctx context.Context, client Client, id string, counter int64, arrived time.Time) (Tokens, error) {
	session, err := s.Store.Read(ctx).SessionByID(id)
	now := s.Store.Now()
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Tokens{}, ErrRefresh
	case err != nil:
		return Tokens{}, err
	case session.Kind != store.KindAPI, !session.Live(now, s.Settings.lifetimes()):
		return Tokens{}, ErrRefresh
	case session.Reusable(counter, arrived, s.Settings.ReuseWindow):
		return s.tokens(ctx, session, now)
	case now.Sub(arrived) >= s.Settings.ReuseWindow:
		// The server stood still while it had this request: the token may have been
		// current when it came. The row no longer says so.
		return Tokens{}, ErrBusy
	}
	return Tokens{}, s.endReplayed(ctx, client, session)
}

// maxReplayNotices bounds the mails within a day about replays: users can make as many
// as they have sessions.
const maxReplayNotices = 5

func (s *Service) publishReplay(tx *store.Tx, client Client, session store.Session) error {
	n, err := tx.CountAuditEntries(session.UserID, EventReplay, firstID(tx.Now.Add(-24*time.Hour)), firstID(tx.Now.Add(store.ClockSlack)))
	if err != nil {
		return err
	}
	h := happening{kind: EventReplay, user: session.UserID, session: session.ID}
	e, subscribers := s.newEvent(tx, h.kind, h.user, h.session), s.subscribers(h.kind)
	if n >= maxReplayNotices {
		subscribers = slices.DeleteFunc(subscribers, func(name string) bool { return name == SubscriberMail })
	}
	e.Language = client.Language
	if err := record(tx, e.ID, client, h); err != nil {
		return err
	}
	return tx.Publish(e, subscribers...)
}

// endReplayed ends the session of a replay. ErrRefresh if it has ended meanwhile,
// errReplay if not.
func (s *Service) endReplayed(ctx context.Context, client Client, session store.Session) error {
	ended := false
	err := s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		ended, err = tx.EndSession(session.ID, session.UserID, store.EndReplay, s.Settings.lifetimes())
		if err == nil && ended {
			err = s.publishReplay(tx, client, session)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case !ended:
		return ErrRefresh
	}
	s.Log.Warn("a replaced refresh token came back: its session was ended", "user", session.UserID, "session", session.ID)
	return errReplay
}
