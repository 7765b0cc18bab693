package password_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/password"
)

func TestDefaultWorkers(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tt := range []struct {
		name   string
		cores  int
		memory uint64
		want   int
	}{
		{"memory in plenty", 8, 16 << 30, 8},
		{"no limit known", 8, math.MaxUint64, 8},
		{"memory is short", 8, 256 * mib, 3},
		{"hardly any memory", 8, 32 * mib, 1},
	} {
		if got := password.DefaultWorkers(tt.cores, tt.memory, password.Default); got != tt.want {
			t.Errorf("%s: %d workers, want %d", tt.name, got, tt.want)
		}
	}
}

func TestHashingTakesHalfOfAQuota(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		quota          float64
		cores, workers int
		want           float64 // of each worker's time
	}{
		{math.Inf(1), 2, 2, 1},
		{2, 2, 2, 1}, // no less than there is
		{1, 2, 2, 0.25},
		{1, 2, 1, 0.5},
		{2, 8, 2, 0.5},
		{7, 8, 2, 1}, // two workers take less than half of it
		{0.5, 1, 1, 0.25},
	} {
		if got := password.HashingShare(tt.quota, tt.cores, tt.workers); got != tt.want {
			t.Errorf("of a quota of %v on %d cores, each of %d workers may take %v, want %v", tt.quota, tt.cores, tt.workers, got, tt.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, password.Options{Workers: 1})
		begun := time.Now()
		for range 3 {
			if err := p.OccupyAt(t.Context(), 0.25, time.Second); err != nil {
				t.Fatal(err)
			}
		}
		// The answer isn't kept waiting for the pause behind it.
		if took := time.Since(begun); took != 9*time.Second {
			t.Errorf("three hashes of a second each took %v at a quarter, want 9 s", took)
		}
	})
}
