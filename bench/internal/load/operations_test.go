package load_test

import (
	"slices"
	"testing"

	"kwai/bench/internal/load"
)

func TestClientsGoRoundTheirOwnOnly(t *testing.T) {
	t.Parallel()
	next := load.Rounds(3, 7)
	for client, want := range [][]int{{0, 3, 6, 0, 3}, {1, 4, 1, 4, 1}, {2, 5, 2, 5, 2}} {
		var got []int
		for range want {
			got = append(got, next(client))
		}
		if !slices.Equal(got, want) {
			t.Errorf("client %d takes %v, want %v", client, got, want)
		}
	}
}
