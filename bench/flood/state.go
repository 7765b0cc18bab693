package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"kwai/bench/internal/load"
)

// state is what kwai uses.
type state struct {
	load.Usage     // of kwai and its children
	Goroutines int `json:"goroutines"` // of kwai
}

// observe says what kwai uses now.
func (t *target) observe(ctx context.Context) (s state, err error) {
	if s.Usage, err = load.Measure(t.server.PID()); err != nil {
		return s, fmt.Errorf("kwai has ended: %w\n%s", err, t.server.Log())
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.metrics, http.NoBody)
	if err != nil {
		return s, err
	}
	answer, err := t.client.Do(request)
	if err != nil {
		return s, err
	}
	defer answer.Body.Close()
	s.Goroutines, err = parseGoroutines(answer.Body)
	return s, err
}

// parseGoroutines finds the line "go_goroutines 42" of Prometheus' text format.
func parseGoroutines(text io.Reader) (int, error) {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			var n int
			_, err := fmt.Sscan(value, &n)
			return n, err
		}
	}
	return 0, errors.Join(errors.New("the metrics tell no go_goroutines"), lines.Err())
}

// watch observes kwai until stop is called, which gives the most of each that
// was seen.
func (t *target) watch(ctx context.Context) (stop func() (state, error)) {
	ctx, cancel := context.WithCancel(ctx)
	var peak state
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		for failed == nil && ctx.Err() == nil {
			s, err := t.observe(ctx)
			if err != nil && ctx.Err() == nil {
				failed = err
			}
			peak.Memory = max(peak.Memory, s.Memory)
			peak.Descriptors = max(peak.Descriptors, s.Descriptors)
			peak.Processes = max(peak.Processes, s.Processes)
			peak.Goroutines = max(peak.Goroutines, s.Goroutines)
			sleep(ctx, 200*time.Millisecond)
		}
	})
	return func() (state, error) {
		cancel()
		wg.Wait()
		return peak, failed
	}
}

// near is what kwai may use after a flood, if it used s at rest before the first
// one: all floods together may leave no more. It is looked at while honest
// clients renew.
//
// Memory: between two collections Go's heap, some 15 MB, grows to twice of what
// lives; what a flood's stacks and buffers took is given back to the system in
// the background, at leisure; and the caches of SQLite's nine connections, 2 MB
// each, go on filling. What remembers 2 kB of each forged renewal of a run is
// beyond it.
//
// Descriptors and goroutines: those of the honest clients, two goroutines for
// each, and once more as many for what only runs while there is work. The
// smallest flood has 64 connections by default: if they stayed, it
// would show.
func (s state) near() state {
	s.Memory += 40 * mega
	s.Descriptors += 2 * honestConnections
	s.Goroutines += 3 * honestConnections
	return s
}

const mega = 1e6

// exceeds names the first in which s is above most, or "".
func (s state) exceeds(most state) string {
	switch {
	case s.Memory > most.Memory:
		return fmt.Sprintf("memory: %.0f MB, not %.0f", float64(s.Memory)/mega, float64(most.Memory)/mega)
	case s.Descriptors > most.Descriptors:
		return fmt.Sprintf("descriptors: %d, not %d", s.Descriptors, most.Descriptors)
	case s.Goroutines > most.Goroutines:
		return fmt.Sprintf("goroutines: %d, not %d", s.Goroutines, most.Goroutines)
	}
	return ""
}
