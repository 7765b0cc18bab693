// Package database opens SQLite or PostgreSQL, runs transactions and reads on
// it, and brings its schema up to date. It knows the tables meta and
// schema_version alone: package store has the others, with their queries.
//
// One SQL text runs on both engines. What differs stands here: how to open, how
// to run a transaction, what an error means.
//
//	sqlite.go          opens SQLite, and locks it for one server
//	conn.go            a connection to it, and those that read
//	writer.go batch.go its one writer, which commits transactions together
//	postgres.go        PostgreSQL: connections, transactions, errors
//	postgres_open.go   what is checked before it is used; advice on errors
//	postgres_url.go    its URL, read strictly
//	clock.go           the time, which all replicas agree on
//	schema.go          versions, migrations and a move's marks
//	writes.go          whether the database can be written
//	metrics.go         what is counted
//
// Read with [DB.Read], write with [DB.InTx]:
//
//	name, err := database.QueryRow(db.Read(ctx), database.Column[string], `SELECT …`, id)
//	err = db.InTx(ctx, func(tx *database.Tx) error { … tx.Exec(`UPDATE …`) … })
//
// What it promises: when InTx has returned nil, the change is on the disk (an
// fsync came before), and every later Read sees it. When InTx has returned an
// error, nobody has been given an answer that relies on the change. The change
// may still have happened, if the error came from the commit itself.
//
// docs/architecture.md, Package database, has the reasons.
package database

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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

// Options opens a database. The zero value of each field but URL will do.
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
	// Unchecked leaves it to the caller to call CheckVersion.
	Unchecked bool
	// deadAfter and txTimeout replace the constants of these names unless they are 0.
	deadAfter, txTimeout time.Duration
}

// engine is what differs between SQLite and PostgreSQL.
type engine interface {
	// inTx runs fn in a transaction; one says that fn is one statement.
	inTx(ctx context.Context, one bool, fn func(*Tx) error) error
	// trouble is what an error says of the database.
	trouble(err error) trouble
	Close() error
}

// trouble is what is wrong with a database.
type trouble int

const (
	noTrouble  trouble = iota // the error is about what was asked
	passing                   // it passes by itself, or by an operator's hand
	unwritable                // so does this; until then it may be read, and not be written
)

// DB is an open database. It is safe for concurrent use.
type DB struct {
	engine
	readers querier
	timeout time.Duration // of a read; 0: none
	now     func() time.Time
	metrics *metrics
	writes  writes
	log     *slog.Logger
}

// querier runs statements that return rows, and calls each with them.
type querier interface {
	Query(ctx context.Context, each rowFunc, query string, args ...any) error
}

// executor runs any, also those of which only how many rows they changed counts.
type executor interface {
	querier
	Exec(ctx context.Context, query string, args ...any) (changed int64, err error)
}

// rowFunc is called with each row for as long as it returns true.
type rowFunc func(scan Scan) (more bool, err error)

// Scan copies the columns of a row.
type Scan func(dest ...any) error

