package load

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Figures are what was seen of an operation. Times are those of the operations
// that succeeded, in milliseconds.
type Figures struct {
	Operations int     `json:"operations"`
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
	// CPU is the processor time of an operation, in microseconds, in all processes
	// that this program has started: without the client's. 0 where it isn't known.
	CPU float64 `json:"cpu_us,omitempty"`

	Done int      `json:"-"` // how many succeeded, before and after the time that counts too
	Last Exchange `json:"-"`
}

// Exchange is the last that a measurement saw of one of its connections.
type Exchange struct {
	Request []byte
	Size    int // of the answer's body, in bytes
}

// Drive does the operation from its connections, in a closed loop, for that
// long, or until ctx ends: then its error comes with the figures so far. The
// connections spread evenly over the addresses, host:port.
//
// Before that things warm up: for a tenth of the duration, and until each client
// has had an answer, so that all queue that will queue. What counts is what is
// done within the duration, whenever it was begun: so rate and latencies are
// right where an operation takes as long as the measurement.
func Drive(ctx context.Context, op Operation, duration time.Duration, addresses ...string) (Figures, error) {
	conns := make([]*Conn, op.Connections)
	times := make([]Latencies, op.Connections)
	done, failed := make([]int, op.Connections), make([]int, op.Connections)
	var firstError error
	var once sync.Once
	_, before, unknown := CPU()
	w := newWindow(op.Connections, duration)
	err := InParallel(ctx, op.Connections, func(i int) error {
		c := NewConn(addresses[i%len(addresses)])
		conns[i] = c
		defer c.Close()
		times[i] = make(Latencies, 0, 1<<14)
		before := time.Now()
		for first := true; ctx.Err() == nil; first = false {
			err := op.Step(c, i)
			after := time.Now()
			if first {
				w.arrived(after)
			}
			if err == nil {
				done[i]++
			}
			switch counts, over := w.at(after); {
			case over || errors.Is(err, ErrNoMore):
				return nil
			case !counts:
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
	f := figures(Merge(times), w.lasted(time.Now()))
	for i := range op.Connections {
		f.Done += done[i]
		f.Errors += failed[i]
	}
	if _, after, err := CPU(); err == nil && unknown == nil && f.Done > 0 {
		f.CPU = float64((after - before).Microseconds()) / float64(f.Done)
	}
	if firstError != nil {
		f.FirstError = firstError.Error()
	}
	f.Last = Exchange{conns[0].request, len(conns[0].body)}
	return f, err
}

// window is the time in which what is done counts.
type window struct {
	start        time.Time
	warm, length time.Duration
	waiting      atomic.Int64 // clients that have not arrived
	begin        atomic.Int64 // nanoseconds from start; 0: some have not arrived
}

func newWindow(clients int, length time.Duration) *window {
	w := &window{start: time.Now(), warm: length / 10, length: length}
	w.waiting.Store(int64(clients))
	return w
}

// arrived says that one more client is under way, which each says once.
func (w *window) arrived(now time.Time) {
	if w.waiting.Add(-1) == 0 {
		w.begin.Store(int64(max(now.Sub(w.start), w.warm, 1)))
	}
}

// at says whether what is done at that time counts, and whether it is past the
// time when anything does.
func (w *window) at(t time.Time) (counts, over bool) {
	begin := time.Duration(w.begin.Load())
	since := t.Sub(w.start) - begin
	return begin > 0 && since >= 0 && since <= w.length, begin > 0 && since > w.length
}

// lasted is how long the window was open if all has ended now.
func (w *window) lasted(now time.Time) time.Duration {
	begin := time.Duration(w.begin.Load())
	if begin == 0 {
		return 0
	}
	return max(0, min(w.length, now.Sub(w.start)-begin))
}

// figures are those of operations that took these times, sorted, and were done
// within so long.
func figures(times Latencies, within time.Duration) Figures {
	f := Figures{
		Operations: len(times), Seconds: within.Seconds(),
		P50: milliseconds(times.Quantile(0.5)), P99: milliseconds(times.Quantile(0.99)), Max: milliseconds(times.Quantile(1)),
	}
	if f.Seconds > 0 {
		f.PerSecond = float64(f.Operations) / f.Seconds
	}
	return f
}
