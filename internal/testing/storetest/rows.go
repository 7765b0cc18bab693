package storetest

import (
	"bytes"
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

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/need"
)

// MainWithoutLeaks is Main for packages whose tests close every store: then nothing
// may go on.
func MainWithoutLeaks(m *testing.M) int {
	need.ShareCores()
	code := Main(m)
	// pgx closes a connection that was cut off in the background, for 15 seconds.
	closing := goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgconn.(*PgConn).asyncClose.func1")
	// Find waits for a second or two. What it finds twice alike doesn't end.
	for before, err := "", goleak.Find(closing); err != nil; err = goleak.Find(closing) {
		if err.Error() == before {
			fmt.Fprintln(os.Stderr, err)
			return max(code, 1)
		}
		before = err.Error()
	}
	return code
}

// At runs fn in a transaction of that time.
func At(tb testing.TB, s *store.Store, now time.Time, fn func(*store.Tx) error) {
	tb.Helper()
	err := s.InTx(tb.Context(), func(tx *store.Tx) error {
		tx.Now = now
		return fn(tx)
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// AddUser inserts a user whose folded address is key.
func AddUser(tx *store.Tx, key string) error {
	ok, err := tx.InsertUser(store.User{Profile: store.Profile{ID: uuid.NewString(), Email: key}, EmailKey: key}, store.Password{})
	if err == nil && !ok {
		err = errors.New("the address is taken: " + key)
	}
	return err
}

// AddsUser is a transaction that adds a user.
func AddsUser(key string) func(*store.Tx) error {
	return func(tx *store.Tx) error { return AddUser(tx, key) }
}

// WantUsers says which users there are, by their keys in their order.
func WantUsers(t *testing.T, s *store.Store, keys ...string) {
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

// WantReopened is WantUsers of the database once it has been closed and opened
// again.
func WantReopened(t *testing.T, s *store.Store, url string, keys ...string) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	WantUsers(t, Open(t, url, nil), keys...)
}

// Path is the file of an SQLite database.
func Path(url string) string { return strings.TrimPrefix(url, "sqlite://") }

// Raw opens a database past the store.
func Raw(tb testing.TB, url string) *sql.DB {
	tb.Helper()
	driver, dsn := "pgx", url
	if strings.HasPrefix(url, "sqlite://") {
		driver, dsn = "sqlite", "file:"+Path(url)+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return db
}

// Exec runs statements past the store.
func Exec(tb testing.TB, db *sql.DB, statements ...string) {
	tb.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(tb.Context(), s); err != nil {
			tb.Fatalf("%s: %v", s, err)
		}
	}
}

// Text is the first column of the query's first row.
func Text(r database.Reader, query string, args ...any) (string, error) {
	text, err := database.QueryRow(r, database.Column[sql.NullString], query, args...)
	return text.String, err
}

// Content is nil for what is no file.
func Content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if info, statErr := os.Stat(path); errors.Is(err, os.ErrNotExist) || statErr == nil && info.IsDir() {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FilesIn are the names in a folder.
func FilesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// Garbage makes a file that is no database.
func Garbage(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, bytes.Repeat([]byte("garbage\n"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Truncated is a database whose second half was lost.
func Truncated(t *testing.T, path string) {
	t.Helper()
	whole := Content(t, Path(SQLite(t)))
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
}

// WithUser adds the user a to a database that nobody has open.
// WithUser adds an account.
func WithUser(t *testing.T, url string) {
	t.Helper()
	s := Open(t, url, nil)
	if err := s.InTx(t.Context(), AddsUser("a")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