// Open opens the database that o.URL names. Its errors are for the person who
// set it, in one line, and never hold a password.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch scheme, rest, _ := strings.Cut(o.URL, "://"); scheme {
	case "sqlite":
		s, err := openSQLite(ctx, rest, o)
		switch SQLiteCode(err) {
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
func (db *DB) Close() error { return db.engine.Close() }

// Now is the time that transactions are stamped with.
func (db *DB) Now() time.Time { return db.now() }

// Ready is nil if requests can be served: the database answers, and it can be
// written as far as is known ([DB.TryWriting]).
func (db *DB) Ready(ctx context.Context) error {
	if err := db.CheckVersion(ctx); err != nil {
		return err
	}
	return db.writes.err()
}

// InTx runs fn in a transaction and returns when it is durable, or was undone
// because fn returned an error. fn may be run more than once: it must have no
// effect outside tx. It runs to its end even if ctx ends meanwhile; a caller
// whose ctx ends before fn's turn gets ctx's error. A refusal that must be
// written is a nil error: the caller notes it in a variable.
func (db *DB) InTx(ctx context.Context, fn func(*Tx) error) error {
	return db.run(ctx, false, fn)
}

// Statement is InTx for an fn of a single statement, which stands if it succeeds,
// whatever fn returns. PostgreSQL then needs no BEGIN and COMMIT, two round
// trips fewer, and SQLite no savepoint.
func (db *DB) Statement(ctx context.Context, fn func(*Tx) error) error {
	return db.run(ctx, true, fn)
}

func (db *DB) run(ctx context.Context, one bool, fn func(*Tx) error) error {
	err := db.inTx(ctx, one, func(tx *Tx) error {
		tx.count = db.metrics.statements
		return fn(tx)
	})
	switch {
	case err == nil:
		db.metrics.transactions.Inc()
	case db.trouble(err) == unwritable:
		db.writes.suspect.Store(true)
	}
	return db.wrap(err)
}

// Read reads what has been committed. Each of the Reader's calls sees the
// state of its own moment.
func (db *DB) Read(ctx context.Context) Reader {
	return Reader{ctx: ctx, timeout: db.timeout, q: db.readers, count: db.metrics.reads, wrap: db.wrap}
}

func (db *DB) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnavailable):
	case errors.Is(err, context.DeadlineExceeded) || db.trouble(err) != noTrouble:
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return err
	}
	db.metrics.unavailable.Inc()
	return err
}

// Reader has the queries that change nothing.
type Reader struct {
	ctx     context.Context //nolint:containedctx // a Reader lives for one call
	timeout time.Duration   // of a query, if it has one of its own
	q       querier
	count   prometheus.Counter // of its statements; may be nil
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

	next *atomic.Uint32 // see Next

	ended  bool  // it was a single statement, which has run
	failed error // the last error of the engine, if any
}

// NewReader reads by database/sql.
func NewReader(ctx context.Context, db SQL) Reader {
	return Reader{ctx: ctx, q: viaSQL{db}, wrap: unwrapped}
}

func unwrapped(err error) error { return err }

var errEnded = errors.New("the transaction has ended")

func newTx(ctx context.Context, by executor, now time.Time, one bool) *Tx {
	tx := &Tx{Reader: Reader{ctx: ctx, q: by}, Now: now, by: by, one: one, next: new(atomic.Uint32)}
	tx.tx = tx
	return tx
}

// Next counts from 1: what happens in a transaction, and in those that share its
// Now because they are committed together, in its order.
func (tx *Tx) Next() uint32 { return tx.next.Add(1) }

// statement runs one statement and notes an error of the engine: the transaction
// may be lost with it even if the caller forgives it.
func (r Reader) statement(run func() error) error {
	if r.count != nil {
		r.count.Inc()
	}
	if r.tx == nil {
		return r.wrap(run())
	}
	if r.tx.ended {
		return errEnded
	}
	if r.tx.failed != nil && SQLiteCode(r.tx.failed) != sqlite3.SQLITE_CONSTRAINT {
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

// Exec runs a statement and returns how many rows it changed.
func (tx *Tx) Exec(query string, args ...any) (n int64, err error) {
	err = tx.statement(func() (err error) {
		n, err = tx.by.Exec(tx.ctx, query, args...)
		return err
	})
	return n, err
}

// QueryRow returns the query's first row; ErrNotFound if there is none.
func QueryRow[T any](r Reader, scan func(Scan) (T, error), query string, args ...any) (v T, err error) {
	found := false
	err = r.each(func(row Scan) (bool, error) {
		found = true
		v, err = scan(row)
		return false, err
	}, query, args...)
	if err == nil && !found {
		err = ErrNotFound
	}
	return v, err
}

// QueryRows returns all rows of the query.
func QueryRows[T any](r Reader, scan func(Scan) (T, error), query string, args ...any) (all []T, err error) {
	err = r.each(func(row Scan) (bool, error) {
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
		return r.q.Query(ctx, fn, query, args...)
	})
}

// readTimeout bounds a read from PostgreSQL: a database whose host has gone
// answers nothing.
const readTimeout = 10 * time.Second

// Column scans a row of one column.
func Column[T any](scan Scan) (v T, err error) {
	err = scan(&v)
	return v, err
}
