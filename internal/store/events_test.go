package store_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

func event(id string) store.Event {
	return store.Event{ID: id, Type: "test", UserID: "u", CreatedAt: epoch, ExpiresAt: epoch.Add(time.Hour)}
}

func seconds(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }

// wantDue says which events are due then, in which order.
func wantDue(t *testing.T, s *store.Store, subscriber string, now time.Time, want ...string) {
	t.Helper()
	due, err := s.Read(t.Context()).DueDeliveries(subscriber, now, 10)
	check(t, err)
	var got []string
	for _, d := range due {
		got = append(got, d.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("due for %s (-want +got):\n%s", subscriber, diff)
	}
}

func TestDeliveries(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		storetest.At(t, s, seconds(2), func(tx *store.Tx) error { return tx.Publish(event("1"), "a", "b") })
		storetest.At(t, s, seconds(1), func(tx *store.Tx) error { return tx.Publish(event("2"), "a") })
		wantDue(t, s, "a", seconds(0))
		wantDue(t, s, "a", seconds(1), "2")
		wantDue(t, s, "a", seconds(2), "2", "1")
		wantDue(t, s, "b", seconds(2), "1")
		wantDue(t, s, "c", seconds(2))
		if due, err := s.Read(t.Context()).DueDeliveries("a", seconds(2), 1); err != nil || len(due) != 1 {
			t.Errorf("up to one: %v (%v)", due, err)
		}

		// A failure is noted and has it wait.
		storetest.At(t, s, seconds(3), func(tx *store.Tx) error { return tx.DeliveryFailed("a", "2", "no", seconds(10)) })
		wantDue(t, s, "a", seconds(9), "1")
		wantDue(t, s, "a", seconds(10), "1", "2")
		d, err := s.Read(t.Context()).DeliveryByID("a", "2")
		want := store.Delivery{Event: event("2"), Subscriber: "a", Attempts: 1, DueAt: seconds(10), LastError: "no"}
		if diff := cmp.Diff(want, d); diff != "" || err != nil {
			t.Errorf("after a failure: %v (-want +got):\n%s", err, diff)
		}

		// The last one keeps it as a dead letter.
		storetest.At(t, s, seconds(11), func(tx *store.Tx) error { return tx.DeliveryFailed("a", "2", "never", time.Time{}) })
		wantDue(t, s, "a", seconds(1e6), "1")
		want.Attempts, want.DueAt, want.DeadAt, want.LastError = 2, seconds(11), seconds(11), "never"
		d, err = s.Read(t.Context()).DeliveryByID("a", "2")
		if diff := cmp.Diff(want, d); diff != "" || err != nil {
			t.Errorf("dead: %v (-want +got):\n%s", err, diff)
		}
		all, err := s.Read(t.Context()).Deliveries("a", "1", 10)
		if diff := cmp.Diff([]store.Delivery{want}, all); diff != "" || err != nil {
			t.Errorf("listed behind 1: %v (-want +got):\n%s", err, diff)
		}
	})
}

// What waits for a mailbox that is gone doesn't make mail old; whatever keeps events
// from programs outside is about all of them.
func TestOldestOfAnOutbox(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		storetest.At(t, s, epoch, func(tx *store.Tx) error {
			return errors.Join(tx.Subscribe("outside"), tx.Publish(event("1"), "mail", "outside"),
				tx.DeliveryFailed("mail", "1", store.Refused+": no such mailbox", epoch), tx.DeliveryFailed("outside", "1", store.Refused+": the stream is full", epoch))
		})
		for subscriber, want := range map[string]time.Time{"mail": {}, "outside": epoch} {
			if o, err := s.Read(t.Context()).Outbox(subscriber); err != nil || !o.OldestAt.Equal(want) {
				t.Errorf("%s: the oldest is of %v (%v), want %v", subscriber, o.OldestAt, err, want)
			}
		}
	})
}

// An event goes with its last delivery.
func TestDeliveredEventsTakeNoRoom(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		storetest.At(t, s, epoch, func(tx *store.Tx) error { return tx.Publish(event("1"), "a", "b") })
		for _, tt := range []struct {
			subscriber string
			want       bool
			rows       string
		}{{"a", true, "1+1"}, {"a", false, "1+1"}, {"b", true, "0+0"}, {"b", false, "0+0"}} {
			storetest.At(t, s, epoch, func(tx *store.Tx) error {
				got, err := tx.Delivered(tt.subscriber, "1")
				rows, err2 := storetest.Text(tx.Tx.Reader, `SELECT CAST((SELECT COUNT(*) FROM events) AS TEXT) || '+' || CAST((SELECT COUNT(*) FROM deliveries) AS TEXT)`)
				if got != tt.want || rows != tt.rows {
					t.Errorf("delivered to %s: %t; events+deliveries are then %s, want %s", tt.subscriber, got, rows, tt.rows)
				}
				return errors.Join(err, err2)
			})
		}
		if _, err := s.Read(t.Context()).DeliveryByID("a", "1"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the delivery: %v", err)
		}
	})
}

func TestEventGoesWithItsTransaction(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		err := s.InTx(t.Context(), func(tx *store.Tx) error {
			return errors.Join(tx.Publish(event("1"), "a"), errUndo)
		})
		if !errors.Is(err, errUndo) {
			t.Fatal(err)
		}
		wantDue(t, s, "a", s.Now().Add(time.Hour))
	})
}

