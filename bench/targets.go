package main

import (
	"fmt"
	"math"
)

// target is a bound that the project has set itself, and what was measured.
type target struct {
	What    string `json:"what"`
	Wanted  string `json:"wanted"`
	Got     string `json:"got"`
	Reached string `json:"reached"` // yes, no, or not measured
}

// judge holds the figures against the targets.
func (r *report) judge() {
	const small, big = "small", "big"
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		if engine == "SQLite" {
			renew := r.find(engine, small, "renew", 64, "bare handler")
			r.atLeast("SQLite: renew from 64, of the bare handler", 22, renew.Ratio)
			r.below("SQLite: renew from 64, p99", 12, "ms", renew.Figures.P99)
			r.atLeast("SQLite: check from 64, of the bare handler", 55, r.find(engine, small, "check", 64, "bare handler").Ratio)
			r.atLeast("SQLite: login from 16, of the bare hash", 85, r.find(engine, small, "login", 16, "bare hash").Ratio)
		} else {
			r.atLeast("PostgreSQL: renew from 64, of pgbench", 40, r.find(engine, small, "renew", 64, "pgbench").Ratio)
		}
		r.atLeast(engine+": sign in at an app from 64, of the bare signature", 60, r.find(engine, small, "sign in at an app", manyClients, bareSignature).Ratio)
		r.atLeast(engine+": refresh at an app from 64, of a renewal and a signature", 85, r.find(engine, small, "refresh at an app", manyClients, renewAndSign).Ratio)
		flooded := r.find(engine, small, "renew under a flood", 16, "no flood")
		r.atLeast(engine+": renew from 16 under a flood, of none", 40, flooded.Ratio)
		r.atMost(engine+": p99 under that flood, of none", 4, "times", flooded.P99Ratio)
		for _, op := range []string{"renew", "check"} {
			r.atLeast(fmt.Sprintf("%s: %s from %d with NATS, of none", engine, op, manyClients), 95, r.find(engine, withNATS, op, manyClients, noNATS).Ratio)
		}
		for _, op := range []struct {
			name        string
			connections int
		}{{"login", 16}, {"renew", 64}, {"check", 64}} {
			ratio := r.find(engine, big, op.name, op.connections, "small database").Ratio
			r.atLeast(fmt.Sprintf("%s: %s from %d, big of small", engine, op.name, op.connections), 85, ratio)
		}
	}
	start, idle, peak := math.NaN(), math.NaN(), math.NaN()
	for i, p := range r.Processes {
		if i == 0 {
			start, idle, peak = 0, 0, 0
		}
		start = max(start, p.StartMilliseconds)
		idle = max(idle, megabytes(p.Idle.Memory))
		peak = max(peak, megabytes(p.Peak.Memory))
	}
	r.below("start", 200, "ms", start)
	r.below("memory, idle", 40, "MB", positive(idle))
	r.below("memory, peak", 130, "MB", positive(peak))
	r.below("program", 33, "MB", megabytes(r.ProgramBytes))
}

// positive is NaN, not measured, for 0: the memory of a process isn't known
// everywhere.
func positive(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}

// find is the comparison of that name; where there is none, one whose figures
// are NaN.
func (r *report) find(engine, database, operation string, connections int, beside string) (c comparison) {
	for _, c := range r.Comparisons {
		if c.Engine == engine && c.Database == database && c.Operation == operation && c.Connections == connections && c.Beside == beside {
			return c
		}
	}
	c.Ratio, c.P99Ratio, c.Figures.P99 = math.NaN(), math.NaN(), math.NaN()
	return c
}

// atLeast wants a ratio of so many percent.
func (r *report) atLeast(what string, percent, ratio float64) {
	r.judgeOne(what, "≥", percent, "%", 100*ratio, 100*ratio >= percent)
}

func (r *report) atMost(what string, bound float64, unit string, got float64) {
	r.judgeOne(what, "≤", bound, unit, got, got <= bound)
}

func (r *report) below(what string, bound float64, unit string, got float64) {
	r.judgeOne(what, "<", bound, unit, got, got < bound)
}

func (r *report) judgeOne(what, sign string, bound float64, unit string, got float64, reached bool) {
	t := target{What: what, Wanted: fmt.Sprintf("%s %g %s", sign, bound, unit), Got: fmt.Sprintf("%.1f %s", got, unit), Reached: "no"}
	switch {
	case math.IsNaN(got):
		t.Got, t.Reached = "", "not measured"
	case reached:
		t.Reached = "yes"
	}
	r.Targets = append(r.Targets, t)
}
