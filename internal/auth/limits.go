package auth

import (
	"context"
	"time"

	"kwai/internal/store"
)

// Limits bound guessing. The counts are in the database, so they hold for all replicas
// and through restarts.
//
// An attempt counts as a failure before the password is looked at, and a success undoes
// that: else parallel guesses would pass. Where it counts depends on the network (the
// client's prefix, /24 or /56) of the login:
//
//   - A network that the account knows, for its user has logged in or reset the
//     password from there within Remember, has a count of its own for the account.
//     Failures elsewhere, and of other accounts there, don't delay it.
//   - All unknown networks share one count for the account, and each of them has an
//     allowance for failures at all accounts.
//
// At most Free attempts at an account run at once from a network, on each server: see
// underWay.
//
// An address without an account is counted like any other.
type Limits struct {
	Off bool

	Free        int           // failures in a row at an account before there are waits
	FirstWait   time.Duration // after them; each failure more doubles it
	LongestWait time.Duration
	Most        int           // failures in a row after which nobody may try (NIST SP 800-63B, 3.2.2: 100 at most)
	Remember    time.Duration // how long a network is known, and how long failures are counted after the last

	NetworkBurst int // failures of a network at accounts that don't know it, at once
	NetworkHour  int // and in each hour, for ever

	MailPause time.Duration // between two recoveries of an account
	MailHour  int           // recoveries of an account within an hour
}

// counting are the limits that attempts are counted by.
func (l Limits) counting() store.Limits {
	return store.Limits{
		Waits:     store.Waits{Free: int64(l.Free), Most: int64(l.Most), First: l.FirstWait, Longest: l.LongestWait},
		Allowance: l.allowance(),
		Remember:  l.Remember,
	}
}

func (l Limits) allowance() store.Allowance {
	return store.Allowance{Burst: int64(l.NetworkBurst), Every: time.Hour / time.Duration(l.NetworkHour)}
}

// wait is how long an account's count holds back the next attempt.
func (l Limits) wait(c store.Attempts, now time.Time) time.Duration {
	if c.Failures >= int64(l.Most) {
		return l.LongestWait // what it takes is another network, a reset or an operator
	}
	wait := c.Until.Sub(now)
	if wait > l.LongestWait+store.ClockSlack {
		return 0 // of a clock that was ahead
	}
	return min(max(wait, 0), l.LongestWait)
}

// networkWait is how long a network's allowance holds back the next attempt.
func (l Limits) networkWait(c store.Attempts, now time.Time) time.Duration {
	a := l.allowance()
	if wait := c.Until.Sub(now) - a.Whole() + a.Every; wait <= a.Every+store.ClockSlack {
		return max(wait, 0)
	}
	return 0
}

// atMost refuses with tooMany what the user has had that often within the hour. It is for
// what costs a logged-in user nothing, and leaves an entry in the audit log.
func (s *Service) atMost(tx *store.Tx, most int, kind, userID string, tooMany error) error {
	if s.Settings.Limits.Off {
		return nil
	}
	n, err := tx.CountAuditEntries(userID, kind, firstID(tx.Now.Add(-time.Hour)), firstID(tx.Now.Add(store.ClockSlack)))
	if err == nil && n >= int64(most) {
		err = tooMany
	}
	return err
}

// Unlock clears the account's failures, of passwords and of codes, so that every network
// may try again.
func (s *Service) Unlock(ctx context.Context, email string) error {
	user, err := s.User(ctx, email)
	if err != nil {
		return err
	}
	change := Change{User: user}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		// The user's row first: meanwhile the user is neither deleted nor gets another
		// address.
		user, err := tx.LockUser(user.ID)
		if err != nil {
			return gone(err)
		}
		change.Failures = 0
		for _, account := range []string{accountOfKey(user.EmailKey), codesOf(user.ID)} {
			counts, err := tx.AttemptsOf(account)
			if err != nil {
				return err
			}
			for _, c := range counts {
				if c.ExpiresAt.After(tx.Now) {
					change.Failures += c.Failures
				}
			}
			if err := tx.ForgetFailures(account); err != nil {
				return err
			}
		}
		return recordCommand(tx, AuditUnlocked, user.ID)
	})
	return s.changed(change, err)
}

// Throttling is what is counted of an account's failed logins: of wrong passwords, or of
// wrong codes behind the right one.
type Throttling struct {
	Failures int64     // in a row, from networks that the account doesn't know
	Until    time.Time // until then they must wait; zero: they needn't
	Locked   bool      // they must wait for a login from a known network, an Unlock or, of passwords, a reset
	Networks int       // that the account knows
	Held     int       // of these, how many must wait for failures of their own
}

// Throttling says what throttling holds against logins to an account.
func (s *Service) Throttling(ctx context.Context, user store.User) (Throttling, error) {
	return s.throttling(ctx, accountOfKey(user.EmailKey))
}

// CodeThrottling says what it holds against codes, for who knows the password.
func (s *Service) CodeThrottling(ctx context.Context, user store.User) (Throttling, error) {
	return s.throttling(ctx, codesOf(user.ID))
}

func (s *Service) throttling(ctx context.Context, account string) (t Throttling, err error) {
	counts, err := s.Store.Read(ctx).AttemptsOf(account)
	now, limits := s.Store.Now(), s.Settings.Limits
	for _, c := range counts {
		wait := limits.wait(c, now)
		switch {
		case !c.ExpiresAt.After(now): // it counts for nothing
		case c.Network == "":
			t.Failures, t.Locked = c.Failures, c.Failures >= int64(limits.Most)
			if wait > 0 && !t.Locked {
				t.Until = c.Until
			}
		default:
			t.Networks++
			if wait > 0 {
				t.Held++
			}
		}
	}
	return t, err
}
