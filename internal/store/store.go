// Package store keeps kwai's state in SQLite or PostgreSQL.
//
// One SQL text runs on both. sqlite.go and postgres.go hold what differs: how
// to open, how to run a transaction, what an error means. The queries stand in
// one file per table: users.go, sessions.go, recoveries.go, events.go, keys.go.
//
// Read with [Store.Read], write with [Store.InTx]:
//
//	user, err := db.Read(ctx).UserByEmail(key)
//	err = db.InTx(ctx, func(tx *store.Tx) error { … })
//
// What it promises: when InTx has returned nil, the change is on the disk (an
// fsync came before), and every later Read sees it. When InTx has returned an
// error, the change has not been answered to anybody; it may still have
// happened if the error came from the commit itself.
//
// Two rules keep races out. Races on one row are settled by one conditional
// statement with RETURNING. Races across rows are settled at the user's row:
// whatever makes something under a user (a session, a recovery) or ends it all
// (a reset, a revocation) updates the user's row first, in the same
// transaction, so that one waits for the other.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrNotFound says that no row matches.
var ErrNotFound = errors.New("not found")

// ErrUnavailable is wrapped by errors that pass by themselves or once somebody
// has mended the database (a full disk, a lost connection, a lock held for too
// long): the same request may succeed later.
var ErrUnavailable = errors.New("the database can't do this now")

// ErrAway is what Open's errors are where the database may be there later, or for
// whom tries again: nothing is wrong with the options.
var ErrAway = errors.New("the database is away")

// awayError is an error that is ErrAway, too.
type awayError struct{ error }

func (awayError) Is(target error) bool { return target == ErrAway }
func (e awayError) Unwrap() error      { return e.error }

// Options opens a store. The zero value of each field but URL will do.
type Options struct {
	// URL is sqlite://PATH or postgres://….
	URL string
	// Serve says that this process serves requests: it may create the SQLite
	// database, migrates it, and is the only one that serves it. Without it,
	// Open fails where there is no database or where its schema is not this
	// program's.
	Serve bool
	// Connections is how many PostgreSQL connections are open at most; 0 means 32.
	Connections int
	// Now replaces the clock, for tests.
	Now func() time.Time
	Log *slog.Logger
	// unchecked is set by who looks at the version, and a move's marks, itself.
	unchecked bool
	// deadAfter and txTimeout replace the constants of these names unless they are 0.
	deadAfter, txTimeout time.Duration
}

// engine is what differs between SQLite and PostgreSQL.
type engine interface {
	// inTx runs fn in a transaction; one says that fn is one statement.
	inTx(ctx context.Context, one bool, fn func(*Tx) error) error
	// trouble is what an error says of the database.
	trouble(err error) trouble
	close() error
}

// trouble is what is wrong with a database.
type trouble int

const (
	noTrouble  trouble = iota // the error is about what was asked
	passing                   // it passes by itself, or by an operator's hand
	unwritable                // so does this; until then it may be read, and not be written
)

// Store is an open database. It is safe for concurrent use.
type Store struct {
	engine
	readers querier
	timeout time.Duration // of a read; 0: none
	now     func() time.Time
	metrics *metrics
	writes  writes
	log     *slog.Logger

	// Published, set before the first use, is called after a commit for each
	// subscriber to whom something was published in it, to have it delivered at
	// once; nil leaves it to the next look.
	Published func(subscriber string)
}

// querier runs statements that return rows, and calls each with them.
type querier interface {
	query(ctx context.Context, each rowFunc, query string, args ...any) error
}

// executor runs any, also those of which only how many rows they changed counts.
type executor interface {
	querier
	exec(ctx context.Context, query string, args ...any) (changed int64, err error)
}

// rowFunc is called with each row for as long as it returns true.
type rowFunc func(scan scanFunc) (more bool, err error)

// scanFunc copies the columns of a row.
type scanFunc func(dest ...any) error

// Open opens the database that o.URL names. Its errors are for the person who
// set it, in one line, and never hold a password.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch scheme, rest, _ := strings.Cut(o.URL, "://"); scheme {
	case "sqlite":
		s, err := openSQLite(ctx, rest, o)
		switch sqliteCode(err) {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL:
			err = awayError{err}
		}
		return s, err
	case "postgres", "postgresql":
		return openPostgres(ctx, o)
	default:
		return nil, fmt.Errorf("it must begin with sqlite:// or postgres://")
	}
}

