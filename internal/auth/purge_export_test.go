package auth

import (
	"context"
	"time"
)

// What purging does is told in these.
const (
	PurgeBatch  = purgeBatch
	PurgeMargin = purgeMargin
	PurgeLife   = purgeLife
	PurgeEvery  = purgeEvery
	PurgeLook   = purgeLook
)

// NewID is an id of that time.
func NewID(at time.Time) string { return newID(at) }

// Purger is what one replica purges by.
type Purger struct{ p *purger }

// NewPurger makes one that calls rest where it would pause.
func (s *Service) NewPurger(rest func()) *Purger {
	p := s.newPurger()
	p.rest = func(context.Context, time.Duration) { rest() }
	return &Purger{p}
}

// RestAsServed has it pause as long as a server's does.
func (p *Purger) RestAsServed() *Purger {
	p.p.rest = restAfter
	return p
}

// Sweep goes through all tables once; false if another one does, or did.
func (p *Purger) Sweep(ctx context.Context) (bool, error) { return p.p.sweep(ctx) }

// Release gives up the lease.
func (p *Purger) Release(ctx context.Context) { p.p.release(ctx) }
