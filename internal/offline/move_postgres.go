package offline

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"

	"kwai/internal/database"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// moveTarget is the PostgreSQL database that is moved into.
type moveTarget struct {
	database *database.Postgres
	conn     *sql.Conn // the one that does it all
	place    string    // HOST:PORT/DATABASE
}

// moveColumn is a column and PostgreSQL's name of its type.
type moveColumn struct{ name, kind string }

func columnNames(columns []moveColumn) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return names
}

func openMoveTarget(ctx context.Context, url string, log *slog.Logger) (*moveTarget, error) {
	db, err := database.OpenPostgres(ctx, database.Options{URL: url, Log: log})
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	t := &moveTarget{database: db, conn: conn}
	err = t.with(func(pg *pgx.Conn) error {
		c := pg.Config()
		t.place = net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + c.Database
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// with lends the connection as pgx knows it, which can copy.
func (t *moveTarget) with(f func(*pgx.Conn) error) error {
	return t.conn.Raw(func(driver any) error { return f(driver.(*stdlib.Conn).Conn()) })
}

func (t *moveTarget) close() error {
	// A connection that was lost has been told already.
	_ = t.conn.Close()
	return t.database.Close()
}

func (t *moveTarget) migrate(ctx context.Context, log *slog.Logger) error {
	if err := t.database.Migrate(ctx, log); err != nil {
		return fmt.Errorf("PostgreSQL at %s: %w", t.place, t.database.Explain(err))
	}
	return nil
}

// targetState is what is in the target.
type targetState struct {
	marks map[string]string // of meta; empty where that isn't there
	inUse string            // a table that has rows; "" for none
}

// accept says whether the database can be moved there, or the move be finished.
func (s targetState) accept(from *moveSource) error {
	copied := s.marks[markMove] != "" && s.marks[markMove] == from.id
	moving := s.marks[database.MarkMoving] != ""
	switch {
	case from.movedTo != "" && !copied:
		return fmt.Errorf("%s has been moved to PostgreSQL already, to another database (%s)", from.path, from.movedTo)
	case moving && !copied:
		return errors.New("a move of another database into it has begun and isn't finished: finish that, or drop this one and create it again")
	case from.movedTo == "" && !moving && s.inUse != "":
		return fmt.Errorf("a kwai uses it already (its table %s has rows): move into an empty one", s.inUse)
	}
	return nil
}

// look reads what is in the target, and refuses one that isn't for kwai.
func (t *moveTarget) look(ctx context.Context) (s targetState, err error) {
	if err := t.database.RefuseForeign(ctx); err != nil {
		return s, err
	}
	err = t.with(func(pg *pgx.Conn) error {
		s, err = lookAt(ctx, pg)
		return err
	})
	return s, err
}

func lookAt(ctx context.Context, pg *pgx.Conn) (s targetState, err error) {
	tables, err := tablesIn(ctx, pg)
	if err != nil {
		return s, err
	}
	if !slices.Contains(tables, "meta") {
		return s, nil
	}
	var have int64
	if err := pg.QueryRow(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM schema_version`).Scan(&have); err != nil {
		return s, err
	}
	if have > database.SchemaVersion() {
		return s, fmt.Errorf("it is of a newer kwai (schema %d, this program knows %d): use that one", have, database.SchemaVersion())
	}
	if s.marks, err = marksIn(ctx, pg); err != nil {
		return s, err
	}
	for _, table := range movedTables[1:] { // meta always has rows
		if s.inUse != "" || !slices.Contains(tables, table) {
			continue
		}
		var used bool
		if err := pg.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM `+table+`)`).Scan(&used); err != nil {
			return s, err
		}
		if used {
			s.inUse = table
		}
	}
	return s, nil
}

// tablesIn are the tables of the schema.
func tablesIn(ctx context.Context, pg *pgx.Conn) ([]string, error) {
	rows, err := pg.Query(ctx, `SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func marksIn(ctx context.Context, pg *pgx.Conn) (map[string]string, error) {
	rows, err := pg.Query(ctx, `SELECT name, value FROM meta`)
	if err != nil {
		return nil, err
	}
	marks := make(map[string]string)
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		marks[name] = value
		return nil
	})
	return marks, err
}

// inTx runs f in one transaction that may take as long as it takes, but doesn't
// wait for long: whoever uses the database now would lose.
func (t *moveTarget) inTx(ctx context.Context, f func(pg *pgx.Conn) error) error {
	return t.with(func(pg *pgx.Conn) error {
		return pgx.BeginFunc(ctx, pg, func(pgx.Tx) error {
			for _, statement := range []string{
				// Not every version has all of them.
				`SELECT set_config(name, '0', true) FROM pg_settings
					WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')`,
				fmt.Sprintf(`SET LOCAL lock_timeout = %d`, moveLockTimeout.Milliseconds()),
			} {
				if _, err := pg.Exec(ctx, statement); err != nil {
					return err
				}
			}
			return f(pg)
		})
	})
}

// unmarked are the tables that take no rows during a move; meta has the marks.
func unmarked() []string { return append(slices.Clone(movedTables[1:]), "leases") }

