package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"kwai/bench/internal/load"
)

// rounds is in how many turns a figure and its limit are measured: the median of
// three stands one disturbance.
const rounds = 3

// round is how long one turn takes.
func (b *bench) round() time.Duration { return b.duration / rounds }

// comparison is an operation's figures beside its limit's.
type comparison struct {
	Engine      string       `json:"engine"`   // SQLite or PostgreSQL
	Database    string       `json:"database"` // small, big, or NATS: a small one whose events go there
	Operation   string       `json:"operation"`
	Connections int          `json:"connections"`
	Figures     load.Figures `json:"figures"`
	Beside      string       `json:"beside"` // what the limit is
	Limit       load.Figures `json:"limit"`
	Ratio       float64      `json:"ratio"`     // of the rates: median of the rounds' ratios
	P99Ratio    float64      `json:"p99_ratio"` // the same of the 99th percentiles; 0 where the limit has none
}

// side measures one of both sides in one turn.
type side func(ctx context.Context, round int) (load.Figures, error)

// compare measures both sides by turns, of first, and adds them to the report.
func (b *bench) compare(ctx context.Context, c comparison, of, limit side) error {
	what := fmt.Sprintf("%s, %s: %s %d beside %s", c.Engine, c.Database, c.Operation, c.Connections, c.Beside)
	if b.only != nil && !b.only.MatchString(what) {
		return nil
	}
	say("measuring %s", what)
	var figures, limits [rounds]load.Figures
	for i := range rounds {
		var err error
		if figures[i], err = of(ctx, i); err == nil {
			limits[i], err = limit(ctx, i)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	c.Figures, c.Limit = middle(figures[:]), middle(limits[:])
	c.Ratio, c.P99Ratio = ratios(figures[:], limits[:])
	b.report.Comparisons = append(b.report.Comparisons, c)
	return nil
}

// middle joins the figures of several turns: sums of what was counted, the
// greatest maximum, medians of the rest.
func middle(turns []load.Figures) (f load.Figures) {
	of := func(get func(load.Figures) float64) float64 {
		var values []float64
		for _, t := range turns {
			values = append(values, get(t))
		}
		return median(values)
	}
	for _, t := range turns {
		f.Operations += t.Operations
		f.Errors += t.Errors
		f.Seconds += t.Seconds
		f.FirstError = cmp.Or(f.FirstError, t.FirstError)
		f.Max = max(f.Max, t.Max)
	}
	f.PerSecond = of(func(f load.Figures) float64 { return f.PerSecond })
	f.P50 = of(func(f load.Figures) float64 { return f.P50 })
	f.P99 = of(func(f load.Figures) float64 { return f.P99 })
	f.CPU = of(func(f load.Figures) float64 { return f.CPU })
	return f
}

// ratios are the medians of the turns' ratios, of the rates and of the 99th
// percentiles. Turns whose limit is 0 don't count.
func ratios(of, limit []load.Figures) (rate, p99 float64) {
	var rates, p99s []float64
	for i := range of {
		if limit[i].PerSecond > 0 {
			rates = append(rates, of[i].PerSecond/limit[i].PerSecond)
		}
		if limit[i].P99 > 0 {
			p99s = append(p99s, of[i].P99/limit[i].P99)
		}
	}
	return median(rates), median(p99s)
}

// median is the middle one, of an even number the mean of both; 0 of none.
func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[n/2] + values[(n-1)/2]) / 2
}
