// Package bus carries events from the outbox to their subscribers.
//
// Events are written by package auth in the transaction of what they tell
// (store.Tx.Publish), so none is lost and none tells what didn't happen. The
// bus hands each to its subscribers until they accept it: at least once, each
// subscriber by one process at a time, which holds a lease in the database. A
// crash between a subscriber's acceptance and its record delivers an event
// again: a subscriber must bear that.
//
// There are two kinds of subscribers. [New] is for one within kwai, such as the
// mail: it is told some kinds of events, several at a time, each by itself. One
// that isn't accepted is tried again after 1, 2, 4, 8 and then every 15 seconds,
// and a last time just before it expires; then it is kept as a dead letter. One
// whose subscriber says [ErrRefused] is tried more seldom, up to 10 minutes
// apart, one of which it says [ErrLater] up to 5 minutes; [ErrAllLater] holds up
// all of them. [NewOrdered] is for one outside, such as a [NATS] server: it is told
// every event, one after the other; one that isn't accepted holds up the others
// until it is, or is too old.
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
	"unicode/utf8"

	"github.com/google/uuid"

	"kwai/internal/database"
	"kwai/internal/store"
)

// Subscriber is told of events.
type Subscriber interface {
	// Name is the name under which deliveries to it are stored.
	Name() string
	// Deliver accepts an event. Its error is stored and logged: no secrets.
	Deliver(ctx context.Context, event store.Event) error
}

// ErrRefused is wrapped by the error of a delivery that will hardly succeed
// soon, because the other side understood it and said no.
var ErrRefused = errors.New(store.Refused)

// ErrAlone is wrapped by the error of a delivery that is tried as usual, although
// what keeps it says nothing of the others; the same goes for ErrRefused.
var ErrAlone = errors.New(store.Alone)

// ErrLater is wrapped by the error of a delivery to which the other side said: not
// now. Some count such tries, and would never take what is tried every 15 seconds.
var ErrLater = errors.New("not now")

// ErrAllLater is an ErrLater that goes for whatever is delivered next, too.
var ErrAllLater = fmt.Errorf("nothing for now: %w", ErrLater)

const (
	leaseLife  = 10 * time.Second
	leaseEvery = 3 * time.Second

	batch           = 2                // deliveries under way at the same time, by default
	row             = 64               // deliveries one after the other, noted together
	deliveryTimeout = 30 * time.Second // for one delivery
	lookEvery       = time.Second      // at the outbox, where nobody wakes the bus

	lastTry        = time.Second // before an event expires
	maxWait        = 15 * time.Second
	maxWaitOutside = 2 * time.Second // others wait behind it
	maxWaitRefused = 10 * time.Minute
	maxWaitLater   = 5 * time.Minute
	firstRest      = 15 * time.Second // after ErrAllLater; each further one doubles it
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
	keepFor    time.Duration // of events for a subscriber outside; 0: it is one within
	wake       chan struct{}

	staying, reading database.Recurring // of Flush

	mu        sync.Mutex
	restUntil time.Time               // after an event failed that others wait behind
	rests     int                     // after an ErrAllLater, since the latest success
	later     map[string]int          // how often an event's delivery ended with an ErrLater
	until     time.Time               // the lease's end
	unnoted   []func(*store.Tx) error // outcomes that could not be written yet

	delivered, failed, dropped atomic.Int64
}

// New makes a bus; Run starts it.
func New(db *store.Store, subscriber Subscriber, log *slog.Logger) *Bus {
	return &Bus{store: db, subscriber: subscriber, log: log, owner: uuid.NewString(), wake: make(chan struct{}, 1), later: make(map[string]int)}
}

// SetOwner names the process that runs the bus, instead of an id of its own. It is
// called before Run.
func (b *Bus) SetOwner(name string) { b.owner = name }