// copy copies everything, compares what has arrived, and has the target refuse
// to be used until finish.
func (t *moveTarget) copy(ctx context.Context, from *moveSource, progress func(string)) (moved []MovedTable, err error) {
	return moved, t.inTx(ctx, func(pg *pgx.Conn) error {
		all := strings.Join(append(unmarked(), "meta"), ", ")
		do := stepsOn(ctx, pg)
		if do.exec(`LOCK TABLE ` + all + ` IN ACCESS EXCLUSIVE MODE`); do.err != nil {
			return fmt.Errorf("somebody uses it: %w", do.err)
		}
		state, err := lookAt(ctx, pg)
		if err == nil {
			err = state.accept(from)
		}
		if err != nil {
			return err
		}
		if state.marks[database.MarkMoving] != "" {
			progress("removing the copy of a move that wasn't finished")
			do.open()
			do.exec(`TRUNCATE ` + all)
		}
		if do.exec(`DELETE FROM meta`); do.err != nil {
			return do.err
		}
		rebuilt, err := rebuiltOf(ctx, pg)
		if err != nil {
			return err
		}
		for _, r := range slices.Backward(rebuilt) {
			do.exec(r.drop)
		}
		if do.err != nil {
			return do.err
		}
		columns, sums := make(map[string][]moveColumn), make(map[string]checksum)
		for _, table := range movedTables {
			if columns[table], err = columnsOf(ctx, pg, from, table); err != nil {
				return err
			}
			if sums[table], err = copyTable(ctx, pg, from, table, columns[table]); err != nil {
				return fmt.Errorf("copying %s: %w", table, err)
			}
			progress(fmt.Sprintf("copied %d rows of %s", sums[table].rows, table))
			moved = append(moved, MovedTable{table, sums[table].rows})
		}
		for _, r := range rebuilt {
			do.exec(r.create)
		}
		if do.err != nil {
			return do.err
		}
		progress("built the indexes")
		for _, table := range movedTables {
			arrived, err := readBack(ctx, pg, table, columns[table])
			if err != nil {
				return fmt.Errorf("reading %s back: %w", table, err)
			}
			if arrived != sums[table] {
				return fmt.Errorf("%s didn't arrive as it was sent (%d rows of %d): look at both disks", table, arrived.rows, sums[table].rows)
			}
		}
		progress("compared what arrived")
		do.exec(`INSERT INTO meta (name, value) SELECT $1, value FROM meta WHERE name = 'oldest_schema'`, markSchema)
		do.exec(`UPDATE meta SET value = $1 WHERE name = 'oldest_schema'`, strconv.Itoa(noSchema))
		do.exec(`INSERT INTO meta (name, value) VALUES ($1, $2)`, database.MarkMoving, from.id)
		for _, table := range unmarked() {
			// It holds for rows to come only. So nothing is lost should somebody who
			// had come in before the move write, and the copy be made again.
			do.exec(`ALTER TABLE ` + table + ` ADD CONSTRAINT kwai_moving CHECK (false) NOT VALID`)
		}
		do.exec(`ANALYZE ` + all) // the first queries are planned for what is there
		return do.err
	})
}

func stepsOn(ctx context.Context, pg *pgx.Conn) *steps {
	return &steps{run: func(statement string, args ...any) error {
		_, err := pg.Exec(ctx, statement, args...)
		return err
	}}
}

// open lets the tables take rows again.
func (s *steps) open() {
	for _, table := range unmarked() {
		s.exec(`ALTER TABLE ` + table + ` DROP CONSTRAINT IF EXISTS kwai_moving`)
	}
}

func copyTable(ctx context.Context, pg *pgx.Conn, from *moveSource, table string, columns []moveColumn) (sum checksum, err error) {
	rows, err := from.rows(ctx, table, columns)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, rows.close()) }()
	n, err := pg.CopyFrom(ctx, pgx.Identifier{table}, columnNames(columns), rows)
	if err == nil && n != rows.sum.rows {
		err = fmt.Errorf("PostgreSQL took %d rows of %d", n, rows.sum.rows)
	}
	return rows.sum, err
}

// readBack sums what PostgreSQL holds.
func readBack(ctx context.Context, pg *pgx.Conn, table string, columns []moveColumn) (sum checksum, err error) {
	rows, err := pg.Query(ctx, `SELECT `+strings.Join(columnNames(columns), ", ")+` FROM `+table, pgx.QueryResultFormats{pgx.BinaryFormatCode})
	if err != nil {
		return sum, err
	}
	defer rows.Close()
	var row []byte
	for rows.Next() {
		row = row[:0]
		for _, value := range rows.RawValues() {
			row = appendField(row, value)
		}
		sum.add(row)
	}
	return sum, rows.Err()
}

// finish lets the target be used, if it has the copy of that move.
func (t *moveTarget) finish(ctx context.Context, id string) error {
	return t.inTx(ctx, func(pg *pgx.Conn) error {
		do := stepsOn(ctx, pg)
		if do.exec(`LOCK TABLE meta IN ACCESS EXCLUSIVE MODE`); do.err != nil {
			return do.err
		}
		marks, err := marksIn(ctx, pg)
		if err != nil {
			return err
		}
		if marks[database.MarkMoving] != id {
			return errors.New("the copy isn't there any more")
		}
		do.open()
		// A newer program that looked in may have migrated it meanwhile.
		do.exec(`UPDATE meta SET value = $1 WHERE name = 'oldest_schema' AND value = $2`, marks[markSchema], strconv.Itoa(noSchema))
		do.exec(`DELETE FROM meta WHERE name IN ($1, $2)`, database.MarkMoving, markSchema)
		return do.err
	})
}
