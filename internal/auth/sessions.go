package auth

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"kwai/internal/store"
)

// MaxSessions bounds a list of sessions.
const MaxSessions = 100

// OwnSession is a live session as its user sees it.
type OwnSession struct {
	ID                   string
	CreatedAt, RenewedAt time.Time
	Address, UserAgent   string // of the login, as the audit log has them; "" where it doesn't
	Current              bool   // the caller speaks from it
}

// Sessions lists the caller's own live sessions, the newest first, MaxSessions at
// most.
func (s *Service) Sessions(ctx context.Context, caller Caller) ([]OwnSession, error) {
	live, err := s.Store.Read(ctx).LiveSessions(caller.ID, s.Store.Now(), s.Settings.lifetimes(), EventOpened, MaxSessions)
	own := make([]OwnSession, len(live))
	for i, l := range live {
		own[i] = OwnSession{l.ID, l.CreatedAt, l.RenewedAt, l.Address, l.UserAgent, l.ID == caller.SessionID}
	}
	return own, err
}

// EndSession ends a live session of the caller's own, which may be the one that
// the caller speaks from. ErrNotOwn for anything else.
func (s *Service) EndSession(ctx context.Context, client Client, caller Caller, id string) (err error) {
	defer func() { s.counts.count(logouts, succeeded, err) }()
	if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
		return ErrNotOwn // before any I/O
	}
	reason := ByUserElsewhere
	if id == caller.SessionID {
		reason = "" // a logout
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		ended, err := tx.EndSession(id, caller.ID, store.EndLogout, s.Settings.lifetimes())
		if err != nil {
			return err
		}
		if !ended {
			return ErrNotOwn
		}
		return s.publish(tx, client, happening{kind: EventEnded, reason: reason, user: caller.ID, session: id})
	})
	return err
}

// endAtOnce is how many sessions end in one transaction, so that others needn't
// wait for long.
const endAtOnce = 100

// EndOtherSessions ends all of the caller's sessions but the one that the caller
// speaks from. ErrNotLoggedIn if that is ended meanwhile: of two sessions that end
// each other, one stays.
func (s *Service) EndOtherSessions(ctx context.Context, client Client, caller Caller) (err error) {
	defer func() { s.counts.count(logouts, succeeded, err) }()
	for more := true; more; {
		err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
			more, err = s.endSomeOthers(tx, client, caller)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) endSomeOthers(tx *store.Tx, client Client, caller Caller) (more bool, err error) {
	lives := s.Settings.lifetimes()
	// In this order everywhere: so nobody waits for each other.
	if _, err := tx.LockUser(caller.ID); errors.Is(err, store.ErrNotFound) {
		return false, ErrNotLoggedIn // the user was deleted
	} else if err != nil {
		return false, err
	}
	if live, err := tx.LockSession(caller.SessionID, caller.ID, lives); err != nil {
		return false, err
	} else if !live {
		return false, ErrNotLoggedIn
	}
	found, err := tx.LiveSessions(caller.ID, tx.Now, lives, EventOpened, endAtOnce)
	if err != nil {
		return false, err
	}
	for _, f := range found {
		if f.ID == caller.SessionID {
			continue
		}
		// False: it was logged out in this moment.
		if ended, err := tx.EndSession(f.ID, caller.ID, store.EndLogout, lives); err != nil {
			return false, err
		} else if !ended {
			continue
		}
		if err := s.publish(tx, client, happening{kind: EventEnded, reason: ByUserElsewhere, user: caller.ID, session: f.ID}); err != nil {
			return false, err
		}
	}
	if len(found) == endAtOnce {
		return true, nil
	}
	// Those of apps, too, that outlived the session that they came of.
	return false, tx.EndAppSessionsBut(caller.ID, caller.SessionID, store.EndLogout)
}

// sessionsListed bounds a list of sessions.
const sessionsListed = 1000

// UserSessions lists an account's live sessions, the latest login first, 1000 at
// most.
func (s *Service) UserSessions(ctx context.Context, email string) ([]store.OpenedSession, error) {
	user, err := s.User(ctx, email)
	if err != nil {
		return nil, err
	}
	return s.Store.Read(ctx).LiveSessions(user.ID, s.Store.Now(), s.Settings.lifetimes(), EventOpened, sessionsListed)
}

// EndUserSession ends a session, whosever it is: from then on no server accepts any
// of its tokens. ErrNotLive if there is none such.
func (s *Service) EndUserSession(ctx context.Context, id string) error {
	if uuid.Validate(id) != nil {
		return ErrNotLive
	}
	session, err := s.Store.Read(ctx).SessionByID(id)
	if errors.Is(err, store.ErrNotFound) {
		return ErrNotLive
	}
	if err != nil {
		return err
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		if ended, err := s.endByCommand(tx, session); err != nil {
			return err
		} else if !ended {
			return ErrNotLive
		}
		return nil
	})
	return s.changed(Change{User: store.User{Profile: store.Profile{ID: session.UserID}}, Sessions: 1}, err)
}

// EndUserSessions ends all of an account's sessions. The user may log in again.
func (s *Service) EndUserSessions(ctx context.Context, email string) error {
	user, err := s.User(ctx, email)
	if err != nil {
		return err
	}
	change := Change{User: user}
	for more := true; more; {
		ended := int64(0)
		err := s.Store.InTx(ctx, func(tx *store.Tx) error {
			// First the user's row: none is opened meanwhile.
			if _, err := tx.LockUser(user.ID); err != nil {
				return gone(err)
			}
			live, err := tx.LiveSessions(user.ID, tx.Now, s.Settings.lifetimes(), EventOpened, sessionsEnded)
			if err != nil {
				return err
			}
			more, ended = len(live) == sessionsEnded, 0
			for _, session := range live {
				// False: it was logged out just now.
				if was, err := s.endByCommand(tx, session.Session); err != nil {
					return err
				} else if was {
					ended++
				}
			}
			if more {
				return nil
			}
			// Those of apps, too, that outlived the session that they came of.
			return tx.EndAppSessionsBut(user.ID, "", store.EndCommand)
		})
		if err != nil {
			return err
		}
		change.Sessions += ended
	}
	return s.changed(change, nil)
}

// sessionsEnded bounds how many are ended in one transaction.
const sessionsEnded = 100

func (s *Service) endByCommand(tx *store.Tx, session store.Session) (bool, error) {
	ended, err := tx.EndSession(session.ID, session.UserID, store.EndCommand, s.Settings.lifetimes())
	if err != nil || !ended {
		return false, err
	}
	return true, s.publish(tx, Operator, happening{kind: EventEnded, reason: ByCommand, user: session.UserID, session: session.ID})
}
