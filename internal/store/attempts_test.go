package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/database"

	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

const (
	account = "account"
	near    = "192.0.2.0/24"
)

var (
	waits     = store.Waits{Free: 5, Most: 100, First: time.Second, Longest: time.Hour}
	allowance = store.Allowance{Burst: 3, Every: time.Minute}
	ninety    = 90 * 24 * time.Hour
	limits    = store.Limits{Waits: waits, Allowance: allowance, Remember: ninety}
	fromNear  = store.Attempt{Account: account, Network: near, Known: true}
	noWait    = time.Unix(0, 0) // what an attempt below the fifth begins
)

// counters tries to count, and says whether it may.
type counter func(tx *store.Tx) (bool, error)

func unknownNetwork(tx *store.Tx) (bool, error) {
	return tryCount(tx, store.Attempt{Account: account}, limits)
}

func known(tx *store.Tx) (bool, error) {
	return tryCount(tx, fromNear, limits)
}

func network(tx *store.Tx) (bool, error) { return tryCount(tx, store.Attempt{Network: near}, limits) }

// tryCount says whether an attempt is counted.
func tryCount(tx *store.Tx, a store.Attempt, l store.Limits) (bool, error) {
	a, err := tx.CountAttempt(a, l)
	if errors.Is(err, store.ErrAllowance) {
		err = nil // it wrote nothing else
	}
	return a.Counted, err
}

// wantCount tries to count at that time.
func wantCount(t *testing.T, s *store.Store, what string, now time.Time, count counter, want bool) {
	t.Helper()
	var got bool
	storetest.At(t, s, now, func(tx *store.Tx) (err error) {
		got, err = count(tx)
		return err
	})
	if got != want {
		t.Errorf("%s: counted %v, want %v", what, got, want)
	}
}

// know notes a login from the network.
func know(t *testing.T, s *store.Store, now time.Time, network string) {
	t.Helper()
	storetest.At(t, s, now, func(tx *store.Tx) error { return discard(tx.KnowNetwork(account, network, now.Add(ninety))) })
}

// counts are an account's, by their networks; of unknown networks by "".
func counts(t *testing.T, s *store.Store) map[string]store.Attempts {
	t.Helper()
	all, err := s.Read(t.Context()).AttemptsOf(account)
	check(t, err)
	of := make(map[string]store.Attempts)
	for _, a := range all {
		of[a.Network] = a
	}
	return of
}

// each kind of count of an account, which know makes possible.
var ofAccount = map[string]counter{"unknown networks": unknownNetwork, "a known network": known}

func TestWaitsDouble(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		for name, count := range ofAccount {
			now := epoch
			know(t, s, now, near)
			for n := 1; n <= 100; n++ {
				wantCount(t, s, fmt.Sprintf("%s: failure %d", name, n), now, count, true)
				if n < 5 {
					continue
				}
				wait := time.Hour
				if n-5 < 12 {
					wait = time.Second << (n - 5)
				}
				now = now.Add(wait)
				wantCount(t, s, fmt.Sprintf("%s: just before %v after failure %d", name, wait, n), now.Add(-time.Microsecond), count, false)
			}
			now = now.Add(24 * time.Hour)
			know(t, s, now, "198.51.100.0/24") // another one clears nothing
			wantCount(t, s, name+": after a hundred", now, count, false)
		}
	})
}

// Whatever the settings may be.
func TestWaitsOfOddSettings(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		for i, w := range []struct {
			waits store.Waits
			after []time.Duration // each failure
		}{
			{store.Waits{Free: 1, Most: 3, First: time.Hour, Longest: time.Hour}, []time.Duration{time.Hour, time.Hour}},
			{store.Waits{Free: 2, Most: 1000, First: time.Millisecond, Longest: 3 * time.Millisecond}, []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond}},
			{store.Waits{Free: 1, Most: 40, First: time.Millisecond, Longest: 24 * time.Hour}, doubled(time.Millisecond, 24*time.Hour, 38)},
			{store.Waits{Free: 100, Most: 1, First: time.Second, Longest: time.Hour}, nil},
		} {
			now := epoch
			count := func(tx *store.Tx) (bool, error) {
				return tryCount(tx, store.Attempt{Account: fmt.Sprint("odd", i)}, store.Limits{Waits: w.waits, Remember: ninety})
			}
			for n, wait := range w.after {
				wantCount(t, s, fmt.Sprintf("%d: failure %d", i, n+1), now, count, true)
				if wait > 0 {
					wantCount(t, s, fmt.Sprintf("%d: too soon after failure %d", i, n+1), now.Add(wait-time.Microsecond), count, false)
				}
				now = now.Add(wait)
			}
			wantCount(t, s, fmt.Sprintf("%d: the last", i), now, count, true)
			if w.waits.Most == int64(len(w.after)+1) {
				wantCount(t, s, fmt.Sprintf("%d: after the last", i), now.Add(48*time.Hour), count, false)
			}
		}
	})
}

