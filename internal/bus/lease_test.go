package bus_test

import (
	"context"
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

// hanging is a subscriber whose deliveries wait until they are released.
func hanging() (s *subscriber, release chan struct{}) {
	release = make(chan struct{})
	return &subscriber{deliver: func(ctx context.Context, _ store.Event) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}, release
}

func TestEventIsDeliveredByOneProcessAtATime(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		slow, release := hanging()
		var other subscriber
		first, second := b.bus(slow), b.bus(&other)
		b.publish(time.Hour, "1")
		var step sync.WaitGroup
		step.Go(func() { deliverDue(t, first, 1) })
		synctest.Wait()
		stop := b.run(second)
		time.Sleep(29 * time.Second) // the lease is prolonged for as long as it takes
		close(release)
		step.Wait()
		stop()
		if n := other.count("1"); n != 0 {
			t.Errorf("another process got it %d times meanwhile", n)
		}
		b.wantGone("1")
	})
}

// A process that died holds its lease for ten seconds.
func TestLeaseOfADeadProcessIsTakenOver(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		var s subscriber
		dead, other := b.bus(&s), b.bus(&s)
		b.publish(time.Hour, "1")
		deliverDue(t, dead, 1)
		b.publish(time.Hour, "2")
		time.Sleep(10*time.Second - time.Microsecond)
		deliverDue(t, other, 0)
		time.Sleep(time.Microsecond)
		deliverDue(t, other, 1)
		b.wantGone("2")
	})
}

func TestTwoProcessesDeliverEachEventOnce(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		var s subscriber
		stopFirst, stopSecond := b.run(b.bus(&s)), b.run(b.bus(&s))
		ids := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"}
		for _, id := range ids {
			b.publish(time.Hour, id)
			time.Sleep(700 * time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		stopFirst()
		stopSecond()
		for _, id := range ids {
			b.wantGone(id)
			if n := s.count(id); n != 1 {
				t.Errorf("%s was delivered %d times", id, n)
			}
		}
	})
}

// Whoever loses the lease stops: another may deliver from then on.
func TestLostLeaseStopsTheDelivery(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		s, _ := hanging()
		b.publish(time.Hour, "1")
		var step sync.WaitGroup
		step.Go(func() { deliverDue(t, b.bus(s), 1) })
		synctest.Wait()
		b.exec(`UPDATE leases SET owner = 'another', expires_at = expires_at + 60000000`)
		step.Wait()
		if d := time.Since(b.start); d > 4*time.Second {
			t.Errorf("it went on for %v", d)
		}
	})
}

func TestRunFinishesWhatIsUnderWay(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		s, release := hanging()
		b.publish(time.Hour, "1")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { b.bus(s).Run(ctx); close(done) }()
		synctest.Wait()
		cancel()
		time.Sleep(5 * time.Second)
		select {
		case <-done:
			t.Fatal("Run returned before the delivery did")
		default:
		}
		close(release)
		<-done
		b.wantGone("1")
		// The next process need not wait for the lease's end.
		b.publish(time.Hour, "2")
		var next subscriber
		deliverDue(t, b.bus(&next), 1)
	})
}

// A mail that went out is not sent again if its delivery could not be recorded.
func TestOutcomeThatCannotBeWrittenIsNotDeliveredAgain(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		var s subscriber
		on := b.bus(&s)
		// An event that something refers to can't be removed.
		b.exec(`CREATE TABLE keeps (event_id TEXT REFERENCES events (id))`)
		b.publish(time.Hour, "1", "2")
		b.exec(`INSERT INTO keeps VALUES ('1')`)
		stop := b.run(on)
		time.Sleep(time.Minute)
		b.publish(time.Hour, "3")
		time.Sleep(time.Minute)
		if one, three := s.count("1"), s.count("3"); one != 1 || three != 0 {
			t.Errorf("delivered what can't be recorded %d times, what came later %d times", one, three)
		}
		b.wantGone("2")
		b.exec(`DELETE FROM keeps`)
		time.Sleep(2 * time.Second)
		stop()
		for _, id := range []string{"1", "3"} {
			if b.wantGone(id); s.count(id) != 1 {
				t.Errorf("delivered %d times: %s", s.count(id), id)
			}
		}
		b.exec(`DROP TABLE keeps`)
	})
}

// An accepted event is recorded even if the lease was lost meanwhile: no server need
// deliver it again.
func TestAcceptedEventIsRecordedWithoutTheLease(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		s := &subscriber{deliver: func(context.Context, store.Event) error { time.Sleep(5 * time.Second); return nil }}
		b.publish(time.Hour, "1")
		var step sync.WaitGroup
		step.Go(func() { deliverDue(t, b.bus(s), 1) })
		synctest.Wait()
		b.exec(`UPDATE leases SET owner = 'another', expires_at = expires_at + 60000000`)
		step.Wait()
		b.wantGone("1")
	})
}

// A process that stood still after it took the lease delivers nothing under it:
// another one may have.
func TestProcessThatStoodStillDeliversNothing(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		start := time.Now()
		var ahead atomic.Int64
		db := storetest.Open(t, url, func() time.Time { return start.Add(time.Duration(ahead.Load())) })
		b := &bundle{t: t, url: url, store: db}
		b.publish(time.Hour, "1")
		var s subscriber
		still := standing{&s, func() {
			// That it is asked for its name is a sign of life of the bus.
			if b.count(`SELECT COUNT(*) FROM leases WHERE name = 'deliver:subscriber'`) > 0 {
				ahead.Store(int64(20 * time.Second))
			}
		}}
		if _, err := bus.New(db, still, slog.New(slog.DiscardHandler)).DeliverDue(t.Context()); err != nil {
			t.Error(err)
		}
		if ahead.Load() == 0 {
			t.Fatal("it took no lease")
		}
		if n := s.count("1"); n != 0 {
			t.Errorf("it delivered %d times", n)
		}
		b.wantDelivery("1", 0, false, "")
	})
}

// standing is a subscriber that is asked for its name.
type standing struct {
	*subscriber
	asked func()
}

func (s standing) Name() string {
	s.asked()
	return s.subscriber.Name()
}
