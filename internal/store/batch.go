package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// A batch is what is committed together. Each transaction of it is a savepoint,
// unless it is a single statement, which is undone alone without: one that
// fails or panics harms no other. An error of the engine may have undone more
// than its own statement; then the whole batch is, and each transaction is run
// again alone.

var errTooLong = fmt.Errorf("%w: the transaction took too long", ErrUnavailable)

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
	if culprit, err := w.runAll(jobs, w.now()); err != nil {
		w.rollback()
		w.again(jobs, culprit, err)
		return
	}
	begun := time.Now()
	if err := w.sql(`COMMIT`); err != nil {
		w.rollback()
		w.again(jobs, jobs[len(jobs)-1], err)
		return
	}
	w.metrics.commit.Observe(time.Since(begun).Seconds())
	w.batch.Observe(float64(len(jobs)))
	answer(jobs, nil)
}

// runAll runs the jobs. A job's own failure is kept in the job; the error
// returned is the engine's in the culprit, and the batch is lost with it.
func (w *writer) runAll(jobs []*job, now time.Time) (culprit *job, err error) {
	next := new(atomic.Uint32)
	jobs = slices.Clone(jobs) // one that is left behind may look at it later
	for len(jobs) > 0 {
		b := &batch{w: w, jobs: jobs, now: now, next: next, hold: time.NewTimer(maxHold), done: make(chan struct{})}
		// In a goroutine that can be left behind, one for all of them: what they
		// run needs a deep stack, which is dear to grow.
		go b.run()
		select {
		case <-b.done:
			b.hold.Stop()
		case <-b.hold.C:
			// Whatever it waits for, it isn't SQLite: from here on it gets errors.
			w.log.Error("a transaction took too long and was undone")
			return b.abandon(), errTooLong
		}
		if b.err != nil {
			return jobs[b.at], b.err
		}
		jobs = jobs[b.at+1:] // none, unless one has ended the goroutine
	}
	return nil, nil
}

// batch is jobs that are run one after the other.
type batch struct {
	w    *writer
	jobs []*job
	now  time.Time
	next *atomic.Uint32 // of all its transactions
	hold *time.Timer    // for the current one
	done chan struct{}  // closed when at and err are final
	at   int
	err  error // the engine's

	mu        sync.Mutex // held by who uses the connection
	abandoned bool
	current   *job
	tx        *Tx // of the current one
}

func (b *batch) run() {
	defer close(b.done)
	for {
		if b.runJob(b.jobs[b.at]); b.err != nil || b.at == len(b.jobs)-1 {
			return
		}
		b.at++
		b.hold.Reset(maxHold)
	}
}

// runJob runs a job in a savepoint. It keeps its end even where the job ends the
// goroutine.
func (b *batch) runJob(j *job) {
	if b.err = b.begin(j); b.err != nil {
		return
	}
	// Goexit is no return: it must not pass for one.
	o := outcome{panicked: "the transaction's goroutine exited"}
	defer func() {
		if p := recover(); p != nil {
			o.panicked = p
		}
		b.err = b.end(o)
	}()
	err := j.fn(b.tx)
	o = outcome{err: err}
}

func (b *batch) begin(j *job) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.abandoned {
		return errEnded
	}
	// Without cancellation: an interrupted statement would roll back the batch.
	b.current, b.tx = j, newTx(context.Background(), b.w.conn, b.now, j.one)
	b.tx.next = b.next
	if j.one {
		return nil
	}
	return b.w.sql(`SAVEPOINT job`)
}

func (b *batch) end(o outcome) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.abandoned {
		return errEnded
	}
	b.current.outcome = o
	b.tx.end()
	if err := b.tx.failed; err != nil && sqliteCode(err) != sqlite3.SQLITE_CONSTRAINT {
		return err
	}
	if b.current.one {
		return nil
	}
	if o.err != nil || o.panicked != nil {
		if err := b.w.sql(`ROLLBACK TO job`); err != nil {
			return err
		}
	}
	return b.w.sql(`RELEASE job`)
}

// abandon leaves the goroutine behind and returns the job that it is at. No
// statement runs when it returns, nor will one.
func (b *batch) abandon() *job {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.abandoned = true
	if b.tx == nil {
		return b.jobs[0] // it hasn't begun: the whole process stood still
	}
	b.tx.end()
	return b.current
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
			w.retries.Inc()
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
