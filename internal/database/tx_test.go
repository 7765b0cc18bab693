package database_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// bubble is storetest.Each with f in a bubble of synctest.
func bubble(t *testing.T, f func(t *testing.T, url string)) {
	storetest.Each(t, func(t *testing.T, url string) {
		synctest.Test(t, func(t *testing.T) { f(t, url) })
	})
}

func TestTransactionThatDoesNotReturnIsUndone(t *testing.T) {
	failure := errors.New("failure")
	tests := []struct {
		name string
		end  func() error
	}{
		{"error", func() error { return failure }},
		{"panic", func() error { panic(failure) }},
	}
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				returned := make(chan struct{})
				var panicked any
				go func() {
					defer close(returned)
					defer func() { panicked = recover() }()
					err := s.InTx(t.Context(), func(tx *store.Tx) error {
						if err := storetest.AddUser(tx, "undone"); err != nil {
							return err
						}
						return tt.end()
					})
					if tt.name != "error" || !errors.Is(err, failure) {
						t.Errorf("InTx returned %v", err)
					}
				}()
				<-returned
				if tt.name == "panic" && panicked != any(failure) {
					t.Errorf("its panic was %v", panicked)
				}
				storetest.WantUsers(t, s)
				if err := s.InTx(t.Context(), nothing); err != nil {
					t.Errorf("the next transaction: %v", err)
				}
			})
		}
	})
}

func TestHangUpDuringATransactionGetsTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		ctx, hangUp := context.WithCancel(t.Context())
		release := make(chan struct{})
		call := begin(ctx, s, waiting(release, storetest.AddsUser("a")))
		hangUp()
		synctest.Wait()
		select {
		case <-call.done:
			t.Fatalf("it ended with %v before it was done", call.err)
		default:
		}
		close(release)
		if <-call.done; call.err != nil {
			t.Errorf("it ended with %v", call.err)
		}
		storetest.WantUsers(t, s, "a")
	})
}

func TestHangUpBeforeATransactionStopsIt(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		ctx, hangUp := context.WithCancel(t.Context())
		hangUp()
		for name, call := range map[string]func(context.Context, func(*store.Tx) error) error{"InTx": s.InTx, "One": s.Statement} {
			if err := call(ctx, storetest.AddsUser("a")); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
		storetest.WantUsers(t, s)
	})
}

// A caller that waited too long for its turn may try again.
func TestDeadlineBeforeATransactionIsUnavailable(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		if err := s.InTx(ctx, nothing); !errors.Is(err, store.ErrUnavailable) {
			t.Error(err)
		}
	})
}

// One runs on PostgreSQL without BEGIN and COMMIT, on SQLite without a savepoint:
// its statement stands, whatever comes after it, and none comes after it.
func TestOneIsOneStatement(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		if err := s.Statement(t.Context(), storetest.AddsUser("a")); err != nil {
			t.Fatal(err)
		}
		err := s.Statement(t.Context(), func(tx *store.Tx) error { return errors.Join(storetest.AddUser(tx, "b"), storetest.AddUser(tx, "c")) })
		if err == nil {
			t.Error("two statements passed for one")
		}
		storetest.WantUsers(t, s, "a", "b")
	})
}

// A Reader sees nothing of a transaction before its end.
func TestReadSeesCommittedOnly(t *testing.T) {
	bubble(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		release := make(chan struct{})
		call := begin(t.Context(), s, func(tx *store.Tx) error {
			err := storetest.AddUser(tx, "a")
			<-release
			return err
		})
		storetest.WantUsers(t, s)
		close(release)
		if <-call.done; call.err != nil {
			t.Fatal(call.err)
		}
		storetest.WantUsers(t, s, "a")
	})
}
