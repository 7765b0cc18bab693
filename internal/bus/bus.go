// Package bus delivers events from the outbox to their subscribers.
//
// Package auth writes an event in the transaction of the change that it is about
// (store.Tx.Publish). So no event is lost, and none is about a change that was
// undone.
//
// What the bus promises:
//
//   - Each subscriber gets an event at least once: the bus tries until the
//     subscriber accepts it, or until it expires.
//   - One process at a time delivers to a subscriber. It holds a lease in the
//     database.
//   - After a crash between the acceptance and its record, the event is delivered
//     again: a subscriber must bear that.
//
// There are two kinds of subscribers:
//
//   - [New] is for a subscriber within kwai, such as package mail. It gets some
//     types of events, several at a time, in any order. An event that it doesn't
//     accept is tried again after 1, 2, 4, 8 and then every 15 seconds, and a last
//     time just before it expires; then it is kept as a dead letter.
//   - [NewOrdered] is for a subscriber outside of kwai, such as [NATS]. It gets
//     every event, one after the other. An event that it doesn't accept holds up
//     the others until it is accepted, or is too old.
//
// A subscriber's error says how soon a further try makes sense:
//
//   - [ErrRefused]: more seldom, up to 10 minutes apart;
//   - [ErrLater]: up to 5 minutes apart;
//   - [ErrAllLater]: all deliveries pause, for up to 5 minutes.
//
// A program makes a bus for each subscriber and runs it:
//
//	b := bus.New(db, subscriber, log)
//	go b.Run(ctx)
//	b.Wake() // after something was published: deliver at once
//
// bus.go has the deliveries and the lease, ordered.go subscribers outside;
// nats.go the connection to NATS, natsstream.go its stream and errors,
// natssetting.go the URL; cloudevent.go the format, metrics.go the metrics.
//
// See docs/architecture.md#package-bus for why it is so.
package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"kwai/internal/database"
	"kwai/internal/store"
)

// Subscriber accepts events.
type Subscriber interface {
	// Name is the name under which deliveries to it are stored.
	Name() string
	// Deliver accepts an event. Its error is stored and logged: no secrets.
	Deliver(ctx context.Context, event store.Event) error
}

// ErrRefused is wrapped by the error of a delivery that will hardly succeed soon:
// the other side understood it and said no.
var ErrRefused = errors.New(store.Refused)

// ErrAlone is wrapped by the error of a delivery that failed for a reason of its
// own: other deliveries may succeed. It is tried as usual. ErrRefused also means that.
var ErrAlone = errors.New(store.Alone)

// ErrLater is wrapped by the error of a delivery to which the other side said: not
// now. Some servers count such tries, and never accept what is tried every 15 seconds.
var ErrLater = errors.New("not now")

// ErrAllLater is an ErrLater that is also about everything that is delivered next.
var ErrAllLater = fmt.Errorf("nothing for now: %w", ErrLater)

const (
	leaseLife  = 10 * time.Second
	leaseEvery = 3 * time.Second

	batch           = 2                // deliveries under way at the same time, by default
	orderedBatch    = 64               // ordered deliveries that are recorded together
	deliveryTimeout = 30 * time.Second // for one delivery
	lookEvery       = time.Second      // at the outbox, if nothing wakes the bus

	lastTry        = time.Second // before an event expires
	maxWait        = 15 * time.Second
	maxWaitOutside = 2 * time.Second // others wait behind it
	maxWaitRefused = 10 * time.Minute
	maxWaitLater   = 5 * time.Minute
	firstPause     = 15 * time.Second // after ErrAllLater; each further one doubles it
	maxReason      = 300              // bytes of a stored error
)

// Bus delivers to one subscriber.
type Bus struct {
	// AtOnce is how many deliveries are under way at the same time, two unless it
	// is set before Run.
	AtOnce int

	store      *store.Store
	subscriber Subscriber
	log        *slog.Logger
	owner      string        // of its lease
	keepFor    time.Duration // of events for a subscriber outside; 0: it is within kwai
	wake       chan struct{}

	recording, reading database.Recurring // of Flush

	mu          sync.Mutex
	pausedUntil time.Time               // no deliveries until then
	pauses      int                     // after an ErrAllLater, since the latest success
	later       map[string]int          // by event: how many tries ended with an ErrLater
	until       time.Time               // the lease's end
	unrecorded  []func(*store.Tx) error // outcomes that could not be written yet

	delivered, failed, dropped atomic.Int64
}

// New makes a bus; Run starts it.
func New(db *store.Store, subscriber Subscriber, log *slog.Logger) *Bus {
	return &Bus{store: db, subscriber: subscriber, log: log, owner: uuid.NewString(), wake: make(chan struct{}, 1), later: make(map[string]int)}
}

