package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// verdict holds one figure against its bound.
type verdict struct {
	OK          bool    `json:"ok"`
	Flood       string  `json:"flood"`
	Connections int     `json:"connections"`
	What        string  `json:"what"`
	Figure      float64 `json:"figure"`
	Unit        string  `json:"unit"`
	AtLeast     bool    `json:"at_least"` // the bound is; else at most
	Bound       float64 `json:"bound"`
	Note        string  `json:"note,omitempty"`
}

func (v verdict) String() string {
	word, bound, unit, note := "BROKEN", "at most", "", ""
	if v.OK {
		word = "ok"
	}
	if v.AtLeast {
		bound = "at least"
	}
	if v.Unit != "" {
		unit = " " + v.Unit
	}
	if v.Note != "" {
		note = ": " + v.Note
	}
	return fmt.Sprintf("%-6s  %s, %d: %s: %.3g%s (%s %.3g)%s", word, v.Flood, v.Connections, v.What, v.Figure, unit, bound, v.Bound, note)
}

// Of promise 6.
const (
	leastRate      = 0.4 // of renewals, checks and logouts, of what it is alone
	mostP99        = 4   // times what it is alone
	leastLoginRate = 0.3 // under forged renewals
	leastOthers    = 0.8 // of logins, under right passwords from another network
)

// mostMemory is what kwai may use at its peak, in bytes, beside a flood of n
// connections: 130 MB at 64, 200 MB at 1,000.
func mostMemory(n int) float64 { return 125*mega + float64(n)*75e3 }

// judge says what a flood from n connections breaks.
func judge(k kind, n int, rounds []round) (all []verdict) {
	atLeast := func(what string, figure, bound float64, unit, note string) {
		all = append(all, verdict{figure >= bound, k.name, n, what, figure, unit, true, bound, note})
	}
	atMost := func(what string, figure, bound float64, unit, note string) {
		all = append(all, verdict{figure <= bound, k.name, n, what, figure, unit, false, bound, note})
	}
	if k.promises(n) {
		switch k.promised {
		case nothingMore:
		case requestsGoOn:
			for _, op := range []string{renew, check, logout} {
				atLeast(op+" rate", 100*kept(rounds, op), 100*leastRate, "% of alone", "")
				atMost(op+" p99", slower(rounds, op), mostP99, "times alone", "")
			}
		case othersLogIn:
			atLeast(login+" rate", 100*kept(rounds, login), 100*leastOthers, "% of alone", "")
		case loginsGoOn:
			atLeast(login+" rate", 100*kept(rounds, login), 100*leastLoginRate, "% of alone", "")
		}
	}
	failed, which := failures(rounds, k.promised == requestsGoOn && k.promises(n))
	atMost("failures", float64(failed), 0, "", which)
	var memory int64
	var backs []back
	for _, r := range rounds {
		memory = max(memory, r.Peak.Memory)
		backs = append(backs, r.Back)
	}
	atMost("memory at its peak", float64(memory)/mega, mostMemory(n)/mega, "MB", "")
	slices.SortFunc(backs, func(a, b back) int { return cmp.Compare(a.all(), b.all()) })
	middle := backs[len(backs)/2]
	atMost("back to rest", middle.all(), backWithin.Seconds(), "s", middle.last())
	return all
}

// kept is what the flood leaves of an operation's rate alone: the median of the
// rounds, each held against the mean of the measures before and after it.
func kept(rounds []round, op string) float64 {
	return median(rounds, func(r round) float64 {
		return ratio(2*r.Flooded[op].PerSecond, r.Before[op].PerSecond+r.After[op].PerSecond)
	})
}

// slower is how many times its p99 alone an operation's p99 is, as in [kept].
func slower(rounds []round, op string) float64 {
	return median(rounds, func(r round) float64 {
		return ratio(2*r.Flooded[op].P99, r.Before[op].P99+r.After[op].P99)
	})
}

// ratio is 0 where nothing was measured.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// median is that of a figure of the rounds; of an even number, the higher of the
// middle ones.
func median(rounds []round, of func(round) float64) float64 {
	var figures []float64
	for _, r := range rounds {
		figures = append(figures, of(r))
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

// failures counts the answers that no flood excuses, and returns which they are.
//
//   - The flood may get any answer but a 5xx, or 503, and may be broken off.
//   - Honest clients may get 503 or 429; if requests must go on, only logins may.
//   - After the flood there must be none of these.
func failures(rounds []round, requestsGoOn bool) (n int, which string) {
	found := make(map[string]int)
	count := func(who string, answers map[int]int, fine func(status int) bool) {
		for status, times := range answers {
			if !fine(status) {
				n += times
				found[who+" "+statusText(status)] += times
			}
		}
	}
	ok := func(status int) bool { return status == http.StatusOK }
	okOrLater := func(status int) bool { return ok(status) || later(status) }
	for _, r := range rounds {
		count("flood", r.Answers, func(status int) bool { return status < 500 || status == http.StatusServiceUnavailable })
		for op, f := range r.Flooded {
			fine := okOrLater
			if requestsGoOn && op != login {
				fine = ok
			}
			count(op, f.Answers, fine)
		}
		count("renew after it", r.Back.Answers, okOrLater)
		for op, f := range r.After {
			count(op+" after it", f.Answers, ok)
		}
	}
	var parts []string
	for name, times := range found {
		parts = append(parts, fmt.Sprintf("%s: %d", name, times))
	}
	slices.Sort(parts)
	return n, strings.Join(parts, ", ")
}

// later says that a status tells the client to come again later.
func later(status int) bool {
	return status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
}

// all is when all was back, in seconds; lookBack and more if it wasn't in time.
func (b back) all() float64 {
	if b.Renewals < 0 || b.Near < 0 {
		return lookBack.Seconds()
	}
	return max(b.Renewals, b.Near)
}

// last says what wasn't back.
func (b back) last() string {
	switch {
	case b.Near < 0:
		return "not in time, " + b.Late
	case b.Renewals < 0:
		return "not in time, renewals"
	}
	return ""
}

// statuses lists answers by status.
func statuses(answers map[int]int) string {
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(answers)) {
		parts = append(parts, fmt.Sprintf("%s: %d", statusText(status), answers[status]))
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

func statusText(status int) string {
	if status == brokenOff {
		return "broken off"
	}
	return fmt.Sprint(status)
}