func doubled(first, longest time.Duration, n int) (all []time.Duration) {
	for d := first; len(all) < n; d = min(2*d, longest) {
		all = append(all, d)
	}
	return all
}

// However many try at once, each sees the one before it.
func TestAttemptsAtOnceAreCountedOneByOne(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		replicas := []*store.Store{atOnce(t, url)}
		if strings.HasPrefix(url, "postgres") {
			replicas = append(replicas, atOnce(t, url))
		}
		know(t, replicas[0], epoch, near)
		for _, c := range []struct {
			name  string
			count counter
			want  int64
		}{{"unknown networks", unknownNetwork, 5}, {"a known network", known, 5}, {"a network's allowance", network, 3}} {
			var passed atomic.Int64
			var all sync.WaitGroup
			for i := range 64 {
				all.Go(func() {
					var may bool
					err := replicas[i%len(replicas)].InTx(t.Context(), func(tx *store.Tx) (err error) {
						may, err = c.count(tx)
						return err
					})
					if err != nil {
						t.Error(err)
					} else if may {
						passed.Add(1)
					}
				})
			}
			all.Wait()
			if passed.Load() != c.want {
				t.Errorf("%s: %d attempts at once passed, want %d", c.name, passed.Load(), c.want)
			}
		}
	})
}

// atOnce opens a store, at epoch, for which a few connections do.
func atOnce(t *testing.T, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), database.Options{URL: url, Serve: true, Connections: 8, Now: func() time.Time { return epoch }})
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	return s
}

// Replicas agree on the time to within a second, and transactions that wait for
// each other's rows don't come in the order of their times.
func TestCountsHoldWhereClocksDiffer(t *testing.T) {
	const apart = 900 * time.Millisecond
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		for name, count := range ofAccount {
			now := epoch
			know(t, s, now, near)
			for n := 1; n < 5; n++ {
				// The first failures make nobody wait, nor do refunds.
				wantCount(t, s, fmt.Sprintf("%s: failure %d", name, n), now.Add(-apart*time.Duration(n%2)), count, true)
			}
			for range 13 {
				wantCount(t, s, name, now, count, true)
				now = now.Add(time.Hour)
			}
			now = now.Add(-time.Hour)
			wantCount(t, s, name+": another replica, at the longest wait", now.Add(-apart), count, false)
		}
		for range allowance.Burst {
			wantCount(t, s, "the allowance", epoch, network, true)
		}
		wantCount(t, s, "the allowance, by another replica", epoch.Add(-apart), network, false)
	})
}

func TestAClockThatWasAheadHoldsBackNoAttempt(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		for _, ahead := range []time.Duration{time.Hour + time.Minute, 24 * time.Hour} {
			s := storetest.Open(t, url, nil)
			for name, count := range map[string]counter{"unknown networks": unknownNetwork, "a known network": known, "a network": network} {
				now := epoch.Add(ahead)
				know(t, s, now, near)
				for range 5 {
					var may bool
					storetest.At(t, s, now, func(tx *store.Tx) (err error) {
						may, err = count(tx)
						return err
					})
					_ = may // some of the network's aren't
				}
				wantCount(t, s, fmt.Sprintf("%s: after a clock that was %v ahead", name, ahead), epoch, count, true)
				storetest.At(t, s, epoch, func(tx *store.Tx) error { return tx.ForgetFailures(account) })
			}
			check(t, s.Close())
		}
	})
}

// A count that wasn't purged yet is none.
func TestFailuresAreForgotten(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		now := epoch
		for range 100 {
			wantCount(t, s, "a failure", now, unknownNetwork, true)
			now = now.Add(time.Hour)
		}
		last := now.Add(-time.Hour)
		wantCount(t, s, "89 days after the last", last.Add(ninety-time.Microsecond), unknownNetwork, false)
		wantCount(t, s, "90 days after the last", last.Add(ninety), unknownNetwork, true)
		if got := counts(t, s)[""]; got.Failures != 1 {
			t.Errorf("%d failures after all were forgotten and one was counted", got.Failures)
		}
	})
}