// Wake makes the bus look for events at once. It never blocks.
func (b *Bus) Wake() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends; what is under way then is finished first. It has a
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
		if b.keepFor > 0 { // here, for there may be no end to what is due
			if err := b.heartbeat(ctx); ctx.Err() == nil && b.staying.Log(err) {
				b.log.Warn("noting who is told of events; it is noted later", "subscriber", b.subscriber.Name(), "error", err)
			}
		}
		n, err := b.DeliverDue(ctx)
		if ctx.Err() == nil && b.reading.Log(err) {
			b.log.Error("reading the outbox; its events are kept", "subscriber", b.subscriber.Name(), "error", err)
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
	if held, err := b.hold(ctx); err != nil || !held {
		return 0, err
	}
	if err := b.noteRest(ctx); err != nil {
		return 0, err
	}
	// Read again under the lease: its last holder may have just delivered them.
	if due, err = b.due(ctx); err != nil {
		return 0, err
	}
	// What has begun is finished although ctx ends: a mail given up half-way is
	// a mail sent twice.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go b.keep(work, stop)
	if b.keepFor > 0 {
		done, failed := b.deliverInOrder(ctx, work, due)
		if failed != nil {
			stop()
			b.Release(ctx) // the way from another server may be open
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
	now, resting := b.store.Now(), b.resting()
	if b.keepFor == 0 {
		if resting {
			return nil, nil
		}
		return b.store.Read(ctx).DueDeliveries(b.subscriber.Name(), now, cmp.Or(b.AtOnce, batch))
	}
	due, err := b.store.Read(ctx).NextDeliveries(b.subscriber.Name(), row)
	if err == nil && len(due) > 0 && (now.Before(due[0].DueAt) || resting) {
		due = nil // the first one holds up the others
	}
	return due, err
}

func (b *Bus) deliver(ctx context.Context, d store.Delivery) {
	err := errExpired
	switch {
	case !b.holds():
		return // this process stood still: another one delivers now
	case b.store.Now().Before(d.ExpiresAt):
		err = b.try(ctx, d.Event)
	case d.LastError != "": // who reads of the end wants to know the cause
		err = fmt.Errorf("%w: %s", errExpired, d.LastError)
	}
	note := func(tx *store.Tx) error {
		_, err := tx.Delivered(d.Subscriber, d.ID)
		return err
	}
	log := b.logOf(d)
	var due time.Time
	if err != nil {
		due = nextTry(d, b.store.Now(), b.wait(d, err))
		reason := reasonOf(err)
		note = func(tx *store.Tx) error { return tx.DeliveryFailed(d.Subscriber, d.ID, reason, due) }
	}
	b.note(ctx, log, note)
	b.rest(err)
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

// note writes an outcome, at the next occasion if it can't be written now. It is
// true also where the lease was lost meanwhile, which ends ctx.
func (b *Bus) note(ctx context.Context, log *slog.Logger, outcome func(*store.Tx) error) {
	if err := b.store.InTx(context.WithoutCancel(ctx), outcome); err != nil {
		log.Error("noting a delivery; it is noted before the next one", "error", err)
		b.mu.Lock()
		b.unnoted = append(b.unnoted, outcome)
		b.mu.Unlock()
	}
}

// noteRest writes the outcomes that could not be written when they were known:
// a full disk must not have mails sent again and again.
func (b *Bus) noteRest(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.unnoted) > 0 {
		if err := b.store.InTx(ctx, b.unnoted[0]); err != nil {
			return err
		}
		b.unnoted = b.unnoted[1:]
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

// nextTry is when a delivery that failed now is tried again; zero where it would
// be too late.
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

// wait is how long to wait after the attempts so far and this one. For an ErrLater
// only those count that ended so: after an outage of hours the first one says no
// more than it does after none.
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

// rest holds up all deliveries for a while after an ErrAllLater.
func (b *Bus) rest(err error) {
	now := b.store.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.rests = 0
	case errors.Is(err, ErrAllLater) && !now.Before(b.restUntil):
		rest := min(firstRest<<min(b.rests, 30), maxWaitLater)
		b.restUntil = now.Add(rest)
		b.rests++
		b.log.Warn("nothing is delivered for a while: the other side wants no more for now", "subscriber", b.subscriber.Name(), "until", b.restUntil)
	}
}

// resting says whether all deliveries are held up.
func (b *Bus) resting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.Now().Before(b.restUntil)
}

func reasonOf(err error) string {
	s := strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\x00", ""), "�")
	if len(s) > maxReason {
		cut := maxReason
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

func (b *Bus) lease() string { return "deliver:" + b.subscriber.Name() }

// hold takes or prolongs the lease; false while another process holds it.
func (b *Bus) hold(ctx context.Context) (held bool, err error) {
	until := b.store.Now().Add(leaseLife) // before it is in the database: never later than there
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

// holds says whether the lease is held still, by the clock: a process that stood
// still for long must not go on as if nothing had happened.
func (b *Bus) holds() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.Now().Before(b.until)
}

// keep prolongs the lease until ctx ends; lost is called where that fails, for
// another process may deliver from then on. It goes on as long as the delivery
// that it is for, and no longer.
func (b *Bus) keep(ctx context.Context, lost func()) {
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if held, err := b.hold(ctx); err != nil || !held {
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
		b.log.Warn("releasing the lease to deliver events; it ends by itself", "error", err)
	}
}
