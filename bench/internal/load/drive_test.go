package load_test

import (
	"testing"
	"time"

	"kwai/bench/internal/load"
)

func TestWindowOpensWhenAllHaveArrived(t *testing.T) {
	t.Parallel()
	const length = 10 * time.Second
	for _, c := range []struct {
		name     string
		arrivals []time.Duration // of two clients
		begin    time.Duration   // 0: never
	}{
		{"at once", []time.Duration{0, time.Millisecond}, time.Second},
		{"late", []time.Duration{time.Millisecond, 3 * time.Second}, 3 * time.Second},
		{"one never", []time.Duration{time.Millisecond}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := load.NewWindow(2, length)
			for _, since := range c.arrivals {
				w.Arrived(since)
			}
			open := c.begin > 0
			for _, at := range []struct {
				since        time.Duration
				counts, over bool
			}{
				{0, false, false},
				{c.begin - 1, false, false},
				{c.begin, open, false},
				{c.begin + length, open, false},
				{c.begin + length + 1, false, open},
			} {
				if counts, over := w.At(at.since); counts != at.counts || over != at.over {
					t.Errorf("at %v it counts: %v, it is over: %v", at.since, counts, over)
				}
			}
			for _, end := range []struct{ since, lasted time.Duration }{
				{c.begin / 2, 0}, {c.begin + length/2, length / 2}, {c.begin + 2*length, length},
			} {
				if !open {
					end.lasted = 0
				}
				if got := w.Lasted(end.since); got != end.lasted {
					t.Errorf("ended at %v it lasted %v, want %v", end.since, got, end.lasted)
				}
			}
		})
	}
}
