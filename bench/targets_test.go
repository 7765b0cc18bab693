package main

import (
	"testing"

	"kwai/bench/internal/load"
)

func TestTargets(t *testing.T) {
	t.Parallel()
	renew := func(ratio, p99 float64) comparison {
		return comparison{
			Engine: "SQLite", Database: "small", Operation: "renew", Connections: 64, Beside: "bare handler",
			Figures: load.Figures{P99: p99}, Ratio: ratio,
		}
	}
	flooded := func(ratio, p99 float64) comparison {
		return comparison{Engine: "SQLite", Database: "small", Operation: "renew under a flood", Connections: 16, Beside: "no flood", Ratio: ratio, P99Ratio: p99}
	}
	natsRatio := func(ratio float64) comparison {
		return comparison{Engine: "PostgreSQL", Database: "NATS", Operation: "check", Connections: 64, Beside: "no NATS", Ratio: ratio}
	}
	took := func(start float64, peak int64) process {
		return process{StartMilliseconds: start, Idle: load.Usage{Memory: 1e6}, Peak: load.Peak{Usage: load.Usage{Memory: peak}}}
	}
	for _, c := range []struct {
		name, target, got, reached string
		report                     report
	}{
		{"at the bound", "SQLite: renew from 64, of the bare handler", "22.0 %", "yes", report{Comparisons: []comparison{renew(0.22, 9)}}},
		{"under the bound", "SQLite: renew from 64, of the bare handler", "21.9 %", "no", report{Comparisons: []comparison{renew(0.219, 9)}}},
		{"quick enough", "SQLite: renew from 64, p99", "11.9 ms", "yes", report{Comparisons: []comparison{renew(0.25, 11.9)}}},
		{"not below", "SQLite: renew from 64, p99", "12.0 ms", "no", report{Comparisons: []comparison{renew(0.25, 12)}}},
		{"another engine's", "PostgreSQL: renew from 64, of pgbench", "", "not measured", report{Comparisons: []comparison{renew(0.25, 9)}}},
		{"no big database", "SQLite: renew from 64, big of small", "", "not measured", report{Comparisons: []comparison{renew(0.25, 9)}}},
		{"at most", "SQLite: p99 under that flood, of none", "4.0 times", "yes", report{Comparisons: []comparison{flooded(0.4, 4)}}},
		{"more", "SQLite: p99 under that flood, of none", "4.1 times", "no", report{Comparisons: []comparison{flooded(0.4, 4.1)}}},
		{"as without NATS", "PostgreSQL: check from 64 with NATS, of none", "95.0 %", "yes", report{Comparisons: []comparison{natsRatio(0.95)}}},
		{"NATS costs", "PostgreSQL: check from 64 with NATS, of none", "94.9 %", "no", report{Comparisons: []comparison{natsRatio(0.949)}}},
		{"the worst process", "memory, peak", "131.0 MB", "no", report{Processes: []process{took(10, 131e6), took(10, 90e6)}}},
		{"the slowest start", "start", "199.0 ms", "yes", report{Processes: []process{took(10, 0), took(199, 0)}}},
		{"memory isn't known here", "memory, peak", "", "not measured", report{Processes: []process{took(10, 0)}}},
		{"nothing was started", "start", "", "not measured", report{}},
		{"size", "program", "33.0 MB", "no", report{ProgramBytes: 33e6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.report.judge()
			for _, target := range c.report.Targets {
				if target.What == c.target {
					if target.Got != c.got || target.Reached != c.reached {
						t.Errorf("got %q, %s; want %q, %s", target.Got, target.Reached, c.got, c.reached)
					}
					return
				}
			}
			t.Errorf("there is no target %q", c.target)
		})
	}
}
