package main

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestQuantileIsTheNearestRank(t *testing.T) {
	t.Parallel()
	hundred := make(latencies, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	rand.Shuffle(len(hundred), func(i, j int) { hundred[i], hundred[j] = hundred[j], hundred[i] })
	for _, test := range []struct {
		name  string
		parts []latencies
		q     float64
		want  time.Duration
	}{
		{"nothing was seen", nil, 0.5, 0},
		{"one, the median", []latencies{{7}}, 0.5, 7},
		{"one, the greatest", []latencies{{7}}, 1, 7},
		{"two, the median is the lower", []latencies{{9}, {3}}, 0.5, 3},
		{"three, the median", []latencies{{9, 5}, {}, {3}}, 0.5, 5},
		{"a hundred, the median", []latencies{hundred[:30], hundred[30:]}, 0.5, 50},
		{"a hundred, one above", []latencies{hundred[:30], hundred[30:]}, 0.99, 99},
		{"a hundred, just more", []latencies{hundred[:30], hundred[30:]}, 0.991, 100},
		{"a hundred, the greatest", []latencies{hundred[:30], hundred[30:]}, 1, 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := merge(test.parts).quantile(test.q); got != test.want {
				t.Errorf("quantile(%v) = %d, want %d", test.q, got, test.want)
			}
		})
	}
}
