package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// client is one connection of a flood, or one after the other. It ends when ctx
// does.
type client func(ctx context.Context, seen *answers)

// attack floods from n connections until stop is called. Then it breaks off
// whatever is under way, and gives the answers it has had.
func attack(ctx context.Context, n int, do client) (stop func() map[int]int) {
	ctx, cancel := context.WithCancel(ctx)
	var seen answers
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { do(ctx, &seen) })
	}
	return func() map[int]int {
		cancel()
		wg.Wait()
		return seen.byStatus()
	}
}

// brokenOff stands for the status of what had none: kwai refused or closed the
// connection, or took too long.
const brokenOff = 0

// answers counts answers by their status.
type answers [600]atomic.Int64

func (a *answers) add(status int) {
	if status < 0 || status >= len(a) {
		status = brokenOff // no HTTP
	}
	a[status].Add(1)
}

func (a *answers) byStatus() map[int]int {
	all := make(map[int]int)
	for status := range a {
		if n := a[status].Load(); n > 0 {
			all[status] = int(n)
		}
	}
	return all
}

// pause is how long a client waits when its connection was broken off. Without
// it a flood would be one of new connections, which the system bears, not kwai,
// and it would soon have used up all ports.
func pause(ctx context.Context) { sleep(ctx, 100*time.Millisecond) }

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
