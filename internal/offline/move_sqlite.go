package offline

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"kwai/internal/database"

	"github.com/google/uuid"
	sqlite3 "modernc.org/sqlite/lib"
)

// moveSource is the SQLite database that is moved, and not served meanwhile.
type moveSource struct {
	path    string
	lock    *database.SQLiteConn // held as a server holds it
	conn    *database.SQLiteConn
	id      string // of the move; "" before hold
	movedTo string // "" unless it has been
}

// openMoveSource looks at the database and changes nothing.
func openMoveSource(ctx context.Context, path string) (_ *moveSource, err error) {
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no database %s: --data names another folder", path)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file", path)
	}
	s := &moveSource{path: path}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	if s.lock, err = database.LockSQLite(ctx, path); err != nil {
		return nil, err
	}
	if err := s.connect(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := s.look(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func (s *moveSource) connect() (err error) {
	s.conn, err = database.OpenSQLiteConn(database.FileDSN(s.path, "busy_timeout(5000)", "foreign_keys(1)", "synchronous(FULL)", "trusted_schema(0)"))
	return err
}

// look reads the marks and refuses what is newer than this program: there may be
// tables that it would leave behind.
func (s *moveSource) look(ctx context.Context) error {
	r := s.conn.Reader(ctx)
	marks := make(map[string]string)
	_, err := database.QueryRows(r, func(scan database.Scan) (_ struct{}, err error) {
		var name, value string
		err = scan(&name, &value)
		marks[name] = value
		return struct{}{}, err
	}, `SELECT name, value FROM meta`)
	if err == nil && marks["oldest_schema"] == "" {
		err = database.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("it is no kwai database, or it is damaged: %w", err)
	}
	s.id, s.movedTo = marks[markMove], marks[database.MarkMoved]
	if s.movedTo != "" {
		return nil
	}
	have, err := database.QueryRow(r, database.Column[int64], `SELECT COALESCE(MAX(version_id), 0) FROM schema_version`)
	if err != nil {
		return err
	}
	if have > database.SchemaVersion() {
		return fmt.Errorf("it is of a newer kwai (schema %d, this program knows %d): move it with that one", have, database.SchemaVersion())
	}
	return r.Usable()
}

// hold brings the schema up to date, gives the move its id, and takes the write
// lock: from here until the end of the move nothing can change but by mark.
func (s *moveSource) hold(ctx context.Context, log *slog.Logger) error {
	// While it is migrated nobody else has it open.
	if err := s.conn.Close(); err != nil {
		return err
	}
	if err := database.MigrateSQLite(ctx, s.path, log); err != nil {
		return err
	}
	if err := s.connect(); err != nil {
		return err
	}
	if s.id == "" {
		// It is on the disk before the target has it.
		id := uuid.NewString()
		if err := s.begin(ctx); err != nil {
			return err
		}
		if err := s.commit(ctx, func(do *steps) { do.exec(`INSERT INTO meta (name, value) VALUES ($1, $2)`, markMove, id) }); err != nil {
			return err
		}
		s.id = id
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	// A move would make damage last. What the quick check leaves out, indexes that
	// don't fit their tables, isn't moved: PostgreSQL makes its own, and refuses what
	// they forbid.
	return checkIntegrity(s.conn.Reader(ctx), "quick_check")
}

// commit ends the transaction with the statements of fn.
func (s *moveSource) commit(ctx context.Context, fn func(*steps)) error {
	do := &steps{run: func(query string, args ...any) error {
		_, err := s.conn.Exec(ctx, query, args...)
		return err
	}}
	fn(do)
	do.exec(`COMMIT`)
	return do.err
}

// begin takes the lock, for which a command may be ahead.
func (s *moveSource) begin(ctx context.Context) error {
	for deadline := time.Now().Add(sourceLockTimeout); ; {
		_, err := s.conn.Exec(ctx, `BEGIN IMMEDIATE`)
		if database.SQLiteCode(err) != sqlite3.SQLITE_BUSY {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("another program writes to it: %w", err)
		}
	}
}

// columns are a table's, in their order.
func (s *moveSource) columns(ctx context.Context, table string) (names []string, err error) {
	return database.QueryRows(s.conn.Reader(ctx), database.Column[string], `SELECT name FROM pragma_table_info($1)`, table)
}

// rows reads a table. The caller closes them.
func (s *moveSource) rows(ctx context.Context, table string, columns []moveColumn) (*moveRows, error) {
	rows, err := s.conn.Rows(ctx, `SELECT `+strings.Join(columnNames(columns), ", ")+` FROM `+table)
	if err != nil {
		return nil, err
	}
	return &moveRows{rows: rows, table: table, columns: columns, raw: make([]driver.Value, len(columns)), row: make([]any, len(columns))}, nil
}

// moveRows are the rows of a table in SQLite, and the sum of those that it gave.
type moveRows struct {
	rows    driver.Rows
	table   string
	columns []moveColumn
	raw     []driver.Value
	row     []any
	encoded []byte
	sum     checksum
}

// next makes of SQLite's values, of which each may be of any kind, those of the
// columns' kinds; nil after the last row.
func (r *moveRows) next() ([]any, error) {
	if err := r.rows.Next(r.raw); errors.Is(err, io.EOF) {
		return nil, nil //nolint:nilnil // as pgx.CopyFromFunc wants it
	} else if err != nil {
		return nil, err
	}
	r.encoded = r.encoded[:0]
	for i, value := range r.raw {
		kind, field := "", []byte{} // empty isn't null
		switch v := value.(type) {
		case nil:
			r.row[i] = nil
			r.encoded = appendField(r.encoded, nil)
			continue
		case int64:
			kind, field = "bigint", binary.BigEndian.AppendUint64(field, uint64(v))
			r.row[i] = v
		case string:
			kind, field = "text", append(field, v...)
			if !utf8.ValidString(v) || strings.Contains(v, "\x00") {
				return nil, r.unfit(i, "is no text that PostgreSQL takes (not UTF-8, or with a NUL)")
			}
			r.row[i] = v
		case []byte:
			kind, field = "bytea", append(field, v...)
			r.row[i] = field
		}
		if kind != r.columns[i].kind {
			return nil, r.unfit(i, "isn't of the type "+r.columns[i].kind)
		}
		r.encoded = appendField(r.encoded, field)
	}
	r.sum.add(r.encoded)
	return r.row, nil
}

// unfit names a value without telling it.
func (r *moveRows) unfit(column int, what string) error {
	return fmt.Errorf("a value of %s.%s %s, in the row whose %s is %.64q", r.table, r.columns[column].name, what, r.columns[0].name, fmt.Sprint(r.raw[0]))
}

// mark has the database refuse to be used by anybody, and says where it has gone.
func (s *moveSource) mark(place string) error {
	ctx := context.Background()
	err := s.commit(ctx, func(do *steps) {
		do.exec(`UPDATE meta SET value = $1 WHERE name = 'oldest_schema'`, strconv.Itoa(noSchema))
		do.exec(`INSERT INTO meta (name, value) VALUES ($1, $2)`, database.MarkMoved, place)
		for _, table := range append(slices.Clone(movedTables), keptTables...) {
			for _, change := range []string{"INSERT", "UPDATE", "DELETE"} {
				do.exec(fmt.Sprintf(`CREATE TRIGGER moved_%s_%s BEFORE %s ON %s
					BEGIN SELECT RAISE(ABORT, 'this database has been moved to PostgreSQL'); END`, table, strings.ToLower(change), change, table))
			}
		}
	})
	if err != nil {
		return err
	}
	// One file is left behind; where that fails, the log holds the mark.
	_, _ = s.conn.Exec(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
	return nil
}

// close undoes what hasn't been committed.
func (s *moveSource) close() error {
	var errs []error
	for _, c := range []*database.SQLiteConn{s.conn, s.lock} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
