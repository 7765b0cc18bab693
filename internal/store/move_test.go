package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/pgtest"
	"kwai/internal/store"
	"kwai/internal/store/storetest"
)

// column is a column as the schema has it.
type column struct{ name, kind string }

// tablesOf are all tables of a database in SQLite, with their columns.
func tablesOf(t *testing.T, db *sql.DB) map[string][]column {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT m.name, c.name, c.type FROM sqlite_schema m, pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'`)
	check(t, err)
	defer rows.Close()
	tables := make(map[string][]column)
	for rows.Next() {
		var table string
		var c column
		check(t, rows.Scan(&table, &c.name, &c.kind))
		tables[table] = append(tables[table], c)
	}
	check(t, rows.Err())
	return tables
}

// notMoved are the tables that a move leaves behind. A new table is moved, or
// named here for a reason.
var notMoved = []string{
	"leases",         // end with their holders
	"schema_version", // each database's own
}

// fillTables puts rows into every table that there is, with every kind of value.
func fillTables(t *testing.T, db *sql.DB) map[string][]column {
	t.Helper()
	tables := tablesOf(t, db)
	exec(t, db, `PRAGMA foreign_keys = 0`) // of this connection; the rows fit together in the end
	numbers := []int64{0, 1, -1, math.MaxInt64, math.MinInt64}
	for table, columns := range tables {
		if slices.Contains(notMoved, table) {
			continue
		}
		for i := range int64(5) {
			var names, marks []string
			var values []any
			for _, c := range columns {
				var v any
				switch c.kind {
				case "TEXT":
					v = fmt.Sprintf("%d", i)
					if !strings.HasSuffix(c.name, "id") {
						v = []string{"", "plain", "Ünï\u0301cødé \U0001f94b", "a\ttab, a \\, a 'quote' and a\nline", strings.Repeat("x", 100_000)}[i] + fmt.Sprint(i)
					}
				case "BIGINT":
					v = numbers[i]
				case "BYTEA":
					v = []byte(strings.Repeat("\x00\xff", int(i)))
				default:
					t.Fatalf("%s.%s is a %s, of which this test knows nothing", table, c.name, c.kind)
				}
				names, marks, values = append(names, c.name), append(marks, "?"), append(values, v)
			}
			if _, err := db.ExecContext(t.Context(), fmt.Sprintf(`INSERT INTO %s (%s) VALUES (%s)`, table, strings.Join(names, ","), strings.Join(marks, ",")), values...); err != nil {
				t.Fatal(err)
			}
		}
		// What may be null is, in a row more.
		exec(t, db, fmt.Sprintf(`UPDATE %s SET %s`, table, nulls(t, db, table)))
	}
	return tables
}

