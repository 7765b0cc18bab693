package database

import (
	"context"
	"fmt"
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

// commit runs the jobs in one durable transaction and answers each.
func (w *writer) commit(jobs []*job) {
	if len(jobs) == 0 {
		return
	}
	if err := w.begin(); err != nil {
		if SQLiteCode(err) != sqlite3.SQLITE_BUSY {
			w.reconnect()
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		answer(jobs, err) // the lock wasn't to be had: trying each alone would take as long again, each time
		return
	}
	if err := w.runAll(jobs, w.now()); err != nil {
		w.rollback()
		w.again(jobs, err)
		return
	}
	begun := time.Now()
	if err := w.sql(`COMMIT`); err != nil {
		w.rollback()
		w.again(jobs, err)
		return
	}
	w.metrics.commit.Observe(time.Since(begun).Seconds())
	w.batch.Observe(float64(len(jobs)))
	answer(jobs, nil)
}

// runAll runs the jobs. A job's own failure is kept in the job; the error
// returned is the engine's, and the batch is lost with it.
func (w *writer) runAll(jobs []*job, now time.Time) error {
	next := new(atomic.Uint32)
	for len(jobs) > 0 {
		b := &batch{w: w, jobs: jobs, now: now, next: next}
		// A goroutine of its own, so that a job that exits it does not end the
		// writer; one for all of them, since they need a deep stack, which is
		// dear to grow.
		var done sync.WaitGroup
		done.Go(b.run)
		done.Wait()
		if b.err != nil {
			return b.err
		}
		jobs = jobs[b.at+1:] // none, unless one has exited the goroutine
	}
	return nil
}

// batch is jobs that are run one after the other.
type batch struct {
	w    *writer
	jobs []*job
	now  time.Time
	next *atomic.Uint32 // of all its transactions
	at   int            // the job that runs, or ran last
	err  error          // the engine's
}

func (b *batch) run() {
	for {
		if b.runJob(b.jobs[b.at]); b.err != nil || b.at == len(b.jobs)-1 {
			return
		}
		b.at++
	}
}

// runJob runs a job in a savepoint. It keeps its end even where the job exits
// the goroutine.
func (b *batch) runJob(j *job) {
	// Without cancellation: an interrupted statement would roll back the batch.
	tx := newTx(context.Background(), b.w.conn, b.now, j.one)
	tx.next = b.next
	if !j.one {
		if b.err = b.w.sql(`SAVEPOINT job`); b.err != nil {
			return
		}
	}
	// Goexit is no return: it must not pass for one.
	j.outcome = outcome{panicked: "the transaction's goroutine exited"}
	defer func() {
		if p := recover(); p != nil {
			j.panicked = p
		}
		b.err = b.end(j, tx)
	}()
	err := j.fn(tx)
	j.outcome = outcome{err: err}
}

func (b *batch) end(j *job, tx *Tx) error {
	tx.end()
	if err := tx.failed; err != nil && SQLiteCode(err) != sqlite3.SQLITE_CONSTRAINT {
		return err
	}
	if j.one {
		return nil
	}
	if j.err != nil || j.panicked != nil {
		if err := b.w.sql(`ROLLBACK TO job`); err != nil {
			return err
		}
	}
	return b.w.sql(`RELEASE job`)
}

// again runs each job alone after the batch failed with err; a job that was
// alone in its batch has its answer.
func (w *writer) again(jobs []*job, err error) {
	if len(jobs) == 1 {
		answer(jobs, err)
		return
	}
	for _, j := range jobs {
		w.retries.Inc()
		w.commit([]*job{j})
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
