package database

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// writer is the one writer of a SQLite database. Transactions that wait at the
// same time are committed together: a commit costs an fsync, and one for many
// lets a busy server answer many times as much. It never waits to fill a batch.
//
// Here is the queue and the connection; batch.go runs and commits.
type writer struct {
	dsn  string
	conn *SQLiteConn
	now  func() time.Time
	log  *slog.Logger
	*metrics

	timeout time.Duration
	gapAt   time.Time // when the lock was last free for so long

	reopening Recurring

	jobs    chan *job
	closing sync.RWMutex // held for reading while jobs are handed in
	closed  bool
	stopped chan struct{}
}

const (
	maxBatch = 256
	// The server and the commands beside it wait so long for each other.
	serverTimeout  = 5 * time.Second
	commandTimeout = 30 * time.Second
	// SQLite's lock isn't fair: a server that writes all the time leaves a gap
	// now and then, in which a command that looks each millisecond gets it: so
	// seldom that less than one request in a hundred meets one.
	gapEvery = 500 * time.Millisecond
	gap      = 2 * time.Millisecond
)

var (
	errClosed  = fmt.Errorf("%w: it is being closed", ErrUnavailable)
	errNotOpen = fmt.Errorf("%w: it could not be opened again", ErrUnavailable)
)

// job is a transaction that waits or runs.
type job struct {
	fn   func(*Tx) error
	one  bool          // fn is one statement
	done chan struct{} // closed when err and panicked are final

	taken atomic.Bool // by the writer, or by its caller who goes away before its turn

	err      error
	panicked any
}

// take takes a job out of the queue; false if it was taken before.
func (j *job) take() bool { return j.taken.CompareAndSwap(false, true) }

func startWriter(dsn string, o Options, m *metrics) (*writer, error) {
	w := &writer{dsn: dsn, now: o.Now, log: o.Log, metrics: m, jobs: make(chan *job, maxBatch), stopped: make(chan struct{})}
	if w.now == nil {
		w.now = time.Now
	}
	w.timeout = commandTimeout
	if o.Serve {
		w.timeout = serverTimeout
	}
	if err := w.connect(); err != nil {
		return nil, err
	}
	go w.run()
	return w, nil
}

func (w *writer) connect() (err error) {
	if w.conn, err = OpenSQLiteConn(w.dsn); err != nil {
		return err
	}
	// From here on begin does the waiting: SQLite's own would soon look every
	// 100 ms only.
	if err = w.sql(`PRAGMA busy_timeout = 5`); err != nil {
		w.disconnect()
	}
	return err
}

// do runs fn in a transaction, in its turn.
func (w *writer) do(ctx context.Context, one bool, fn func(*Tx) error) error {
	j := &job{fn: fn, one: one, done: make(chan struct{})}
	if err := w.enqueue(ctx, j); err != nil {
		return err
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		if j.take() {
			return ctx.Err()
		}
		<-j.done // it is its turn: what it does stands, so it is answered
	}
	if j.panicked != nil {
		panic(j.panicked)
	}
	return j.err
}

func (w *writer) enqueue(ctx context.Context, j *job) error {
	w.closing.RLock()
	defer w.closing.RUnlock()
	if w.closed {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return err // select would toss for it
	}
	select {
	case w.jobs <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the writer after what waits has been done; checkpoint moves the
// write-ahead log into the database.
func (w *writer) close(checkpoint bool) error {
	w.closing.Lock()
	first := !w.closed
	w.closed = true
	if first {
		close(w.jobs)
	}
	w.closing.Unlock()
	<-w.stopped
	if !first {
		return nil
	}
	var err error
	if checkpoint {
		err = w.sql(`PRAGMA wal_checkpoint(TRUNCATE)`)
	}
	if w.conn != nil {
		err = errors.Join(err, w.conn.Close())
	}
	return err
}

func (w *writer) run() {
	defer close(w.stopped)
	batch := make([]*job, 0, maxBatch)
	for {
		waited := time.Now()
		j, ok := <-w.jobs
		if !ok {
			return
		}
		w.leaveGap(waited)
		for ok {
			if j.take() {
				batch = append(batch, j)
			}
			if len(batch) == maxBatch {
				break
			}
			select {
			case j, ok = <-w.jobs:
			default:
				ok = false
			}
		}
		w.commit(batch)
		clear(batch)
		batch = batch[:0]
	}
}

// leaveGap lets another process have the lock, if it wasn't free of late. The
// writer has waited for work since then.
func (w *writer) leaveGap(since time.Time) {
	now := time.Now()
	switch {
	case now.Sub(since) >= gap:
	case now.Sub(w.gapAt) >= gapEvery:
		time.Sleep(gap)
	default:
		return
	}
	w.gapAt = now
}

// begin takes the write lock, for which another process may be ahead.
func (w *writer) begin() error {
	deadline := time.Now().Add(w.timeout)
	for {
		err := w.sql(`BEGIN IMMEDIATE`)
		if SQLiteCode(err) != sqlite3.SQLITE_BUSY || time.Now().After(deadline) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *writer) rollback() {
	// It fails where the engine has rolled back by itself: that is as good.
	if err := w.sql(`ROLLBACK`); err == nil || SQLiteCode(err) == sqlite3.SQLITE_ERROR {
		return
	}
	w.reconnect()
}

// reconnect leaves a connection in an unknown state.
func (w *writer) reconnect() {
	w.disconnect()
	if err := w.connect(); w.reopening.Log(err) {
		w.log.Error("opening the database again", "error", err)
	}
}

func (w *writer) disconnect() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

func (w *writer) sql(query string) error {
	if w.conn == nil {
		return errNotOpen
	}
	_, err := w.conn.Exec(context.Background(), query)
	return err
}
