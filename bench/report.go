package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"text/tabwriter"
	"time"
)

// report is what is printed at the end.
type report struct {
	Go              string   `json:"go"`
	System          string   `json:"system"`
	Cores           int      `json:"cores"`
	HashesPerSecond float64  `json:"hashes_per_second"` // of all cores, without a server
	Rows            []row    `json:"operations"`
	options         *options // how it was measured
}

// row has an operation beside the bare handler.
type row struct {
	Operation   string  `json:"operation"`
	Connections int     `json:"connections"`
	Kwai        figures `json:"kwai"`
	Bare        figures `json:"bare"`
	Ratio       float64 `json:"ratio"` // of kwai's rate to the bare handler's
}

func newReport(o options) *report {
	return &report{Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.GOMAXPROCS(0), options: &o}
}

// measure adds an operation: first kwai, then the bare handler with the request
// that kwai was sent last and answers of the size of kwai's last one.
func (r *report) measure(ctx context.Context, op operation, kwai *server) error {
	fmt.Fprintln(os.Stderr, "measuring", op.name)
	row := row{Operation: op.name, Connections: op.connections}
	var last sample
	var err error
	if row.Kwai, last, err = drive(ctx, kwai.address, op, r.options.duration); err != nil {
		return err
	}
	bare, err := startBare(ctx, last.size)
	if err != nil {
		return err
	}
	defer bare.stop()
	op.step = again(last.request)
	if row.Bare, _, err = drive(ctx, bare.address, op, r.options.duration); err != nil {
		return err
	}
	row.Ratio = row.Kwai.PerSecond / row.Bare.PerSecond
	r.Rows = append(r.Rows, row)
	return nil
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r *report) table(w io.Writer) error {
	fmt.Fprintf(w, "%s, %s, %d cores, %v each\n\n", r.Go, r.System, r.Cores, r.options.duration.Round(time.Millisecond))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "operation\tconnections\toperations/s\tp50 ms\tp99 ms\tmax ms\terrors\tof bare\t")
	line := func(name string, connections int, f figures, ratio string) {
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%d\t%s\t\n", name, connections, f.PerSecond, f.P50, f.P99, f.Max, f.Errors, ratio)
	}
	for _, row := range r.Rows {
		line(row.Operation, row.Connections, row.Kwai, fmt.Sprintf("%.1f %%", 100*row.Ratio))
		line("bare", row.Connections, row.Bare, "")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nall cores hashing, without a server: %.1f/s; logins reach %.1f %% of it\n",
		r.HashesPerSecond, 100*r.Rows[0].Kwai.PerSecond/r.HashesPerSecond)
	for _, row := range r.Rows {
		if row.Kwai.FirstError != "" {
			fmt.Fprintf(w, "the first error of %s: %s\n", row.Operation, row.Kwai.FirstError)
		}
		if row.Bare.FirstError != "" {
			fmt.Fprintf(w, "the first error of the bare handler beside %s: %s\n", row.Operation, row.Bare.FirstError)
		}
	}
	return nil
}
