package auth

import (
	"context"
	"errors"
	"time"

	"kwai/internal/store"
	"kwai/internal/token"
)

const (
	// maxRequests bounds the recovery requests that a server takes from one look
	// at them to the next. It counts what it took, not what waits: that would
	// cost the more the worse the flood is.
	maxRequests = 1000
	// requestBatch is how many are looked at in one transaction.
	requestBatch = 100
	// recoveryRequests names the turn of the transaction that looks at them.
	recoveryRequests = "recovery requests"
)

// RecoveriesEvery is how often a server calls TakeAllRecoveries: at fixed times, so
// that the work for a known address colours no particular request's time.
const RecoveriesEvery = 500 * time.Millisecond

// Recover asks for a recovery of the account with that address. It only writes the
// request: the same work whether the account exists or not. A malformed address is
// nobody's, so there is nothing to write. The error is ErrBusy or the store's, alike for
// every address.
func (s *Service) Recover(ctx context.Context, client Client, email string) error {
	err := s.recover(ctx, client, email)
	s.counts.count(recoveries, succeeded, err)
	return err
}

func (s *Service) recover(ctx context.Context, client Client, email string) error {
	key, err := FoldEmail(email)
	if err != nil {
		return nil //nolint:nilerr // the answer is the same
	}
	if s.requests.Add(1) > maxRequests {
		return ErrBusy
	}
	return s.Store.Statement(ctx, func(tx *store.Tx) error {
		r := store.RecoveryRequest{ID: nextID(tx), EmailKey: key, RequestedAt: tx.Now, UserAgent: client.UserAgent, Language: client.Language}
		if client.Address.IsValid() {
			r.Address = client.Address.String()
		}
		return tx.RequestRecovery(r)
	})
}

// TakeRecoveries looks at a batch of requests: a request for an account that may have a
// recovery becomes an event, any other is dropped. It says how many it looked at.
func (s *Service) TakeRecoveries(ctx context.Context) (taken int, err error) {
	defer func() {
		if err == nil && taken < requestBatch {
			s.requests.Store(0)
		}
	}()
	if some, err := s.Store.Read(ctx).RecoveryRequested(); err != nil || !some {
		return 0, err
	}
	var throttled []string // users
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		taken, throttled = 0, nil
		// One replica at a time: PostgreSQL would let two wait for each
		// other's rows.
		if err := tx.Serialize(recoveryRequests); err != nil {
			return err
		}
		requests, err := tx.TakeRecoveryRequests(requestBatch)
		if err != nil {
			return err
		}
		taken = len(requests)
		for _, r := range requests {
			user, many, err := s.takeRecovery(tx, r)
			if err != nil {
				return err
			}
			if many {
				throttled = append(throttled, user)
			}
		}
		return nil
	})
	if err == nil {
		for _, user := range throttled {
			s.Log.Info("a recovery is not mailed: there were others just before", "user", user)
		}
	}
	return taken, err
}

// takeRecovery publishes a request, if it is for an account that may have a recovery; or
// says that the user has had enough of them for now.
func (s *Service) takeRecovery(tx *store.Tx, r store.RecoveryRequest) (userID string, many bool, err error) {
	user, err := tx.UserByEmail(r.EmailKey)
	if errors.Is(err, store.ErrNotFound) || err == nil && !user.RevokedAt.IsZero() {
		return "", false, nil
	}
	if err == nil {
		many, err = s.manyRecoveries(tx, user, r.RequestedAt)
	}
	if err == nil && !many {
		err = s.publishRecovery(tx, user, r)
	}
	return user.ID, many, err
}

// manyRecoveries says that an account has had enough recoveries for now. The answer
// doesn't show it, for there is a link that works, or will once it is mailed. Where
// there is none (a key was revoked, a backup restored, the link has expired) the account
// hasn't had enough. Recoveries from before the latest change of the password don't
// count: else anyone with the password could use them up, change it, and so keep the
// owner from a link.
func (s *Service) manyRecoveries(tx *store.Tx, user store.User, now time.Time) (bool, error) {
	l := s.Settings.Limits
	if l.Off {
		return false, nil
	}
	var changed time.Time
	if !user.PasswordSetAt.After(now) {
		changed = user.PasswordSetAt
	}
	hour := firstID(later(now.Add(-time.Hour), changed))
	// Later ones were requested while a clock was ahead: they don't count.
	ahead := firstID(now.Add(store.ClockSlack))
	n, err := tx.CountAuditEntries(user.ID, EventRecovery, hour, ahead)
	if err == nil && n < int64(l.MailHour) {
		n, err = tx.CountAuditEntries(user.ID, EventRecovery, firstID(later(now.Add(-l.MailPause), changed)), ahead)
	}
	if err != nil || n == 0 {
		return false, err
	}
	return tx.RecoveryGood(user.ID, SubscriberMail, hour, tx.Now)
}

