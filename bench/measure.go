package main

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	hashing "kwai/internal/password"
)

// figures are what was seen of an operation. Times are those of the operations
// that succeeded, in milliseconds.
type figures struct {
	Operations int     `json:"operations"`
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
}

// sample is the last exchange that a measurement saw.
type sample struct {
	request []byte
	size    int // of the answer's body, in bytes
}

// drive does the operation from its connections, in a closed loop, for that
// long. What begins in the first tenth warms things up and isn't counted.
func drive(ctx context.Context, address string, op operation, duration time.Duration) (figures, sample, error) {
	conns := make([]*conn, op.connections)
	times := make([]latencies, op.connections)
	failed := make([]int, op.connections)
	var firstError error
	var once sync.Once
	begin := time.Now().Add(duration / 10)
	end := begin.Add(duration)
	err := inParallel(ctx, op.connections, func(i int) error {
		c := &conn{address: address}
		conns[i] = c
		defer c.close()
		times[i] = make(latencies, 0, 1<<14)
		for before := time.Now(); before.Before(end) && ctx.Err() == nil; {
			err := op.step(c, i)
			after := time.Now()
			switch {
			case errors.Is(err, errNoMore):
				return nil
			case before.Before(begin):
			case err != nil:
				failed[i]++
				once.Do(func() { firstError = err })
			default:
				times[i] = append(times[i], after.Sub(before))
			}
			before = after
		}
		return ctx.Err()
	})
	seconds := time.Since(begin).Seconds()
	all := merge(times)
	f := figures{
		Operations: len(all), Seconds: seconds, PerSecond: float64(len(all)) / seconds,
		P50: milliseconds(all.quantile(0.5)), P99: milliseconds(all.quantile(0.99)), Max: milliseconds(all.quantile(1)),
	}
	for _, n := range failed {
		f.Errors += n
	}
	if firstError != nil {
		f.FirstError = firstError.Error()
	}
	return f, sample{conns[0].request, len(conns[0].body)}, err
}

// hashRate is how many passwords all cores hash in a second when they do nothing
// else.
func hashRate(duration time.Duration) float64 {
	p := hashing.Default
	n := make([]int, runtime.GOMAXPROCS(0))
	begin := time.Now()
	_ = inParallel(context.Background(), len(n), func(i int) error {
		for time.Since(begin) < duration {
			argon2.IDKey([]byte(password), make([]byte, 16), p.Time, p.MemoryKiB, p.Threads, 32)
			n[i]++
		}
		return nil
	})
	seconds, sum := time.Since(begin).Seconds(), 0
	for _, k := range n {
		sum += k
	}
	return float64(sum) / seconds
}

// inParallel runs do(0) to do(n-1) at the same time and joins their errors.
func inParallel(ctx context.Context, n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(errs...)
}
