package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/bus"
	"kwai/internal/store"
	"kwai/internal/testing/natstest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// outside is a database whose events are published to a real NATS. The database's
// clock stands still but for what ahead says.
type outside struct {
	t     *testing.T
	store *store.Store
	nats  *natstest.Server
	ahead atomic.Int64 // nanoseconds
}

func eachOutside(t *testing.T, f func(t *testing.T, o *outside)) {
	eachDatabase(t, func(t *testing.T, url string) {
		o, start := &outside{t: t, nats: natstest.Serve(t)}, time.Now()
		o.store = storetest.Open(t, url, func() time.Time { return start.Add(time.Duration(o.ahead.Load())) })
		f(t, o)
	})
}

// restAfterFailure is how long a bus leaves an event that is due to others, and
// what the database's rounding of times may take from it.
const restAfterFailure = 1500*time.Millisecond + time.Microsecond

// drain waits until no event does. Whenever the first of them isn't due, the clock
// goes on until it is; drain returns how far that was.
func (o *outside) drain(b *bus.Bus) (took time.Duration) {
	o.t.Helper()
	begun := o.store.Now()
	eventually(o.t, "an empty outbox", func() bool {
		waiting, err := o.store.Read(o.t.Context()).NextDeliveries("nats", 1)
		if err != nil {
			o.t.Fatal(err)
		}
		if len(waiting) == 0 {
			return true
		}
		if left := waiting[0].DueAt.Add(restAfterFailure).Sub(o.store.Now()); left > 0 {
			o.ahead.Add(int64(left))
			b.Wake()
		}
		return false
	})
	return o.store.Now().Sub(begun)
}

// publisher is a bus of its own connection, registered.
func (o *outside) publisher(keepFor time.Duration) (*bus.Bus, *logged) {
	o.t.Helper()
	n, log := newNATS(o.t, o.nats.URL())
	b := bus.NewOrdered(o.store, n, keepFor, slog.New(slog.NewTextHandler(log, nil)))
	if err := n.Connect(o.t.Context(), b.Wake); err != nil {
		o.t.Fatal(err)
	}
	if err := b.Register(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
	return b, log
}

// run runs a bus until stop is called, at the end of the test at the latest.
func (o *outside) run(b *bus.Bus) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { b.Run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	o.t.Cleanup(stop)
	return stop
}

// write writes events, each in a transaction of its own.
func (o *outside) write(ids ...string) {
	o.t.Helper()
	for _, id := range ids {
		err := o.store.InTx(o.t.Context(), func(tx *store.Tx) error {
			return tx.Publish(store.Event{ID: id, Type: "user.created", UserID: "u", CreatedAt: tx.Now, ExpiresAt: tx.Now}, "nats")
		})
		if err != nil {
			o.t.Fatal(err)
		}
	}
}

// published are the ids of the stream's messages, of which there are n.
func (o *outside) published(n int) (ids []string) {
	o.t.Helper()
	js := o.nats.JetStream()
	for _, m := range natstest.Messages(o.t, js, "KWAI", n) {
		ids = append(ids, decode(o.t, m).ID)
	}
	if got := stream(o.t, js, "KWAI").State.Msgs; got != uint64(n) {
		o.t.Errorf("the stream has %d messages, want %d", got, n)
	}
	return ids
}

func (o *outside) wantPublished(want ...string) {
	o.t.Helper()
	if diff := cmp.Diff(want, o.published(len(want))); diff != "" {
		o.t.Errorf("published (-want +got):\n%s", diff)
	}
}

func (o *outside) waiting() int {
	o.t.Helper()
	d, err := o.store.Read(o.t.Context()).NextDeliveries("nats", 1000)
	if err != nil {
		o.t.Fatal(err)
	}
	return len(d)
}

func numbered(from, to int) (ids []string) {
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprintf("%03d", i))
	}
	return ids
}

// Two servers publish one at a time, and what one leaves the other takes on.
func TestEventsArePublishedInOrder(t *testing.T) {
	eachOutside(t, func(t *testing.T, o *outside) {
		first, _ := o.publisher(time.Hour)
		second, _ := o.publisher(time.Hour)
		stop := o.run(first)
		o.run(second)
		ids := numbered(0, need.Rounds(60, 200))
		for i, id := range ids {
			o.write(id)
			if i == len(ids)/2 {
				stop()
			}
			first.Wake()
			second.Wake()
		}
		o.wantPublished(ids...)
	})
}

// Events that happen while NATS is away are published within seconds once it is
// back: all, once, in order.
func TestEventsWaitWhileNATSIsAway(t *testing.T) {
	eachOutside(t, func(t *testing.T, o *outside) {
		b, log := o.publisher(time.Hour)
		o.run(b)
		for i := range 3 {
			var writing sync.WaitGroup
			writing.Go(func() { o.write(numbered(i*40, i*40+40)...) })
			o.nats.Stop()
			writing.Wait()
			log.wait(t, i+1, "lost the connection to NATS")
			o.nats.Start()
			log.wait(t, i+1, "connected to NATS")
			if took := o.drain(b); took > 10*time.Second {
				t.Errorf("it took %v after NATS had come back", took)
			}
		}
		o.wantPublished(numbered(0, 120)...)
	})
}

