package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what is printed at the end.
type report struct {
	Go           string       `json:"go"`
	System       string       `json:"system"`
	Cores        int          `json:"cores"`
	Seconds      float64      `json:"seconds_per_figure"`
	Rounds       int          `json:"rounds"`
	ProgramBytes int64        `json:"program_bytes"`
	Comparisons  []comparison `json:"comparisons"`
	Processes    []process    `json:"processes"`
	Missing      []string     `json:"not_measured,omitempty"`
	Targets      []target     `json:"targets"`
}

func newReport(o options) *report {
	return &report{
		Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.GOMAXPROCS(0),
		Seconds: o.duration.Seconds(), Rounds: rounds,
	}
}

// missing notes what can't be measured here, and why.
func (r *report) missing(what string, why error) {
	r.Missing = append(r.Missing, fmt.Sprintf("%s wasn't measured: %v", what, why))
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r *report) table(w io.Writer) error {
	fmt.Fprintf(w, "%s, %s, %d cores, %v each in %d rounds\n", r.Go, r.System, r.Cores, time.Duration(r.Seconds*float64(time.Second)).Round(time.Millisecond), r.Rounds)
	for _, part := range []func(io.Writer){r.rates, r.usage, r.verdict} {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		part(t)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, line := range slices.Concat(r.remarks(), r.failures(), r.Missing) {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(line))
	}
	return nil
}

func (r *report) rates(w io.Writer) {
	const header = "%s\tconnections\tper second\tp50 ms\tp99 ms\tmax ms\tCPU µs\terrors\tbeside\tper second\tp50 ms\tp99 ms\tCPU µs\tof it\t\n"
	title := ""
	for _, c := range r.Comparisons {
		if next := c.Engine + ", " + c.Database; next != title {
			if title != "" {
				fmt.Fprintln(w, strings.Repeat("\t", 14))
			}
			title = next
			fmt.Fprintf(w, header, title)
		}
		of, limit := c.Figures, c.Limit
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%s\t%s\t%s\t%s\t%d\t%s\t%.0f\t%s\t%s\t%s\t%.1f %%\t\n",
			c.Operation, c.Connections, of.PerSecond, known(2, of.P50), known(2, of.P99), known(2, of.Max), known(0, of.CPU), of.Errors+limit.Errors,
			c.Beside, limit.PerSecond, known(2, limit.P50), known(2, limit.P99), known(0, limit.CPU), 100*c.Ratio)
	}
}

// known is a figure with so many digits; nothing where there was none.
func known(digits int, figure float64) string {
	if figure == 0 {
		return ""
	}
	return strconv.FormatFloat(figure, 'f', digits, 64)
}

func (r *report) usage(w io.Writer) {
	fmt.Fprint(w, "kwai\tstart ms\tidle MB\tpeak MB\tidle descriptors\tpeak\tidle processes\tpeak\tstarted\t\n")
	for _, p := range r.Processes {
		fmt.Fprintf(w, "%s\t%.0f\t%.1f\t%.1f\t%d\t%d\t%d\t%d\t%d\t\n", p.Engine+", "+p.Database, p.StartMilliseconds, megabytes(p.Idle.Memory), megabytes(p.Peak.Memory),
			p.Idle.Descriptors, p.Peak.Descriptors, p.Idle.Processes, p.Peak.Processes, p.Peak.Started)
	}
	fmt.Fprintf(w, "program\t\t%.1f\t\t\t\t\t\t\t\n", megabytes(r.ProgramBytes))
}

func (r *report) verdict(w io.Writer) {
	fmt.Fprint(w, "target\twanted\tgot\treached\t\n")
	for _, t := range r.Targets {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", t.What, t.Wanted, t.Got, t.Reached)
	}
}

// remarks are what a reader must know of figures that aren't what they seem.
func (r *report) remarks() []string {
	if !slices.ContainsFunc(r.Comparisons, func(c comparison) bool { return c.Beside == oneReplica }) {
		return nil
	}
	return []string{fmt.Sprintf("Three replicas, their database and their clients share the %d cores that one replica uses up with them: "+
		"the machine is the bound, so three can't do more. What a further replica costs is the CPU of an operation.", r.Cores)}
}

// failures are the first errors of what had any.
func (r *report) failures() (lines []string) {
	for _, c := range r.Comparisons {
		where := fmt.Sprintf("%s, %s: %s from %d", c.Engine, c.Database, c.Operation, c.Connections)
		if e := c.Figures.FirstError; e != "" {
			lines = append(lines, fmt.Sprintf("the first error of %s: %s", where, e))
		}
		if e := c.Limit.FirstError; e != "" {
			lines = append(lines, fmt.Sprintf("the first error of %s beside %s: %s", c.Beside, where, e))
		}
	}
	return lines
}

// megabytes is for people: 10⁶ bytes.
func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
