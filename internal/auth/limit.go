package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"kwai/internal/password"
	"kwai/internal/store"
)

// Limits bound guessing. They are kept in the database, so they hold for all
// replicas and through restarts.
//
// A password that is tried counts as a failure before it is looked at, and a
// success takes that back: parallel guesses don't pass each other by. What is
// counted where depends on the network (a client's prefix, /24 or /56) that a
// login comes from:
//
//   - One that the account knows, for it has logged in from there or reset its
//     password there within Remember, has a count of its own: whatever strangers
//     do, and whoever else fails there, doesn't hold it back.
//   - All others share one count for the account, and each of them has an
//     allowance for failures at whatever accounts.
//
// Of each network no more attempts than Free are under way at an account, on each
// server, whatever comes of them: see underWay.
//
// An address that has no account is counted like one that has.
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

func (l Limits) waits() store.Waits {
	return store.Waits{Free: int64(l.Free), Most: int64(l.Most), First: l.FirstWait, Longest: l.LongestWait}
}

func (l Limits) allowance() store.Allowance {
	return store.Allowance{Burst: int64(l.NetworkBurst), Every: time.Hour / time.Duration(l.NetworkHour)}
}

// attempt is a try of a password for an account, from a network.
type attempt struct {
	account string // as the counts name it
	network string // "" where it isn't known
	known   bool   // the account knows the network
	counted bool
	until   time.Time // that the account's next attempt must wait
	leave   func()    // gives its place up; nil: it has none
}

// counter is where the attempt counts as a failure of the account.
func (a attempt) counter() tries {
	if a.known {
		return tries{a.account, a.network}
	}
	return tries{a.account, ""}
}

// inTurn has passwords hashed in the turn of the attempt's network.
func (a attempt) inTurn(ctx context.Context) context.Context {
	return password.InTurn(ctx, a.network, a.account)
}

// accountOf is what an address is counted under. It needs no key: who has the
// database has the addresses, too. What is no address has no count, only its
// network has: it may be a password that was typed into the wrong field, of
// which nothing must be kept.
func accountOf(email string) string {
	key, err := FoldEmail(email)
	if err != nil {
		return ""
	}
	return accountOfKey(key)
}

// accountOfKey is accountOf for an address that is folded. To fold it again would
// not do: the form of a long one may be too long for an address.
func accountOfKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// attempt counts a try of a password for an account as a failure, unless it is
// one too many: then the error is Throttled. It does the same for every address.
// Who calls it says in the end that the attempt succeeded, or was none, and then
// that it has ended.
func (s *Service) attempt(ctx context.Context, client Client, account string) (a attempt, err error) {
	a = attempt{account: account, network: client.network()}
	limits := s.Settings.Limits
	if !limits.Off && account != "" {
		var free bool
		if a.leave, free, err = s.underWay.enter(ctx, tries{account, a.network}, limits.Free); err != nil {
			return a, err
		}
		if !free {
			return a, throttled(limits.FirstWait)
		}
		defer func() {
			if err != nil {
				s.attemptEnded(a)
			}
		}()
	}
	counts, err := s.Store.Read(ctx).Attempts(a.account, a.network)
	if err != nil {
		return a, err
	}
	now := s.Store.Now()
	var strangers, known, network store.Attempts
	for _, c := range counts {
		switch {
		case c.Account == "":
			network = c
		case c.Network == "" && c.ExpiresAt.After(now):
			strangers = c
		case c.Network == "": // long ago
		default:
			known = c
		}
	}
	a.known = known.ExpiresAt.After(now)
	if limits.Off {
		return a, nil
	}
	// A look before the write, so that who is refused costs the disk nothing.
	wait := limits.wait(strangers, now)
	if a.known {
		wait = limits.wait(known, now)
	}
	if !a.known {
		wait = max(wait, limits.networkWait(network, now))
	}
	if wait == 0 {
		wait, err = s.count(ctx, &a)
	}
	if err == nil && wait > 0 {
		err = throttled(wait)
	}
	return a, err
}

// count writes the failure. A wait means that another attempt was counted since
// the counts were read, of the account or of the network.
func (s *Service) count(ctx context.Context, a *attempt) (wait time.Duration, err error) {
	limits := s.Settings.Limits
	s.underWay.count(a.counter(), 1)
	defer func() {
		if !a.counted {
			s.underWay.count(a.counter(), -1)
		}
	}()
	if a.known {
		err = s.Store.Statement(ctx, func(tx *store.Tx) (err error) {
			a.until, a.counted, err = tx.CountKnown(a.account, a.network, limits.waits())
			return err
		})
	} else {
		err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
			a.counted = true
			if a.account != "" {
				if a.until, a.counted, err = tx.CountStranger(a.account, limits.waits(), limits.Remember); err != nil || !a.counted {
					return err
				}
			}
			if a.network == "" {
				return nil
			}
			if a.counted, err = tx.CountNetwork(a.network, limits.allowance()); err == nil && !a.counted {
				err = errNotCounted // the account's count is undone
			}
			return err
		})
		if errors.Is(err, errNotCounted) {
			err = nil
		}
	}
	if err == nil && !a.counted {
		wait = limits.FirstWait
	}
	return wait, err
}

var errNotCounted = errors.New("the network has used up its allowance")

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

// attemptEnded says that what came of the attempt has been written.
func (s *Service) attemptEnded(a attempt) {
	if a.counted {
		s.underWay.count(a.counter(), -1)
	}
	if a.leave != nil {
		a.leave()
	}
}

// refundAttempt takes an attempt back in which no password was looked at. Of a
// client that hung up, the network's stays: the hash may have been made, and
// writing and taking back for ever is work, too.
func (s *Service) refundAttempt(ctx context.Context, a attempt) {
	if !a.counted {
		return
	}
	err := s.Store.InTx(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if a.known {
			return tx.RefundAttempt(a.account, a.network, a.until)
		}
		if err := tx.RefundAttempt(a.account, "", a.until); err != nil || a.network == "" || ctx.Err() != nil {
			return err
		}
		return tx.RefundNetwork(a.network, s.Settings.Limits.allowance())
	})
	if err != nil {
		s.Log.Warn("a login that was given up counts as a failure", "error", err)
	}
}

// inconclusive says that an error came before the password was looked at, or
// after it was found right.
func inconclusive(err error) bool {
	return errors.Is(err, password.ErrBusy) || errors.Is(err, store.ErrUnavailable) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// attemptSucceeded clears what a success clears, in its transaction: a known
// network's own count; of any other network that of strangers, and from now on
// it is known. Others that are under way go on counting.
func (s *Service) attemptSucceeded(tx *store.Tx, a attempt) error {
	others := s.underWay.others(a.counter())
	if !a.known {
		if err := tx.ForgetStrangers(a.account, others); err != nil {
			return err
		}
		others = 0
		if a.counted && a.network != "" {
			if err := tx.RefundNetwork(a.network, s.Settings.Limits.allowance()); err != nil {
				return err
			}
		}
	}
	return s.knowNetwork(tx, a, others)
}

// knowNetwork has an attempt's network known, where so many others are under way.
func (s *Service) knowNetwork(tx *store.Tx, a attempt, others int) error {
	if a.network == "" {
		return nil
	}
	return tx.KnowNetwork(a.account, a.network, !a.known, others, tx.Now.Add(s.Settings.Limits.Remember))
}

// Throttled refuses for a time; the same for every address.
func throttled(wait time.Duration) *Error {
	e := *errThrottled
	e.RetryAfter = wait
	return &e
}
