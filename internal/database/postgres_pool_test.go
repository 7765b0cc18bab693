package database_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// small opens a store on a pool of n connections, in which a transaction may take
// its time: it is something else that ends one, on the slowest machine too.
func small(t *testing.T, url string, n int) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), database.Options{URL: url, Connections: n}.TxTimeout(time.Minute))
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// until tries to write until it works, at most once for each connection of a pool
// that may be broken and once more.
func until(t *testing.T, s *store.Store, key string, pool int) {
	t.Helper()
	for failed := 0; ; failed++ {
		err := s.InTx(t.Context(), storetest.AddsUser(key))
		if err == nil {
			t.Logf("it works after %d tries that failed", failed)
			return
		}
		if !errors.Is(err, store.ErrUnavailable) || failed == pool {
			t.Fatalf("after %d tries that failed: %v", failed, err)
		}
	}
}

func TestASmallPoolServesMany(t *testing.T) {
	t.Parallel()
	url := storetest.Postgres(t)
	s := small(t, url, 2)
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			key := fmt.Sprintf("%02d", i)
			err := s.InTx(t.Context(), func(tx *store.Tx) error {
				if err := storetest.AddUser(tx, key); err != nil {
					return err
				}
				_, err := tx.UserByEmail(key)
				return err
			})
			err = errors.Join(err, discard(s.Read(t.Context()).UserByEmail(key)))
			err = errors.Join(err, s.Statement(t.Context(), func(tx *store.Tx) error { return discard(tx.HoldLease(key, "me", tx.Now)) }))
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// Two transactions at once need both connections.
	inside, leave := make(chan struct{}), make(chan struct{})
	for range 2 {
		all.Go(func() {
			err := s.InTx(t.Context(), func(*store.Tx) error {
				inside <- struct{}{}
				<-leave
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	<-inside
	<-inside
	defer all.Wait()
	defer close(leave)
	var most string
	check(t, storetest.Raw(t, url).QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'kwai' AND datname = current_database()`).Scan(&most))
	if most != "2" {
		t.Errorf("it has %s connections, not 2", most)
	}
}

func TestNobodyWaitsForAConnectionLongerThanTheyWant(t *testing.T) {
	t.Parallel()
	s := small(t, storetest.Postgres(t), 1)
	begun, end := make(chan struct{}), make(chan struct{})
	var holder sync.WaitGroup
	holder.Go(func() {
		err := s.InTx(t.Context(), func(*store.Tx) error {
			close(begun)
			<-end
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	calls := map[string]func(context.Context) error{
		"InTx":  func(ctx context.Context) error { return s.InTx(ctx, storetest.AddsUser("a")) },
		"One":   func(ctx context.Context) error { return s.Statement(ctx, storetest.AddsUser("a")) },
		"Read":  func(ctx context.Context) error { return discard(s.Read(ctx).UserByEmail("a")) },
		"Ready": s.Ready,
	}
	for name, call := range calls {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := call(ctx); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s after its time: %v", name, err)
		}
		cancel()
		// Who has gone is no fault of the database.
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if err := call(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s of one who has gone: %v", name, err)
		}
	}
	close(end)
	holder.Wait()
	storetest.WantUsers(t, s)
}

// pid is that of the connection which a small store's pool gives out.
func pid(t *testing.T, s *store.Store) (pid string) {
	t.Helper()
	check(t, s.InTx(t.Context(), func(tx *store.Tx) (err error) {
		pid, err = storetest.Text(tx.Tx.Reader, `SELECT CAST(pg_backend_pid() AS TEXT)`)
		return err
	}))
	return pid
}

func TestAConnectionThatBecameReadOnlyIsDropped(t *testing.T) {
	t.Parallel()
	s := small(t, storetest.Postgres(t), 1)
	before := pid(t, s)
	if err := s.InTx(t.Context(), func(tx *store.Tx) error { return discard(tx.Exec(raise("23505"))) }); err == nil {
		t.Fatal("it succeeded")
	}
	if now := pid(t, s); now != before {
		t.Errorf("the connection was dropped for another error: %s, before %s", now, before)
	}
	for name, run := range map[string]func(context.Context, func(*store.Tx) error) error{"InTx": s.InTx, "One": s.Statement} {
		before := pid(t, s)
		if err := run(t.Context(), func(tx *store.Tx) error { return discard(tx.Exec(raise("25006"))) }); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if now := pid(t, s); now == before {
			t.Errorf("%s: the connection is still in use", name)
		}
	}
}

// A replica that stops in the middle of a transaction holds its rows for as long
// as the database lets it, not until it goes on.
func TestAStoppedReplicaHoldsNoRows(t *testing.T) {
	t.Parallel()
	url := storetest.Postgres(t)
	stopped, other := small(t, url, 4), small(t, url, 4)
	check(t, other.InTx(t.Context(), storetest.AddsUser("a")))
	change := func(tx *store.Tx) error {
		return discard(tx.Exec(`UPDATE users SET last_name = last_name || '+' WHERE email_key = 'a'`))
	}
	begun, goOn := make(chan struct{}), make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		failed <- stopped.InTx(t.Context(), func(tx *store.Tx) error {
			err := change(tx)
			close(begun)
			<-goOn
			return err
		})
	}()
	<-begun
	for err := errors.New("not yet tried"); err != nil; { // until the row is free, though the other doesn't go on
		if err = other.InTx(t.Context(), change); err != nil && !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	close(goOn)
	const idleInTransaction = "25P03" // SQLSTATE
	if err := <-failed; !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), idleInTransaction) {
		t.Errorf("the stopped one: %v", err)
	}
	u, err := other.Read(t.Context()).UserByEmail("a")
	check(t, err)
	if u.LastName != "+" {
		t.Errorf("changed %d times", len(u.LastName))
	}
	check(t, stopped.InTx(t.Context(), change))
}

// What was answered is there, though connections break in the middle of
// commits, and only what broke with them fails.
func TestBrokenConnectionsLoseNothingThatWasAnswered(t *testing.T) {
	t.Parallel()
	url := storetest.Postgres(t)
	s := small(t, url, 8)
	const writers = 16
	var done [writers][]string
	var failures atomic.Int64
	answered := make(chan struct{}) // one since the last look
	storm, calm := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			run := []func(context.Context, func(*store.Tx) error) error{s.InTx, s.Statement}[i%2]
			for n := 0; storm.Err() == nil; n++ {
				key := fmt.Sprintf("%02d-%05d", i, n)
				switch err := run(t.Context(), storetest.AddsUser(key)); {
				case err == nil:
					done[i] = append(done[i], key)
					select {
					case answered <- struct{}{}:
					default:
					}
				case errors.Is(err, store.ErrUnavailable):
					failures.Add(1)
				default:
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
	db := storetest.Raw(t, url)
	for round := 0; round < need.Rounds(8, 20) || failures.Load() == 0; round++ {
		storetest.Exec(t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'kwai'`)
		for range 2 * writers { // they are in the middle of something again
			<-answered
		}
	}
	calm()
	all.Wait()
	kept := slices.Concat(done[:]...)
	t.Logf("%d answered, %d broken off", len(kept), failures.Load())
	until(t, s, "later", 8)
	var keys string
	check(t, db.QueryRowContext(t.Context(), `SELECT string_agg(email_key, ' ') FROM users`).Scan(&keys))
	there := make(map[string]bool)
	for _, key := range strings.Fields(keys) {
		there[key] = true
	}
	for _, key := range kept {
		if !there[key] {
			t.Errorf("%s was answered and is lost", key)
		}
	}
}

func TestReplicasWithWrongClocksAgree(t *testing.T) {
	t.Parallel()
	db := storetest.Raw(t, storetest.Postgres(t))
	for _, skew := range []string{"", "30s", "-30s"} {
		ours, theirs := time.Now(), databaseTime(t, db)
		local, set, err := database.SkewedClock(t.Context(), skew, db)
		check(t, err)
		want, _ := time.ParseDuration(skew)
		wantBetween(t, fmt.Sprintf("the clock that should be wrong by %q", skew), local, ours.Add(want), time.Now().Add(want))
		wantBetween(t, fmt.Sprintf("the clock that was wrong by %q", skew), set, theirs.Add(-time.Second), databaseTime(t, db).Add(time.Second))
	}
}

func databaseTime(t *testing.T, db *sql.DB) (now time.Time) {
	t.Helper()
	check(t, db.QueryRowContext(t.Context(), `SELECT clock_timestamp()`).Scan(&now))
	return now
}

func wantBetween(t *testing.T, what string, got, least, most time.Time) {
	t.Helper()
	if got.Before(least) || got.After(most) {
		t.Errorf("%s says %v, not between %v and %v", what, got, least, most)
	}
}
