package database

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// defaultConnections is how many are open at most where Options says nothing.
	defaultConnections = 32
	// statementTimeout bounds one statement, lock waits included.
	statementTimeout = 5 * time.Second
	// lockTimeout is shorter, so that the log names what was waited for.
	lockTimeout = 4 * time.Second
	// idleInTx is how long a replica that stopped in the middle of a transaction
	// keeps its rows.
	idleInTx = 5 * time.Second
	// txTimeout bounds a transaction with all its tries, and before that the
	// wait for a connection.
	txTimeout = 10 * time.Second
	// txTries bounds how often one is run that PostgreSQL asks to run again.
	txTries = 8
	// connectTimeout is for each host that the URL names.
	connectTimeout = 3 * time.Second
	// deadAfter is when a connection whose other end acknowledges nothing is
	// given up: in use after this time, idle by keepalives a little later.
	deadAfter = 4 * time.Second
	// copyDeadAfter is that for a copy, which the other end may leave unread while
	// it waits for its disk: to Linux a full buffer there looks the same.
	copyDeadAfter = 2 * time.Minute
)

// Postgres is a PostgreSQL database, as DB has it beneath.
type Postgres struct {
	config    *pgx.ConnConfig
	db        *sql.DB
	txTimeout time.Duration
	now       func() time.Time
	stop      context.CancelFunc
	*metrics
}

// OpenPostgres opens a database to copy a whole one into it: whatever it holds, and
// with a long timeout for a server that waits for its disk. Its options' Unchecked and
// Serve don't count.
func OpenPostgres(ctx context.Context, o Options) (*Postgres, error) {
	o.Unchecked, o.Serve, o.deadAfter = true, false, copyDeadAfter
	db, err := openPostgres(ctx, o)
	if err != nil {
		return nil, err
	}
	return db.engine.(*Postgres), nil
}

// Conn is a connection of its own, which the caller closes. It can copy.
func (e *Postgres) Conn(ctx context.Context) (*pgx.Conn, error) {
	return pgx.ConnectConfig(ctx, e.config)
}

func openPostgres(ctx context.Context, o Options) (*DB, error) {
	config, err := parsePostgres(o.URL)
	if err != nil {
		return nil, err
	}
	configure(config, cmp.Or(o.deadAfter, deadAfter))
	size := cmp.Or(o.Connections, defaultConnections)
	db := openPool(config)
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	db.SetConnMaxIdleTime(5 * time.Minute)

	e := &Postgres{config: config, db: db, txTimeout: cmp.Or(o.txTimeout, txTimeout), now: o.Now, stop: func() {}, metrics: newMetrics()}
	e.own = ofPool(db.Stats)
	s := &DB{engine: e, readers: viaSQL{db}, timeout: readTimeout, metrics: e.metrics, log: o.Log}
	if err := e.open(ctx, s, o); err != nil {
		explained := fmt.Errorf("PostgreSQL at %s: %w", hosts(config), e.Explain(err))
		if e.away(err) {
			explained = awayError{explained}
		}
		return nil, errors.Join(explained, e.Close())
	}
	s.now = e.now
	return s, nil
}

// configure sets what every connection needs, whatever the URL and the
// database's defaults say.
func configure(config *pgx.ConnConfig, deadAfter time.Duration) {
	for name, value := range map[string]string{
		"application_name": "kwai",
		// An answer must be durable: a caller who got it relies on it. READ
		// COMMITTED is what the queries are written for.
		"synchronous_commit":                  "on",
		"default_transaction_isolation":       "read committed",
		"default_transaction_read_only":       "off",
		"statement_timeout":                   milliseconds(statementTimeout),
		"lock_timeout":                        milliseconds(lockTimeout),
		"idle_in_transaction_session_timeout": milliseconds(idleInTx),
		// The server, too, finds out soon that a replica's machine has gone, and
		// ends its sessions with the locks that they hold.
		"tcp_keepalives_idle":     "2",
		"tcp_keepalives_interval": "1",
		"tcp_keepalives_count":    "3",
	} {
		config.RuntimeParams[name] = value
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	// What a standby answers may be old: a token whose session has ended would
	// be accepted. So of several hosts only the one that can write will do.
	config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	// After a failover a connection may lead to what is a standby now: it is
	// closed, so that the next one finds the new primary.
	closes := config.OnPgError
	config.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		return err.Code != readOnly && closes(conn, err)
	}
	// A cut is noticed within about five seconds, while a slow statement isn't
	// taken for one.
	config.DialFunc = (&net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3},
		Control: func(network, _ string, c syscall.RawConn) error {
			return setUserTimeout(network, c, deadAfter)
		},
	}).DialContext
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// openPool opens a pool that hands out no connection of which it can be seen
// that the server has ended it, at a restart, say: such a one is tried, found
// broken and replaced, and nobody's request fails for it.
func openPool(config *pgx.ConnConfig) *sql.DB {
	return stdlib.OpenDB(*config, stdlib.OptionShouldPing(func(_ context.Context, p stdlib.ShouldPingParams) bool {
		return stale(p.Conn.PgConn().Conn(), p.IdleDuration)
	}))
}

