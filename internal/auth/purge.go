package auth

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/store"
)

const (
	// purgeEvery is how often all tables are gone through, and purgeLook how
	// often a replica looks whether another one does that.
	purgeEvery = time.Hour
	purgeLook  = time.Minute
	// purgeLife is the lease's during that; after it, it lasts until the next time.
	purgeLife = time.Minute
	// purgeBatch is how many rows are looked at, and removed at most, in one
	// transaction: some milliseconds on SQLite, where nobody else writes meanwhile.
	purgeBatch = 200
	// purgeRest is the pause after each, or four times what it took if that is
	// longer: on a busy database purging takes a fifth of the time at most.
	purgeRest    = 50 * time.Millisecond
	purgeMaxRest = 10 * time.Second
	// purgeMargin is how much longer than needed a row stays: a clock that is ahead by
	// a day or so removes nothing that is needed once it is put right.
	purgeMargin = 48 * time.Hour
)

// purger removes what is no longer of use.
type purger struct {
	*Service
	owner string
	rest  func(ctx context.Context, took time.Duration)
	held  time.Time // when the lease was last prolonged
	next  time.Time // when Purge sweeps again
}

func (s *Service) newPurger() *purger {
	return &purger{Service: s, owner: cmp.Or(s.Name, uuid.NewString()), rest: restAfter}
}

func restAfter(ctx context.Context, took time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(min(max(purgeRest, 4*took), purgeMaxRest)):
	}
}

// Purge removes what is no longer of use: sessions, recoveries and counts of attempts
// that are over, the audit log and undelivered mail once they are older than
// Settings.AuditKeep. A server calls it each second, and StopPurging in the end. It
// does nothing unless it is time: soon after the start, then each hour. It works in
// small steps, and of several replicas one does.
func (s *Service) Purge(ctx context.Context) {
	if s.purger == nil {
		s.purger = s.newPurger()
		s.purger.next = time.Now().Add(purgeLook)
	}
	if time.Now().Before(s.purger.next) {
		return
	}
	swept, err := s.purger.sweep(ctx)
	s.purger.next = time.Now().Add(purgeLook)
	if swept {
		s.purger.next = time.Now().Add(purgeEvery)
	}
	if err != nil && ctx.Err() == nil {
		s.Log.Warn("removing what is over; it is tried again", "error", err)
	}
}

// StopPurging lets another replica go on without waiting for the lease's end.
func (s *Service) StopPurging(ctx context.Context) {
	if s.purger != nil {
		s.purger.release(ctx)
	}
}

// errNotHeld says that another replica purges.
var errNotHeld = errors.New("another replica has the lease to purge")

// sweep goes through all tables once; false if another replica does, or did.
func (p *purger) sweep(ctx context.Context) (swept bool, err error) {
	defer func() {
		if errors.Is(err, errNotHeld) {
			err = nil
		}
	}()
	if err := p.hold(ctx, purgeLife); err != nil {
		return false, err
	}
	begun := time.Now()
	var removed []any
	var errs []error
	for i, t := range store.Purges {
		n, err := p.purge(ctx, t, &p.purged.rows[i])
		if n > 0 {
			removed = append(removed, t.Table, n)
		}
		if errors.Is(err, errNotHeld) || ctx.Err() != nil {
			return false, err
		}
		errs = append(errs, err) // a table that can't be purged keeps no other from it
	}
	keys, err := p.Keys.Purge(ctx)
	if keys > 0 {
		removed = append(removed, "keys", keys)
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return false, err
	}
	took := time.Since(begun)
	p.purged.sweeps.Add(1)
	p.purged.took.Add(int64(took))
	if len(removed) > 0 {
		p.Log.Info("removed what was over", append(removed, "took", took)...)
	}
	// The others wait until it is time again. Should this one die, they do it then.
	err = p.hold(ctx, purgeEvery+purgeLook)
	return err == nil, err
}

// purge removes what is over in a table and says how many rows that were.
func (p *purger) purge(ctx context.Context, t store.Purge, count *atomic.Int64) (removed int64, err error) {
	for after := ""; ; {
		begun := time.Now()
		page, err := t.Look(p.Store.Read(ctx), after, purgeBatch, p.over(p.Store.Now()))
		if err != nil {
			return removed, err
		}
		n := int64(0)
		if page.Over > 0 {
			n, err = p.remove(ctx, t, after, page)
		} else if time.Since(p.held) > purgeLife/3 {
			err = p.hold(ctx, purgeLife)
		}
		count.Add(n)
		removed += n
		if err == nil {
			p.rest(ctx, time.Since(begun))
			err = ctx.Err()
		}
		if err != nil || !page.More {
			return removed, err
		}
		after = page.Last
	}
}

// remove prolongs the lease in the same transaction: a replica that stood still while
// another took over removes nothing.
func (p *purger) remove(ctx context.Context, t store.Purge, after string, page store.Page) (n int64, err error) {
	err = p.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		n = 0
		held, err := tx.HoldLease(purgeLease, p.owner, tx.Now.Add(purgeLife))
		if err == nil && !held {
			err = errNotHeld
		}
		if err == nil {
			n, err = t.Remove(tx, after, page, p.over(tx.Now))
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	p.held = time.Now()
	return n, nil
}

// over is what has been over for the margin.
func (p *purger) over(now time.Time) store.Cutoffs {
	now = now.Add(-purgeMargin)
	return store.Cutoffs{Ended: now, Recorded: now.Add(-p.Settings.AuditKeep), Lifetimes: p.Settings.lifetimes()}
}

// purgeLease is the name of the lease.
const purgeLease = "purge"

func (p *purger) hold(ctx context.Context, life time.Duration) error {
	held := false
	err := p.Store.Statement(ctx, func(tx *store.Tx) (err error) {
		held, err = tx.HoldLease(purgeLease, p.owner, tx.Now.Add(life))
		return err
	})
	if err == nil && !held {
		err = errNotHeld
	}
	p.held = time.Now()
	return err
}

func (p *purger) release(ctx context.Context) {
	err := p.Store.Statement(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.ReleaseLease(purgeLease, p.owner) })
	if err != nil {
		p.Log.Warn("releasing the lease to purge; it ends by itself", "error", err)
	}
}

// purgeCounts is what was purged. The zero value is ready.
type purgeCounts struct {
	rows         [len(store.Purges)]atomic.Int64
	sweeps, took atomic.Int64
}

func (c *purgeCounts) metrics() []prometheus.Collector {
	all := []prometheus.Collector{
		counter("kwai_purges_total", "Times that all tables were gone through for what is over.", nil, &c.sweeps),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kwai_purge_seconds_total", Help: "Time that took, pauses included."},
			func() float64 { return time.Duration(c.took.Load()).Seconds() }),
	}
	for i, t := range store.Purges {
		all = append(all, counter("kwai_purged_rows_total", "Rows that were removed because they were over.", prometheus.Labels{"table": t.Table}, &c.rows[i]))
	}
	return all
}
