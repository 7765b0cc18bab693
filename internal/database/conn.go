package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLiteConn is a connection to an SQLite database that prepares each text once. It uses the
// driver without database/sql, whose pool and conversions cost half as much as a
// short query. One goroutine at a time may use it.
type SQLiteConn struct {
	conn  driver.Conn
	stmts map[string]driver.Stmt
}

// OpenSQLiteConn opens a file that FileDSN names.
func OpenSQLiteConn(dsn string) (*SQLiteConn, error) {
	conn, err := new(sqlite.Driver).Open(dsn)
	if err != nil {
		return nil, err
	}
	return &SQLiteConn{conn, make(map[string]driver.Stmt)}, nil
}

// prepare returns a statement and its arguments as the driver wants them.
func (c *SQLiteConn) prepare(query string, args []any) (driver.Stmt, []driver.NamedValue, error) {
	stmt, ok := c.stmts[query]
	if !ok {
		var err error
		if stmt, err = c.conn.Prepare(query); err != nil {
			return nil, nil, err
		}
		c.stmts[query] = stmt
	}
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		value, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return nil, nil, err
		}
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: value}
	}
	return stmt, values, nil
}

// Exec and Query run to their end whatever becomes of the context: an interrupted
// write would undo its neighbours', and to watch over a read costs more than most
// reads.
func (c *SQLiteConn) Exec(_ context.Context, query string, args ...any) (int64, error) {
	stmt, values, err := c.prepare(query, args)
	if err != nil {
		return 0, err
	}
	result, err := stmt.(driver.StmtExecContext).ExecContext(context.Background(), values)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Query calls each with the rows.
func (c *SQLiteConn) Query(_ context.Context, each rowFunc, query string, args ...any) error {
	stmt, values, err := c.prepare(query, args)
	if err != nil {
		return err
	}
	rows, err := stmt.(driver.StmtQueryContext).QueryContext(context.Background(), values)
	if err != nil {
		return err
	}
	row := make([]driver.Value, len(rows.Columns()))
	scan := func(dest ...any) error { return scanRow(row, dest) }
	for more := true; more && err == nil; {
		if err = rows.Next(row); err == nil {
			more, err = each(scan)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, rows.Close())
}

// scanRow copies a row's values to the kinds of variables that the queries scan
// into.
func scanRow(row []driver.Value, dest []any) error {
	if len(row) != len(dest) {
		return fmt.Errorf("a row of %d columns is scanned into %d variables", len(row), len(dest))
	}
	for i, value := range row {
		ok := true
		switch d := dest[i].(type) {
		case *string:
			*d, ok = value.(string)
		case *int64:
			*d, ok = value.(int64)
		case *int:
			var n int64
			n, ok = value.(int64)
			*d = int(n)
		case *[]byte:
			var b []byte
			b, ok = value.([]byte)
			*d = slices.Clone(b)
		case sql.Scanner:
			if err := d.Scan(value); err != nil {
				return err
			}
		default:
			ok = false
		}
		if !ok {
			return fmt.Errorf("column %d is a %T, which doesn't go into a %T", i, value, dest[i])
		}
	}
	return nil
}

// Rows runs a query whose rows the caller takes as the driver has them, and closes.
func (c *SQLiteConn) Rows(ctx context.Context, query string) (driver.Rows, error) {
	stmt, values, err := c.prepare(query, nil)
	if err != nil {
		return nil, err
	}
	return stmt.(driver.StmtQueryContext).QueryContext(ctx, values)
}

// Reader reads on the connection.
func (c *SQLiteConn) Reader(ctx context.Context) Reader {
	return Reader{ctx: ctx, q: c, wrap: unwrapped}
}

// Close closes the statements first: until then SQLite keeps the connection, and
// with it its locks.
func (c *SQLiteConn) Close() error {
	var errs []error
	for _, stmt := range c.stmts {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, c.conn.Close())...)
}

// readers are connections that read, each opened when all others are busy: two more
// than there are cores, for those that wait for the disk. More would have the rate
// no higher, but each takes its cache and what SQLite needs beside it.
type readers struct {
	dsn   string
	turns chan struct{} // holds one for each that is busy

	mu     sync.Mutex
	free   []*SQLiteConn // the last one used comes last, and is used next
	closed bool

	waits, waited atomic.Int64 // for a turn, how often and how many nanoseconds
}

func newReaders(dsn string) *readers {
	return &readers{dsn: dsn, turns: make(chan struct{}, runtime.GOMAXPROCS(0)+2)}
}

// with runs f on a connection. A caller may leave while it waits for one.
func (r *readers) with(ctx context.Context, f func(*SQLiteConn) error) error {
	select {
	case r.turns <- struct{}{}:
	default:
		begun := time.Now()
		select {
		case r.turns <- struct{}{}:
			r.waits.Add(1)
			r.waited.Add(int64(time.Since(begun)))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-r.turns }()
	c, err := r.take()
	if err != nil {
		return err
	}
	healthy := false
	defer func() { r.put(c, healthy) }()
	err = f(c)
	switch SQLiteCode(err) {
	case 0, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY:
		healthy = true
	}
	return err
}

func (r *readers) take() (*SQLiteConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errClosed
	}
	if n := len(r.free); n > 0 {
		c := r.free[n-1]
		r.free = r.free[:n-1]
		return c, nil
	}
	return OpenSQLiteConn(r.dsn)
}

// put gives a connection back. One that isn't healthy is left, and another opened
// in its place when it is needed.
func (r *readers) put(c *SQLiteConn, healthy bool) {
	if !healthy {
		_ = c.Close() // its error was returned already
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free = append(r.free, c)
}

func (r *readers) Query(ctx context.Context, each rowFunc, query string, args ...any) error {
	return r.with(ctx, func(c *SQLiteConn) error { return c.Query(ctx, each, query, args...) })
}

func (r *readers) stats() sql.DBStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sql.DBStats{InUse: len(r.turns), Idle: len(r.free), MaxOpenConnections: cap(r.turns),
		WaitCount: r.waits.Load(), WaitDuration: time.Duration(r.waited.Load())}
}

// close waits for what is being read.
func (r *readers) close() error {
	for range cap(r.turns) {
		r.turns <- struct{}{}
	}
	r.mu.Lock() // somebody may ask how many there are
	defer r.mu.Unlock()
	r.closed = true
	var errs []error
	for _, c := range r.free {
		errs = append(errs, c.Close())
	}
	r.free = nil
	for range cap(r.turns) {
		<-r.turns // later calls find that it is closed
	}
	return errors.Join(errs...)
}