// Close waits for what is being written and closes the database.
func (s *Store) Close() error { return s.close() }

// Now is the time that transactions are stamped with.
func (s *Store) Now() time.Time { return s.now() }

// Ready tells whether requests can be served: the database answers, and it can be
// written as far as is known ([Store.TryWriting]).
func (s *Store) Ready(ctx context.Context) error {
	if err := s.checkVersion(ctx); err != nil {
		return err
	}
	return s.writes.err()
}

// InTx runs fn in a transaction and returns when it is durable, or was undone
// because fn returned an error. fn may be run more than once: it must have no
// effect outside tx. It runs to its end even if ctx ends meanwhile; a caller
// whose ctx ends before fn's turn gets ctx's error. A refusal that must be
// written is a nil error: the caller notes it in a variable.
func (s *Store) InTx(ctx context.Context, fn func(*Tx) error) error {
	return s.run(ctx, false, fn)
}

// Statement is InTx for an fn of a single statement, which stands if it succeeds,
// whatever fn returns. PostgreSQL then needs no BEGIN and COMMIT, two round
// trips fewer, and SQLite no savepoint.
func (s *Store) Statement(ctx context.Context, fn func(*Tx) error) error {
	return s.run(ctx, true, fn)
}

func (s *Store) run(ctx context.Context, one bool, fn func(*Tx) error) error {
	var committed *Tx // the last try
	err := s.inTx(ctx, one, func(tx *Tx) error {
		committed = tx
		return fn(tx)
	})
	switch {
	case err == nil:
		s.metrics.transactions.Inc()
		if s.Published != nil {
			for _, subscriber := range committed.subscribers {
				s.Published(subscriber)
			}
		}
	case s.trouble(err) == unwritable:
		s.writes.fail(err)
	}
	return s.wrap(err)
}

// Read reads what has been committed. Each of the Reader's calls sees the
// state of its own moment.
func (s *Store) Read(ctx context.Context) Reader {
	return Reader{ctx: ctx, timeout: s.timeout, q: s.readers, wrap: s.wrap}
}

func (s *Store) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnavailable):
	case errors.Is(err, context.DeadlineExceeded) || s.trouble(err) != noTrouble:
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return err
	}
	s.metrics.unavailable.Inc()
	return err
}

// Reader has the queries that change nothing.
type Reader struct {
	ctx     context.Context //nolint:containedctx // a Reader lives for one call
	timeout time.Duration   // of a query, if it has one of its own
	q       querier
	wrap    func(error) error
	tx      *Tx // the transaction it belongs to, or nil
}

// Tx is a transaction: the Reader's queries and those that change something.
type Tx struct {
	Reader
	// Now is the transaction's time: every row it writes carries this one.
	Now time.Time

	by  executor
	one bool // it is a single statement

	next        *atomic.Uint32 // see Next
	subscribers []string       // to whom something is published

	mu     sync.Mutex // held while a statement runs
	ended  bool       // no statement may run any more
	failed error      // the last error of the engine, if any
}

var errEnded = errors.New("the transaction has ended")

func newTx(ctx context.Context, by executor, now time.Time, one bool) *Tx {
	tx := &Tx{Reader: Reader{ctx: ctx, q: by}, Now: now, by: by, one: one, next: new(atomic.Uint32)}
	tx.tx = tx
	return tx
}

// Next counts from 1: what happens in a transaction, and in those that share its
// Now because they are committed together, in its order.
func (tx *Tx) Next() uint32 { return tx.next.Add(1) }

// statement runs one statement, never after the transaction has ended, and
// notes an error of the engine: the transaction may be lost with it even if
// the caller forgives it.
func (r Reader) statement(run func() error) error {
	if r.tx == nil {
		return r.wrap(run())
	}
	r.tx.mu.Lock()
	defer r.tx.mu.Unlock()
	if r.tx.ended {
		return errEnded
	}
	if r.tx.failed != nil && sqliteCode(r.tx.failed) != sqlite3.SQLITE_CONSTRAINT {
		// The engine may have undone all so far: what came now would stand alone.
		return r.tx.failed
	}
	err := run()
	if err != nil {
		r.tx.failed = err
	}
	r.tx.ended = r.tx.one
	return err
}

// end keeps the transaction's function from doing anything more.
func (tx *Tx) end() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.ended = true
}

