package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// writes knows whether the database can be written, by what became of the latest
// transactions: on a full disk, or in a file that became read-only, it can be read
// as before.
type writes struct {
	failure atomic.Pointer[error] // nil: nothing is known that speaks against it
	noticed chan struct{}         // has a value once there is a failure
}

func newWrites() *writes { return &writes{noticed: make(chan struct{}, 1)} }

func (w *writes) fail(err error) {
	if w.failure.CompareAndSwap(nil, &err) {
		select {
		case w.noticed <- struct{}{}:
		default:
		}
	}
}

// err is why the database can't be written.
func (w *writes) err() error {
	if failure := w.failure.Load(); failure != nil {
		return fmt.Errorf("nothing can be written: %w", *failure)
	}
	return nil
}

const (
	probeEvery = time.Second
	// probeSize is more than a login writes: where there is room for it, there is
	// room for somebody.
	probeSize = 32 << 10
)

// FollowWrites finds out when the database can be written again after it could not
// be, until ctx ends. A server that says so gets no requests any more by which it
// would see that there is room: so it writes something itself.
func (s *Store) FollowWrites(ctx context.Context, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.writes.noticed:
		}
		log.Error("nothing can be written: /readyz says so until it can be", "error", s.writes.err())
		for s.writes.err() != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(probeEvery):
			}
			if s.probe(ctx) == nil {
				s.writes.failure.Store(nil)
			}
		}
		log.Info("the database can be written again")
	}
}

// probe writes something of no meaning, which no compression makes smaller, and
// removes it again.
func (s *Store) probe(ctx context.Context) error {
	filler := make([]byte, probeSize/2)
	_, _ = rand.Read(filler) // never fails
	for _, write := range []func(tx *Tx) (int64, error){
		func(tx *Tx) (int64, error) {
			return tx.exec(`INSERT INTO meta (name, value) VALUES ('probe', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, hex.EncodeToString(filler))
		},
		func(tx *Tx) (int64, error) { return tx.exec(`DELETE FROM meta WHERE name = 'probe'`) },
	} {
		err := s.One(ctx, func(tx *Tx) error {
			_, err := write(tx)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
