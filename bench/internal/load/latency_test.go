package load_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"kwai/bench/internal/load"
)

func TestQuantileIsTheNearestRank(t *testing.T) {
	t.Parallel()
	hundred := make(load.Latencies, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	rand.Shuffle(len(hundred), func(i, j int) { hundred[i], hundred[j] = hundred[j], hundred[i] })
	for _, test := range []struct {
		name  string
		parts []load.Latencies
		q     float64
		want  time.Duration
	}{
		{"nothing was seen", nil, 0.5, 0},
		{"one, the median", []load.Latencies{{7}}, 0.5, 7},
		{"one, the greatest", []load.Latencies{{7}}, 1, 7},
		{"two, the median is the lower", []load.Latencies{{9}, {3}}, 0.5, 3},
		{"three, the median", []load.Latencies{{9, 5}, {}, {3}}, 0.5, 5},
		{"a hundred, the median", []load.Latencies{hundred[:30], hundred[30:]}, 0.5, 50},
		{"a hundred, one above", []load.Latencies{hundred[:30], hundred[30:]}, 0.99, 99},
		{"a hundred, just more", []load.Latencies{hundred[:30], hundred[30:]}, 0.991, 100},
		{"a hundred, the greatest", []load.Latencies{hundred[:30], hundred[30:]}, 1, 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := load.Merge(test.parts).Quantile(test.q); got != test.want {
				t.Errorf("quantile(%v) = %d, want %d", test.q, got, test.want)
			}
		})
	}
}
