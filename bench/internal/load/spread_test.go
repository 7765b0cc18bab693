package load_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"

	"kwai/bench/internal/load"
)

func TestSessionsLieEvenlyAmongTheAdded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ there, n, want int }{
		{1, 1, 1}, {1, 2, 2}, {3, 3, 3}, {3, 2, 3}, {3, 10, 10}, {7, 10, 10}, {10, 1000, 1000}, {64, 1000, 1000},
	} {
		t.Run(fmt.Sprintf("%d to %d", c.there, c.n), func(t *testing.T) {
			t.Parallel()
			var there []uuid.UUID
			for range c.there {
				there = append(there, uuid.Must(uuid.NewV7()))
			}
			all, err := load.SpreadIDs(there, c.n)
			if err != nil || len(all) != c.want {
				t.Fatalf("%d rows, %v; want %d", len(all), err, c.want)
			}
			each := c.want / c.there
			for i, id := range there {
				if at := slices.Index(all, id); at != (i+1)*each-1 {
					t.Errorf("session %d is row %d, want %d", i, at, (i+1)*each-1)
				}
			}
			if !slices.IsSortedFunc(all, func(a, b uuid.UUID) int { return bytes.Compare(a[:8], b[:8]) }) {
				t.Error("the ids don't grow")
			}
			slices.SortFunc(all, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
			if len(slices.Compact(all)) != c.want {
				t.Error("an id is there twice")
			}
		})
	}
}
