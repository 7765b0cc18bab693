package token

import (
	"cmp"
	"slices"
	"time"
)

// Lifetimes are how long tokens of a key may be good after another key took its place.
type Lifetimes struct {
	Sign time.Duration // access tokens
	MAC  time.Duration // refresh tokens and recoveries
	ID   time.Duration // ID tokens, as hints at a logout
}

func (l Lifetimes) of(p Purpose) time.Duration {
	if p == MAC {
		return l.MAC
	}
	if p == ID {
		return l.ID
	}
	return l.Sign // also of those that no schedule replaces
}

// State says what a key is used for at a time.
type State string

// A key goes through its states in this order, by the time alone.
const (
	Next    State = "next"    // published and accepted, not used for anything new yet
	Active  State = "active"  // used for what is new; one of each purpose
	Retired State = "retired" // accepted until everything that it made has expired
	Expired State = "expired" // no longer accepted
)

// KeyStatus is a key with its state.
type KeyStatus struct {
	Key
	State State
	// Until is when it expires; zero if there is no later key.
	Until time.Time
}

// KeyStatuses returns the state of each key at a time, the latest key first. It depends
// on nothing else, so all who read the same keys agree, and a corrected clock corrects
// the keys. Of each purpose, the key that became active last is active; if the time is
// before all of them, the first key is. Keys of unknown purposes are left out: a later
// version may have stored them.
func KeyStatuses(keys []Key, now time.Time, l Lifetimes) []KeyStatus {
	var all []KeyStatus
	for _, p := range Purposes {
		var of []KeyStatus
		for _, key := range keys {
			if key.Purpose == p {
				of = append(of, KeyStatus{Key: key, State: Next})
			}
		}
		slices.SortFunc(of, func(a, b KeyStatus) int {
			return cmp.Or(b.ActiveAt.Compare(a.ActiveAt), cmp.Compare(b.ID, a.ID))
		})
		active := false // one of those before is
		for i := range of {
			if i > 0 {
				of[i].Until = of[i-1].ActiveAt.Add(l.of(p))
			}
			switch {
			case active && now.Before(of[i].Until):
				of[i].State = Retired
			case active:
				of[i].State = Expired
			case i == len(of)-1 || !of[i].ActiveAt.After(now):
				of[i].State, active = Active, true
			}
		}
		all = append(all, of...)
	}
	return all
}