// SetOwner names the process that runs the bus; else it has a random id. Call it
// before Run.
func (b *Bus) SetOwner(name string) { b.owner = name }

// Wake makes the bus look for events at once. It never blocks.
func (b *Bus) Wake() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends. Deliveries under way are finished first. It has a
// ticker of its own, since Wake has it look in between.
func (b *Bus) Run(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		b.Flush(ctx)
		select {
		case <-ctx.Done():
			b.Release(ctx)
			return
		case <-b.wake:
		case <-look.C:
		}
	}
}

// Flush delivers what is due until nothing is, or ctx ends.
func (b *Bus) Flush(ctx context.Context) {
	for ctx.Err() == nil {
		if b.keepFor > 0 { // in the loop, which may go on for long
			if err := b.heartbeat(ctx); ctx.Err() == nil && b.recording.Log(err) {
				b.log.Warn("recording that a subscriber is served failed; it is tried again", "subscriber", b.subscriber.Name(), "error", err)
			}
		}
		n, err := b.DeliverDue(ctx)
		if ctx.Err() == nil && b.reading.Log(err) {
			b.log.Error("reading the outbox failed; its events are kept", "subscriber", b.subscriber.Name(), "error", err)
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// DeliverDue tries some of the deliveries that are due and says how many.
func (b *Bus) DeliverDue(ctx context.Context) (int, error) {
	// Looking costs no write: an idle server leaves the disk alone.
	due, err := b.due(ctx)
	if err != nil || len(due) == 0 {
		return 0, err
	}
	if held, err := b.takeLease(ctx); err != nil || !held {
		return 0, err
	}
	if err := b.recordRest(ctx); err != nil {
		return 0, err
	}
	// Read again under the lease: its last holder may have just delivered them.
	if due, err = b.due(ctx); err != nil {
		return 0, err
	}
	// Deliveries that have begun are finished even if ctx ends: a mail that is
	// interrupted would be sent twice.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go b.keepLease(work, stop)
	if b.keepFor > 0 {
		done, failed := b.deliverInOrder(ctx, work, due)
		if failed != nil {
			stop()
			b.Release(ctx) // another server may reach the subscriber
		}
		return done, nil
	}
	var wg sync.WaitGroup
	for _, d := range due {
		wg.Go(func() { b.deliver(work, d) })
	}
	wg.Wait()
	return len(due), nil
}

// due lists deliveries that may be tried now.
func (b *Bus) due(ctx context.Context) ([]store.Delivery, error) {
	now, resting := b.store.Now(), b.paused()
	if b.keepFor == 0 {
		if resting {
			return nil, nil
		}
		return b.store.Read(ctx).DueDeliveries(b.subscriber.Name(), now, cmp.Or(b.AtOnce, batch))
	}
	due, err := b.store.Read(ctx).NextDeliveries(b.subscriber.Name(), orderedBatch)
	if err == nil && len(due) > 0 && (now.Before(due[0].DueAt) || resting) {
		due = nil // the first one holds up the others
	}
	return due, err
}

func (b *Bus) deliver(ctx context.Context, d store.Delivery) {
	err := errExpired
	switch {
	case !b.hasLease():
		return // this process stood still: another process delivers now
	case b.store.Now().Before(d.ExpiresAt):
		err = b.try(ctx, d.Event)
	case d.LastError != "": // the operator wants to know the cause
		err = fmt.Errorf("%w: %s", errExpired, d.LastError)
	}
	outcome := func(tx *store.Tx) error {
		_, err := tx.Delivered(d.Subscriber, d.ID)
		return err
	}
	log := b.logOf(d)
	var due time.Time
	if err != nil {
		due = nextTry(d, b.store.Now(), b.wait(d, err))
		reason := reasonOf(err)
		outcome = func(tx *store.Tx) error { return tx.DeliveryFailed(d.Subscriber, d.ID, reason, due) }
	}
	b.record(ctx, log, outcome)
	b.pause(err)
	if due.IsZero() { // it is over
		b.mu.Lock()
		delete(b.later, d.ID)
		b.mu.Unlock()
	}
	// Logged once it is true: an operator acts on it.
	switch {
	case err == nil:
	case due.IsZero():
		b.dropped.Add(1)
		log.Error("an event could not be delivered before it expired; it is kept", "attempts", d.Attempts+1, "error", err)
	default:
		log.Warn("an event could not be delivered; it is tried again", "attempts", d.Attempts+1, "due", due, "error", err)
	}
}

func (b *Bus) logOf(d store.Delivery) *slog.Logger {
	return b.log.With("subscriber", d.Subscriber, "event", d.ID, "type", d.Type, "user", d.UserID)
}

// record writes an outcome. If that fails, it is written before the next delivery.
// It is also written if the lease was lost meanwhile, which ends ctx.
func (b *Bus) record(ctx context.Context, log *slog.Logger, outcome func(*store.Tx) error) {
	if err := b.store.InTx(context.WithoutCancel(ctx), outcome); err != nil {
		log.Error("recording a delivery failed; it is recorded before the next one", "error", err)
		b.mu.Lock()
		b.unrecorded = append(b.unrecorded, outcome)
		b.mu.Unlock()
	}
}

// recordRest writes the outcomes that could not be written before: with a full disk,
// mails must not be sent again and again.
func (b *Bus) recordRest(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.unrecorded) > 0 {
		if err := b.store.InTx(ctx, b.unrecorded[0]); err != nil {
			return err
		}
		b.unrecorded = b.unrecorded[1:]
	}
	return nil
}

var errExpired = errors.New("it expired before it could be delivered")

// try delivers one event. A subscriber that panics must not end the server: it
// would do so again after each restart.
func (b *Bus) try(ctx context.Context, event store.Event) (err error) {
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the subscriber panicked: %v", ErrRefused, p)
		}
		if err == nil {
			b.delivered.Add(1)
		} else {
			b.failed.Add(1)
		}
	}()
	return b.subscriber.Deliver(ctx, event)
}

