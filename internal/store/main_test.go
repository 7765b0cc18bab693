package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

func TestMain(m *testing.M) {
	need.ShareCores()
	code := storetest.Main(m)
	// Every store has been closed and the cluster has ended: nothing may go on.
	// pgx closes a connection that was cut off in the background, for 15 seconds.
	closing := goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgconn.(*PgConn).asyncClose.func1")
	// Find waits for a second or two. What it finds twice alike doesn't end.
	for before, err := "", goleak.Find(closing); err != nil; err = goleak.Find(closing) {
		if err.Error() == before {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(max(code, 1))
		}
		before = err.Error()
	}
	os.Exit(code)
}

// epoch is when the tests' clocks begin.
var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

var lives = store.Lifetimes{Idle: 30 * 24 * time.Hour, Session: 90 * 24 * time.Hour}

// at runs fn in a transaction of that time.
func at(tb testing.TB, s *store.Store, now time.Time, fn func(*store.Tx) error) {
	tb.Helper()
	err := s.InTx(tb.Context(), func(tx *store.Tx) error {
		tx.Now = now
		return fn(tx)
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// add inserts a user whose folded address is key.
func add(tx *store.Tx, key string) error {
	ok, err := tx.InsertUser(store.User{Profile: store.Profile{ID: uuid.NewString(), Email: key}, EmailKey: key}, store.Password{})
	if err == nil && !ok {
		err = errors.New("the address is taken: " + key)
	}
	return err
}

// adding is a transaction that adds a user.
func adding(key string) func(*store.Tx) error {
	return func(tx *store.Tx) error { return add(tx, key) }
}

// wantUsers says which users there are, by their keys in their order.
func wantUsers(t *testing.T, s *store.Store, keys ...string) {
	t.Helper()
	users, err := s.Read(t.Context()).UsersAfter("", 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range users {
		got = append(got, u.EmailKey)
	}
	if diff := cmp.Diff(keys, got); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
}

// wantReopened is wantUsers of the database once it has been closed and opened
// again.
func wantReopened(t *testing.T, s *store.Store, url string, keys ...string) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantUsers(t, storetest.Open(t, url, nil), keys...)
}

// pathOf is the file of an SQLite database.
func pathOf(url string) string { return strings.TrimPrefix(url, "sqlite://") }

// raw opens a database past the store.
func raw(tb testing.TB, url string) *sql.DB {
	tb.Helper()
	driver, dsn := "pgx", url
	if strings.HasPrefix(url, "sqlite://") {
		driver, dsn = "sqlite", "file:"+pathOf(url)+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return db
}

// exec runs statements past the store.
func exec(tb testing.TB, db *sql.DB, statements ...string) {
	tb.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(tb.Context(), s); err != nil {
			tb.Fatalf("%s: %v", s, err)
		}
	}
}