// nulls sets to null what may be, in one row.
func nulls(t *testing.T, db *sql.DB, table string) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT name FROM pragma_table_info(?) WHERE "notnull" = 0 AND pk = 0`, table)
	check(t, err)
	defer rows.Close()
	set := []string{"rowid = rowid"}
	for rows.Next() {
		var name string
		check(t, rows.Scan(&name))
		set = append(set, fmt.Sprintf("%s = CASE WHEN rowid %% 5 = 3 THEN NULL ELSE %[1]s END", name))
	}
	check(t, rows.Err())
	return strings.Join(set, ", ")
}

// dump is all that is in the tables that a move copies, but for its own marks.
func dump(t *testing.T, db *sql.DB, tables map[string][]column) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for table, columns := range tables {
		if slices.Contains(notMoved, table) {
			continue
		}
		var names []string
		for _, c := range columns {
			names = append(names, c.name)
		}
		where := ""
		if table == "meta" {
			where = ` WHERE name NOT IN ('oldest_schema', 'move', 'moved')`
		}
		rows, err := db.QueryContext(t.Context(), `SELECT `+strings.Join(names, ",")+` FROM `+table+where)
		check(t, err)
		defer rows.Close()
		all[table] = []string{}
		for rows.Next() {
			values, into := make([]any, len(names)), make([]any, len(names))
			for i := range values {
				into[i] = &values[i]
			}
			check(t, rows.Scan(into...))
			var line []string
			for _, v := range values {
				if b, ok := v.([]byte); ok {
					v = "x" + hex.EncodeToString(b)
				}
				line = append(line, fmt.Sprintf("%#v", v))
			}
			all[table] = append(all[table], strings.Join(line, " "))
		}
		check(t, rows.Err())
		slices.Sort(all[table])
	}
	return all
}

// shape is what there is of tables, indexes and constraints in PostgreSQL.
func shape(t *testing.T, url string) []string {
	t.Helper()
	rows, err := raw(t, url).QueryContext(t.Context(), `
		SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()
		UNION ALL SELECT format('%s %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated) FROM pg_constraint WHERE conrelid > 0 AND connamespace = 'public'::regnamespace
		UNION ALL SELECT format('%s %s %s', table_name, column_name, data_type) FROM information_schema.columns WHERE table_schema = current_schema()
		ORDER BY 1`)
	check(t, err)
	defer rows.Close()
	var all []string
	for rows.Next() {
		var line string
		check(t, rows.Scan(&line))
		all = append(all, line)
	}
	check(t, rows.Err())
	return all
}

// A move brings every row of every table that there is, whatever is in it, and
// leaves a database like one that has always been PostgreSQL's. Whoever had the
// old one open, or opens it later, is told.
func TestMoveBringsEverything(t *testing.T) {
	t.Parallel()
	targets := map[string]func(*testing.T) string{
		"empty":    func(t *testing.T) string { return pgtest.Database(t) },
		"migrated": func(t *testing.T) string { return storetest.Postgres(t) },
	}
	for name, target := range targets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := storetest.SQLite(t), target(t)
			db := raw(t, from)
			db.SetMaxOpenConns(1)
			tables := fillTables(t, db)
			before := dump(t, db, tables)
			beside, err := store.Open(t.Context(), store.Options{URL: from})
			check(t, err)
			defer beside.Close()

			report, err := store.Move(t.Context(), store.MoveOptions{From: from, To: to})
			check(t, err)
			for _, table := range report.Tables {
				if want := int64(len(before[table.Name])); table.Rows != want && table.Name != "meta" {
					t.Errorf("%d rows of %s are reported, want %d", table.Rows, table.Name, want)
				}
			}
			if diff := cmp.Diff(before, dump(t, raw(t, to), tables)); diff != "" {
				t.Errorf("what arrived (-want +got):\n%.2000s", diff)
			}
			if diff := cmp.Diff(before, dump(t, db, tables)); diff != "" {
				t.Errorf("what was left (-want +got):\n%.2000s", diff)
			}
			if diff := cmp.Diff(shape(t, storetest.Postgres(t)), shape(t, to)); diff != "" {
				t.Errorf("the new database isn't like a new one (-want +got):\n%s", diff)
			}
			check(t, storetest.Open(t, to, nil).InTx(t.Context(), adding("somebody new")))

			for _, serve := range []bool{true, false} {
				wantRefused(t, store.Options{URL: from, Serve: serve}, "moved to PostgreSQL (127.0.0.1:", "--database", pathOf(from))
			}
			if err := beside.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "moved to PostgreSQL") {
				t.Errorf("one who had it open is ready: %v", err)
			}
			for table, columns := range tables {
				for _, change := range []string{"INSERT INTO %s (%s) VALUES (1000)", "UPDATE %s SET %[2]s = %[2]s", "DELETE FROM %[1]s WHERE %[2]s <> ''"} {
					if table == "leases" && !strings.HasPrefix(change, "INSERT") {
						continue // it is empty
					}
					if _, err := db.ExecContext(t.Context(), fmt.Sprintf(change, table, columns[0].name)); err == nil || !strings.Contains(err.Error(), "moved to PostgreSQL") {
						t.Errorf("%s: %s of one who had it open: %v", table, change, err)
					}
				}
			}
			var oldest int
			check(t, db.QueryRowContext(t.Context(), `SELECT value FROM meta WHERE name = 'oldest_schema'`).Scan(&oldest))
			if oldest < 1_000_000 {
				t.Errorf("a program that knows nothing of moves would use it: oldest_schema is %d", oldest)
			}

			again, err := store.Move(t.Context(), store.MoveOptions{From: from, To: to})
			if err != nil || !again.Already {
				t.Errorf("once more: %+v, %v", again, err)
			}
			_, err = store.Move(t.Context(), store.MoveOptions{From: from, To: pgtest.Database(t)})
			wantMoveError(t, err, true, "already", "another database (127.0.0.1:")
		})
	}
}

// withUser adds an account.
func withUser(t *testing.T, url string) {
	t.Helper()
	s := storetest.Open(t, url, nil)
	check(t, s.InTx(t.Context(), adding("a")))
	check(t, s.Close())
}

func wantMoveError(t *testing.T, err error, target bool, words ...string) {
	t.Helper()
	t.Log(err)
	refused, ok := errors.AsType[*store.MoveError](err)
	if !ok || refused.Target != target {
		t.Fatalf("got %v (%T), want a refusal; of the target: %v", err, err, target)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error doesn't say %q: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows the password: %v", err)
	}
}

// What can't be moved is left as it was, and so is where it can't be moved to.
func TestMoveRefuses(t *testing.T) {
	t.Parallel()
	statements := func(all ...string) func(*testing.T, string) string {
		return func(t *testing.T, url string) string {
			exec(t, raw(t, url), all...)
			return url
		}
	}
	withURL := func(change func(*url.URL)) func(*testing.T, string) string {
		return func(t *testing.T, text string) string {
			u, err := url.Parse(text)
			check(t, err)
			change(u)
			return u.String()
		}
	}
	tests := []struct {
		name     string
		from, to func(t *testing.T, url string) string // the URL to use
		target   bool                                  // is what is wrong
		words    []string
	}{
		{name: "from PostgreSQL", from: func(t *testing.T, _ string) string { return storetest.Postgres(t) }, words: []string{"SQLite"}},
		{name: "from nothing", from: func(t *testing.T, url string) string { return url + "-none" }, words: []string{"no database"}},
		{name: "from a folder", from: func(t *testing.T, _ string) string { return "sqlite://" + t.TempDir() }, words: []string{"not a file"}},
		{name: "from garbage", from: func(t *testing.T, url string) string { garbage(t, pathOf(url)); return url }, words: []string{"not a database"}},
		{name: "from half a database", from: func(t *testing.T, url string) string { truncated(t, pathOf(url)); return url }, words: []string{"malformed"}},
		{name: "from one with a damaged page", from: damaged, words: []string{"damaged"}},
		{name: "from another program's", from: func(t *testing.T, url string) string {
			check(t, os.Remove(pathOf(url)))
			return statements(`CREATE TABLE theirs (id)`)(t, url)
		}, words: []string{"no kwai database"}},
		{name: "from a newer one", from: statements(`UPDATE meta SET value = '1000' WHERE name = 'oldest_schema'`), words: []string{"newer kwai", "1000"}},
		{name: "from a newer one that this program can use", from: statements(`INSERT INTO schema_version (version_id, is_applied) VALUES (1000, true)`), words: []string{"newer kwai", "1000"}},
		{name: "from one that is served", from: func(t *testing.T, url string) string { storetest.Open(t, url, nil); return url }, words: []string{"another kwai serves", "stop it"}},
		{name: "to SQLite", to: func(t *testing.T, _ string) string { return storetest.SQLite(t) }, target: true, words: []string{"postgres://"}},
		{name: "to what is no URL", to: func(*testing.T, string) string { return "postgres://secret@:::/" }, target: true, words: []string{"postgres://"}},
		{name: "to nobody", to: withURL(func(u *url.URL) { u.Host = "127.0.0.1:1" }), target: true, words: []string{"127.0.0.1"}},
		{name: "with a wrong password", to: withURL(func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "secret") }), target: true, words: []string{"password authentication failed"}},
		{name: "to no database", to: withURL(func(u *url.URL) { u.Path = "none" }), target: true, words: []string{"does not exist"}},
		{name: "to one with an account", to: func(t *testing.T, _ string) string {
			to := storetest.Postgres(t)
			withUser(t, to)
			return to
		}, target: true, words: []string{"uses it already", "users"}},
		{name: "to one that was served", to: func(t *testing.T, _ string) string {
			return statements(`INSERT INTO keys VALUES ('k', 'sign', '', 1)`)(t, storetest.Postgres(t))
		}, target: true, words: []string{"uses it already", "keys"}},
		{name: "to another program's", to: statements(`CREATE TABLE theirs (id INT)`), target: true, words: []string{"theirs"}},
		{name: "to another program's, of the same name", to: statements(`CREATE TABLE users (id INT)`), target: true, words: []string{"users"}},
		{name: "to a kwai's with another program's", to: func(t *testing.T, _ string) string {
			return statements(`CREATE VIEW theirs AS SELECT 1`)(t, storetest.Postgres(t))
		}, target: true, words: []string{"theirs"}},
		{name: "to a newer one", to: func(t *testing.T, _ string) string {
			return statements(`INSERT INTO schema_version (version_id, is_applied) VALUES (1000, true)`)(t, storetest.Postgres(t))
		}, target: true, words: []string{"newer kwai"}},
		{name: "to where another's move has begun", to: func(t *testing.T, _ string) string {
			return statements(`INSERT INTO meta VALUES ('move', 'x'), ('moving', 'x')`)(t, storetest.Postgres(t))
		}, target: true, words: []string{"another database", "drop"}},
		{name: "to another encoding", to: func(t *testing.T, url string) string {
			exec(t, raw(t, url), `CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'`)
			t.Cleanup(func() { raw(t, url).ExecContext(context.Background(), `DROP DATABASE latin WITH (FORCE)`) })
			return url[:strings.LastIndex(url, "/")] + "/latin?sslmode=disable"
		}, target: true, words: []string{"LATIN1", "UTF8"}},
		{name: "to where no table may be made", to: func(t *testing.T, url string) string {
			exec(t, raw(t, url), `DROP SCHEMA public`)
			return url
		}, target: true, words: []string{"schema"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			from, empty := storetest.SQLite(t), pgtest.Database(t)
			to := empty
			if tt.from != nil {
				from = tt.from(t, from)
			}
			if tt.to != nil {
				to = tt.to(t, to)
			}
			var before []byte
			var shapeBefore []string
			if !strings.HasPrefix(from, "postgres") {
				before = content(t, pathOf(from))
			}
			if strings.Contains(to, "/db_") && !tt.target {
				shapeBefore = shape(t, to)
			}
			_, err := store.Move(t.Context(), store.MoveOptions{From: from, To: to})
			wantMoveError(t, err, tt.target, tt.words...)
			if before != nil && !bytes.Equal(before, content(t, pathOf(from))) && tt.name != "from one that is served" && tt.name != "from one with a damaged page" {
				t.Error("the old database was changed")
			}
			if shapeBefore != nil && !slices.Equal(shapeBefore, shape(t, to)) {
				t.Error("the new database was changed")
			}
			if tt.target { // the old one is as it was
				check(t, storetest.Open(t, from, nil).InTx(t.Context(), adding("a")))
			}
		})
	}
}