// nextTry is when a failed delivery is tried again; zero if that would be too late.
func nextTry(d store.Delivery, now time.Time, wait time.Duration) time.Time {
	due := now.Add(wait)
	if last := d.ExpiresAt.Add(-lastTry); due.After(last) && now.Before(last) {
		due = last
	}
	if !due.Before(d.ExpiresAt) {
		return time.Time{}
	}
	return due
}

// wait is how long to wait after the attempts so far and this one. After an
// ErrLater only attempts count that ended so: the first such answer after an outage
// of hours means no more than without an outage.
func (b *Bus) wait(d store.Delivery, err error) time.Duration {
	attempts, longest := d.Attempts, maxWait
	switch {
	case errors.Is(err, ErrRefused):
		longest = maxWaitRefused
	case errors.Is(err, ErrLater):
		b.mu.Lock()
		defer b.mu.Unlock()
		attempts, longest = b.later[d.ID], maxWaitLater
		b.later[d.ID]++
	}
	return min(time.Second<<min(attempts, 30), longest)
}

// pause stops all deliveries for a while after an ErrAllLater.
func (b *Bus) pause(err error) {
	now := b.store.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.pauses = 0
	case errors.Is(err, ErrAllLater) && !now.Before(b.pausedUntil):
		wait := min(firstPause<<min(b.pauses, 30), maxWaitLater)
		b.pausedUntil = now.Add(wait)
		b.pauses++
		b.log.Warn("deliveries pause: the other side takes nothing for now", "subscriber", b.subscriber.Name(), "until", b.pausedUntil)
	}
}

// paused reports whether all deliveries pause.
func (b *Bus) paused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.Now().Before(b.pausedUntil)
}

func reasonOf(err error) string {
	s := strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\x00", ""), "�")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…" // without half a character
	}
	return s
}

func (b *Bus) lease() string { return "deliver:" + b.subscriber.Name() }

// takeLease takes or prolongs the lease; false while another process holds it.
func (b *Bus) takeLease(ctx context.Context) (held bool, err error) {
	until := b.store.Now().Add(leaseLife) // read before the database has it: never later than there
	err = b.store.Statement(ctx, func(tx *store.Tx) (err error) {
		held, err = tx.HoldLease(b.lease(), b.owner, tx.Now.Add(leaseLife))
		return err
	})
	if err == nil && held {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.until = until
	}
	return held, err
}

// hasLease reports whether the lease still holds, by the clock: a process that
// stood still for long must not simply go on.
func (b *Bus) hasLease() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.Now().Before(b.until)
}

// keepLease prolongs the lease until ctx ends, for as long as its delivery takes. If
// that fails it calls lost, since another process may deliver from then on.
func (b *Bus) keepLease(ctx context.Context, lost func()) {
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if held, err := b.takeLease(ctx); err != nil || !held {
				if ctx.Err() == nil {
					b.log.Warn("lost the lease to deliver events", "subscriber", b.subscriber.Name(), "error", err)
				}
				lost()
				return
			}
		}
	}
}

// Release lets the next process deliver without waiting for the lease's end.
func (b *Bus) Release(ctx context.Context) {
	err := b.store.Statement(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		return tx.ReleaseLease(b.lease(), b.owner)
	})
	if err != nil {
		b.log.Warn("releasing the lease to deliver events failed; it ends by itself", "error", err)
	}
}
