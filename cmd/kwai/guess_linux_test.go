package main

import (
	"cmp"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kwai/internal/mail/mailtest"
)

// One client of each network: Linux has all of 127/8 on loopback.
func stranger(i int) string { return fmt.Sprintf("127.100.%d.1", i) }

const (
	home      = "127.1.1.1"
	elsewhere = "127.2.2.2"
)

// TestGuessingIsHeldAndItsOwnerGetsIn: 10,000 wrong passwords for one account,
// from 200 networks at once. The waits are the shortest, so that the hundred are
// used up in the time of a test.
func TestGuessingIsHeldAndItsOwnerGetsIn(t *testing.T) {
	const guesses, networks, clients = 10_000, 200, 32
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		s.user("ann@example.org", good)
		owner := s.at(home)
		owner.login("ann@example.org")

		var answers [600]atomic.Int64
		var guessing sync.WaitGroup
		for c := range clients {
			guessing.Go(func() {
				for i := c; i < networks; i += clients {
					there := s.at(stranger(i))
					for n := range guesses / networks {
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
				owner.post("login", "", "username", "ann@example.org", "password", "mistyped").problem(t, http.StatusUnauthorized)
			}
			begun := time.Now()
			if a := owner.post("login", "", "username", "ann@example.org", "password", good); a.Status != http.StatusOK {
				t.Errorf("the owner's login %d at home: %v", in, a)
			}
			in, longest = in+1, max(longest, time.Since(begun))
		}
		t.Logf("%d guesses: %d were looked at, %d held; the owner was in %d times of %d, mistyped %d, waited %v at most",
			guesses, answers[401].Load(), answers[429].Load(), in, in, mistyped, longest.Round(time.Millisecond))
		if answers[401].Load() != 100 || answers[401].Load()+answers[429].Load() != guesses {
			t.Errorf("%d guesses were looked at and %d held, want 100 of %d", answers[401].Load(), answers[429].Load(), guesses)
		}
		if n := s.number(t, `SELECT COUNT(*) FROM trail WHERE kind = 'login.failed'`); n != 100+mistyped {
			t.Errorf("%d failures in the trail, want 100 and %d", n, mistyped)
		}

		traveller := s.at(elsewhere)
		traveller.post("login", "", "username", "ann@example.org", "password", good).problem(t, http.StatusTooManyRequests)
		id := traveller.recovery(mails, "ann@example.org")
		if a := traveller.post("reset", "", "uuid", id, "password", good+" again"); a.Status != http.StatusOK {
			t.Fatalf("the reset: %v", a)
		}
		if a := traveller.post("login", "", "username", "ann@example.org", "password", good+" again"); a.Status != http.StatusOK {
			t.Errorf("a login after the reset: %v", a)
		}
	}, "--limit-first-wait=1ms", "--limit-longest-wait=1ms", "--login-notices=off")
}

// TestAFloodOfNamesLeavesBoundedRows: one address tries so many accounts that
// don't exist. KWAI_FLOOD_ACCOUNTS has it try more of them.
func TestAFloodOfNamesLeavesBoundedRows(t *testing.T) {
	accounts := 3000
	if text := os.Getenv("KWAI_FLOOD_ACCOUNTS"); text != "" {
		var err error
		if accounts, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	each(t, func(t *testing.T, s *site) {
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
		for range 200 {
			before = append(before, renewal())
		}
		memory := heap()
		begun := time.Now()
		var next, looked, held atomic.Int64
		var flood sync.WaitGroup
		for range 16 {
			there := s.at(elsewhere)
			flood.Go(func() {
				for i := next.Add(1); i <= int64(accounts); i = next.Add(1) {
					switch status := there.guess(t, fmt.Sprintf("nobody%d@example.org", i)); status {
					case http.StatusUnauthorized:
						looked.Add(1)
					case http.StatusTooManyRequests:
						held.Add(1)
					default:
						t.Errorf("a guess: %d", status)
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
		s.log.forget()
		grown := heap() - memory
		s.close() // writes what was refused
		const burst, hour = 300, 200
		most := burst + 1 + int(took.Hours()*hour)
		rows := make(map[string]int)
		for table, most := range map[string]int{"attempts": most + 2, "trail": most + 10, "refusals": 3} {
			if rows[table] = s.number(t, `SELECT COUNT(*) FROM `+table); rows[table] > most {
				t.Errorf("%d rows of %s, want at most %d", rows[table], table, most)
			}
		}
		t.Logf("%d accounts in %v: %d looked at, %d held; rows %v; the heap grew by %d KiB; renewals took %v, %v meanwhile (%.2f times), at the 99th percentile %v, %v",
			accounts, took.Round(time.Millisecond), looked.Load(), held.Load(), rows, grown>>10,
			quantile(before, 0.5), quantile(during, 0.5), float64(quantile(during, 0.5))/float64(quantile(before, 0.5)), quantile(before, 0.99), quantile(during, 0.99))
	})
}

// guess sends a wrong password; its answer isn't held against anything, which
// would be more work than the server's.
func (s *site) guess(t *testing.T, email string) (status int) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/v1/auth/login", strings.NewReader(encodeURL("username", email, "password", "a guess")))
	if err != nil {
		t.Error(err)
		return 0
	}
	r.Header.Set("Content-Type", urlencoded)
	res, err := s.via.RoundTrip(r)
	if err != nil {
		t.Error(err)
		return 0
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func quantile(all []time.Duration, q float64) time.Duration {
	slices.SortFunc(all, cmp.Compare)
	return all[int(float64(len(all)-1)*q)].Round(time.Microsecond)
}

// number runs a query for one on the site's database.
func (s *site) number(t *testing.T, query string) (n int) {
	t.Helper()
	if err := s.rawDatabase(t).QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// rawDatabase opens the site's database past kwai.
func (s *site) rawDatabase(t *testing.T) *sql.DB {
	t.Helper()
	driver, name := "pgx", s.Database
	if path, is := sqlitePath(s.Database); is {
		driver, name = "sqlite", "file:"+path+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func sqlitePath(database string) (path string, is bool) {
	return strings.CutPrefix(database, "sqlite://")
}
