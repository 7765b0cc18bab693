package test

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
)

// One client of each network: Linux has all of 127/8 on loopback.
func unknownNetwork(i int) string { return fmt.Sprintf("127.100.%d.1", i) }

const (
	home      = "127.1.1.1"
	elsewhere = "127.2.2.2"
)

// TestGuessingIsHeldAndItsOwnerGetsIn: thousands of wrong passwords for one
// account, from hundreds of networks at once. The waits are the shortest, so that
// the hundred are used up in the time of a test.
func TestGuessingIsHeldAndItsOwnerGetsIn(t *testing.T) {
	networks, clients := need.Rounds(20, 200), need.Rounds(8, 32)
	const perNetwork = 50
	guesses := int64(networks * perNetwork)
	each(t, func(t *testing.T, k cluster.Kwai) {
		mails := mailtest.Serve(t)
		s := start(t, k, "--limits=on", "--limit-first-wait=1ms", "--limit-longest-wait=1ms", "--login-notices=off", "--smtp="+mails.URL())
		s.user("ann@example.org", good)
		owner := s.at(home)
		owner.login("ann@example.org")

		var answers [600]atomic.Int64
		var guessing sync.WaitGroup
		for c := range clients {
			guessing.Go(func() {
				for i := c; i < networks; i += clients {
					there := s.at(unknownNetwork(i))
					for n := range perNetwork {
						a := there.post("login", "", "username", "ann@example.org", "password", fmt.Sprintf("guess %d of %d", n, i))
						answers[a.Status].Add(1)
						if a.Status == http.StatusTooManyRequests && a.Header.Get("Retry-After") == "" {
							t.Error("a 429 doesn't say when to try again")
						}
					}
				}
			})
		}
		over := make(chan struct{})
		go func() { guessing.Wait(); close(over) }()
		var in, mistyped int
		var longest time.Duration
		every := time.NewTicker(100 * time.Millisecond)
		defer every.Stop()
		for going := true; going; {
			select {
			case <-over:
				going = false
			case <-every.C:
			}
			if in%5 == 4 {
				mistyped++
				owner.post("login", "", "username", "ann@example.org", "password", "mistyped").wants(t, http.StatusUnauthorized, "a mistyped password")
			}
			begun := time.Now()
			owner.post("login", "", "username", "ann@example.org", "password", good).wants(t, http.StatusOK, fmt.Sprint("the owner's login ", in, " at home"))
			in, longest = in+1, max(longest, time.Since(begun))
		}
		looked, held := answers[http.StatusUnauthorized].Load(), answers[http.StatusTooManyRequests].Load()
		t.Logf("%d guesses: %d were looked at, %d held; the owner was in %d times, mistyped %d, waited %v at most",
			guesses, looked, held, in, mistyped, longest.Round(time.Millisecond))
		if looked != 100 {
			t.Errorf("%d guesses were looked at, want 100", looked)
		}
		if looked+held != guesses {
			t.Errorf("%d guesses were looked at and %d held, of %d", looked, held, guesses)
		}
		if n := s.number(`SELECT COUNT(*) FROM audit_log WHERE kind = 'login.failed'`); n != 100+mistyped {
			t.Errorf("%d failures in the audit log, want 100 and %d", n, mistyped)
		}

		traveller := s.at(elsewhere)
		traveller.post("login", "", "username", "ann@example.org", "password", good).wants(t, http.StatusTooManyRequests, "the owner's login elsewhere")
		id := traveller.recovery(mails, "ann@example.org")
		traveller.post("reset", "", "uuid", id, "password", good+" again").wants(t, http.StatusOK, "the reset")
		traveller.post("login", "", "username", "ann@example.org", "password", good+" again").wants(t, http.StatusOK, "a login after the reset")
	})
}

// TestAFloodOfNamesLeavesBoundedRows: one address tries so many accounts that
// don't exist.
func TestAFloodOfNamesLeavesBoundedRows(t *testing.T) {
	accounts := int64(need.Rounds(400, 3000))
	eachOfAll(t, func(t *testing.T, k cluster.Kwai) {
		s := start(t, k, "--limits=on")
		s.user("ann@example.org", good)
		in := s.login("ann@example.org")
		renewal := func() time.Duration {
			begun := time.Now()
			next := s.post("access_token", "", "refresh_token", in.field("refresh_token"))
			if next.Status != http.StatusOK {
				t.Fatalf("a renewal: %v", next)
			}
			in = next
			return time.Since(begun)
		}
		var before, during []time.Duration
		for range 50 {
			before = append(before, renewal())
		}
		begun := time.Now()
		var next, looked, held atomic.Int64
		var flood sync.WaitGroup
		for range 16 {
			there := s.at(elsewhere)
			flood.Go(func() {
				for i := next.Add(1); i <= accounts; i = next.Add(1) {
					switch a := there.post("login", "", "username", fmt.Sprintf("nobody%d@example.org", i), "password", "a guess"); a.Status {
					case http.StatusUnauthorized:
						looked.Add(1)
					case http.StatusTooManyRequests:
						held.Add(1)
					default:
						t.Errorf("a guess: %v", a)
					}
				}
			})
		}
		over := make(chan struct{})
		go func() { flood.Wait(); close(over) }()
		for going := true; going; {
			select {
			case <-over:
				going = false
			default:
				during = append(during, renewal())
			}
		}
		took := time.Since(begun)
		s.stop()
		const burst, hour = 300, 200
		most := burst + 1 + int(took.Hours()*hour)
		if int(looked.Load()) > most {
			t.Errorf("%d guesses were looked at, want at most %d", looked.Load(), most)
		}
		rows := make(map[string]int)
		for table, most := range map[string]int{"attempts": most + 2, "audit_log": most + 10} {
			if rows[table] = s.number(`SELECT COUNT(*) FROM ` + table); rows[table] > most {
				t.Errorf("%d rows of %s, want at most %d", rows[table], table, most)
			}
		}
		t.Logf("%d accounts in %v: %d looked at, %d held; rows %v; renewals took %v, %v meanwhile (%.2f times), at the 99th percentile %v, %v",
			accounts, took.Round(time.Millisecond), looked.Load(), held.Load(), rows,
			quantile(before, 0.5), quantile(during, 0.5), float64(quantile(during, 0.5))/float64(quantile(before, 0.5)), quantile(before, 0.99), quantile(during, 0.99))
	})
}

func quantile(all []time.Duration, q float64) time.Duration {
	slices.SortFunc(all, cmp.Compare)
	return all[int(float64(len(all)-1)*q)].Round(time.Microsecond)
}
