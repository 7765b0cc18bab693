package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kwai/verify"
)

// Each test of time runs in a bubble, where a request to the server takes none.
const maxAge = 5 * time.Minute // as publish says

// wants holds the outcome of a check, and the time that it takes, against what
// is wanted.
func wants(t *testing.T, v *verify.Verifier, token, want string, took time.Duration) {
	t.Helper()
	began := time.Now()
	_, err := v.Verify(token)
	got := outcome(err)
	if errors.Is(err, verify.ErrUnavailable) && !errors.Is(err, verify.ErrInvalid) {
		got = "unavailable"
	}
	if got != want || time.Since(began) != took {
		t.Fatalf("got %s (%v) after %v, want %s after %v", got, err, time.Since(began), want, took)
	}
	synctest.Wait() // for what goes on in the background
}

func TestKeysAreKeptWhileFresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		for range 223 { // just less than three quarters of 300
			wants(t, v, token, "valid", 0)
			time.Sleep(time.Second)
		}
		if n := s.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		time.Sleep(2 * time.Second)
		wants(t, v, token, "valid", 0)
		if n := s.fetches.Load(); n != 2 {
			t.Errorf("%d fetches before the set is stale, want another one", n)
		}
	})
}

// TestRevokedKeysAreRefusedOnceTheSetIsStale tells the bounds of a set's life.
func TestRevokedKeysAreRefusedOnceTheSetIsStale(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		control, age string
		life         time.Duration
	}{
		{"public, max-age=300", "", 5 * time.Minute},
		{`MAX-AGE="100"`, "", 100 * time.Second},
		{"max-age=300", "100", 200 * time.Second},
		{"max-age=300", "400", 3 * time.Second},
		{"max-age=300", "-1", 5 * time.Minute},
		{"max-age=0", "", 3 * time.Second},
		{"max-age=-5", "", 3 * time.Second},
		{"max-age=x", "", 3 * time.Second},
		{"max-age=300, no-cache", "", 3 * time.Second},
		{"no-store", "", 3 * time.Second},
		{"public", "", time.Minute},
		{"max-age=31536000", "", 10 * time.Minute},
		{"max-age=99999999999999999999", "", 10 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			old, next := newKey("old"), newKey("next")
			before := publish(old)
			s := newServer(t, nil)
			for elapsed, want := range map[time.Duration]string{test.life - time.Millisecond: "valid", test.life: "unknown key"} {
				s.set(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Cache-Control", test.control)
					w.Header().Set("Age", test.age)
					before(w, r)
				})
				v, token := s.verifier(), old.token(t)
				wants(t, v, token, "valid", 0)
				s.set(slowly(publish(next)))
				time.Sleep(elapsed)
				if _, err := v.Verify(token); outcome(err) != want {
					t.Errorf("%q, Age %q: after %v the key is %s (%v), want %s", test.control, test.age, elapsed, outcome(err), err, want)
				}
				time.Sleep(time.Second) // for what goes on in the background
			}
		})
	}
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := newKey("a"), newKey("b")
		s := newServer(t, publish(a))
		v, old, fresh := s.verifier(), a.token(t), b.token(t)
		wants(t, v, old, "valid", 0)
		time.Sleep(10 * time.Second)

		s.set(publish(b, a))
		wants(t, v, fresh, "valid", 0) // at once, by one fetch
		wants(t, v, old, "valid", 0)
		if n := s.fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}

		s.set(publish(b))
		for range maxAge / time.Second { // in use all the time
			wants(t, v, fresh, "valid", 0)
			time.Sleep(time.Second)
		}
		wants(t, v, old, "unknown key", 0)
	})
}

func TestForgedKeyIDsCostOneFetchInTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		forged := make([]string, 100)
		for i := range forged {
			forged[i] = key{k.PrivateKey, fmt.Sprint("forged ", i)}.token(t)
		}
		for range 20 { // seconds
			for i, f := range forged {
				wants(t, v, f, "unknown key", 0)
				if i%10 == 0 {
					wants(t, v, token, "valid", 0)
				}
				time.Sleep(time.Second / time.Duration(len(forged)))
			}
		}
		if n := s.fetches.Load(); n != 10 {
			t.Errorf("%d fetches in 20 seconds, want 10", n)
		}
	})
}

// Of many at once some have looked at the clock before others have begun a fetch,
// and come to it after its end.
func TestWhoIsOvertakenByAFetchMakesNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		var late time.Duration
		v.Now = func() time.Time { return time.Now().Add(-late) }
		wants(t, v, token, "valid", 0)
		forged := key{k.PrivateKey, "forged"}.token(t)
		for late = range 100 * time.Nanosecond {
			wants(t, v, forged, "unknown key", 0)
			wants(t, v, token, "valid", 0)
		}
		if n := s.fetches.Load(); n != 1 {
			t.Errorf("%d fetches at one moment, want 1", n)
		}
	})
}

func TestOneFetchServesAllWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		answer := publish(k)
		s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			answer(w, r)
		})
		v, token := s.verifier(), k.token(t)
		gone, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				ctx, want := t.Context(), error(nil)
				if i < 10 { // among them perhaps the one that began the fetch
					ctx, want = gone, context.Canceled
				}
				if _, err := v.VerifyContext(ctx, token); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			})
		}
		time.Sleep(time.Second / 2)
		leave()
		all.Wait()
		if n := s.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

func TestASlowServerHoldsUpNobodyWhoseKeyIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, other := newKey("a"), newKey("b")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		wants(t, v, token, "valid", 0)
		s.set(hang)
		for range 4 * maxAge / time.Second {
			wants(t, v, token, "valid", 0)
			time.Sleep(time.Second)
		}
		if n := s.fetches.Load(); n > 1+int64(4*maxAge/(5*time.Second)) {
			t.Errorf("%d fetches, want one in five seconds at most", n)
		}
		// The others wait no longer than the fetch may take, nor than they want.
		time.Sleep(time.Minute)
		wants(t, v, other.token(t), "unavailable", 5*time.Second)
		time.Sleep(time.Minute)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := v.VerifyContext(ctx, other.token(t))
		if waited := time.Since(began); !errors.Is(err, verify.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || waited != 100*time.Millisecond {
			t.Errorf("got %v after %v, want that it can't be checked after 100ms", err, waited)
		}
	})
}

func TestAfterAPauseTheFirstRequestsWaitForFreshKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		wants(t, v, token, "valid", 0)
		s.set(hang)
		time.Sleep(2 * maxAge)
		wants(t, v, token, "valid", time.Second) // the longest wait
		wants(t, v, token, "valid", 0)
		time.Sleep(time.Minute)
		wants(t, v, token, "valid", 0) // now it's known to be away

		s.set(slowly(publish(newKey("b"))))
		time.Sleep(time.Minute)
		wants(t, v, token, "valid", 0)
		time.Sleep(time.Second)
		wants(t, v, token, "unknown key", 0)

		v = s.verifier()
		s.set(publish(k))
		wants(t, v, token, "valid", 0)
		s.set(slowly(publish(newKey("b"))))
		time.Sleep(2 * maxAge)
		wants(t, v, token, "unknown key", time.Millisecond) // revoked meanwhile
	})
}

func TestKnownKeysOutliveAnOutageByAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, other := newKey("a"), newKey("b")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		wants(t, v, token, "valid", 0)
		s.set(status(http.StatusInternalServerError))
		time.Sleep(maxAge + time.Hour - time.Millisecond)
		wants(t, v, token, "valid", 0)
		wants(t, v, other.token(t), "unavailable", 0) // it may be a new one
		time.Sleep(time.Millisecond)
		wants(t, v, token, "unavailable", 0)

		s.set(publish(k))
		wants(t, v, token, "unavailable", 0) // asked just now
		time.Sleep(2 * time.Second)
		wants(t, v, token, "valid", 0)
	})
}

// TestAClockThatJumps makes the keys' age unknown: they are fetched anew.
func TestAClockThatJumps(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{-time.Hour, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			k := newKey("a")
			s := newServer(t, publish(k))
			v, token := s.verifier(), k.token(t)
			var off time.Duration
			v.Now = func() time.Time { return time.Now().Add(off) }
			time.Sleep(time.Hour) // no token is from the future
			wants(t, v, token, "valid", 0)
			off = jump
			wants(t, v, token, "valid", 0)
			if n := s.fetches.Load(); n != 2 {
				t.Errorf("a jump of %v: %d fetches, want 2", jump, n)
			}
			for range 100 {
				wants(t, v, token, "valid", 0)
			}
			if n := s.fetches.Load(); n != 2 {
				t.Errorf("a jump of %v: %d fetches, want no more than 2", jump, n)
			}
		})
	}
}

// TestOutagesAreLoggedOnce and not at each try.
func TestOutagesAreLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, publish(k))
		var log bytes.Buffer
		v, token := s.verifier(), k.token(t)
		v.Log = slog.New(slog.NewTextHandler(&log, nil))
		wants(t, v, token, "valid", 0)
		s.set(status(http.StatusBadGateway))
		for range 100 {
			time.Sleep(10 * time.Second)
			wants(t, v, token, "valid", 0)
		}
		s.set(publish(k))
		time.Sleep(10 * time.Second)
		wants(t, v, token, "valid", 0)
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 {
			t.Fatalf("the log is %q, want one line for the outage and one for its end", lines)
		}
		if !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "answered 502") {
			t.Errorf("of the outage it says %q", lines[0])
		}
		if !strings.Contains(lines[1], "again") {
			t.Errorf("of its end it says %q", lines[1])
		}
	})
}