// publishRecovery publishes a request under its own id and time: the recovery begins
// with the request.
func (s *Service) publishRecovery(tx *store.Tx, user store.User, r store.RecoveryRequest) error {
	err := tx.Record(store.AuditEntry{
		ID: r.ID, At: r.RequestedAt, Kind: EventRecovery, UserID: user.ID, Address: r.Address, UserAgent: r.UserAgent,
	})
	if err != nil {
		return err
	}
	return tx.Publish(store.Event{
		ID: r.ID, Type: EventRecovery, UserID: user.ID,
		CreatedAt: r.RequestedAt, ExpiresAt: r.RequestedAt.Add(s.recoveryLife(user)), Language: r.Language,
	}, s.subscribers(EventRecovery)...)
}

// recoveryLife is how long a new link works. As it ends the one before, it works as long
// as an invitation where no password was ever chosen: else anybody could shorten that.
func (s *Service) recoveryLife(user store.User) time.Duration {
	if user.PasswordHash == "" {
		return max(s.Settings.RecoveryLife, s.Settings.InvitationLife)
	}
	return s.Settings.RecoveryLife
}

// TakeAllRecoveries takes requests until few are left.
func (s *Service) TakeAllRecoveries(ctx context.Context) error {
	for {
		if taken, err := s.TakeRecoveries(ctx); err != nil || taken < requestBatch {
			return err
		}
	}
}

// RecoveryMail is what the mail about a recovery says.
type RecoveryMail struct {
	User      store.User
	ID        string // the unique id; secret
	ExpiresAt time.Time
}

// MakeRecovery makes the recovery that an event asks for, or finds the one
// that an earlier delivery of the same event made. False if it must not be made: there
// is a newer one, the password was changed since the request, it was used, has expired,
// or the user is revoked or was deleted.
func (s *Service) MakeRecovery(ctx context.Context, event store.Event) (m RecoveryMail, ok bool, err error) {
	m.User, err = s.Store.Read(ctx).UserByID(event.UserID)
	if errors.Is(err, store.ErrNotFound) {
		return m, false, nil
	}
	if err == nil && !m.User.RevokedAt.IsZero() {
		// It won't be mailed, so it must not hold back a later request.
		return m, false, s.Store.Statement(ctx, func(tx *store.Tx) error { return tx.EndRecovery(event.ID) })
	}
	if err != nil || !s.Store.Now().Before(event.ExpiresAt) {
		return m, false, err
	}
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return m, false, err
	}
	made, err := s.Store.Read(ctx).RecoveryByRequest(event.ID)
	if errors.Is(err, store.ErrNotFound) {
		made, err = s.newRecovery(ctx, &m.User, event, keys.ring)
	}
	if err != nil || made.RequestID == "" || !made.EndedAt.IsZero() {
		return m, false, err
	}
	m.ExpiresAt = made.ExpiresAt
	m.ID, err = keys.ring.RecoveryID(made.MACKey, made.RequestID)
	return m, err == nil, err
}

// newRecovery returns the zero Recovery where none may be made. The user is read once
// more under the lock: a link must not go to an address that the user no longer has.
func (s *Service) newRecovery(ctx context.Context, user *store.User, event store.Event, keys *token.Keyring) (store.Recovery, error) {
	r := store.Recovery{RequestID: event.ID, MACKey: keys.RecoveryKey(), UserID: event.UserID, ExpiresAt: event.ExpiresAt}
	id, err := keys.RecoveryID(r.MACKey, r.RequestID)
	if err != nil {
		return store.Recovery{}, err
	}
	r.IDHash = token.HashRecoveryID(id)
	var made store.Recovery
	var claimed bool
	err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		claimed, err = tx.ClaimRecovery(event.UserID, event.CreatedAt)
		if err != nil {
			return err
		}
		if !claimed {
			// It may be another delivery of the same event that came first.
			made, err = tx.RecoveryByRequest(event.ID)
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			return err
		}
		made = r
		if *user, err = tx.UserByID(event.UserID); err != nil {
			return err
		}
		if err := tx.EndRecoveries(event.UserID); err != nil {
			return err
		}
		return tx.InsertRecovery(r)
	})
	if err == nil && claimed {
		s.counts.made.Add(1)
	}
	return made, err
}
