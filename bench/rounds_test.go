package main

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kwai/bench/internal/load"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 9, 1, 2}, 3},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestMiddleStandsOneDisturbance(t *testing.T) {
	t.Parallel()
	got := middle([]load.Figures{
		{Operations: 100, Seconds: 1, PerSecond: 100, P50: 1, P99: 2, Max: 3},
		{Operations: 10, Errors: 2, FirstError: "refused", Seconds: 2, PerSecond: 5, P50: 50, P99: 60, Max: 70},
		{Operations: 110, Errors: 1, FirstError: "cut off", Seconds: 1, PerSecond: 110, P50: 1.5, P99: 2.5, Max: 4},
	})
	want := load.Figures{Operations: 220, Errors: 3, FirstError: "refused", Seconds: 4, PerSecond: 100, P50: 1.5, P99: 2.5, Max: 70}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRatiosAreThoseOfTheRounds(t *testing.T) {
	t.Parallel()
	figures := func(pairs ...float64) (all []load.Figures) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, load.Figures{PerSecond: pairs[i], P99: pairs[i+1]})
		}
		return all
	}
	for _, c := range []struct {
		name      string
		of, limit []load.Figures
		rate, p99 float64
	}{
		{"a machine that slows down", figures(50, 2, 25, 4, 5, 20), figures(100, 1, 50, 2, 10, 10), 0.5, 2},
		{"one round disturbed", figures(50, 2, 1, 90, 60, 2), figures(100, 1, 100, 1, 100, 1), 0.5, 2},
		{"a limit without latencies", figures(50, 2, 50, 2), figures(100, 0, 100, 0), 0.5, 0},
		{"a limit that did nothing once", figures(50, 2, 50, 2), figures(0, 0, 100, 1), 0.5, 2},
	} {
		rate, p99 := ratios(c.of, c.limit)
		if math.Abs(rate-c.rate) > 1e-9 || math.Abs(p99-c.p99) > 1e-9 {
			t.Errorf("%s: %v and %v, want %v and %v", c.name, rate, p99, c.rate, c.p99)
		}
	}
}
