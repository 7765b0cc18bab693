package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// asked is a request that was made so many seconds after epoch.
func asked(id, key string, seconds int) store.RecoveryRequest {
	return store.RecoveryRequest{ID: id, EmailKey: key, RequestedAt: epoch.Add(time.Duration(seconds) * time.Second)}
}

// ask notes requests.
func ask(t *testing.T, s *store.Store, requests ...store.RecoveryRequest) {
	t.Helper()
	for _, r := range requests {
		check(t, s.Statement(t.Context(), func(tx *store.Tx) error { return tx.RequestRecovery(r) }))
	}
}

func take(t *testing.T, s *store.Store, n int) (taken []store.RecoveryRequest) {
	t.Helper()
	check(t, s.Statement(t.Context(), func(tx *store.Tx) (err error) {
		taken, err = tx.TakeRecoveryRequests(n)
		return err
	}))
	return taken
}

func wantTaken(t *testing.T, s *store.Store, n int, want ...store.RecoveryRequest) {
	t.Helper()
	if diff := cmp.Diff(want, take(t, s, n)); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
}

func TestOneRecoveryRequestIsPendingForAnAddress(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		ask(t, s, asked("1", "a", 10), asked("2", "b", 20))
		ask(t, s, asked("3", "a", 30)) // it makes the first younger
		ask(t, s, asked("4", "b", 5))  // it came late: it makes nothing older
		wantTaken(t, s, 10, asked("2", "b", 20), asked("1", "a", 30))
		ask(t, s, asked("5", "a", 40))
		wantTaken(t, s, 10, asked("5", "a", 40))
	})
}

func TestRecoveryRequestsAreTakenInTheirOrder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		pending := func() bool {
			is, err := s.Read(t.Context()).RecoveryRequested()
			check(t, err)
			return is
		}
		if pending() {
			t.Error("one is pending in an empty database")
		}
		// The order is neither that of the ids nor that of writing.
		ask(t, s, asked("1", "e", 50), asked("5", "a", 10), asked("3", "c", 30), asked("4", "d", 20), asked("2", "b", 30))
		wantTaken(t, s, 3, asked("5", "a", 10), asked("4", "d", 20), asked("2", "b", 30))
		if !pending() {
			t.Error("none is pending although two are left")
		}
		wantTaken(t, s, 3, asked("3", "c", 30), asked("1", "e", 50))
		wantTaken(t, s, 3)
		if pending() {
			t.Error("one is pending although all were taken")
		}
	})
}

func TestNoRecoveryRequestIsTakenTwice(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		const all = 60
		storetest.At(t, s, epoch, func(tx *store.Tx) error {
			for i := range all {
				id := fmt.Sprintf("%02d", i)
				if err := tx.RequestRecovery(asked(id, id, i)); err != nil {
					return err
				}
			}
			return nil
		})
		var mu sync.Mutex
		times := map[string]int{}
		var takers sync.WaitGroup
		for range 2 {
			takers.Go(func() {
				for range all {
					var taken []store.RecoveryRequest
					err := s.InTx(t.Context(), func(tx *store.Tx) (err error) {
						taken, err = tx.TakeRecoveryRequests(4)
						return err
					})
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, r := range taken {
						times[r.ID]++
					}
					mu.Unlock()
				}
			})
		}
		takers.Wait()
		for id, n := range times {
			if n != 1 {
				t.Errorf("%s was taken %d times", id, n)
			}
		}
		if len(times) != all {
			t.Errorf("%d of %d were taken", len(times), all)
		}
	})
}

// What may be made for a request that was asked for at some time, of a user who
// was created at epoch with a password.
func TestClaimRecovery(t *testing.T) {
	second := func(tx *store.Tx, n int) time.Time {
		tx.Now = epoch.Add(time.Duration(n) * time.Second)
		return tx.Now
	}
	claimed := func(n int) func(tx *store.Tx) error {
		return func(tx *store.Tx) error {
			return discard(tx.ClaimRecovery("u", epoch.Add(time.Duration(n)*time.Second)))
		}
	}
	tests := []struct {
		name   string
		before func(tx *store.Tx) error
		asked  int
		want   bool
	}{
		{"the first", func(*store.Tx) error { return nil }, 10, true},
		{"as old as the password", func(*store.Tx) error { return nil }, 0, true},
		{"older than the account, as another clock has it", func(*store.Tx) error { return nil }, -1, true},
		{"newer than the latest", claimed(10), 11, true},
		{"the same again", claimed(10), 10, false},
		{"overtaken by a newer one", claimed(10), 9, false},
		{"password changed since", func(tx *store.Tx) error {
			second(tx, 20)
			return discard(tx.SetPassword("u", store.Password{Hash: "new", Cost: "cost"}))
		}, 19, false},
		{"revoked", func(tx *store.Tx) error { return discard(tx.Revoke("u")) }, 10, false},
		{"enacted", func(tx *store.Tx) error {
			return errors.Join(discard(tx.Revoke("u")), discard(tx.Reinstate("u")))
		}, 10, true},
	}
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				undo(t, s, func(tx *store.Tx) error {
					err := tt.before(tx)
					got, err2 := tx.ClaimRecovery("u", second(tx, tt.asked))
					if got != tt.want {
						t.Errorf("claimed: %t", got)
					}
					return errors.Join(err, err2)
				})
			})
		}
	})
}

func TestRecoveryIsUsedOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		made := func(hash string) store.Recovery {
			return store.Recovery{RequestID: "request " + hash, MACKey: "key", IDHash: []byte(hash), UserID: "u", ExpiresAt: epoch.Add(time.Hour)}
		}
		storetest.At(t, s, epoch, func(tx *store.Tx) error {
			return errors.Join(addUser(tx, "u"), tx.InsertRecovery(made("1")), tx.InsertRecovery(made("2")), tx.InsertRecovery(made("3")))
		})
		use := func(hash string, after time.Duration) (used bool) {
			storetest.At(t, s, epoch.Add(after), func(tx *store.Tx) (err error) {
				used, err = tx.UseRecovery([]byte(hash))
				return err
			})
			return used
		}
		for _, tt := range []struct {
			hash  string
			after time.Duration
			want  bool
		}{{"nobody's", 0, false}, {"1", time.Hour, false}, {"1", time.Hour - time.Microsecond, true}, {"1", time.Minute, false}} {
			if got := use(tt.hash, tt.after); got != tt.want {
				t.Errorf("using %s after %v: %t", tt.hash, tt.after, got)
			}
		}
		storetest.At(t, s, epoch, func(tx *store.Tx) error { return tx.EndRecoveries("u") })
		if use("2", 0) {
			t.Error("one that was replaced could be used")
		}

		r, u, err := s.Read(t.Context()).RecoveryByIDHash([]byte("3"))
		want := made("3")
		want.EndedAt = epoch
		if diff := cmp.Diff(want, r); diff != "" || u.ID != "u" || err != nil {
			t.Errorf("found for %s (%v) (-want +got):\n%s", u.ID, err, diff)
		}
		if r, err = s.Read(t.Context()).RecoveryByRequest("request 3"); err != nil || !cmp.Equal(r, want) {
			t.Errorf("found by its request: %+v (%v)", r, err)
		}
		_, _, err1 := s.Read(t.Context()).RecoveryByIDHash([]byte("nobody's"))
		_, err2 := s.Read(t.Context()).RecoveryByRequest("nobody's")
		if !errors.Is(err1, store.ErrNotFound) || !errors.Is(err2, store.ErrNotFound) {
			t.Errorf("what there isn't: %v, %v", err1, err2)
		}
	})
}
