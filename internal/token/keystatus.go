package token

import (
	"cmp"
	"slices"
	"time"
)

// Lifetimes say how long what a key has made may be good after another one took its
// place.
type Lifetimes struct {
	Sign time.Duration // access tokens
	MAC  time.Duration // refresh tokens and recoveries
}

func (l Lifetimes) of(p Purpose) time.Duration {
	if p == MAC {
		return l.MAC
	}
	return l.Sign
}

// State is what a key is used for at some time.
type State string

// A key goes through its states in this order, by the time alone.
const (
	Next    State = "next"    // published and accepted, not used for anything new yet
	Active  State = "active"  // used for what is new; one of each purpose
	Retired State = "retired" // accepted until the last that was made with it has expired
	Expired State = "expired" // accepted no more
)

// KeyStatus is a key and what it is used for.
type KeyStatus struct {
	Key
	State State
	// Until is when it expires; zero as long as no later key is there.
	Until time.Time
}

// KeyStatuses says what each key is used for at a time, the latest first. It
// depends on nothing else, so that all who read the same keys agree, and a clock
// that is put right puts the keys right. Of each purpose the key that became
// active last is active; where the clock stands before all of them, the first
// is. Keys of other purposes are left out: a later version may have stored them.
func KeyStatuses(keys []Key, now time.Time, l Lifetimes) []KeyStatus {
	var all []KeyStatus
	for _, p := range Purposes {
		var of []KeyStatus
		for _, key := range keys {
			if key.Purpose != p.Purpose {
				continue
			}
			of = append(of, KeyStatus{Key: key, State: Next})
		}
		slices.SortFunc(of, func(a, b KeyStatus) int {
			return cmp.Or(a.ActiveAt.Compare(b.ActiveAt), cmp.Compare(a.ID, b.ID))
		})
		active := 0
		for i := range of {
			if !of[i].ActiveAt.After(now) {
				active = i
			}
			if i+1 < len(of) {
				of[i].Until = of[i+1].ActiveAt.Add(l.of(p.Purpose))
			}
		}
		for i := range of {
			switch {
			case i == active:
				of[i].State = Active
			case i < active && now.Before(of[i].Until):
				of[i].State = Retired
			case i < active:
				of[i].State = Expired
			}
		}
		slices.Reverse(of)
		all = append(all, of...)
	}
	return all
}
