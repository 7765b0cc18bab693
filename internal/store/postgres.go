package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

const (
	postgresConns = 32
	// statementTimeout bounds one statement, lock waits included.
	statementTimeout = 5 * time.Second
	// txTimeout bounds a transaction with all its tries.
	txTimeout      = 10 * time.Second
	keepAliveEvery = 5 * time.Second
	// txTries bounds how often one is run that PostgreSQL asks to run again.
	txTries = 8
	// clockEvery is how often the offset to the database's clock is measured.
	clockEvery = 3 * time.Second
	clockTries = 5
)

type postgresEngine struct {
	db   *sql.DB
	now  func() time.Time
	stop context.CancelFunc
}

func openPostgres(ctx context.Context, o Options) (*Store, error) {
	config, err := pgx.ParseConfig(o.URL)
	if err != nil {
		// pgx's own error hides the password, but quotes the rest.
		return nil, errors.New("it is no postgres:// URL that can be read: postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	// An answer must be durable, whatever the database's default: a caller who
	// got it relies on it. READ COMMITTED is what the queries are written for.
	for name, value := range map[string]string{
		"application_name":                    "kwai",
		"synchronous_commit":                  "on",
		"default_transaction_isolation":       "read committed",
		"default_transaction_read_only":       "off",
		"statement_timeout":                   fmt.Sprint(statementTimeout.Milliseconds()),
		"idle_in_transaction_session_timeout": fmt.Sprint(txTimeout.Milliseconds()),
	} {
		config.RuntimeParams[name] = value
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	// A connection whose other end has gone is found out while it is idle.
	config.DialFunc = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveEvery, Interval: keepAliveEvery, Count: 3,
	}}).DialContext
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(postgresConns)
	db.SetMaxIdleConns(postgresConns)
	db.SetConnMaxIdleTime(5 * time.Minute)

	e := &postgresEngine{db: db, now: o.Now, stop: func() {}}
	s := &Store{engine: e, readers: viaSQL{db}, timeout: readTimeout}
	if err := e.open(ctx, s, o); err != nil {
		return nil, errors.Join(fmt.Errorf("PostgreSQL at %s: %w", config.Host, err), e.close())
	}
	s.now = e.now
	return s, nil
}

func (e *postgresEngine) open(ctx context.Context, s *Store, o Options) error {
	if err := e.db.PingContext(ctx); err != nil {
		return err
	}
	if e.now == nil {
		c := &clock{base: time.Now()}
		if err := c.measure(ctx, e.db); err != nil {
			return err
		}
		ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		e.now, e.stop = c.now, stop
		go c.follow(ctx, e.db, o.Log)
	}
	if o.Serve {
		e.warn(ctx, o.Log)
		if err := e.migrate(ctx, o.Log); err != nil {
			return err
		}
	}
	if o.unchecked {
		return nil
	}
	return s.checkVersion(ctx)
}

func (e *postgresEngine) migrate(ctx context.Context, log *slog.Logger) error {
	// Replicas that start together take turns; a turn is looked for each second, as
	// migrating takes no longer, for five minutes.
	turns, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return err
	}
	return migrate(ctx, goose.DialectPostgres, e.db, log, goose.WithSessionLocker(turns))
}

// warn says what makes the database break kwai's promises.
func (e *postgresEngine) warn(ctx context.Context, log *slog.Logger) {
	var fsync string
	if err := e.db.QueryRowContext(ctx, `SHOW fsync`).Scan(&fsync); err == nil && fsync == "off" {
		log.Warn("PostgreSQL runs with fsync=off: what was answered may be lost with its power")
	}
}

func (e *postgresEngine) close() error {
	e.stop()
	return e.db.Close()
}

func (e *postgresEngine) inTx(ctx context.Context, one bool, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// A caller who goes away doesn't interrupt what has begun.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), txTimeout)
	defer cancel()
	for try := 1; ; try++ {
		var err error
		if one {
			err = fn(newTx(ctx, viaSQL{e.db}, e.now(), true))
		} else {
			err = e.try(ctx, fn)
		}
		if !retryable(err) || try == txTries {
			return err
		}
		// Two that met once should not meet again.
		select {
		case <-time.After(rand.N(time.Duration(try) * 10 * time.Millisecond)): //nolint:gosec // no secret
		case <-ctx.Done():
			return err
		}
	}
}

func (e *postgresEngine) try(ctx context.Context, fn func(*Tx) error) error {
	t, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	// Undoes it where fn fails or panics; after a commit it does nothing.
	defer func() { _ = t.Rollback() }()
	tx := newTx(ctx, viaSQL{t}, e.now(), false)
	if err := fn(tx); err != nil {
		if tx.failed != nil && !errors.Is(err, tx.failed) {
			return fmt.Errorf("%w (after %w)", err, tx.failed)
		}
		return err
	}
	return t.Commit()
}

// viaSQL is an executor over a *sql.DB or *sql.Tx.
type viaSQL struct {
	db interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
}

func (q viaSQL) exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := q.db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (q viaSQL) query(ctx context.Context, each rowFunc, query string, args ...any) error {
	rows, err := q.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for more := true; more && rows.Next(); {
		if more, err = each(rows.Scan); err != nil {
			return err
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// retryable: serialization failure and deadlock. PostgreSQL has undone the
// transaction and asks to run it again.
func retryable(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "40001" || e.Code == "40P01")
}

func (e *postgresEngine) unavailable(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "25006", // read-only: a standby, or a failover under way
			"55P03", // a lock was not to be had
			"42501": // a privilege is missing
			return true
		}
		switch pg.Code[:2] {
		case "08", // connection
			"40", // asks for another try
			"53", // out of memory, disk or connections
			"57", // shutting down, cancelled by a time-out
			"58", // I/O
			"XX": // damaged
			return true
		}
		return false
	}
	_, network := errors.AsType[net.Error](err)
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	return network || connect || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "conn closed")
}

// clock is the local monotonic clock plus the offset to the database's: so
// replicas agree on the time to within the network's delay, whatever their own
// clocks say.
type clock struct {
	base   time.Time    // with a monotonic reading
	offset atomic.Int64 // nanoseconds
}

func (c *clock) local() time.Time { return c.base.Add(time.Since(c.base)) }

func (c *clock) now() time.Time { return c.local().Add(time.Duration(c.offset.Load())) }

// measure asks the database a few times and believes the quickest answer, which
// leaves the least room for error: half the time it took.
func (c *clock) measure(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	quickest := time.Duration(math.MaxInt64)
	offset := c.offset.Load()
	for range clockTries {
		before := c.local()
		var database int64
		if err := db.QueryRowContext(ctx, `SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)`).Scan(&database); err != nil {
			return err
		}
		if took := c.local().Sub(before); took < quickest {
			quickest = took
			offset = int64(fromMicros(database).Sub(before.Add(took / 2)))
		}
	}
	c.offset.Store(offset)
	return nil
}

func (c *clock) follow(ctx context.Context, db *sql.DB, log *slog.Logger) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// While the database is away the last offset stands: the local
			// clock's own drift is small.
			if err := c.measure(ctx, db); err != nil && ctx.Err() == nil {
				log.Debug("measuring the database's clock", "error", err)
			}
		}
	}
}