// damaged is a database of which a page is overwritten.
func damaged(t *testing.T, url string) string {
	t.Helper()
	s := storetest.Open(t, url, nil)
	for i := range 300 {
		check(t, s.InTx(t.Context(), adding(fmt.Sprintf("user%d@example.org", i))))
	}
	check(t, s.Close())
	var page int64
	check(t, raw(t, url).QueryRowContext(t.Context(), `SELECT rootpage FROM sqlite_schema WHERE name = 'users'`).Scan(&page))
	f, err := os.OpenFile(pathOf(url), os.O_RDWR, 0)
	check(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 2048), (page-1)*4096)
	check(t, err)
	check(t, f.Close())
	return url
}

// A value that PostgreSQL has no place for is named, and nothing moved.
func TestMoveNamesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	for value, words := range map[string]string{
		`first_name = 'a' || char(0)`:          "users.first_name",
		`last_name = CAST(x'ff' AS TEXT)`:      "users.last_name",
		`created_at = 'yesterday'`:             "users.created_at",
		`email = x'61'`:                        "users.email",
		`id = 'b', revoked_at = 1.5`:           "users.revoked_at",
		`id = 'b', last_login_at = 'noon'`:     "is \"b\"",
		`first_name = 'é' || char(0) || 'ü'  `: "NUL",
	} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			from, to := storetest.SQLite(t), pgtest.Database(t)
			withUser(t, from)
			exec(t, raw(t, from), `UPDATE users SET `+value)
			_, err := store.Move(t.Context(), store.MoveOptions{From: from, To: to})
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("got %v, want an error with %q", err, words)
			}
		})
	}
}

