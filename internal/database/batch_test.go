package database_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"

	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// These tests hold SQLite's writer with one transaction while others queue, so
// that the others are one batch. They run in a bubble: it tells when all have
// queued, and the time that a transaction may take passes at once.

// result is how a call of InTx ended.
type result struct {
	err      error
	panicked any
	done     chan struct{}
}

// begin calls InTx and returns when the call waits, for its turn or for what fn
// waits for.
func begin(ctx context.Context, s *store.Store, fn func(*store.Tx) error) *result {
	r := &result{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer func() { r.panicked = recover() }()
		r.err = s.InTx(ctx, fn)
	}()
	synctest.Wait()
	return r
}

// waiting is a transaction that ends when it is released.
func waiting(release <-chan struct{}, fn func(*store.Tx) error) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		<-release
		return fn(tx)
	}
}

func nothing(*store.Tx) error { return nil }

// held opens an SQLite database and holds its writer.
func held(t *testing.T) (s *store.Store, url string, release chan struct{}) {
	t.Helper()
	url = storetest.SQLite(t)
	s = storetest.Open(t, url, nil)
	release = make(chan struct{})
	begin(t.Context(), s, waiting(release, nothing))
	return s, url, release
}

// commits counts the commits in SQLite's write-ahead log: the frames that say
// how large the database is then. https://www.sqlite.org/fileformat2.html#walformat
func commits(t *testing.T, url string) (n int) {
	t.Helper()
	log, err := os.ReadFile(storetest.Path(url) + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	const header, frameHeader = 32, 24
	if len(log) < header {
		return 0
	}
	salts := log[16:24]
	for frame := range slices.Chunk(log[header:], frameHeader+int(binary.BigEndian.Uint32(log[8:]))) {
		if slices.Equal(frame[8:16], salts) && binary.BigEndian.Uint32(frame[4:]) != 0 {
			n++
		}
	}
	return n
}

func TestWaitingTransactionsAreCommittedTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, url, release := held(t)
		keys := []string{"a", "b", "c", "d", "e"}
		var calls []*result
		for _, key := range keys {
			calls = append(calls, begin(t.Context(), s, storetest.AddsUser(key)))
		}
		close(release)
		for _, c := range calls {
			if <-c.done; c.err != nil {
				t.Error(c.err)
			}
		}
		if n := commits(t, url); n != 1 {
			t.Errorf("%d transactions took %d commits", len(calls), n)
		}
		storetest.WantReopened(t, s, url, keys...)
	})
}

// errAny stands for any error.
var errAny = errors.New("any")

func TestFailureInABatchHarmsNoNeighbour(t *testing.T) {
	t.Parallel()
	failure := errors.New("failure")
	tests := []struct {
		name    string
		fn      func(tx *store.Tx) error
		want    error
		panics  any
		commits int // of two neighbours
	}{
		{"error", func(*store.Tx) error { return failure }, failure, nil, 1},
		{"panic", func(*store.Tx) error { panic(failure) }, nil, failure, 1},
		{"broken constraint", func(tx *store.Tx) error {
			_, err := tx.OpenSession(store.Session{ID: "s", UserID: "nobody", Kind: store.KindAPI}, 1)
			return err
		}, errAny, nil, 1},
		// The engine may have undone more than its own statement, so each is
		// run again alone.
		{"engine", nonsense, errAny, nil, 2},
		{"engine, forgiven", func(tx *store.Tx) error { _ = nonsense(tx); return nil }, errAny, nil, 2},
		{"engine rolled back", func(tx *store.Tx) error { _, err := tx.Exec(`ROLLBACK`); return err }, errAny, nil, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, url, release := held(t)
				before := begin(t.Context(), s, storetest.AddsUser("before"))
				failing := begin(t.Context(), s, func(tx *store.Tx) error {
					if err := storetest.AddUser(tx, "failing"); err != nil {
						return err
					}
					return tt.fn(tx)
				})
				behind := begin(t.Context(), s, storetest.AddsUser("behind"))
				close(release)
				<-before.done
				<-failing.done
				<-behind.done
				if before.err != nil || behind.err != nil {
					t.Errorf("neighbours: %v, %v", before.err, behind.err)
				}
				asWanted := errors.Is(failing.err, tt.want) || errors.Is(tt.want, errAny) && failing.err != nil
				if failing.panicked != tt.panics || !asWanted {
					t.Errorf("it ended with error %v, panic %v", failing.err, failing.panicked)
				}
				if n := commits(t, url); n != tt.commits {
					t.Errorf("%d commits, want %d", n, tt.commits)
				}
				storetest.WantReopened(t, s, url, "before", "behind")
			})
		})
	}
}

func nonsense(tx *store.Tx) error { return discard(tx.Exec(`nonsense`)) }

func discard[T any](_ T, err error) error { return err }

func TestHangUpWhileWaitingLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, url, release := held(t)
		before := begin(t.Context(), s, storetest.AddsUser("before"))
		ctx, hangUp := context.WithCancel(t.Context())
		gone := begin(ctx, s, storetest.AddsUser("gone"))
		behind := begin(t.Context(), s, storetest.AddsUser("behind"))
		hangUp()
		if <-gone.done; !errors.Is(gone.err, context.Canceled) { // the writer is still held
			t.Errorf("it ended with %v", gone.err)
		}
		close(release)
		<-before.done
		if <-behind.done; before.err != nil || behind.err != nil {
			t.Errorf("neighbours: %v, %v", before.err, behind.err)
		}
		storetest.WantReopened(t, s, url, "before", "behind")
	})
}

// A queue longer than a batch loses and doubles nothing.
func TestMoreThanABatchIsWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, url, release := held(t)
		var keys []string
		var calls []*result
		for i := range 600 {
			keys = append(keys, fmt.Sprintf("%03d", i))
			calls = append(calls, begin(t.Context(), s, storetest.AddsUser(keys[i])))
		}
		close(release)
		for _, c := range calls {
			if <-c.done; c.err != nil {
				t.Error(c.err)
			}
		}
		if n := commits(t, url); n > 4 {
			t.Errorf("%d transactions took %d commits", len(calls), n)
		}
		storetest.WantReopened(t, s, url, keys...)
	})
}

func TestCloseFinishesWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, url, release := held(t)
		waits := begin(t.Context(), s, storetest.AddsUser("waits"))
		closed := make(chan error)
		go func() { closed <- s.Close() }()
		synctest.Wait()
		late := begin(t.Context(), s, storetest.AddsUser("late"))
		if <-late.done; !errors.Is(late.err, store.ErrUnavailable) {
			t.Errorf("while it is closed: %v", late.err)
		}
		close(release)
		if <-waits.done; waits.err != nil {
			t.Errorf("what waited: %v", waits.err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		storetest.WantUsers(t, storetest.Open(t, url, nil), "waits")
	})
}
