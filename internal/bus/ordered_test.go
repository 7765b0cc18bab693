package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/bus"
	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// outsideBus is a registered bus for a subscriber outside.
func (b *bundle) outsideBus(s *subscriber, keepFor time.Duration) *bus.Bus {
	b.t.Helper()
	on := bus.NewOrdered(b.store, s, keepFor, slog.New(slog.DiscardHandler))
	if err := on.Register(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return on
}

// slow is a subscriber that takes that long for each event.
func slow(d time.Duration) *subscriber {
	return &subscriber{deliver: func(ctx context.Context, _ store.Event) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

func ids(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%03d", i))
	}
	return all
}

// A server that ends waits for the event under way, not for all that wait.
func TestEndWaitsForOneEventOutside(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		b.publish(time.Hour, ids(64)...)
		stop := b.run(b.outsideBus(slow(4*time.Second), time.Hour))
		time.Sleep(6 * time.Second)
		ended := time.Now()
		stop()
		if took := time.Since(ended); took > 3*time.Second {
			t.Errorf("the end took %v", took)
		}
		b.wantGone("001")
		b.wantDelivery("002", 0, false, "")
		var next subscriber
		deliverDue(t, b.outsideBus(&next, time.Hour), 62)
	})
}

// Also a server that never comes to an end of what waits is seen to publish.
func TestServerThatPublishesWithoutAPauseIsSeen(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		b.publish(time.Hour, ids(300)...)
		stop := b.run(b.outsideBus(slow(time.Second), time.Hour))
		defer stop()
		time.Sleep(5*time.Minute - time.Second/2)
		found, err := b.store.Read(t.Context()).Subscribers()
		if err != nil || len(found) != 1 || time.Since(found[0].SeenAt) > 3*time.Minute {
			t.Errorf("after %v the subscribers are %+v (%v)", time.Since(b.start), found, err)
		}
	})
}

// tidy tidies as a server does, until ctx ends.
func tidy(ctx context.Context, db *store.Store, unseenFor time.Duration) {
	for ctx.Err() == nil {
		_ = bus.DropAbandoned(ctx, db, unseenFor, slog.New(slog.DiscardHandler)) // it is tried again
		select {
		case <-ctx.Done():
		case <-time.After(time.Minute):
		}
	}
}

// However short events are kept, a server that publishes them is not forgotten.
func TestServerThatPublishesIsNotForgotten(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		on := b.outsideBus(new(subscriber), time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		var tidying sync.WaitGroup
		time.Sleep(time.Second / 4)
		tidying.Go(func() { tidy(ctx, b.store, time.Minute) })
		time.Sleep(time.Second / 4)
		defer b.run(on)()
		time.Sleep(time.Minute - time.Second/8)
		found, err := b.store.Read(t.Context()).Subscribers()
		if err != nil || len(found) != 1 || found[0].SeenAt.IsZero() {
			t.Errorf("the subscribers are %+v (%v)", found, err)
		}
		cancel()
		tidying.Wait()
	})
}

// A server that can't publish, but is woken by each request, leaves it to an idle
// one that can.
func TestBusyServerThatCannotPublishLetsAnotherOne(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		var good subscriber
		busy := b.outsideBus(failing(errors.New("no way")), time.Hour)
		b.publish(time.Hour, "1")
		stopBusy := b.run(busy)
		defer stopBusy()
		synctest.Wait()
		time.Sleep(300 * time.Millisecond)
		defer b.run(b.outsideBus(&good, time.Hour))()
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			busy.Wake()
		}
		if good.count("1") != 1 {
			t.Errorf("after %v the other one got it %d times", time.Since(b.start), good.count("1"))
		}
	})
}

// A server that stood still while it published an event publishes no other: another
// server may have published them meanwhile.
func TestServerThatStoodStillTellsNoMoreOutside(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		var ahead atomic.Int64
		start := time.Now()
		db := storetest.Open(t, url, func() time.Time { return start.Add(time.Duration(ahead.Load())) })
		b := &bundle{t: t, url: url, store: db}
		b.publish(time.Hour, "1", "2")
		s := &subscriber{deliver: func(context.Context, store.Event) error { ahead.Store(int64(20 * time.Second)); return nil }}
		deliverDue(t, b.outsideBus(s, time.Hour), 1)
		b.wantGone("1")
		b.wantDelivery("2", 0, false, "")
	})
}
