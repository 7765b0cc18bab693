package database_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pressly/goose/v3/lock"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

// databaseName is the name of the database in a URL, which needs no quotes.
func databaseName(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	check(t, err)
	return strings.TrimPrefix(u.Path, "/")
}

func TestDurabilityIsAskedForWhateverTheDatabasesDefaults(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s := storetest.Open(t, storetest.SQLite(t), nil)
		wantText(t, s, map[string]string{`PRAGMA synchronous`: "2", `PRAGMA journal_mode`: "wal", `PRAGMA foreign_keys`: "1"})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url := storetest.Postgres(t)
		db := storetest.Raw(t, url) // one connection, for which the new defaults don't hold
		for _, setting := range []string{"synchronous_commit = off", "default_transaction_isolation = serializable",
			"statement_timeout = 1", "default_transaction_read_only = on"} {
			storetest.Exec(t, db, "ALTER DATABASE "+databaseName(t, url)+" SET "+setting)
		}
		s := storetest.Open(t, url, nil)
		wantText(t, s, map[string]string{`SHOW synchronous_commit`: "on", `SHOW transaction_isolation`: "read committed", `SHOW transaction_read_only`: "off",
			`SHOW statement_timeout`: "5s", `SHOW lock_timeout`: "4s", `SHOW idle_in_transaction_session_timeout`: "5s", `SHOW tcp_keepalives_idle`: "2"})
	})
}

// wantText says what queries answer inside a transaction.
func wantText(t *testing.T, s *store.Store, want map[string]string) {
	t.Helper()
	for query, answer := range want {
		var got string
		check(t, s.InTx(t.Context(), func(tx *store.Tx) (err error) {
			got, err = storetest.Text(tx.Tx.Reader, query)
			return err
		}))
		if got != answer {
			t.Errorf("%s: %s, want %s", query, got, answer)
		}
	}
}

func TestReplicasThatStartTogetherMigrateOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	synctest.Test(t, func(t *testing.T) { // they look for their turn each second
		// The turn is taken until all look for it; who migrates out of turn waits for a table.
		db := storetest.Raw(t, url)
		hold, err := db.BeginTx(t.Context(), nil)
		check(t, err)
		check(t, discard(hold.ExecContext(t.Context(), `SELECT pg_advisory_xact_lock($1)`, lock.DefaultLockID)))
		check(t, discard(hold.ExecContext(t.Context(), `CREATE TABLE meta (held TEXT)`)))

		const all = 5
		var log lines
		var ended atomic.Int64
		var replicas sync.WaitGroup
		for range all {
			replicas.Go(func() {
				defer ended.Add(1)
				s, err := store.Open(t.Context(), database.Options{URL: url, Serve: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Error(err)
					return
				}
				if err := errors.Join(s.Ready(t.Context()), s.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		outOfTurn := func() bool { return strings.Contains(log.String(), "a table to migrate is in use") }
		for looking := int64(0); looking+ended.Load() < all && !outOfTurn(); {
			check(t, db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'kwai'
				AND query LIKE '%try_advisory_lock%'`).Scan(&looking))
			time.Sleep(100 * time.Millisecond) // of the bubble, for those that wait before they look
		}
		if outOfTurn() {
			t.Error("somebody migrates out of turn")
		}
		check(t, hold.Rollback())
		replicas.Wait()
		for _, version := range []string{"4", "5"} {
			if n := strings.Count(log.String(), `"migrated the database" version=`+version+" "); n != 1 {
				t.Errorf("migrated to version %s %d times:\n%s", version, n, log.String())
			}
		}
	})
}

// lines is a log that several write.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestDeadlockIsTriedAgain(t *testing.T) {
	t.Parallel()
	url := storetest.Postgres(t)
	storetest.Exec(t, storetest.Raw(t, url), "ALTER DATABASE "+databaseName(t, url)+" SET deadlock_timeout = '10ms'")
	s := storetest.Open(t, url, nil)
	for _, id := range []string{"a", "b"} {
		check(t, s.InTx(t.Context(), addLarge(id, 1)))
	}
	var tries sync.WaitGroup // both have locked one row at their first try
	tries.Add(2)
	var calls sync.WaitGroup
	counts := [2]int{}
	for i, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		calls.Go(func() {
			err := s.InTx(t.Context(), func(tx *store.Tx) error {
				counts[i]++
				_, err := tx.Revoke(order[0])
				if counts[i] == 1 {
					tries.Done()
					tries.Wait()
				}
				if err == nil {
					_, err = tx.Exec(`UPDATE users SET last_name = last_name || '+' WHERE id = $1`, order[1])
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if counts[0]+counts[1] < 3 {
		t.Errorf("no deadlock came about: tries %v", counts)
	}
	for _, id := range []string{"a", "b"} {
		if u, err := s.Read(t.Context()).UserByID(id); err != nil || u.LastName != "+" {
			t.Errorf("%s was changed %d times (%v)", id, len(u.LastName), err)
		}
	}
}

func TestErrorsOfPostgres(t *testing.T) {
	t.Parallel()
	url := storetest.Postgres(t)
	s := storetest.Open(t, url, nil)
	tests := []struct {
		name, statement string
		tries           int
		unavailable     bool
	}{
		{"serialization failure", raise("40001"), 8, true},
		{"deadlock", raise("40P01"), 8, true},
		{"full disk", raise("53100"), 1, true},
		{"too many connections", raise("53300"), 1, true},
		{"shutdown", raise("57P01"), 1, true},
		{"standby", raise("25006"), 1, true},
		{"connection lost", `SELECT pg_terminate_backend(pg_backend_pid())`, 1, true},
		{"unique", raise("23505"), 1, false},
		{"syntax", `nonsense`, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tries := 0
			err := s.InTx(t.Context(), func(tx *store.Tx) error {
				tries++
				if err := storetest.AddUser(tx, tt.name); err != nil {
					return err
				}
				_, err := tx.Exec(tt.statement)
				return err
			})
			if err == nil || errors.Is(err, store.ErrUnavailable) != tt.unavailable || tries != tt.tries {
				t.Errorf("after %d tries: %v", tries, err)
			}
			if _, err := s.Read(t.Context()).UserByEmail(tt.name); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("what it wrote: %v", err)
			}
		})
	}
}

// raise is a statement that fails with an SQLSTATE.
func raise(state string) string {
	return `DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '` + state + `'; END $$`
}

// An error that the transaction's function forgives has undone it all the same.
func TestForgivenErrorIsNoSuccess(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		err := s.InTx(t.Context(), func(tx *store.Tx) error {
			err := storetest.AddUser(tx, "a")
			_ = nonsense(tx)
			return err
		})
		if err == nil {
			t.Error("it succeeded")
		}
		storetest.WantUsers(t, s)
	})
}

func TestStoreOutlivesItsDatabaseServer(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	cluster, err := pgtest.Start(pgtest.Options{Fsync: true})
	check(t, err)
	defer func() { check(t, cluster.Stop()) }()
	s := storetest.Open(t, cluster.URL("postgres"), nil)
	check(t, s.InTx(t.Context(), storetest.AddsUser("before")))

	check(t, cluster.Kill())
	for name, err := range map[string]error{
		"InTx":  s.InTx(t.Context(), storetest.AddsUser("lost")),
		"One":   s.Statement(t.Context(), storetest.AddsUser("lost")),
		"Read":  discard(s.Read(t.Context()).UserByEmail("before")),
		"Ready": s.Ready(t.Context()),
	} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s without a server: %v", name, err)
		}
	}
	check(t, cluster.Restart())
	check(t, s.Ready(t.Context()))
	check(t, s.InTx(t.Context(), storetest.AddsUser("between")))

	// A restart that nobody noticed leaves broken connections in the pool.
	idle(t, s, 5)
	check(t, cluster.Restart())
	idle(t, s, 5) // nobody's request fails for them
	check(t, s.InTx(t.Context(), storetest.AddsUser("later")))
	storetest.WantUsers(t, s, "before", "between", "later")
	check(t, s.Close())
}

// idle leaves n connections in the pool.
func idle(t *testing.T, s *store.Store, n int) {
	t.Helper()
	var all, done sync.WaitGroup
	all.Add(n)
	for range n {
		done.Go(func() {
			here := sync.OnceFunc(all.Done)
			err := s.InTx(t.Context(), func(*store.Tx) error {
				here()
				all.Wait()
				return nil
			})
			here() // the others don't wait for one that failed
			if err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
}

// The local clock is the bubble's, which begins in the year 2000 and runs ahead
// as soon as nobody works.
func TestTimeIsTheDatabases(t *testing.T) {
	t.Parallel()
	url := storetest.Postgres(t)
	synctest.Test(t, func(t *testing.T) {
		db := storetest.Raw(t, url)
		before := databaseTime(t, db) // the bubble's clock stands still while the database answers
		s := storetest.Open(t, url, nil)
		for range 2 {
			now := s.Now()
			var stamp time.Time
			check(t, s.InTx(t.Context(), func(tx *store.Tx) error { stamp = tx.Now; return nil }))
			// A look each three seconds, and each look may be wrong by less than one.
			least, most := before.Add(-time.Second), databaseTime(t, db).Add(4*time.Second)
			wantBetween(t, "the store", now, least, most)
			wantBetween(t, "a transaction", stamp, least, most)
			// A minute passes here, hardly any time there.
			before = databaseTime(t, db)
			time.Sleep(time.Minute + time.Second)
			synctest.Wait()
		}
	})
}
