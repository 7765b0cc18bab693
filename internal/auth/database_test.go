package auth_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"kwai/internal/auth"
	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// databases is [storetest.Each], but cheaper: a quarter of a second of a core is
// what PostgreSQL takes to make a database, and a test takes less. So one that
// passed hands its database on, emptied, to a later one. A test that changes the
// schema undoes that, or takes storetest.Each.
func databases(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, sqlite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, postgres(t))
	})
}

// longer is databases for what takes long, or meets no other client: PostgreSQL has its turn
// when every test is asked for. Each day it has the statements (package store), the keys, and
// of each kind of race the first.
func longer(t *testing.T, f func(t *testing.T, url string)) {
	t.Helper()
	if need.All() {
		databases(t, f)
		return
	}
	t.Parallel()
	f(t, sqlite(t))
}

// blank is a new SQLite database's file.
var blank struct {
	sync.Once
	file []byte
}

// sqlite is the URL of a copy of the blank database.
func sqlite(t *testing.T) string {
	t.Helper()
	blank.Do(func() {
		blank.file = must(os.ReadFile(strings.TrimPrefix(storetest.SQLite(t), "sqlite://")))(t)
	})
	if blank.file == nil {
		t.Fatal("there is no blank database")
	}
	path := filepath.Join(folder(t), "kwai.db")
	ok(t, os.WriteFile(path, blank.file, 0o600))
	return "sqlite://" + path
}

// folder is an empty one, in memory if possible: half of what these tests would
// do on SQLite is to wait for the disk.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kwai-auth-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { ok(t, os.RemoveAll(dir)) })
	return dir
}

// spare are the databases of PostgreSQL that no test uses now.
var spare struct {
	sync.Mutex
	all    []string
	tables string // of each
}

// postgres is the URL of a database that holds nothing, for the time of the test.
func postgres(t *testing.T) (url string) {
	t.Helper()
	spare.Lock()
	if n := len(spare.all); n > 0 {
		url, spare.all = spare.all[n-1], spare.all[:n-1]
	}
	spare.Unlock()
	if url == "" {
		url = storetest.Postgres(outliving{t})
	}
	t.Cleanup(func() {
		if !t.Failed() { // else whatever it has left is its own
			empty(t, url)
		}
	})
	return url
}

// outliving is a test whose database isn't dropped at its end. The cluster is, at
// the end of all.
type outliving struct{ testing.TB }

func (outliving) Cleanup(func()) {}

// empty takes everything out of a database that a test wrote, and makes it spare.
// It holds that no transactions waited for each other in it: all lock rows in the
// same order.
func empty(t *testing.T, url string) {
	t.Helper()
	ctx := context.Background() // the test's has ended
	db := must(pgx.Connect(ctx, url))(t)
	defer db.Close(ctx)
	// Nothing uses it now; a test's connections may still be closing.
	must(db.Exec(ctx, `SELECT pg_terminate_backend(pid, 600000) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`))(t)
	// As a replica: no foreign key says in which order.
	must(db.Exec(ctx, `SET session_replication_role = replica;
		DO $$ DECLARE name text; BEGIN
			FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('meta', 'schema_version') LOOP
				EXECUTE format('DELETE FROM %I', name);
			END LOOP;
		END $$`))(t)
	var tables string
	ok(t, db.QueryRow(ctx, `SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables))
	// PostgreSQL would end one of the two, and kwai run it again.
	var deadlocks int64
	ok(t, db.QueryRow(ctx, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&deadlocks))
	if deadlocks > 0 {
		t.Errorf("%d times transactions waited for each other", deadlocks)
		return
	}
	spare.Lock()
	defer spare.Unlock()
	if spare.tables == "" {
		spare.tables = tables
	}
	if tables != spare.tables {
		t.Errorf("the test leaves a database with the tables %s, and not %s", tables, spare.tables)
		return
	}
	spare.all = append(spare.all, url)
}

// open opens a test's database, which has its schema already; the server's alone
// has to be told on SQLite.
func open(t *testing.T, url string, now func() time.Time) *store.Store {
	t.Helper()
	s := must(store.Open(t.Context(), database.Options{URL: url, Serve: onSQLite(url), Now: now}))(t)
	t.Cleanup(func() { ok(t, s.Close()) })
	return s
}

func onSQLite(url string) bool { return strings.HasPrefix(url, "sqlite:") }

// insertSessions is a statement for insert.
const insertSessions = `INSERT INTO sessions (id, user_id, counter, mark, floor, prior, created_at, renewed_at) SELECT id, user_id, 0, 0, 0, 0, at, at FROM made`

// insert runs statements that insert n rows from the table made: each has an id of
// that time, as the rules make them, in order; the time; its number; and the user's id.
func (s *server) insert(t *testing.T, at time.Time, userID string, n int, statements ...string) {
	t.Helper()
	id := auth.NewID(at)
	tx := must(s.database(t).BeginTx(t.Context(), nil))(t)
	defer func() { _ = tx.Rollback() }() // unless it is committed
	for _, statement := range statements {
		must(tx.ExecContext(t.Context(), `WITH RECURSIVE numbers (number) AS
				(SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < CAST($1 AS INTEGER)),
			made (id, at, number, user_id) AS
				(SELECT $2 || substr(CAST(1000000000000 + number AS TEXT), 2), CAST($3 AS BIGINT), number, CAST($4 AS TEXT) FROM numbers) `+statement,
			n, id[:24], at.UnixMicro(), userID))(t)
	}
	ok(t, tx.Commit())
}