func (e *Postgres) open(ctx context.Context, s *DB, o Options) error {
	server, err := e.inspect(ctx)
	if err != nil {
		return err
	}
	if err := server.check(); err != nil {
		return err
	}
	if e.now == nil {
		c := newClock(clockSkew)
		if err := c.measure(ctx, e.db); err != nil {
			return err
		}
		ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		e.now, e.stop = c.now, stop
		e.own = append(e.own, gauge("kwai_database_clock_offset_seconds", "How far the database's clock is ahead of this machine's.", nil,
			func() float64 { return time.Duration(c.offset.Load()).Seconds() }))
		go c.follow(ctx, e.db, o.Log)
	}
	if o.Serve {
		if server.fsync == "off" {
			o.Log.Warn("PostgreSQL runs with fsync=off: what was answered may be lost with its power")
		}
		if err := e.Migrate(ctx, o.Log); err != nil {
			return err
		}
	}
	if o.Unchecked {
		return nil
	}
	return s.CheckVersion(ctx)
}

// Close closes all connections.
func (e *Postgres) Close() error {
	e.stop()
	return e.db.Close()
}

func (e *Postgres) inTx(ctx context.Context, one bool, fn func(*Tx) error) error {
	waiting, cancel := context.WithTimeout(ctx, e.txTimeout)
	defer cancel()
	conn, err := e.db.Conn(waiting)
	if err != nil {
		return err
	}
	defer conn.Close()
	// A caller who goes away doesn't interrupt what has begun.
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), e.txTimeout)
	defer cancel()
	for try := 1; ; try++ {
		var err error
		if one {
			err = fn(newTx(ctx, viaSQL{conn}, e.now(), true))
		} else {
			err = e.try(ctx, conn, fn)
		}
		if !retryable(err) || try == txTries {
			return err
		}
		e.retries.Inc()
		// Two that met once should not meet again.
		select {
		case <-time.After(rand.N(time.Duration(try) * 10 * time.Millisecond)): //nolint:gosec // no secret
		case <-ctx.Done():
			return err
		}
	}
}

func (e *Postgres) try(ctx context.Context, conn *sql.Conn, fn func(*Tx) error) error {
	t, err := conn.BeginTx(ctx, nil)
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

// SQL is a *sql.DB, *sql.Conn or *sql.Tx.
type SQL interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// viaSQL is an executor over one.
type viaSQL struct{ db SQL }

func (q viaSQL) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := q.db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (q viaSQL) Query(ctx context.Context, each rowFunc, query string, args ...any) error {
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

// away says whether an error of opening is of a server that isn't there, or not
// ready, and not of one that refuses these settings.
func (e *Postgres) away(err error) bool {
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	if _, answered := errors.AsType[*pgconn.PgError](err); connecting && !answered {
		return cut(err) || errors.Is(err, pgconn.ErrReadOnlyConnection)
	}
	return e.trouble(err) != noTrouble
}

// cut says whether an error is the network's.
func cut(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (e *Postgres) trouble(err error) trouble {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case readOnly, // a standby, or a failover under way
			diskFull,
			noPrivilege: // also what some who run PostgreSQL for others do beyond a quota
			return unwritable
		case lockNotAvailable,
			"25P03": // it was idle in a transaction for too long
			return passing
		}
		switch pg.Code[:2] {
		case "58", // I/O
			"XX": // damaged
			return unwritable
		case "08", // connection
			"40", // asks for another try
			"53", // out of memory or connections
			"57": // shutting down, cancelled by a time-out
			return passing
		}
		return noTrouble
	}
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	if connect || cut(err) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, sql.ErrTxDone) || errors.Is(err, pgconn.ErrConnClosed) {
		return passing
	}
	return noTrouble
}