// The steps that a move tells of, by how they begin.
const (
	stepCopied   = "copied 1 rows of users"
	stepCompared = "compared"
	stepComplete = "the copy is complete"
	stepMarked   = "the old database refuses"
)

// A move that ends at any step leaves one database that can be used, or none;
// and run again it does the whole of it.
func TestMoveGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	lose := func(t *testing.T, to string, _ context.CancelFunc) {
		// Every connection to the database but this one.
		exec(t, raw(t, to), `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	}
	interrupt := func(_ *testing.T, _ string, cancel context.CancelFunc) { cancel() }
	crash := func(*testing.T, string, context.CancelFunc) { panic("crash") }
	for _, tt := range []struct {
		name, step     string
		end            func(t *testing.T, to string, cancel context.CancelFunc)
		source, target string // how each is refused then; "" for not
		resumed, done  bool   // the second run has nothing to copy, or the first was not ended
	}{
		{"lost while copying", stepCopied, lose, "", "", false, false},
		{"interrupted while copying", stepCopied, interrupt, "", "", false, false},
		{"crashed while copying", stepCopied, crash, "", "", false, false},
		{"lost before the commit", stepCompared, lose, "", "", false, false},
		{"crashed before the commit", stepCompared, crash, "", "", false, false},
		{"lost after the commit", stepComplete, lose, "moved to PostgreSQL", "run `kwai move` again", true, false},
		{"interrupted after the commit", stepComplete, interrupt, "moved to PostgreSQL", "", true, true},
		{"crashed after the commit", stepComplete, crash, "", "run `kwai move` again", false, false},
		{"lost after the mark", stepMarked, lose, "moved to PostgreSQL", "run `kwai move` again", true, false},
		{"interrupted after the mark", stepMarked, interrupt, "moved to PostgreSQL", "", true, true},
		{"crashed after the mark", stepMarked, crash, "moved to PostgreSQL", "run `kwai move` again", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// Migrated, so that it can be opened where nothing has been copied.
			from, to := storetest.SQLite(t), storetest.Postgres(t)
			withUser(t, from)
			// One who had it open before, and writes as soon as that can be.
			other, err := store.Open(t.Context(), store.Options{URL: to})
			check(t, err)
			defer other.Close()
			reached := false
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err = crashing(func() error {
				_, err := store.Move(ctx, store.MoveOptions{From: from, To: to, Progress: func(step string) {
					if strings.HasPrefix(step, tt.step) {
						reached = true
						tt.end(t, to, cancel)
					}
				}})
				return err
			})
			t.Log(err)
			if !reached || (err == nil) != tt.done {
				t.Fatalf("the step was reached: %v; the error: %v", reached, err)
			}
			for _, db := range []struct{ url, refused string }{{from, tt.source}, {to, tt.target}} {
				for _, serve := range []bool{true, false} {
					if db.refused != "" {
						wantRefused(t, store.Options{URL: db.url, Serve: serve}, db.refused)
					}
				}
			}
			if tt.source == "" {
				s := storetest.Open(t, from, nil)
				check(t, s.InTx(t.Context(), adding("b")))
				check(t, s.Close())
			}
			if tt.target != "" {
				if err := again(t, other, "a third"); err == nil || !strings.Contains(err.Error(), "kwai_moving") {
					t.Errorf("one who had the new database open was answered %v", err)
				}
				_, err := store.Move(t.Context(), store.MoveOptions{From: storetest.SQLite(t), To: to})
				wantMoveError(t, err, true, "another database")
			}

			report, err := store.Move(t.Context(), store.MoveOptions{From: from, To: to})
			if err != nil || report.Resumed != tt.resumed || report.Already != tt.done {
				t.Fatalf("again: %+v, %v", report, err)
			}
			want := []string{"a"}
			if tt.source == "" {
				want = append(want, "b")
			}
			wantRefused(t, store.Options{URL: from}, "moved to PostgreSQL")
			wantUsers(t, storetest.Open(t, to, nil), want...)
			check(t, again(t, other, "c"))
			if diff := cmp.Diff(shape(t, storetest.Postgres(t)), shape(t, to)); diff != "" {
				t.Errorf("the new database isn't like a new one (-want +got):\n%s", diff)
			}
		})
	}
}

// again adds a user, with a second try where the connection was lost.
func again(t *testing.T, s *store.Store, key string) error {
	t.Helper()
	err := s.InTx(t.Context(), adding(key))
	if errors.Is(err, store.ErrUnavailable) {
		err = s.InTx(t.Context(), adding(key))
	}
	return err
}

// crashing makes an error of a panic.
func crashing(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// Who would write to the old database while it is moved waits, and is refused
// when it is over; who would serve it is refused at once.
func TestMoveKeepsWritersOut(t *testing.T) {
	t.Parallel()
	from, to := storetest.SQLite(t), pgtest.Database(t)
	withUser(t, from)
	beside, err := store.Open(t.Context(), store.Options{URL: from})
	check(t, err)
	defer beside.Close()
	wrote := make(chan error, 1)
	_, err = store.Move(t.Context(), store.MoveOptions{From: from, To: to, Progress: func(step string) {
		if !strings.HasPrefix(step, stepCopied) {
			return
		}
		wantRefused(t, store.Options{URL: from, Serve: true}, "another kwai serves")
		wantUsers(t, beside, "a")
		go func() { wrote <- beside.InTx(context.WithoutCancel(t.Context()), adding("late")) }()
		select {
		case err := <-wrote:
			t.Errorf("a write during the move ended: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}})
	check(t, err)
	if err := <-wrote; err == nil || !strings.Contains(err.Error(), "moved to PostgreSQL") {
		t.Errorf("after the move it was answered %v", err)
	}
	wantUsers(t, storetest.Open(t, to, nil), "a")
}

// An older database is migrated first.
func TestMoveMigratesTheOldDatabaseFirst(t *testing.T) {
	t.Parallel()
	from, to := storetest.SQLite(t), pgtest.Database(t)
	withUser(t, from)
	exec(t, raw(t, from), `DROP TABLE subscribers`, `DROP INDEX deliveries_in_order`, `ALTER TABLE deliveries DROP COLUMN position`,
		`ALTER TABLE events DROP COLUMN session_id`, `DELETE FROM schema_version WHERE version_id > 1`)
	_, err := store.Move(t.Context(), store.MoveOptions{From: from, To: to})
	check(t, err)
	wantUsers(t, storetest.Open(t, to, nil), "a")
}
