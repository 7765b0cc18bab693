package auth

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"kwai/internal/store"
)

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
			if err := tx.LockUser(user.ID); err != nil {
				return err
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
			return nil
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
