package auth_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/auth"
)

// What is under way when another login succeeds goes on counting: a success at the
// same account makes no guess free.
func TestASuccessClearsNoAttemptUnderWay(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.wantTry(t, "the owner, who is known at home then", home, ann, oldPassword, "in")
		for _, address := range []string{home, cafe} {
			var ends []func(bool) error
			for range 5 {
				ends = append(ends, must(s.Begin(t.Context(), from(address), ann))(t))
			}
			ok(t, ends[0](true))
			for _, end := range ends[1:] {
				ok(t, end(false))
			}
			// From the cafe it was the first login: the others count as unknown networks.
			next := address
			if address == cafe {
				next = "203.0.113.1"
			}
			s.wantTry(t, "the fifth failure "+address, next, ann, wrong, "wrong")
			s.wantTry(t, "after it "+address, next, ann, wrong, "1s")
			c.advance(time.Second)
			s.wantTry(t, "a second later "+address, next, ann, oldPassword, "in")
			for range 5 {
				s.wantTry(t, "all are forgotten "+address, next, ann, wrong, "wrong")
			}
			s.wantTry(t, "and count anew "+address, next, ann, wrong, "1s")
			c.advance(time.Minute)
			s.wantTry(t, "in the end "+address, next, ann, oldPassword, "in")
		}
		if n := s.UnderWayAnywhere(); n != 0 {
			t.Errorf("%d are still remembered", n)
		}
	})
}

// With the right password, too, an account has five attempts under way from a
// network, and the others wait for them.
func TestRightPasswordsAtOnce(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.wantTry(t, "the owner", home, ann, oldPassword, "in")
		const connections = 60
		var most, in atomic.Int64
		var all sync.WaitGroup
		for i := range connections {
			all.Go(func() {
				_, err := s.Login(t.Context(), from(fmt.Sprintf("192.0.2.%d", i)), ann, oldPassword)
				if err == nil {
					in.Add(1)
				} else if auth.CodeOf(err) != auth.Throttled {
					t.Error(err)
				}
				n := int64(s.UnderWay(ann, "192.0.2.0/24"))
				for most.Load() < n && !most.CompareAndSwap(most.Load(), n) {
				}
			})
		}
		all.Wait()
		if most.Load() > 5 || in.Load() < 5 {
			t.Errorf("%d were under way at once and %d got in, want 5 and more", most.Load(), in.Load())
		}
		if n := s.UnderWayAnywhere(); n != 0 {
			t.Errorf("%d are still remembered", n)
		}
		s.wantTry(t, "the owner, again", home, ann, oldPassword, "in")
		if n := s.count(t, `SELECT COUNT(*) FROM attempts WHERE failures > 0`); n != 0 {
			t.Error("failures are left")
		}
	})
}

// Who gets no place within a second is refused.
func TestAttemptsWaitASecondForASlot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		each := func() {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(400 * time.Millisecond)
			now.Add(-1)
		}
		begun := time.Now()
		if refused := auth.UnderWayAtOnce(t.Context(), 40, 5, each); refused != 25 || most.Load() != 5 {
			t.Errorf("%d were refused, and %d at once were not; want 25 and 5", refused, most.Load())
		}
		if took := time.Since(begun); took != 1200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, leave)
		begun = time.Now()
		if refused := auth.UnderWayAtOnce(gone, 7, 5, each); refused != 2 || time.Since(begun) != 400*time.Millisecond {
			t.Errorf("%d clients that have gone gave up, after %v in all; want 2", refused, time.Since(begun))
		}
	})
}
