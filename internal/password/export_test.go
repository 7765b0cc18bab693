package password

import (
	"context"
	"time"
)

// DefaultWorkers is under test with made-up machines.
var DefaultWorkers = defaultWorkers

// HashingShare is under test with made-up machines.
var HashingShare = hashingShare

// OccupyAt has a worker that may hash for that share of its time hash for d.
func (p *Pool) OccupyAt(ctx context.Context, share float64, d time.Duration) error {
	return p.do(ctx, func(w *worker) {
		time.Sleep(d)
		w.share, w.took = share, d
	})
}

// Blocklist is the list as embedded, for a look-up of every line.
var Blocklist = blocklist

// Occupy has a worker run work: tests hold workers with it for as long as they
// like, which no hash does.
func (p *Pool) Occupy(ctx context.Context, work func()) error {
	return p.do(ctx, func(*worker) { work() })
}

// SetPatience replaces the time after which a process counts as stuck, until it is
// given back.
func SetPatience(d time.Duration) (restore func()) {
	before := patience
	patience = d
	return func() { patience = before }
}

// HashTook hashes and returns the time that the worker holds against its share.
func (p *Pool) HashTook(ctx context.Context) (took time.Duration, err error) {
	t := task{Params: p.params, Salt: make([]byte, saltBytes), Size: keyBytes}
	var failed error
	err = p.do(ctx, func(w *worker) {
		_, failed = w.compute(t)
		took = w.took
	})
	if err == nil {
		err = failed
	}
	return took, err
}
