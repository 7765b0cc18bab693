package database

import (
	"context"
	"fmt"
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
	if err := w.runAll(jobs); err != nil {
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
func (w *writer) runAll(jobs []*job) error {
	now, next := w.now(), new(atomic.Uint32)
	for _, j := range jobs {
		// Without cancellation: an interrupted statement would roll back the batch.
		tx := newTx(context.Background(), w.conn, now, j.one)
		tx.next = next
		if err := w.runJob(j, tx); err != nil {
			return err
		}
	}
	return nil
}

// runJob runs a job in a savepoint.
func (w *writer) runJob(j *job, tx *Tx) error {
	if !j.one {
		if err := w.sql(`SAVEPOINT job`); err != nil {
			return err
		}
	}
	j.run(tx)
	if err := tx.failed; err != nil && SQLiteCode(err) != sqlite3.SQLITE_CONSTRAINT {
		return err
	}
	if j.one {
		return nil
	}
	if j.err != nil || j.panicked != nil {
		if err := w.sql(`ROLLBACK TO job`); err != nil {
			return err
		}
	}
	return w.sql(`RELEASE job`)
}

func (j *job) run(tx *Tx) {
	defer func() { j.panicked = recover() }()
	j.err = j.fn(tx)
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
			j.err, j.panicked = err, nil
		}
		close(j.done)
	}
}
