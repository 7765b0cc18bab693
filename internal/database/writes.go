package database

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync/atomic"
)

// writes knows whether the database can be written: on a full disk, or in a file
// that became read-only, it can be read as before.
type writes struct {
	suspect atomic.Bool           // a transaction failed so
	failure atomic.Pointer[error] // nil: nothing is known that speaks against it
}

// err is why the database can't be written.
func (w *writes) err() error {
	if failure := w.failure.Load(); failure != nil {
		return fmt.Errorf("nothing can be written: %w", *failure)
	}
	return nil
}

// probeSize is more than a login writes: where there is room for it, there is room
// for somebody.
const probeSize = 32 << 10

// TryWriting finds out whether the database can be written, where a transaction
// could not be: by a write of its own, since one damaged row, or one table without
// a right, must not take the server out. A server that says so gets no requests any
// more by which it would see that there is room: so it goes on trying. It is called
// each second, by one goroutine.
func (db *DB) TryWriting(ctx context.Context) {
	w := &db.writes
	suspect, failure := w.suspect.Swap(false), w.failure.Load()
	if !suspect && failure == nil {
		return
	}
	err := db.probe(ctx)
	w.suspect.Store(false) // the probe's own
	switch {
	case err == nil && failure != nil:
		w.failure.Store(nil)
		db.log.Info("the database can be written again")
	case err != nil && failure == nil && ctx.Err() == nil && db.trouble(err) == unwritable:
		w.failure.Store(&err)
		db.log.Error("nothing can be written: /readyz says so until it can be", "error", err)
	}
}

// probe writes something of no meaning, which no compression makes smaller, and
// removes it again.
func (db *DB) probe(ctx context.Context) error {
	filler := make([]byte, probeSize/2)
	_, _ = rand.Read(filler) // never fails
	write := func(query string, args ...any) error {
		return db.Statement(ctx, func(tx *Tx) error {
			_, err := tx.Exec(query, args...)
			return err
		})
	}
	err := write(`INSERT INTO meta (name, value) VALUES ('probe', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, hex.EncodeToString(filler))
	if err == nil {
		err = write(`DELETE FROM meta WHERE name = 'probe'`)
	}
	return err
}
