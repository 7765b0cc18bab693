package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// writer is the one writer of a SQLite database. Transactions that wait at the
// same time are committed together: a commit costs an fsync, and one for many
// lets a busy server answer many times as much. It never waits to fill a batch.
//
// Each transaction of a batch is a savepoint: one that fails or panics is
// undone alone. An error of the engine may have undone more than its own
// statement; then the whole batch is, and each transaction is run again alone.
type writer struct {
	db   *sql.DB
	conn *sql.Conn
	q    *prepared
	now  func() time.Time
	log  *slog.Logger

	patience time.Duration
	gapAt    time.Time // when the lock was last free for so long

	jobs    chan *job
	closing sync.RWMutex // held for reading while jobs are handed in
	closed  bool
	stopped chan struct{}
}

const (
	maxBatch = 256
	// maxHold is how long one transaction may hold up the others.
	maxHold = 5 * time.Second
	// The server and the commands beside it wait so long for each other.
	serverPatience  = 5 * time.Second
	commandPatience = 30 * time.Second
	// SQLite's lock isn't fair: a server that writes all the time leaves a gap
	// now and then, in which a command that looks each millisecond gets it.
	gapEvery = 100 * time.Millisecond
	gap      = 2 * time.Millisecond
)

var (
	errClosed  = fmt.Errorf("%w: it is being closed", ErrUnavailable)
	errTooLong = fmt.Errorf("%w: the transaction took too long", ErrUnavailable)
)

// job is a transaction that waits or runs.
type job struct {
	fn   func(*Tx) error
	done chan struct{} // closed when err and panicked are final

	mu    sync.Mutex
	state jobState

	outcome
}

type jobState int

const (
	waiting jobState = iota
	running
	left // its caller went away before its turn
)

// leave takes a waiting job out of the queue.
func (j *job) leave() bool { return j.move(left) }

func (j *job) move(to jobState) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state != waiting {
		return false
	}
	j.state = to
	return true
}