// exec returns how many rows the statement changed.
func (tx *Tx) exec(query string, args ...any) (n int64, err error) {
	err = tx.statement(func() (err error) {
		n, err = tx.by.exec(tx.ctx, query, args...)
		return err
	})
	return n, err
}

// queryRow returns the query's first row; ErrNotFound if there is none.
func queryRow[T any](r Reader, scan func(scanFunc) (T, error), query string, args ...any) (v T, err error) {
	found := false
	err = r.each(func(row scanFunc) (bool, error) {
		found = true
		v, err = scan(row)
		return false, err
	}, query, args...)
	if err == nil && !found {
		err = ErrNotFound
	}
	return v, err
}

// queryRows returns all rows of the query.
func queryRows[T any](r Reader, scan func(scanFunc) (T, error), query string, args ...any) (all []T, err error) {
	err = r.each(func(row scanFunc) (bool, error) {
		v, err := scan(row)
		all = append(all, v)
		return true, err
	}, query, args...)
	return all, err
}

func (r Reader) each(fn rowFunc, query string, args ...any) error {
	return r.statement(func() error {
		ctx := r.ctx
		if r.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, r.timeout)
			defer cancel()
		}
		return r.q.query(ctx, fn, query, args...)
	})
}

// readTimeout bounds a read from PostgreSQL: a database whose host has gone
// answers nothing.
const readTimeout = 10 * time.Second

// column scans a row of one column.
func column[T any](scan scanFunc) (v T, err error) {
	err = scan(&v)
	return v, err
}

// Schema versions.

//go:embed migrations/*.sql
var embedded embed.FS

var (
	migrations, _ = fs.Sub(embedded, "migrations")
	// schemaVersion is the newest migration that this program knows.
	schemaVersion int64 = 4
)

// firstSchema is that of 0.1.0. What was there before nobody can use any more.
const firstSchema = 4

var errBefore = errors.New("it is of a kwai from before 0.1.0, whose databases no later one can use: start with an empty folder or database")

func migrate(ctx context.Context, dialect database.Dialect, db *sql.DB, log *slog.Logger, opts ...goose.ProviderOption) error {
	opts = append(opts, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()), goose.WithTableName("schema_version"))
	provider, err := goose.NewProvider(dialect, db, migrations, opts...)
	if err != nil {
		return err
	}
	have, err := provider.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	if have > 0 && have < firstSchema {
		return errBefore
	}
	done, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	for _, d := range done {
		log.Info("migrated the database", "version", d.Source.Version, "took", d.Duration)
	}
	return nil
}

// checkVersion refuses a database that this program can't use: one that is
// older than its queries, or newer in a way that says so.
func (s *Store) checkVersion(ctx context.Context) error {
	db := s.Read(ctx)
	if err := db.usable(); err != nil {
		return err
	}
	have, err := queryRow(db, column[int64], `SELECT COALESCE(MAX(version_id), 0) FROM schema_version`)
	if err != nil {
		return err
	}
	if have < schemaVersion {
		return fmt.Errorf("its schema is of an older kwai (%d, this program needs %d): start `kwai serve` once to migrate it", have, schemaVersion)
	}
	return nil
}

// usable refuses a database that no migration makes one that this program can use.
func (r Reader) usable() error {
	text, err := queryRow(r, column[string], `SELECT value FROM meta WHERE name = 'oldest_schema'`)
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	if err != nil {
		return fmt.Errorf("it is no kwai database, or it is damaged: %w", err)
	}
	if err := refuseMoved(r); err != nil {
		return err
	}
	oldest, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("its oldest_schema is no number: %q", text)
	}
	if oldest < firstSchema {
		return errBefore
	}
	if oldest > schemaVersion {
		return fmt.Errorf("it is of a newer kwai (schema %d, this program knows %d): use that one", oldest, schemaVersion)
	}
	return nil
}

// Times in rows.

func micros(t time.Time) int64 { return t.UnixMicro() }

// optional is micros with null for the zero time.
func optional(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: !t.IsZero()}
}

// later is, in SQL, the later of the time in a row and the one that would replace
// it. A clock that is behind, like that of a machine without a battery when it
// boots, must not set back what was true before.
func later(have, now string) string {
	return `CASE WHEN ` + have + ` > ` + now + ` THEN ` + have + ` ELSE ` + now + ` END`
}

func fromMicros(n int64) time.Time { return time.UnixMicro(n).UTC() }

func fromOptional(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return fromMicros(n.Int64)
}
