package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"

	"kwai/internal/store"
	"kwai/internal/store/storetest"
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
	log, err := os.ReadFile(pathOf(url) + "-wal")
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
			calls = append(calls, begin(t.Context(), s, adding(key)))
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
		wantReopened(t, s, url, keys...)
	})
}

func TestFailureInABatchHarmsNoNeighbour(t *testing.T) {
	t.Parallel()
	failure := errors.New("failure")
	left := make(chan struct{}) // nobody sends
	tests := []struct {
		name    string
		fn      func(*store.Tx) error // after it has written a row
		want    error
		panics  any
		commits int
	}{
		{name: "error", fn: func(*store.Tx) error { return failure }, want: failure, commits: 1},
		{name: "panic", fn: func(*store.Tx) error { panic(failure) }, panics: failure, commits: 1},
		{name: "goexit", fn: func(*store.Tx) error { runtime.Goexit(); return nil }, panics: "the transaction's goroutine exited", commits: 1},
		{name: "broken constraint", fn: func(tx *store.Tx) error { return tx.OpenSession("s", "nobody") }, want: errAny, commits: 1},
		// The engine may have undone more than its statement, so each is run
		// again alone.
		{name: "engine", fn: func(tx *store.Tx) error { _, err := tx.Exec(`nonsense`); return err }, want: errAny, commits: 2},
		{name: "forgiven engine", fn: func(tx *store.Tx) error { _, _ = tx.Exec(`nonsense`); return nil }, want: errAny, commits: 2},
		{name: "blocks", fn: func(*store.Tx) error { <-left; return nil }, want: store.ErrUnavailable, commits: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, url, release := held(t)
				fn := tt.fn
				if tt.name == "blocks" { // by something of this bubble
					left := make(chan struct{})
					defer close(left)
					fn = func(*store.Tx) error { <-left; return nil }
				}
				before := begin(t.Context(), s, adding("before"))
				failing := begin(t.Context(), s, func(tx *store.Tx) error {
					if err := add(tx, "failing"); err != nil {
						return err
					}
					return fn(tx)
				})
				behind := begin(t.Context(), s, adding("behind"))
				close(release)
				<-before.done
				<-failing.done
				<-behind.done
				if before.err != nil || behind.err != nil {
					t.Errorf("neighbours: %v, %v", before.err, behind.err)
				}
				if !errors.Is(failing.err, tt.want) && (tt.want != errAny || failing.err == nil) || failing.panicked != tt.panics {
					t.Errorf("it ended with error %v, panic %v", failing.err, failing.panicked)
				}
				if n := commits(t, url); n != tt.commits {
					t.Errorf("%d commits, want %d", n, tt.commits)
				}
				wantReopened(t, s, url, "before", "behind")
			})
		})
	}
}

// errAny stands for any error.
var errAny = errors.New("any")
