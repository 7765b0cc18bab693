package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
)

// report is what is printed: for each engine and state of the server a block.
type report struct {
	Go      string   `json:"go"`
	System  string   `json:"system"`
	Cores   int      `json:"cores"`
	Samples int      `json:"samples"` // of each kind, at least
	Blocks  []*block `json:"blocks"`
	Skipped string   `json:"skipped,omitempty"`
	Tests   int      `json:"tests"`
	Chance  float64  `json:"chance_of_a_false_alarm"` // at most
	Broken  int      `json:"broken"`
}

// block is one engine's kwai in one state.
type block struct {
	Engine      string       `json:"engine"`
	State       string       `json:"state"`
	Others      string       `json:"others,omitempty"`   // what they did meanwhile
	Mistaken    int          `json:"mistaken"`           // accounts whose class was found wrong
	Aside       []string     `json:"left_out,omitempty"` // answers that say nothing here
	Answers     []answers    `json:"answers"`
	Mixes       []mix        `json:"classes,omitempty"`
	Comparisons []comparison `json:"comparisons"`
}

// answers says whether an endpoint gave all addresses the same answer.
type answers struct {
	Request string   `json:"request"`
	Given   int      `json:"given"`
	Forms   []string `json:"forms"` // one, if all is well
	Broken  string   `json:"broken,omitempty"`
}

func newReport(samples int) *report {
	return &report{Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.GOMAXPROCS(0), Samples: samples}
}

// see notes what an endpoint answered.
func (b *block) see(s *series) {
	a := answers{Request: s.name}
	for form, by := range s.answers {
		var who []string
		for _, k := range s.kinds {
			if by[k] > 0 {
				who = append(who, fmt.Sprintf("%d %s", by[k], k))
				a.Given += by[k]
			}
		}
		a.Forms = append(a.Forms, fmt.Sprintf("%s: %q", strings.Join(who, ", "), form))
	}
	if len(a.Forms) != 1 {
		a.Broken = "they differ"
	}
	for form := range s.answers {
		if !strings.HasPrefix(form, fmt.Sprintf("HTTP/1.1 %d ", s.want)) {
			a.Broken = fmt.Sprintf("they aren't %d", s.want)
		}
	}
	b.Answers = append(b.Answers, a)
	for _, k := range s.kinds {
		if n := s.parts[k]; n[1]+n[2] > 0 {
			b.Aside = append(b.Aside, fmt.Sprintf("%s: %d of %s late, %d otherwise than %d", s.name, n[1], k, n[2], s.want))
		}
	}
}

// conclude counts.
func (r *report) conclude() {
	tests, effects := 0, 0
	note := func(n int, broken string) {
		tests += n
		if broken != "" {
			r.Broken++
		}
	}
	for _, b := range r.Blocks {
		for _, a := range b.Answers {
			note(0, a.Broken)
		}
		for _, m := range b.Mixes {
			note(1, m.Broken)
		}
		for _, c := range b.Comparisons {
			if !c.Info {
				note(4, c.Broken)
			}
			if !c.Info && c.effects {
				effects += 2
			}
		}
	}
	r.Tests = tests + effects
	r.Chance = float64(tests)*chance(bound) + float64(effects)*chance(effectSure)
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r *report) print(w io.Writer) error {
	fmt.Fprintf(w, "%s, %s, %d cores, %d samples of each kind\n", r.Go, r.System, r.Cores, r.Samples)
	for _, b := range r.Blocks {
		if err := b.print(w); err != nil {
			return err
		}
	}
	if r.Skipped != "" {
		fmt.Fprintf(w, "\nnot measured: %s\n", r.Skipped)
	}
	fmt.Fprintf(w, "\n%d broken. By chance %d tests raise a false alarm in %.2g %% of runs at most.\n", r.Broken, r.Tests, 100*r.Chance)
	return nil
}

func (b *block) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s, %s\n", b.Engine, b.State)
	if b.Others != "" {
		fmt.Fprintf(w, "  others meanwhile: %s\n", b.Others)
	}
	for _, line := range b.Aside {
		fmt.Fprintf(w, "  left out: %s\n", line)
	}
	for _, a := range b.Answers {
		fmt.Fprintf(w, "  %s: status, headers but Date and the number of Retry-After, and body of %d answers: forms: %d of 1  %s\n", a.Request, a.Given, len(a.Forms), verdict(a.Broken, false))
		if a.Broken != "" {
			fmt.Fprintf(w, "    %s\n", strings.Join(a.Forms, "\n    "))
		}
	}
	if b.Mistaken > 0 {
		fmt.Fprintf(w, "  accounts put into another class than theirs by their times: %d\n", b.Mistaken)
	}
	for _, m := range b.Mixes {
		fmt.Fprintf(w, "  %s: %s %v, %s %v: %.1f of %.1f  %s\n",
			m.What, m.Kinds[0], m.Counts[0], m.Kinds[1], m.Counts[1], m.Worst, bound, verdict(m.Broken, false))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  request\tkinds\tamong\tsamples\tmedians µs\tdifference µs\tt\tbelow p90 µs\tt\trank\tK-S\tworst\t")
	for _, c := range b.Comparisons {
		fmt.Fprintf(t, "  %s\t%s, %s\t%s\t%d, %d\t%s\t%s\t%+.1f\t%s\t%+.1f\t%+.1f\t%.1f\t%.1f of %.1f\t%s\n",
			c.Request, c.Kinds[0], c.Kinds[1], c.Among, c.Samples[0], c.Samples[1], medians(c.Median),
			c.Effect, c.Effect.T, c.Trimmed, c.Trimmed.T, c.Rank, c.Shape, c.Worst, bound, verdict(c.Broken, c.Info))
	}
	return t.Flush()
}

func medians(m [2]float64) string {
	if m == [2]float64{} {
		return ""
	}
	return fmt.Sprintf("%.0f, %.0f", m[0], m[1])
}

// String is the effect with its standard error.
func (e effect) String() string { return fmt.Sprintf("%+.0f ± %.0f", e.Size, e.Error) }

func verdict(broken string, info bool) string {
	switch {
	case info:
		return "not judged"
	case broken != "":
		return "BROKEN: " + broken
	}
	return "ok"
}
