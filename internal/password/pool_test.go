package password_test

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/password"
	"kwai/internal/testing/need"
)

// tiny is the least argon2id there is.
var tiny = password.Params{MemoryKiB: 8, Time: 1, Threads: 1}

func newPool(tb testing.TB, o password.Options) *password.Pool {
	tb.Helper()
	if o.Params == (password.Params{}) {
		o.Params = tiny
	}
	p := password.NewPool(o)
	tb.Cleanup(p.Close)
	return p
}

func verify(tb testing.TB, p *password.Pool, hash, pw string) bool {
	tb.Helper()
	ok, _, err := p.Verify(tb.Context(), hash, pw)
	if err != nil {
		tb.Fatalf("Verify: %v", err)
	}
	return ok
}

func TestHashAndVerify(t *testing.T) {
	t.Parallel()
	p := newPool(t, password.Options{})
	composed, decomposed := "caf\u00e9 de Paris", "cafe\u0301 de Paris"
	limit := strings.Repeat("\u00e9", password.MaxBytes/2) // in NFC just within
	limitApart := strings.Repeat("e\u0301", password.MaxBytes/2)
	for _, tt := range []struct {
		name, chosen, typed string
		want                bool
	}{
		{"the same", composed, composed, true},
		{"composed, then decomposed", composed, decomposed, true},
		{"decomposed, then composed", decomposed, composed, true},
		{"another one", composed, "cafe de Paris", false},
		{"another case", composed, "Caf\u00e9 de Paris", false},
		{"compatibility forms are not folded", "\ufb01rst choice", "first choice", false},
		{"the empty one", composed, "", false},
		{"at the limit", limit, limit, true},
		{"at the limit only in NFC", limit, limitApart, true},
		{"all bytes count", limit, limit[:len(limit)-2], false},
		{"beyond the limit", limit, limit + "x", false},
		{"far beyond the limit", limit, strings.Repeat(limit, 64), false},
		{"invalid UTF-8 and NUL", "\xff\x00\xfe stays", "\xff\x00\xfe stays", true},
		{"NUL ends nothing", "before\x00after", "before", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hash, _, err := p.Hash(t.Context(), tt.chosen)
			if err != nil {
				t.Fatal(err)
			}
			if got := verify(t, p, hash, tt.typed); got != tt.want {
				t.Errorf("Verify = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	p := newPool(t, password.Options{})
	first, cost, err := p.Hash(t.Context(), "the same password")
	if err != nil {
		t.Fatal(err)
	}
	if prefix := "$argon2id$v=19$m=8,t=1,p=1$"; !strings.HasPrefix(first, prefix) || len(first) != len(prefix)+22+1+43 {
		t.Errorf("Hash = %q, want %s, a salt of 16 bytes and a key of 32", first, prefix)
	}
	if got, err := password.Cost(first); err != nil || got != cost {
		t.Errorf("its own hash costs %q, not %q (%v)", got, cost, err)
	}
	if second, _, _ := p.Hash(t.Context(), "the same password"); second == first {
		t.Error("two hashes have the same salt")
	}
	var tooLong *password.PolicyError
	if _, _, err := p.Hash(t.Context(), strings.Repeat("x", password.MaxBytes+1)); !errors.As(err, &tooLong) {
		t.Errorf("Hash of too long a password: %v, want a PolicyError", err)
	}
}

func TestStale(t *testing.T) {
	t.Parallel()
	p := newPool(t, password.Options{})
	own, _, err := p.Hash(t.Context(), "whatever")
	if err != nil {
		t.Fatal(err)
	}
	const long = bcryptLongPw
	for _, tt := range []struct {
		name, hash, password string
		want                 bool
	}{
		{"its own", own, "whatever", false},
		{"its own, a long password", own, long + "x", false},
		{"more memory", strings.Replace(own, "m=8", "m=16", 1), "whatever", true},
		{"more memory, a long password", strings.Replace(own, "m=8", "m=16", 1), long + "x", true},
		{"more time", strings.Replace(own, "t=1", "t=2", 1), "whatever", true},
		{"more threads", strings.Replace(own, "m=8,t=1,p=1", "m=16,t=1,p=2", 1), "whatever", true},
		{"bcrypt", bcryptUU, "U*U", true},
		{"bcrypt, all that it reads", bcryptLong, long, true},
		{"bcrypt, more than it reads", bcryptLong, long + "x", false},
		{"bcrypt, more only as it was typed", bcryptLong, strings.Repeat("e\u0301", 25), false},
		{"bcrypt, more only in NFC", bcryptLong, strings.Repeat("\u0958", 20), false},
		{"bcrypt, far more", bcryptLong, strings.Repeat(long, 100), false},
		{"broken", own[:20], "whatever", true},
		{"none", "", "whatever", true},
	} {
		if got := p.Stale(tt.hash, tt.password); got != tt.want {
			t.Errorf("%s: Stale = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestUnusableHashIsNoWork(t *testing.T) {
	t.Parallel()
	p := newPool(t, password.Options{})
	const absurd = "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for _, hash := range []string{"", absurd} {
		if ok, _, err := p.Verify(t.Context(), hash, "password"); ok || err == nil {
			t.Errorf("Verify with hash %q = %v, %v, want an error", hash, ok, err)
		}
	}
	for _, cost := range []string{"", "argon2id", "argon2id m=4194304,t=1,p=1", "bcrypt", "bcrypt 31", "bcrypt -1", "scrypt 10"} {
		if err := p.VerifyDummy(t.Context(), cost, "password"); err == nil {
			t.Errorf("VerifyDummy at cost %q was done", cost)
		}
	}
}

// unmatched are a hash of each kind, all at which VerifyDummy must do what Verify does.
func unmatched(t *testing.T, p *password.Pool) (hashes map[string]string) {
	t.Helper()
	own, _, err := p.Hash(t.Context(), "the right one")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"the pool's": own,
		"dearer":     strings.Replace(own, "t=1", "t=4", 1),
		"bcrypt":     "$2b$04$" + bcryptUU[7:],
	}
}

var wrongPasswords = map[string]string{
	"plain":      "a wrong password",
	"decomposed": "e\u0301 is a wrong password",
	"too long":   strings.Repeat("e\u0301", 20*password.MaxBytes),
}

// Each case has the same work done as a wrong password on a hash of the same cost.
func TestVerifyDummyDoesTheSameWork(t *testing.T) {
	t.Parallel()
	var work []string
	p := password.NewWatchedPool(password.Options{Params: tiny}, func(w string) { work = append(work, w) })
	t.Cleanup(p.Close)
	seen := map[string]bool{}
	for hashName, hash := range unmatched(t, p) {
		for pwName, pw := range wrongPasswords {
			cost, err := password.Cost(hash)
			if err != nil {
				t.Fatal(err)
			}
			work = nil
			if verify(t, p, hash, pw) {
				t.Fatalf("%s, %s: a wrong password was accepted", hashName, pwName)
			}
			known := work
			work = nil
			if err := p.VerifyDummy(t.Context(), cost, pw); err != nil {
				t.Fatal(err)
			}
			if len(known) != 1 || !slices.Equal(work, known) {
				t.Errorf("%s, %s: Verify does %q, VerifyDummy %q, want the same once", hashName, pwName, known, work)
			}
			seen[work[0]] = true
		}
	}
	if len(seen) != 9 { // or the test doesn't see what makes the difference
		t.Errorf("nine cases are different work, not these: %v", slices.Collect(maps.Keys(seen)))
	}
}

// So each case takes as long. The least of some rounds counts, and of more while
// they differ: noise goes away in time, but work that is left undone, or done
// twice, doesn't.
func TestVerifyDummyCostsAsMuch(t *testing.T) { // not parallel: it measures time
	need.Time(t)
	p := newPool(t, password.Options{Params: password.Params{MemoryKiB: 512, Time: 1, Threads: 1}})
	for hashName, hash := range unmatched(t, p) {
		for pwName, pw := range wrongPasswords {
			cost, err := password.Cost(hash)
			if err != nil {
				t.Fatal(err)
			}
			known, unknown := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			alike := false
			for round := 0; round < 100 && !alike; round++ {
				known = min(known, timed(func() {
					if verify(t, p, hash, pw) {
						t.Fatalf("%s, %s: a wrong password was accepted", hashName, pwName)
					}
				}))
				unknown = min(unknown, timed(func() {
					if err := p.VerifyDummy(t.Context(), cost, pw); err != nil {
						t.Fatal(err)
					}
				}))
				alike = round >= 4 && unknown > known*3/4 && unknown < known*4/3
			}
			if !alike {
				t.Errorf("%s, %s: Verify takes %v, VerifyDummy %v", hashName, pwName, known, unknown)
			}
		}
	}
}

// timed runs f several times, so that the collector's work, which comes in
// beats, falls on all alike. It counts processor time: others don't change it.
func timed(f func()) time.Duration {
	start := password.ProcessorTime()
	for range 4 {
		f()
	}
	return password.ProcessorTime() - start
}

// occupy has one worker of p busy until release is called.
func occupy(t *testing.T, p *password.Pool) (release func()) {
	t.Helper()
	held := make(chan struct{})
	go p.Occupy(t.Context(), func() { <-held })
	synctest.Wait()
	return sync.OnceFunc(func() { close(held) })
}

// wait starts a Verify in the background and returns where its error arrives.
func wait(ctx context.Context, p *password.Pool) <-chan error {
	result := make(chan error, 1)
	go func() {
		_, _, err := p.Verify(ctx, bcryptUU, "U*U")
		result <- err
	}()
	synctest.Wait()
	return result
}

func TestQueueIsServedInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, password.Options{Workers: 1})
		release := occupy(t, p)
		var order []int // written by the one worker
		for i := range 8 {
			go p.Occupy(t.Context(), func() { order = append(order, i) })
			synctest.Wait()
		}
		release()
		synctest.Wait()
		if want := []int{0, 1, 2, 3, 4, 5, 6, 7}; !slices.Equal(order, want) {
			t.Errorf("served in the order %v", order)
		}
	})
}

func TestQueueWaitIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const maxWait = 3 * time.Second
		p := newPool(t, password.Options{Workers: 1, MaxWait: maxWait})
		defer occupy(t, p)()
		start := time.Now()
		if _, _, err := p.Hash(t.Context(), "whatever"); !errors.Is(err, password.ErrBusy) {
			t.Errorf("Hash: %v, want ErrBusy", err)
		}
		if waited := time.Since(start); waited != maxWait {
			t.Errorf("refused after %v, want %v", waited, maxWait)
		}
	})
}

func TestQueueFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, password.Options{Workers: 1, MaxQueue: 2})
		release := occupy(t, p)
		leaving, leave := context.WithCancel(t.Context())
		stays, leaves := wait(t.Context(), p), wait(leaving, p)

		start := time.Now()
		if err := p.VerifyDummy(t.Context(), p.Cost(), "whatever"); !errors.Is(err, password.ErrBusy) {
			t.Errorf("with a full queue: %v, want ErrBusy", err)
		}
		// A quick refusal would let a flood spin.
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("refused after %v, want a second", waited)
		}

		leave()
		if err := <-leaves; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while waiting: %v", err)
		}
		takesPlace := wait(t.Context(), p)
		release()
		if err := errors.Join(<-stays, <-takesPlace); err != nil {
			t.Errorf("after a place came free: %v", err)
		}
	})
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, password.Options{Workers: 1})
		ctx, cancel := context.WithCancel(t.Context())
		held, running := make(chan struct{}), make(chan error, 1)
		go func() { running <- p.Occupy(ctx, func() { <-held }) }()
		synctest.Wait()
		cancel()
		if err := <-running; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while it ran: %v", err)
		}
		close(held)
		if _, _, err := p.Hash(ctx, "whatever"); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before: %v", err)
		}
	})
}

// That the workers end, synctest itself sees to: it fails a test that leaves
// goroutines behind.
func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, password.Options{Workers: 2})
		releaseOne, releaseOther := occupy(t, p), occupy(t, p)
		waiting := wait(t.Context(), p)
		closed := make(chan struct{})
		go func() { p.Close(); close(closed) }()
		if err := <-waiting; !errors.Is(err, password.ErrBusy) {
			t.Errorf("waiting at Close: %v, want ErrBusy", err)
		}
		releaseOne()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close returned before the last worker was done")
		default:
		}
		releaseOther()
		<-closed
		if _, _, err := p.Verify(t.Context(), bcryptUU, "U*U"); !errors.Is(err, password.ErrBusy) {
			t.Errorf("after Close: %v, want ErrBusy", err)
		}
		p.Close()
	})
}

func TestNewPoolRefusesBadParams(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	password.NewPool(password.Options{Params: password.Params{Time: 1, Threads: 1}})
}

func BenchmarkVerify(b *testing.B) {
	p := newPool(b, password.Options{Params: password.Default})
	hash, _, err := p.Hash(b.Context(), "correct horse battery staple")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !verify(b, p, hash, "correct horse battery staple") {
			b.Fatal("no match")
		}
	}
}
