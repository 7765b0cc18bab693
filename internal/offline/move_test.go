package offline_test

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/store"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
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
	storetest.Exec(t, db, `PRAGMA foreign_keys = 0`) // of this connection; the rows fit together in the end
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
		storetest.Exec(t, db, fmt.Sprintf(`UPDATE %s SET %s`, table, nulls(t, db, table)))
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
	rows, err := storetest.Raw(t, url).QueryContext(t.Context(), `
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

var newShape struct {
	sync.Once
	lines []string
}

// shapeOfNew is the shape of a new database.
func shapeOfNew(t *testing.T) []string {
	t.Helper()
	newShape.Do(func() { newShape.lines = shape(t, storetest.Postgres(t)) })
	return newShape.lines
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
			db := storetest.Raw(t, from)
			db.SetMaxOpenConns(1)
			tables := fillTables(t, db)
			before := dump(t, db, tables)
			beside, err := store.Open(t.Context(), database.Options{URL: from})
			check(t, err)
			defer beside.Close()

			report, err := offline.Move(t.Context(), offline.MoveOptions{From: from, To: to})
			check(t, err)
			for _, table := range report.Tables {
				if want := int64(len(before[table.Name])); table.Rows != want && table.Name != "meta" {
					t.Errorf("%d rows of %s are reported, want %d", table.Rows, table.Name, want)
				}
			}
			if diff := cmp.Diff(before, dump(t, storetest.Raw(t, to), tables)); diff != "" {
				t.Errorf("what arrived (-want +got):\n%.2000s", diff)
			}
			if diff := cmp.Diff(before, dump(t, db, tables)); diff != "" {
				t.Errorf("what was left (-want +got):\n%.2000s", diff)
			}
			if diff := cmp.Diff(shapeOfNew(t), shape(t, to)); diff != "" {
				t.Errorf("the new database isn't like a new one (-want +got):\n%s", diff)
			}
			check(t, storetest.Open(t, to, nil).InTx(t.Context(), storetest.AddsUser("somebody new")))

			for _, serve := range []bool{true, false} {
				wantRefused(t, database.Options{URL: from, Serve: serve}, "moved to PostgreSQL (127.0.0.1:", "--database", storetest.Path(from))
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

			again, err := offline.Move(t.Context(), offline.MoveOptions{From: from, To: to})
			if err != nil || !again.Already {
				t.Errorf("once more: %+v, %v", again, err)
			}
			_, err = offline.Move(t.Context(), offline.MoveOptions{From: from, To: pgtest.Database(t)})
			wantMoveError(t, err, true, "already", "another database (127.0.0.1:")
		})
	}
}
