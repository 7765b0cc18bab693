package load

import (
	"math"
	"slices"
	"time"
)

// Latencies are the times that operations took, each one kept: exact, and at
// eight bytes each small enough for what a machine does in minutes.
type Latencies []time.Duration

// Merge joins and sorts what several connections saw.
func Merge(parts []Latencies) Latencies {
	all := slices.Concat(parts...)
	slices.Sort(all)
	return all
}

// Quantile is the smallest of the sorted times that a part q of them, above 0
// and up to 1, doesn't exceed (the nearest rank); 0 where there are none.
func (l Latencies) Quantile(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[int(math.Ceil(q*float64(len(l))))-1]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
