package auth

import (
	"context"

	"github.com/google/uuid"

	"kwai/internal/store"
)

// MaxSessions bounds a list of sessions.
const MaxSessions = 100

// Sessions lists the caller's own live sessions, the newest first, MaxSessions at
// most.
func (s *Service) Sessions(ctx context.Context, caller Caller) ([]store.OpenedSession, error) {
	return s.Store.Read(ctx).LiveSessions(caller.ID, s.Store.Now(), s.Settings.lifetimes(), EventOpened, MaxSessions)
}

// EndSession ends a live session of the caller's own, which may be the one that
// the caller speaks from. ErrNotOwn for anything else.
func (s *Service) EndSession(ctx context.Context, client Client, caller Caller, id string) (err error) {
	defer func() { s.counts.count(logouts, outcomeOf(err)) }()
	if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
		return ErrNotOwn // before any I/O
	}
	reason := reasonElsewhere
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
	defer func() { s.counts.count(logouts, outcomeOf(err)) }()
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
	if err := tx.LockUser(caller.ID); err != nil {
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
		if err := s.publish(tx, client, happening{kind: EventEnded, reason: reasonElsewhere, user: caller.ID, session: f.ID}); err != nil {
			return false, err
		}
	}
	return len(found) == endAtOnce, nil
}
