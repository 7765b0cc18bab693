package bus

import (
	"context"
	"log/slog"
	"time"

	"kwai/internal/store"
)

const (
	// heartbeatEvery is how often a server records that it serves a subscriber outside.
	heartbeatEvery = time.Minute
	// leastUnseen is how long there may be no such record: a batch of events to a
	// slow subscriber takes more than five minutes.
	leastUnseen = 10 * time.Minute
)

// NewOrdered makes a bus for a subscriber that gets every event, in order. Events
// wait for keepFor, then they are dropped. After Register they are written; Run
// delivers them.
func NewOrdered(db *store.Store, subscriber Subscriber, keepFor time.Duration, log *slog.Logger) *Bus {
	b := New(db, subscriber, log)
	b.keepFor = keepFor
	return b
}

// Register makes every server and command write its events for the subscriber.
// Within a second all of them know.
func (b *Bus) Register(ctx context.Context) error {
	return b.store.Statement(ctx, func(tx *store.Tx) error { return tx.Subscribe(b.subscriber.Name()) })
}

// heartbeat records now and then that a server still serves the subscriber.
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

// deliverInOrder delivers one after the other until one fails or running ends. It
// returns how many it delivered or dropped. They are recorded together: recording
// each would take as long as delivering it.
func (b *Bus) deliverInOrder(running, ctx context.Context, due []store.Delivery) (done int, failed error) {
	for _, d := range due {
		if !b.hasLease() || running.Err() != nil || ctx.Err() != nil {
			break
		}
		if b.store.Now().Sub(d.CreatedAt) >= b.keepFor {
			b.dropped.Add(1)
			b.logOf(d).Error("an event was dropped: it waited too long to be published", "attempts", d.Attempts, "error", d.LastError)
		} else if failed = b.try(ctx, d.Event); failed != nil {
			break
		}
		done++
	}
	if failed != nil && ctx.Err() == nil { // else the event itself is not the cause
		b.delay(ctx, due[done], failed)
	}
	if done > 0 {
		b.record(ctx, b.log, func(tx *store.Tx) error {
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

// delay sets when a failed event is tried again, before the events behind it.
func (b *Bus) delay(ctx context.Context, d store.Delivery, failed error) {
	reason, due := reasonOf(failed), b.store.Now().Add(min(b.wait(d, failed), maxWaitOutside))
	b.record(ctx, b.log, func(tx *store.Tx) error { return tx.DeliveryFailed(d.Subscriber, d.ID, reason, due) })
	// Other servers look once in lookEvery. One of them gets its turn, even if
	// this server is woken all the time.
	b.mu.Lock()
	b.pausedUntil = due.Add(lookEvery + lookEvery/2)
	b.mu.Unlock()
	level := slog.LevelDebug
	if d.Attempts&(d.Attempts+1) == 0 { // 1, 2, 4, 8…: an outage of an hour takes eleven lines
		level = slog.LevelWarn
	}
	b.logOf(d).Log(ctx, level, "an event could not be published; it is tried again, and the events behind it wait", "attempts", d.Attempts+1, "error", failed)
}

// DropAbandoned drops the events of subscribers that no server has served for
// unseenFor, 10 minutes at least.
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
			log.Warn("events are no longer kept for a subscriber that no server has served for long", "subscriber", s.Name, "seen", s.SeenAt)
		}
		if err := unsubscribe(ctx, db, s, db.Now().Add(-unseenFor)); err != nil {
			return err
		}
	}
	return nil
}

// unsubscribeBatch is how many deliveries are dropped in one transaction.
const unsubscribeBatch = 100

func unsubscribe(ctx context.Context, db *store.Store, s store.Subscriber, unseenSince time.Time) error {
	for {
		left := 0
		err := db.InTx(ctx, func(tx *store.Tx) error {
			if gone, err := tx.Unsubscribe(s.Name, unseenSince); err != nil || !gone {
				return err
			}
			waiting, err := tx.NextDeliveries(s.Name, unsubscribeBatch)
			left = len(waiting)
			for _, d := range waiting {
				if err == nil {
					_, err = tx.Delivered(d.Subscriber, d.ID)
				}
			}
			return err
		})
		if err != nil || left < unsubscribeBatch {
			return err
		}
	}
}
