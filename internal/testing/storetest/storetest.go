// Package storetest gives tests each database that kwai runs on, so that a test holds
// for all of them.
//
//	func TestMain(m *testing.M) { os.Exit(storetest.Main(m)) }
//
//	func TestLogin(t *testing.T) {
//		storetest.Each(t, func(t *testing.T, url string) { … })
//	}
//
// PostgreSQL is a private cluster (package pgtest). If its programs are missing, its
// tests are skipped, or fail with KWAI_TEST=all (package need).
package storetest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgtest"
)

// Main runs the tests and then ends the cluster they used.
func Main(m *testing.M) int { return pgtest.Main(m) }

// Each runs f in parallel on a new database of each kind, which has kwai's
// schema already.
func Each(t *testing.T, f func(t *testing.T, url string)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, SQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, Postgres(t))
	})
}

// Mostly is Each for rules that the tests of the packages below try on each database: the
// everyday run has SQLite alone.
func Mostly(t *testing.T, f func(t *testing.T, url string)) {
	if need.All() {
		Each(t, f)
		return
	}
	t.Parallel()
	f(t, SQLite(t))
}

// SQLite is the URL of a new SQLite database.
func SQLite(tb testing.TB) string {
	content, err := migrated()
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "kwai.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	return "sqlite://" + path
}

// migrated returns the file of a new SQLite database, which is made once. It must be
// closed before it is read: reading it would drop SQLite's locks.
var migrated = sync.OnceValues(func() (content []byte, err error) {
	dir, err := os.MkdirTemp("", "kwai-storetest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "kwai.db")
	if err := migrate("sqlite://" + path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// Postgres is the URL of a new PostgreSQL database.
func Postgres(tb testing.TB) string {
	pgtest.Require(tb)
	pgtest.Template(tb, "kwai", migrate)
	return pgtest.FromTemplate(tb, "kwai")
}

func migrate(url string) error {
	s, err := store.Open(context.Background(), database.Options{URL: url, Serve: true})
	if err != nil {
		return err
	}
	return s.Close()
}

// Open opens the database for the time of the test; now replaces its clock
// unless nil.
func Open(tb testing.TB, url string, now func() time.Time) *store.Store {
	s, err := store.Open(tb.Context(), database.Options{URL: url, Serve: true, Now: now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}
