package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
)

// report is what is printed at the end.
type report struct {
	Go       string          `json:"go"`
	System   string          `json:"system"`
	Cores    int             `json:"cores"`
	Quota    float64         `json:"quota_cores"` // kwai's; 0: none
	Duration float64         `json:"duration_seconds"`
	Engines  []*engineReport `json:"engines"`
}

type engineReport struct {
	Engine   string        `json:"engine"`
	Limits   string        `json:"limits"` // on or off
	Rest     state         `json:"rest"`   // before the first flood
	Near     state         `json:"near"`   // the most that may be left after one
	Floods   []floodReport `json:"floods"`
	Verdicts []verdict     `json:"verdicts"`
}

type floodReport struct {
	Flood       string  `json:"flood"`
	Connections int     `json:"connections"`
	Rounds      []round `json:"rounds"`
}

func newReport(o options) *report {
	return &report{Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.GOMAXPROCS(0), Quota: o.quota, Duration: o.duration.Seconds()}
}

// measureEngine does all floods, with throttles on or off.
func measureEngine(ctx context.Context, engine, limits string, o options) (*engineReport, error) {
	t, stop, err := startTarget(ctx, engine, limits == "on", o)
	if err != nil {
		return nil, err
	}
	defer stop()
	s := &siege{target: t, duration: o.duration, alone: make(map[string]figures)}
	progress("measuring without a flood")
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	e := &engineReport{Engine: engine, Limits: limits, Rest: s.rest, Near: s.rest.near()}
	for _, k := range t.kinds() {
		if o.only != nil && !o.only.MatchString(k.name) {
			continue
		}
		if k.prepare != nil {
			if err := k.prepare(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", k.name, err)
			}
		}
		connections := o.connections
		if connections == nil {
			connections = k.connections
		}
		if connections == nil {
			connections = usualConnections
		}
		for _, n := range connections {
			progress("measuring beside %s from %d connections", k.name, n)
			rounds, err := s.rounds(ctx, k, n, n == slices.Max(connections))
			if err != nil {
				return nil, fmt.Errorf("%s from %d connections: %w", k.name, n, err)
			}
			e.Floods = append(e.Floods, floodReport{k.name, n, rounds})
			e.Verdicts = append(e.Verdicts, judge(k, n, rounds)...)
		}
	}
	return e, nil
}

func (r *report) kept() bool {
	return !slices.ContainsFunc(r.Engines, func(e *engineReport) bool {
		return slices.ContainsFunc(e.Verdicts, func(v verdict) bool { return !v.OK })
	})
}

func (r *report) print(w io.Writer) error {
	quota := ""
	if r.Quota != 0 {
		quota = fmt.Sprintf(", of which kwai's quota is %g", r.Quota)
	}
	fmt.Fprintf(w, "%s, %s, %d cores%s; %g s each; %d connections of honest clients\n", r.Go, r.System, r.Cores, quota, r.Duration, honestConnections)
	fmt.Fprintln(w, "The clients, the flood's and the honest ones, run on kwai's machine: their CPU is taken from kwai.")
	for _, e := range r.Engines {
		name := fmt.Sprintf("%s, limits %s", e.Engine, e.Limits)
		fmt.Fprintf(w, "\n%s: honest clients alone (before and after) and beside a flood\n\n", name)
		if err := e.honest(w); err != nil {
			return err
		}
		fmt.Fprintf(w, "\n%s: what kwai uses before a flood, at its peak and after it; when renewals and the rest are back\n\n", name)
		if err := e.usage(w); err != nil {
			return err
		}
		fmt.Fprintf(w, "\n%s: answers to the floods, how many a second, and the CPU of all clients meanwhile\n\n", name)
		for _, f := range e.Floods {
			answers, cores, all, lasted := make(map[int]int), 0.0, 0, 0.0
			for _, r := range f.Rounds {
				for status, n := range r.Answers {
					answers[status] += n
					all += n
				}
				cores = max(cores, r.Clients)
				lasted += r.Seconds
			}
			fmt.Fprintf(w, "%s, %d: %s; %.0f/s; %.2f cores\n", f.Flood, f.Connections, statuses(answers), float64(all)/lasted, cores)
		}
		fmt.Fprintf(w, "\n%s: promise 6 (at rest again: within %.0f MB, %d descriptors, %d goroutines)\n\n",
			name, float64(e.Near.Memory)/mega, e.Near.Descriptors, e.Near.Goroutines)
		for _, v := range e.Verdicts {
			fmt.Fprintln(w, v)
		}
	}
	return nil
}

func (e *engineReport) honest(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "flood\tconnections\toperation\talone/s\tflooded/s\tkept\tp50 ms\tflooded\tp99 ms\tflooded\ttimes\tanswers\t")
	for _, f := range e.Floods {
		for _, op := range []string{renew, check, logout, login} {
			if _, ok := f.Rounds[0].Flooded[op]; !ok {
				continue
			}
			alone := func(of func(figures) float64) float64 {
				return median(f.Rounds, func(r round) float64 { return (of(r.Before[op]) + of(r.After[op])) / 2 })
			}
			flooded := func(of func(figures) float64) float64 {
				return median(f.Rounds, func(r round) float64 { return of(r.Flooded[op]) })
			}
			rate := func(f figures) float64 { return f.PerSecond }
			p50 := func(f figures) float64 { return f.P50 }
			p99 := func(f figures) float64 { return f.P99 }
			answers := make(map[int]int)
			for _, r := range f.Rounds {
				for status, n := range r.Flooded[op].Answers {
					answers[status] += n
				}
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%.0f\t%.0f\t%.0f %%\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%s\t\n", f.Flood, f.Connections, op,
				alone(rate), flooded(rate), 100*kept(f.Rounds, op), alone(p50), flooded(p50), alone(p99), flooded(p99), slower(f.Rounds, op), statuses(answers))
		}
	}
	return t.Flush()
}

func (e *engineReport) usage(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "flood\tconnections\tMB\tpeak\tafter\tdescriptors\tpeak\tafter\tgoroutines\tpeak\tafter\trenewals\trest\t")
	for _, f := range e.Floods {
		of := func(figure func(round) float64) float64 { return median(f.Rounds, figure) }
		memory := func(s func(round) state) float64 {
			return of(func(r round) float64 { return float64(s(r).Memory) / mega })
		}
		descriptors := func(s func(round) state) float64 {
			return of(func(r round) float64 { return float64(s(r).Descriptors) })
		}
		goroutines := func(s func(round) state) float64 {
			return of(func(r round) float64 { return float64(s(r).Goroutines) })
		}
		start := func(r round) state { return r.Start }
		peak := func(r round) state { return r.Peak }
		end := func(r round) state { return r.End }
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%s\t%s\t\n", f.Flood, f.Connections,
			memory(start), memory(peak), memory(end),
			descriptors(start), descriptors(peak), descriptors(end),
			goroutines(start), goroutines(peak), goroutines(end),
			seconds(of(func(r round) float64 { return r.Back.Renewals })), seconds(of(func(r round) float64 { return r.Back.Near })))
	}
	return t.Flush()
}

// seconds tells when something was back.
func seconds(s float64) string {
	if s < 0 {
		return "not in time"
	}
	return fmt.Sprintf("%.2f s", s)
}
