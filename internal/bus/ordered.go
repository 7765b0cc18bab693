package bus

import (
	"context"
	"log/slog"
	"time"

	"kwai/internal/store"
)

const (
	// heartbeatEvery is how often a subscriber outside is noted to be told still.
	heartbeatEvery = time.Minute
	// leastUnseen is how long it may go without: a row of events at a slow
	// subscriber takes more than five minutes.
	leastUnseen = 10 * time.Minute
)

// NewOrdered makes a bus for a subscriber that is told every event, in order.
// Events wait for it for the time given, then they are dropped. Register has
// them written, Run delivers them.
func NewOrdered(db *store.Store, subscriber Subscriber, keepFor time.Duration, log *slog.Logger) *Bus {
	b := New(db, subscriber, log)
	b.keepFor = keepFor
	return b
}

// Register has every event that happens from now on told to the subscriber,
// whichever server or command makes it: within a second everybody knows.
func (b *Bus) Register(ctx context.Context) error {
	return b.store.Statement(ctx, func(tx *store.Tx) error { return tx.Subscribe(b.subscriber.Name()) })
}

// heartbeat notes now and then that somebody tells the subscriber still.
func (b *Bus) heartbeat(ctx context.Context) error {
	found, err := b.store.Read(ctx).Subscribers()
	if err != nil {
		return err
	}
	for _, s := range found {
		if s.Name == b.subscriber.Name() && b.store.Now().Sub(s.SeenAt) < heartbeatEvery {
			return nil
		}
	}
	return b.Register(ctx)
}

// deliverInOrder delivers one after the other until one fails or running ends,
// and says how many it delivered or dropped. They are noted together: to note
// each would take as long as to deliver it.
func (b *Bus) deliverInOrder(running, ctx context.Context, due []store.Delivery) (done int, failed error) {
	for _, d := range due {
		if !b.holds() || running.Err() != nil || ctx.Err() != nil {
			break
		}
		if b.store.Now().Sub(d.CreatedAt) >= b.keepFor {
			b.dropped.Add(1)
			b.logOf(d).Error("an event was dropped: it waited too long to be told outside", "attempts", d.Attempts, "error", d.LastError)
		} else if failed = b.try(ctx, d.Event); failed != nil {
			break
		}
		done++
	}
	if failed != nil && ctx.Err() == nil { // else nothing is wrong with the event
		b.delay(ctx, due[done], failed)
	}
	if done > 0 {
		b.note(ctx, b.log, func(tx *store.Tx) error {
			for _, d := range due[:done] {
				if _, err := tx.Delivered(d.Subscriber, d.ID); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return done, failed
}

// delay has an event that failed tried again, before those behind it.
func (b *Bus) delay(ctx context.Context, d store.Delivery, failed error) {
	reason, due := reasonOf(failed), b.store.Now().Add(min(b.wait(d, failed), maxWaitOutside))
	b.note(ctx, b.log, func(tx *store.Tx) error { return tx.DeliveryFailed(d.Subscriber, d.ID, reason, due) })
	// Others look once in lookEvery: one of them comes first, also where this
	// server is woken all the time.
	b.mu.Lock()
	b.restUntil = due.Add(lookEvery + lookEvery/2)
	b.mu.Unlock()
	level := slog.LevelDebug
	if d.Attempts&(d.Attempts+1) == 0 { // 1, 2, 4, 8…: an outage of an hour is told in eleven lines
		level = slog.LevelWarn
	}
	b.logOf(d).Log(ctx, level, "an event could not be told outside; it is tried again, and those behind it wait", "attempts", d.Attempts+1, "error", failed)
}

// DropAbandoned drops what waits for subscribers whom nobody tells any more, because no
// server was seen to do so for the time given, 10 minutes at least.
func DropAbandoned(ctx context.Context, db *store.Store, unseenFor time.Duration, log *slog.Logger) error {
	unseenFor = max(unseenFor, leastUnseen)
	found, err := db.Read(ctx).Subscribers()
	if err != nil {
		return err
	}
	for _, s := range found {
		if db.Now().Sub(s.SeenAt) < unseenFor {
			continue
		}
		if !s.SeenAt.IsZero() {
			log.Warn("events are not kept any more for a subscriber whom no server has told for long", "subscriber", s.Name, "seen", s.SeenAt)
		}
		if err := forget(ctx, db, s, db.Now().Add(-unseenFor)); err != nil {
			return err
		}
	}
	return nil
}

// forgetBatch is how many deliveries are dropped in one transaction.
const forgetBatch = 100

func forget(ctx context.Context, db *store.Store, s store.Subscriber, unseenSince time.Time) error {
	for {
		left := 0
		err := db.InTx(ctx, func(tx *store.Tx) error {
			if gone, err := tx.Unsubscribe(s.Name, unseenSince); err != nil || !gone {
				return err
			}
			waiting, err := tx.NextDeliveries(s.Name, forgetBatch)
			left = len(waiting)
			for _, d := range waiting {
				if err == nil {
					_, err = tx.Delivered(d.Subscriber, d.ID)
				}
			}
			return err
		})
		if err != nil || left < forgetBatch {
			return err
		}
	}
}