func TestRefunds(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		know(t, s, epoch, near)
		for name, a := range map[string]store.Attempt{"unknown networks": {Account: account}, "a known network": fromNear} {
			count, from := ofAccount[name], a.Network
			a.Until = noWait
			for range 50 { // none of which is more than the fifth
				wantCount(t, s, name, epoch, count, true)
				storetest.At(t, s, epoch, func(tx *store.Tx) error { return tx.RefundAttempt(a) })
			}
			for range 5 {
				wantCount(t, s, name, epoch, count, true)
			}
			wantCount(t, s, name+": the sixth", epoch, count, false)
			storetest.At(t, s, epoch, func(tx *store.Tx) error { return tx.RefundAttempt(a) })
			wantCount(t, s, name+": the fourth was none", epoch, count, false)
			a.Until = counts(t, s)[from].Until
			storetest.At(t, s, epoch, func(tx *store.Tx) error { return tx.RefundAttempt(a) })
			wantCount(t, s, name+": once the fifth was none", epoch, count, true)
			if got := counts(t, s)[from].Failures; got != 4 {
				t.Errorf("%s: %d failures, want 4", name, got)
			}
		}
		for range 50 {
			wantCount(t, s, "the allowance", epoch, network, true)
			storetest.At(t, s, epoch, func(tx *store.Tx) error { return tx.RefundAttempt(store.Attempt{Network: near, Took: allowance.Every}) })
		}
	})
}

// Who gives up each attempt leaves no row behind; a known network stays one.
func TestARefundLeavesNoRow(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		know(t, s, epoch, near)
		wantCount(t, s, "an unknown network", epoch, unknownNetwork, true)
		wantCount(t, s, "a known network", epoch, known, true)
		storetest.At(t, s, epoch, func(tx *store.Tx) error {
			for _, a := range []store.Attempt{{Account: account, Until: noWait}, {Account: account, Network: near, Known: true, Until: noWait}} {
				for range 2 { // once more than was counted
					if err := tx.RefundAttempt(a); err != nil {
						return err
					}
				}
			}
			return nil
		})
		got := counts(t, s)
		kept, ok := got[near]
		if len(got) != 1 || !ok {
			t.Errorf("counts %+v, want the known network's alone", got)
		}
		if kept.Failures != 0 {
			t.Errorf("%d failures of the known network", kept.Failures)
		}
		if !kept.ExpiresAt.Equal(epoch.Add(ninety)) {
			t.Errorf("the known network is forgotten at %v", kept.ExpiresAt)
		}
	})
}

func TestANetworksAllowanceComesBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		now := epoch
		for range allowance.Burst {
			wantCount(t, s, "at once", now, network, true)
		}
		for range 5 {
			wantCount(t, s, "used up", now.Add(allowance.Every-time.Microsecond), network, false)
			now = now.Add(allowance.Every)
			wantCount(t, s, "one more", now, network, true)
		}
		now = now.Add(24 * time.Hour) // no more than whole
		for range allowance.Burst {
			wantCount(t, s, "whole again", now, network, true)
		}
		wantCount(t, s, "used up again", now, network, false)
		// 114 years: the most and the least that can be set.
		huge := store.Allowance{Burst: 1_000_000, Every: time.Hour}
		wantCount(t, s, "a huge one", now, func(tx *store.Tx) (bool, error) {
			return tryCount(tx, store.Attempt{Network: "other"}, store.Limits{Allowance: huge})
		}, true)
	})
}

func TestAnAccountKnowsTheNetworksOfItsLatestLogins(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		wantCount(t, s, "an unknown network", epoch, unknownNetwork, true)
		for i := range 40 {
			know(t, s, epoch.Add(time.Duration(i)*time.Minute), fmt.Sprintf("10.0.%d.0/24", i))
		}
		got := counts(t, s)
		if len(got) != 33 || got[""].Failures != 1 {
			t.Errorf("%d counts, want 32 networks and that of unknown ones: %v", len(got), got)
		}
		for i := range 40 {
			if _, is := got[fmt.Sprintf("10.0.%d.0/24", i)]; is != (i >= 8) {
				t.Errorf("network %d is known: %v", i, is)
			}
		}
	})
}

// Counts that are moved replace those that are there.
func TestCountsAreMoved(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		row := func(account, network string, failures int64) store.Attempts {
			return store.Attempts{Account: account, Network: network, Failures: failures, Until: epoch.Add(time.Second), ExpiresAt: epoch.Add(time.Hour)}
		}
		storetest.At(t, s, epoch, func(tx *store.Tx) error {
			for _, a := range []store.Attempts{row("a", "", 3), row("a", "n", 1), row("b", "", 9), row("b", "m", 0), row("c", "", 5)} {
				if _, err := tx.Exec(`INSERT INTO attempts (account, network, failures, until, expires_at) VALUES ($1, $2, $3, $4, $5)`,
					a.Account, a.Network, a.Failures, a.Until.UnixMicro(), a.ExpiresAt.UnixMicro()); err != nil {
					return err
				}
			}
			return tx.MoveAttempts("a", "b")
		})
		for account, want := range map[string][]store.Attempts{"a": nil, "b": {row("b", "", 3), row("b", "n", 1)}, "c": {row("c", "", 5)}} {
			got, err := s.Read(t.Context()).AttemptsOf(account)
			check(t, err)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("of %s (-want +got):\n%s", account, diff)
			}
		}
	})
}
