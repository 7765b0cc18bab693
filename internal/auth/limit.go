package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
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
}

// accountOf is what an address is counted under. It needs no key: who has the
// database has the addresses, too. Malformed ones are counted like others.
func accountOf(email string) string {
	key, err := FoldEmail(email)
	if err != nil {
		key = email
	}
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// attempt counts a try of a password for an address as a failure, unless it is
// one too many: then the error is Throttled. It does the same for every address.
// Who calls it says in the end that the attempt succeeded, or was none.
func (s *Service) attempt(ctx context.Context, email string) (attempt, error) {
	client, _ := clientOf(ctx)
	a := attempt{account: accountOf(email), network: client.network()}
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
		case c.Network == "":
			strangers = c
		default:
			known = c
		}
	}
	a.known = known.ExpiresAt.After(now)
	limits := s.Settings.Limits
	if limits.Off {
		return a, nil
	}
	// A look before the write, so that who is refused costs the disk nothing.
	wait := limits.wait(strangers, now)
	if a.known {
		wait = limits.wait(known, now)
	} else {
		wait = max(wait, limits.networkWait(network, now))
	}
	if wait == 0 {
		wait, err = s.count(ctx, &a)
	}
	if err == nil && wait > 0 {
		s.refusals.add(now, a)
		err = throttled(wait)
	}
	return a, err
}

// count writes the failure. A wait means that another attempt was counted since
// the counts were read.
func (s *Service) count(ctx context.Context, a *attempt) (wait time.Duration, err error) {
	limits := s.Settings.Limits
	if a.known {
		err = s.Store.One(ctx, func(tx *store.Tx) (err error) {
			a.counted, err = tx.CountKnown(a.account, a.network, limits.waits())
			return err
		})
	} else {
		err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
			if a.counted, err = tx.CountStranger(a.account, limits.waits(), limits.Remember); err != nil || !a.counted || a.network == "" {
				return err
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
	if wait := c.Until.Sub(now); wait <= l.LongestWait { // more than that is of a clock that was ahead
		return max(wait, 0)
	}
	return 0
}

// networkWait is how long a network's allowance holds back the next attempt.
func (l Limits) networkWait(c store.Attempts, now time.Time) time.Duration {
	a := l.allowance()
	if wait := c.Until.Sub(now) - a.Whole() + a.Every; wait <= a.Every+time.Minute {
		return max(wait, 0)
	}
	return 0
}

// attemptWasNone takes an attempt back in which no password was looked at.
func (s *Service) attemptWasNone(ctx context.Context, a attempt) {
	if !a.counted {
		return
	}
	err := s.Store.InTx(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if a.known {
			return tx.RefundAttempt(a.account, a.network)
		}
		if err := tx.RefundAttempt(a.account, ""); err != nil || a.network == "" {
			return err
		}
		return tx.RefundNetwork(a.network, s.Settings.Limits.allowance())
	})
	if err != nil {
		s.Log.Warn("a login that was given up counts as a failure", "error", err)
	}
}

// learntNothing says that an error came before the password was looked at.
func learntNothing(err error) bool {
	return errors.Is(err, password.ErrBusy) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// attemptSucceeded clears what a success clears, in its transaction: a known
// network's own count; of any other network that of strangers, and from now on
// it is known.
func (s *Service) attemptSucceeded(tx *store.Tx, a attempt) error {
	if !a.known {
		if err := tx.ForgetStrangers(a.account); err != nil {
			return err
		}
		if a.counted && a.network != "" {
			if err := tx.RefundNetwork(a.network, s.Settings.Limits.allowance()); err != nil {
				return err
			}
		}
	}
	return s.knowNetwork(tx, a)
}

func (s *Service) knowNetwork(tx *store.Tx, a attempt) error {
	if a.network == "" {
		return nil
	}
	return tx.KnowNetwork(a.account, a.network, !a.known, tx.Now.Add(s.Settings.Limits.Remember))
}

// Throttled refuses for a time; the same for every address.
func throttled(wait time.Duration) *Error {
	e := *errThrottled
	e.RetryAfter = wait
	return &e
}

// refusals counts what throttling refused until it is written: a flood shall not
// cost a write each.
type refusals struct {
	mu     sync.Mutex
	counts map[store.Refusals]int64 // with a Count of 0
}

// maxRefusals bounds how many counts wait; what is above goes into one without
// account and network.
const maxRefusals = 1000

func (r *refusals) add(now time.Time, a attempt) {
	of := store.Refusals{Hour: now.Truncate(time.Hour).UTC(), Account: a.account, Network: a.network}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[store.Refusals]int64)
	}
	if _, there := r.counts[of]; !there && len(r.counts) >= maxRefusals {
		of.Account, of.Network = "", ""
	}
	r.counts[of]++
}

// WriteRefusals writes what was refused since it was last called.
func (s *Service) WriteRefusals(ctx context.Context) error {
	s.refusals.mu.Lock()
	counts := s.refusals.counts
	s.refusals.counts = nil
	s.refusals.mu.Unlock()
	if len(counts) == 0 {
		return nil
	}
	err := s.Store.InTx(ctx, func(tx *store.Tx) error {
		for of, n := range counts {
			of.Count = n
			if err := tx.AddRefusals(of); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("counting what throttling refused (%d counts are lost): %w", len(counts), err)
	}
	return nil
}

// refusalsEvery is how often they are written; a crash loses those since.
const refusalsEvery = 5 * time.Second

// FollowRefusals writes what is refused until ctx ends.
func (s *Service) FollowRefusals(ctx context.Context) {
	tick := time.NewTicker(refusalsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.WriteRefusals(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("writing the trail", "error", err)
		}
	}
}