func startWriter(ctx context.Context, db *sql.DB, o Options) (*writer, error) {
	w := &writer{db: db, now: o.Now, log: o.Log, jobs: make(chan *job, maxBatch), stopped: make(chan struct{})}
	if w.now == nil {
		w.now = time.Now
	}
	w.patience = commandPatience
	if o.Serve {
		w.patience = serverPatience
	}
	if err := w.connect(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	go w.run()
	return w, nil
}

func (w *writer) connect(ctx context.Context) error {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	w.conn, w.q = conn, &prepared{conn: conn}
	// From here on begin does the waiting: SQLite's own would soon look every
	// 100 ms only.
	return w.sql(`PRAGMA busy_timeout = 5`)
}

// do runs fn in a transaction, in its turn.
func (w *writer) do(ctx context.Context, fn func(*Tx) error) error {
	j := &job{fn: fn, done: make(chan struct{})}
	if err := w.hand(ctx, j); err != nil {
		return err
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		if j.leave() {
			return ctx.Err()
		}
		<-j.done // it is its turn: what it does stands, so it is answered
	}
	if j.panicked != nil {
		panic(j.panicked)
	}
	return j.err
}

func (w *writer) hand(ctx context.Context, j *job) error {
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
	return errors.Join(err, w.q.close(), w.conn.Close(), w.db.Close())
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
		batch = append(batch[:0], j)
	fill:
		for len(batch) < maxBatch {
			select {
			case j, ok := <-w.jobs:
				if !ok {
					break fill
				}
				batch = append(batch, j)
			default:
				break fill
			}
		}
		n := 0
		for _, j := range batch {
			if j.move(running) {
				batch[n] = j
				n++
			}
		}
		w.commit(batch[:n])
		clear(batch)
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

// commit runs the jobs in one durable transaction and answers each.
func (w *writer) commit(jobs []*job) {
	if len(jobs) == 0 {
		return
	}
	if err := w.begin(); err != nil {
		if sqliteCode(err) != sqlite3.SQLITE_BUSY {
			w.reconnect()
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		answer(jobs, err) // the lock wasn't to be had: trying each alone would take as long again, each time
		return
	}
	now := w.now()
	for _, j := range jobs {
		if err := w.runIn(j, now); err != nil {
			w.rollback()
			w.again(jobs, j, err)
			return
		}
	}
	if err := w.sql(`COMMIT`); err != nil {
		w.rollback()
		w.again(jobs, jobs[len(jobs)-1], err)
		return
	}
	answer(jobs, nil)
}

// begin takes the write lock, for which another process may be ahead.
func (w *writer) begin() error {
	deadline := time.Now().Add(w.patience)
	for {
		err := w.sql(`BEGIN IMMEDIATE`)
		if sqliteCode(err) != sqlite3.SQLITE_BUSY || time.Now().After(deadline) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// again runs each job alone after the batch failed with err in culprit; a job
// that was alone in its batch has its answer.
func (w *writer) again(jobs []*job, culprit *job, err error) {
	if len(jobs) == 1 {
		answer(jobs, err)
		return
	}
	if errors.Is(err, errTooLong) {
		// It has held the others up once.
		answer([]*job{culprit}, err)
	}
	for _, j := range jobs {
		select {
		case <-j.done:
		default:
			w.commit([]*job{j})
		}
	}
}

// answer ends the jobs: those that did not fail by themselves get err.
func answer(jobs []*job, err error) {
	for _, j := range jobs {
		if err != nil {
			j.outcome = outcome{err: err}
		}
		close(j.done)
	}
}

// runIn runs a job in a savepoint of its own. Its own failure is kept in the
// job; the error returned is the engine's, and the batch is lost with it.
func (w *writer) runIn(j *job, now time.Time) error {
	if err := w.sql(`SAVEPOINT job`); err != nil {
		return err
	}
	// Without cancellation: an interrupted statement would roll back the batch.
	tx := &Tx{Reader: Reader{ctx: context.Background(), q: w.q}, Now: now}
	tx.tx = tx
	result := make(chan outcome, 1)
	go reportOutcome(result, func() error { return j.fn(tx) })
	hold := time.NewTimer(maxHold)
	defer hold.Stop()
	select {
	case j.outcome = <-result:
	case <-hold.C:
		// Whatever it waits for, it isn't SQLite: from here on it gets errors.
		tx.end()
		w.log.Error("a transaction took too long and was undone")
		return errTooLong
	}
	if tx.failed != nil && sqliteCode(tx.failed) != sqlite3.SQLITE_CONSTRAINT {
		return tx.failed
	}
	if j.err != nil || j.panicked != nil {
		if err := w.sql(`ROLLBACK TO job`); err != nil {
			return err
		}
	}
	return w.sql(`RELEASE job`)
}

// outcome is how a transaction's function ended.
type outcome struct {
	err      error
	panicked any
}

// reportOutcome runs fn and sends how it ended, however it ended.
func reportOutcome(to chan<- outcome, fn func() error) {
	// Goexit is no return: it must not pass for one.
	o := outcome{panicked: "the transaction's goroutine exited"}
	defer func() {
		if p := recover(); p != nil {
			o.panicked = p
		}
		to <- o
	}()
	o.err = fn()
	o.panicked = nil
}

func (w *writer) rollback() {
	// It fails where the engine has rolled back by itself: that is as good.
	if err := w.sql(`ROLLBACK`); err == nil || sqliteCode(err) == sqlite3.SQLITE_ERROR {
		return
	}
	w.reconnect()
}

// reconnect leaves a connection in an unknown state.
func (w *writer) reconnect() {
	_ = w.q.close()
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn }) // this is how database/sql is told
	if err := w.connect(context.Background()); err != nil {
		w.log.Error("opening the database again", "error", err)
	}
}

func (w *writer) sql(query string) error {
	_, err := w.q.ExecContext(context.Background(), query)
	return err
}