func TestLease(t *testing.T) {
	steps := []struct {
		name  string
		at    int // seconds
		owner string
		want  bool // it holds the lease then, for 10 s
	}{
		{"free", 0, "a", true},
		{"held by another", 1, "b", false},
		{"prolonged", 5, "a", true},
		{"held by another, prolonged", 14, "b", false},
		{"expired", 15, "b", true},
		{"taken over", 16, "a", false},
		{"released", 17, "b", true}, // b releases it behind this
		{"free again", 18, "a", true},
		{"expired, its holder comes back first", 60, "a", true},
	}
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		hold := func(name, owner string, now int) (held bool) {
			storetest.At(t, s, seconds(now), func(tx *store.Tx) (err error) {
				held, err = tx.HoldLease(name, owner, tx.Now.Add(10*time.Second))
				return err
			})
			return held
		}
		release := func(owner string) {
			storetest.At(t, s, epoch, func(tx *store.Tx) error { return tx.ReleaseLease("x", owner) })
		}
		for _, step := range steps {
			if got := hold("x", step.owner, step.at); got != step.want {
				t.Errorf("%s: %s holds it: %t", step.name, step.owner, got)
			}
			if step.name == "released" {
				release("a") // not its own
				if hold("x", "a", step.at) {
					t.Error("a released what b held")
				}
				release("b")
			}
		}
		if !hold("y", "b", 60) {
			t.Error("another lease is held too")
		}
	})
}

// Two subscribers may accept an event at the same time.
func TestEventGoesWithTheLastOfTwoDeliveries(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		var ids []string
		for i := range 50 {
			ids = append(ids, fmt.Sprintf("%02d", i))
		}
		check(t, s.InTx(t.Context(), func(tx *store.Tx) error {
			for _, id := range ids {
				if err := tx.Publish(event(id), "a", "b"); err != nil {
					return err
				}
			}
			return nil
		}))
		for some := range slices.Chunk(ids, 5) { // one waits for the other's transaction
			var both sync.WaitGroup
			for _, name := range []string{"a", "b"} {
				both.Go(func() {
					err := s.InTx(t.Context(), func(tx *store.Tx) error {
						for _, id := range some {
							if _, err := tx.Delivered(name, id); err != nil {
								return err
							}
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			both.Wait()
		}
		if left, err := storetest.Text(s.DB.Read(t.Context()), `SELECT CAST(COUNT(*) AS TEXT) FROM events`); err != nil || left != "0" {
			t.Errorf("%s events are left (%v)", left, err)
		}
	})
}

// The order is that of the transactions, whatever the clocks that made the ids say.
func TestDeliveriesAreInTheOrderOfTheirTransactions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		for i, id := range []string{"9", "5", "7", "1"} {
			storetest.At(t, s, seconds(-i), func(tx *store.Tx) error { return tx.Publish(event(id), "a", "b") })
		}
		storetest.At(t, s, epoch, func(tx *store.Tx) error { return errors.Join(drop(tx, "a", "9"), tx.Publish(event("0"), "a")) })
		next, err := s.Read(t.Context()).NextDeliveries("a", 10)
		check(t, err)
		var got []string
		for _, d := range next {
			got = append(got, d.ID)
		}
		if diff := cmp.Diff([]string{"5", "7", "1", "0"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func drop(tx *store.Tx, subscriber, id string) error {
	_, err := tx.Delivered(subscriber, id)
	return err
}

// Who was seen since is not unsubscribed.
func TestUnsubscribe(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		storetest.At(t, s, seconds(10), func(tx *store.Tx) error { return tx.Subscribe("a") })
		storetest.At(t, s, time.Unix(60, 0), func(tx *store.Tx) error { return tx.Subscribe("a") }) // a clock that is behind
		for _, tt := range []struct {
			since int
			want  bool
		}{{9, false}, {10, true}, {10, true}} {
			storetest.At(t, s, seconds(20), func(tx *store.Tx) error {
				gone, err := tx.Unsubscribe("a", seconds(tt.since))
				found, err2 := tx.Subscribers()
				if gone != tt.want || len(found) != 1 || found[0].SeenAt.IsZero() != tt.want {
					t.Errorf("unseen since %d: unsubscribed %t, %+v", tt.since, gone, found)
				}
				return errors.Join(err, err2)
			})
		}
	})
}

// Who is published to is called once the commit is durable, and only then.
func TestCommitTellsWhomSomethingIsPublishedTo(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		var called []string
		s.Published = func(subscriber string) {
			if n, err := storetest.Text(s.DB.Read(t.Context()), `SELECT CAST(COUNT(*) AS TEXT) FROM events`); err != nil || n != "2" {
				t.Errorf("at the call there are %s events (%v)", n, err)
			}
			called = append(called, subscriber)
		}
		publish := func(tx *store.Tx) error {
			for _, id := range []string{"1", "2"} {
				if err := tx.Publish(store.Event{ID: id, Type: "t", CreatedAt: tx.Now, ExpiresAt: tx.Now}, "a", "b"); err != nil {
					return err
				}
			}
			return nil
		}
		failure := errors.New("failure")
		err := s.InTx(t.Context(), func(tx *store.Tx) error { return errors.Join(publish(tx), failure) })
		if !errors.Is(err, failure) || called != nil {
			t.Errorf("undone with %v, it called %q", err, called)
		}
		check(t, s.InTx(t.Context(), publish))
		check(t, s.InTx(t.Context(), func(*store.Tx) error { return nil }))
		if diff := cmp.Diff([]string{"a", "b"}, called); diff != "" {
			t.Errorf("called (-want +got):\n%s", diff)
		}
	})
}
