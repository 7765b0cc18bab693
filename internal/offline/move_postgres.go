package offline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"

	"kwai/internal/database"

	"github.com/jackc/pgx/v5"
)

// moveTarget is the PostgreSQL database that is moved into.
type moveTarget struct {
	database *database.Postgres
	pg       *pgx.Conn // the one that does it all
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
	pg, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	c := pg.Config()
	return &moveTarget{db, pg, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + c.Database}, nil
}

func (t *moveTarget) close() error {
	// A connection that was lost was reported already.
	_ = t.pg.Close(context.Background())
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
	return lookAt(ctx, t.pg)
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
// wait for long: those who use the database meanwhile would be held up.
func (t *moveTarget) inTx(ctx context.Context, f func(do *steps) error) error {
	return pgx.BeginFunc(ctx, t.pg, func(pgx.Tx) error {
		do := stepsOn(ctx, t.pg)
		// Not every version has all of them.
		do.exec(`SELECT set_config(name, '0', true) FROM pg_settings
			WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')`)
		do.exec(fmt.Sprintf(`SET LOCAL lock_timeout = %d`, moveLockTimeout.Milliseconds()))
		if do.err != nil {
			return do.err
		}
		return f(do)
	})
}

// unmarked are the tables that take no rows during a move; meta has the marks.
func unmarked() []string { return append(slices.Clone(movedTables[1:]), "leases") }

// copy copies everything, compares what has arrived, and has the target refuse
// to be used until finish.
func (t *moveTarget) copy(ctx context.Context, from *moveSource, progress func(string)) (moved []MovedTable, err error) {
	return moved, t.inTx(ctx, func(do *steps) error {
		c := &copying{pg: t.pg, from: from, progress: progress, do: do, columns: make(map[string][]moveColumn), sums: make(map[string]checksum)}
		for _, step := range []func(context.Context) error{c.lock, c.fill, c.compare, c.close} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		for _, table := range movedTables {
			moved = append(moved, MovedTable{table, c.sums[table].rows})
		}
		return nil
	})
}

// copying is the copy of all tables within one transaction, step by step.
type copying struct {
	pg       *pgx.Conn
	from     *moveSource
	progress func(string)
	do       *steps

	columns map[string][]moveColumn // by table
	sums    map[string]checksum     // of what was sent
}

// all are the tables that nobody may use meanwhile.
func (*copying) all() string { return strings.Join(append(unmarked(), "meta"), ", ") }

// lock keeps everybody from the target, judges it once more and empties it.
func (c *copying) lock(ctx context.Context) error {
	if c.do.exec(`LOCK TABLE ` + c.all() + ` IN ACCESS EXCLUSIVE MODE`); c.do.err != nil {
		return fmt.Errorf("somebody uses it: %w", c.do.err)
	}
	state, err := lookAt(ctx, c.pg)
	if err == nil {
		err = state.accept(c.from)
	}
	if err != nil {
		return err
	}
	if state.marks[database.MarkMoving] != "" {
		c.progress("removing the copy of a move that wasn't finished")
		c.do.open()
		c.do.exec(`TRUNCATE ` + c.all())
	}
	c.do.exec(`DELETE FROM meta`)
	return c.do.err
}

// fill copies the rows, without the indexes, which it builds then.
func (c *copying) fill(ctx context.Context) error {
	rebuilt, err := rebuiltOf(ctx, c.pg)
	if err != nil {
		return err
	}
	for _, r := range slices.Backward(rebuilt) {
		c.do.exec(r.drop)
	}
	if c.do.err != nil {
		return c.do.err
	}
	for _, table := range movedTables {
		if c.columns[table], err = columnsOf(ctx, c.pg, c.from, table); err != nil {
			return err
		}
		if c.sums[table], err = copyTable(ctx, c.pg, c.from, table, c.columns[table]); err != nil {
			return fmt.Errorf("copying %s: %w", table, err)
		}
		c.progress(fmt.Sprintf("copied %d rows of %s", c.sums[table].rows, table))
	}
	for _, r := range rebuilt {
		c.do.exec(r.create)
	}
	if c.do.err == nil {
		c.progress("built the indexes")
	}
	return c.do.err
}

// compare reads back what has arrived.
func (c *copying) compare(ctx context.Context) error {
	for _, table := range movedTables {
		arrived, err := readBack(ctx, c.pg, table, c.columns[table])
		if err != nil {
			return fmt.Errorf("reading %s back: %w", table, err)
		}
		if arrived != c.sums[table] {
			return fmt.Errorf("%s didn't arrive as it was sent (%d rows of %d): look at both disks", table, arrived.rows, c.sums[table].rows)
		}
	}
	c.progress("compared what arrived")
	return nil
}

// close has the target refuse to be used and take no rows.
func (c *copying) close(context.Context) error {
	c.do.exec(`INSERT INTO meta (name, value) SELECT $1, value FROM meta WHERE name = 'oldest_schema'`, markSchema)
	c.do.exec(`UPDATE meta SET value = $1 WHERE name = 'oldest_schema'`, strconv.Itoa(noSchema))
	c.do.exec(`INSERT INTO meta (name, value) VALUES ($1, $2)`, database.MarkMoving, c.from.id)
	for _, table := range unmarked() {
		// It holds for rows to come only. So nothing is lost should somebody who
		// had come in before the move write, and the copy be made again.
		c.do.exec(`ALTER TABLE ` + table + ` ADD CONSTRAINT kwai_moving CHECK (false) NOT VALID`)
	}
	c.do.exec(`ANALYZE ` + c.all()) // the first queries are planned for what is there
	return c.do.err
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
	defer func() { err = errors.Join(err, rows.rows.Close()) }()
	n, err := pg.CopyFrom(ctx, pgx.Identifier{table}, columnNames(columns), pgx.CopyFromFunc(rows.next))
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
	return t.inTx(ctx, func(do *steps) error {
		if do.exec(`LOCK TABLE meta IN ACCESS EXCLUSIVE MODE`); do.err != nil {
			return do.err
		}
		marks, err := marksIn(ctx, t.pg)
		if err != nil {
			return err
		}
		if marks[database.MarkMoving] != id {
			return errors.New("the copy is gone")
		}
		do.open()
		// A newer program that looked in may have migrated it meanwhile.
		do.exec(`UPDATE meta SET value = $1 WHERE name = 'oldest_schema' AND value = $2`, marks[markSchema], strconv.Itoa(noSchema))
		do.exec(`DELETE FROM meta WHERE name IN ($1, $2)`, database.MarkMoving, markSchema)
		return do.err
	})
}
