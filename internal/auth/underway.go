package auth

import (
	"context"
	"sync"
	"time"
)

// underWay are the attempts that have begun and not ended on this server. No
// success forgets them: else who has a right password could have any number of
// them under way.
type underWay struct {
	mu     sync.Mutex
	places map[tries]*places
	counts map[tries]int // that the database counts: an account's for a network it knows, or for all others
}

// tries are an account's from a network.
type tries struct{ account, network string }

// places are those that attempts may take at once.
type places struct {
	taken   chan struct{} // holds one for each
	wanting int           // who has one or waits for one
}

// placeWait is how long an attempt waits for its place. It is also what a flood of
// them is held back by.
const placeWait = time.Second

// enter takes one of so many places, or waits for one; false if that takes too
// long.
func (u *underWay) enter(ctx context.Context, t tries, most int) (leave func(), ok bool, err error) {
	u.mu.Lock()
	p := u.places[t]
	if p == nil {
		if u.places == nil {
			u.places = make(map[tries]*places)
		}
		p = &places{taken: make(chan struct{}, most)}
		u.places[t] = p
	}
	p.wanting++
	u.mu.Unlock()
	left := func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if p.wanting--; p.wanting == 0 {
			delete(u.places, t)
		}
	}
	leave = func() {
		<-p.taken
		left()
	}
	select {
	case p.taken <- struct{}{}:
		return leave, true, nil
	default:
	}
	timeout := time.NewTimer(placeWait)
	defer timeout.Stop()
	select {
	case p.taken <- struct{}{}:
		return leave, true, nil
	case <-timeout.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	left()
	return nil, false, err
}

// count says that the database counts an attempt, by 1, or that it has ended, by -1.
func (u *underWay) count(t tries, by int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.counts == nil {
		u.counts = make(map[tries]int)
	}
	if u.counts[t] += by; u.counts[t] == 0 {
		delete(u.counts, t)
	}
}

// others is how many are counted beside the one that asks.
func (u *underWay) others(t tries) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return max(u.counts[t]-1, 0)
}
