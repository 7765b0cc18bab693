package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"kwai/bench/internal/load"
)

const honestConnections = 16

// sample is one honest request.
type sample struct {
	at     time.Duration // of its answer, since the measurement began
	took   time.Duration
	status int
}

// record is what honest clients see.
type record struct {
	began time.Time

	mu      sync.Mutex
	samples []sample
}

func (r *record) all() []sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.samples)
}

// drive does the operation from its connections in a closed loop, for that long
// or until ctx ends. Unlike load.Drive it counts by status, and what was begun
// in time however late it ends: logins beside a flood take longer than they are
// measured.
func drive(ctx context.Context, t *target, op load.Operation, duration time.Duration, r *record) {
	_ = load.InParallel(ctx, op.Connections, func(i int) error {
		c := load.NewConn(t.server.Address)
		c.From = t.honest
		defer c.Close()
		for before := time.Now(); before.Sub(r.began) < duration && ctx.Err() == nil; {
			err := op.Step(c, i)
			after := time.Now()
			if errors.Is(err, load.ErrNoMore) {
				return nil
			}
			r.mu.Lock()
			r.samples = append(r.samples, sample{after.Sub(r.began), after.Sub(before), statusOf(err)})
			r.mu.Unlock()
			before = after
		}
		return nil
	})
}

// statusOf is the status that a step's error stands for.
func statusOf(err error) int {
	if err == nil {
		return http.StatusOK
	}
	if e, ok := errors.AsType[*load.StatusError](err); ok {
		return e.Status
	}
	return brokenOff
}

// figures are what honest clients saw of an operation. Rates and times are those
// of what succeeded, in milliseconds.
type figures struct {
	PerSecond float64     `json:"per_second"`
	P50       float64     `json:"p50_ms"`
	P99       float64     `json:"p99_ms"`
	Answers   map[int]int `json:"answers"` // by status
}

// sum makes figures of samples. What ended before from, while connections were
// being opened, counts by its status only.
func sum(samples []sample, from time.Duration) figures {
	f := figures{Answers: make(map[int]int)}
	var times load.Latencies
	var end time.Duration
	for _, s := range samples {
		f.Answers[s.status]++
		end = max(end, s.at)
		if s.status == http.StatusOK && s.at >= from {
			times = append(times, s.took)
		}
	}
	if len(times) == 0 {
		return f
	}
	times = load.Merge([]load.Latencies{times})
	f.PerSecond = float64(len(times)) / max(end-from, time.Millisecond).Seconds()
	f.P50, f.P99 = milliseconds(times.Quantile(0.5)), milliseconds(times.Quantile(0.99))
	return f
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// backAt is when so many requests a second first succeeded for the length of a
// window: the window's beginning. It is false if that never was.
func backAt(samples []sample, perSecond float64, window time.Duration) (time.Duration, bool) {
	var ends []time.Duration
	for _, s := range samples {
		if s.status == http.StatusOK {
			ends = append(ends, s.at)
		}
	}
	slices.Sort(ends)
	first := 0
	for i, end := range ends {
		for end-ends[first] > window {
			first++
		}
		if float64(i-first+1) >= perSecond*window.Seconds() {
			return max(0, end-window), true
		}
	}
	return 0, false
}