// A server that can't reach NATS does not hold up one that can.
func TestAnotherServerPublishesWhereOneCannot(t *testing.T) {
	eachOutside(t, func(t *testing.T, o *outside) {
		cut, _ := newNATS(t, "nats://127.0.0.1:1")
		o.run(bus.NewOrdered(o.store, cut, time.Hour, slog.New(slog.DiscardHandler)))
		if err := cut.Connect(t.Context(), func() {}); err != nil {
			t.Fatal(err)
		}
		o.write("1")
		eventually(t, "an attempt", func() bool {
			d, err := o.store.Read(t.Context()).DeliveryByID("nats", "1")
			return err == nil && d.Attempts > 0
		})
		b, _ := o.publisher(time.Hour)
		o.run(b)
		o.drain(b)
		o.wantPublished("1")
	})
}

// An event whose publication could not be recorded is published again; the stream
// takes it once.
func TestEventPublishedTwiceIsInTheStreamOnce(t *testing.T) {
	eachOutside(t, func(t *testing.T, o *outside) {
		n, _ := connected(t, o.nats.URL())
		again := bus.NewOrdered(o.store, repeated{n}, time.Hour, slog.New(slog.DiscardHandler))
		o.write("1", "2")
		if done, err := again.DeliverDue(t.Context()); err != nil || done != 0 {
			t.Fatal(done, err)
		}
		b, _ := o.publisher(time.Hour)
		o.run(b)
		o.drain(b)
		o.wantPublished("1", "2")
	})
}

// repeated publishes, but the answer is lost.
type repeated struct{ *bus.NATS }

func (r repeated) Deliver(ctx context.Context, e store.Event) error {
	if err := r.NATS.Deliver(ctx, e); err != nil {
		return err
	}
	return context.DeadlineExceeded
}

func TestEventsThatWaitTooLongAreDropped(t *testing.T) {
	eachOutside(t, func(t *testing.T, o *outside) {
		b, log := o.publisher(time.Hour)
		o.nats.Stop()
		log.wait(t, 1, "lost the connection")
		o.write("old")
		o.ahead.Store(int64(time.Hour - time.Minute))
		o.write("young")
		if done, err := b.DeliverDue(t.Context()); err != nil || done != 0 || o.waiting() != 2 {
			t.Errorf("before its time: %d, %v", done, err)
		}
		o.ahead.Add(int64(time.Minute))
		o.nats.Start()
		log.wait(t, 1, "connected to NATS")
		if done, err := b.DeliverDue(t.Context()); err != nil || done != 2 {
			t.Errorf("tried %d, %v", done, err)
		}
		o.wantPublished("young")
		if text := log.String(); strings.Count(text, "an event was dropped: it waited too long") != 1 || !strings.Contains(text, "event=old") {
			t.Errorf("the log is %s", text)
		}
	})
}

// Nothing is kept for ever for a NATS to which no server publishes.
func TestSubscriberWhomNobodyTellsIsForgotten(t *testing.T) {
	eachOutside(t, func(t *testing.T, o *outside) {
		o.publisher(time.Hour)
		o.write(numbered(0, 150)...)
		o.ahead.Store(int64(2 * time.Minute))
		// One that was served later; it is looked at first.
		err := o.store.InTx(t.Context(), func(tx *store.Tx) error {
			e := store.Event{ID: "later", Type: "user.created", UserID: "u", CreatedAt: tx.Now, ExpiresAt: tx.Now}
			return errors.Join(tx.Subscribe("later"), tx.Publish(e, "later"))
		})
		if err != nil {
			t.Fatal(err)
		}
		o.ahead.Store(int64(time.Hour + time.Minute))
		ctx, cancel := context.WithCancel(t.Context())
		var tidying sync.WaitGroup
		tidying.Go(func() { tidy(ctx, o.store, time.Hour) })
		eventually(t, "an empty outbox", func() bool { return o.waiting() == 0 })
		cancel()
		tidying.Wait()
		found, err := o.store.Read(t.Context()).Subscribers()
		if err != nil || len(found) != 2 {
			t.Fatalf("the subscribers are %+v (%v), want two", found, err)
		}
		if found[0].SeenAt.IsZero() {
			t.Errorf("the subscriber that was served is dropped: %+v", found)
		}
		if !found[1].SeenAt.IsZero() {
			t.Errorf("the one that nobody tells is not forgotten: %+v", found)
		}
		if _, err := o.store.Read(t.Context()).DeliveryByID("later", "later"); err != nil {
			t.Errorf("the event for the other one: %v", err)
		}
	})
}
