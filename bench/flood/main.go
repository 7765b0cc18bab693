// Command flood measures what floods do to a kwai server's honest clients. It exits 1
// if the sixth promise is broken: a flood of logins slows nothing else.
//
//	go run ./bench/flood [-engine sqlite|postgres|all] [-limits on|off|all]
//	                     [-only REGEXP] [-duration 700ms]
//	                     [-connections 64,256,1000] [-quota CORES] [-json]
//
// It builds kwai, starts it with default hashing and durability, and floods it in every
// way of kinds.go from each number of connections:
//
//   - without throttles, so that all is hashed that can be;
//   - with throttles: logins from one network that has used up its allowance; from many
//     networks, each of which sends one, as a botnet could; and with right passwords
//     from one network, of one account and of many.
//
// Honest clients come from a network that their accounts know. They are measured before,
// during and after each flood: renewals, checks and logins, from 16 connections each, in
// turn; beside a flood of up to 64 connections of logins also logouts. It also measures
// kwai's memory (kwai and its children: the sum of their Pss), descriptors and
// goroutines, and how soon all is as before when the flood ends. judge.go has the bounds.
//
// With -quota kwai runs in a control group of its own with that many cores, such as 1 or
// 0.5; that needs Linux and root. Honest clients are then measured alone under the same
// quota.
//
// The flood and the honest clients come from one process, as if through one proxy; with
// throttles kwai trusts that proxy. It takes its part of the cores from kwai: figures are
// those of a server that shares its machine with its attackers. Compare figures of one
// machine only.
//
// It exits 1 if a promise is broken, 2 if it can't find that out. It needs Linux's procfs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"kwai/bench/internal/load"
)

type options struct {
	engines     []string
	duration    time.Duration
	limits      []string // on, off
	only        *regexp.Regexp
	connections []int   // nil: those of each kind
	quota       float64 // cores; 0: none
	json        bool
}

func main() {
	o, err := parseOptions()
	if err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kept, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(2)
	}
	if !kept {
		os.Exit(1)
	}
}

func parseOptions() (o options, err error) {
	engine := flag.String("engine", "sqlite", "sqlite, postgres or all")
	flag.DurationVar(&o.duration, "duration", 700*time.Millisecond, "how long each kind of honest client is measured at a time")
	limits := flag.String("limits", "all", "on, off, or all: both in turn")
	only := flag.String("only", "", "a regular expression of the floods' names")
	connections := flag.String("connections", "", "from how many connections a flood comes, such as 64,256,1000, which is usual")
	flag.Float64Var(&o.quota, "quota", 0, "how many cores a control group gives kwai; 0: no control group")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of tables")
	flag.Parse()
	switch *engine {
	case "sqlite", "postgres":
		o.engines = []string{*engine}
	case "all":
		o.engines = []string{"sqlite", "postgres"}
	default:
		return o, fmt.Errorf("-engine %q is none of sqlite, postgres and all", *engine)
	}
	switch *limits {
	case "on", "off":
		o.limits = []string{*limits}
	case "all":
		o.limits = []string{"off", "on"}
	default:
		return o, fmt.Errorf("-limits %q is none of on, off and all", *limits)
	}
	if *only != "" {
		if o.only, err = regexp.Compile(*only); err != nil {
			return o, fmt.Errorf("-only: %w", err)
		}
	}
	if *connections != "" {
		if o.connections, err = parseCounts(*connections); err != nil {
			return o, fmt.Errorf("-connections: %w", err)
		}
	}
	switch {
	case flag.NArg() > 0:
		return o, fmt.Errorf("it takes no arguments, such as %q", flag.Arg(0))
	case o.duration <= 0:
		return o, errors.New("-duration must be above 0")
	case o.quota != 0 && (o.quota < 0.05 || o.quota > 1024): // 5 ms in each 100
		return o, errors.New("-quota must be from 0.05 to 1024 cores")
	}
	return o, nil
}

var usualConnections = []int{64, 256, 1000}

// parseCounts reads numbers that are separated by commas.
func parseCounts(text string) (counts []int, err error) {
	for field := range strings.SplitSeq(text, ",") {
		var n int
		if _, err := fmt.Sscanf(field+";", "%d;", &n); err != nil || n < 1 || n > maxConnections {
			return nil, fmt.Errorf("%q is not a number from 1 to %d", field, maxConnections)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// maxConnections is about what one address can have to another at a time, given
// the ports that Linux lends by default.
const maxConnections = 20_000

// run says whether all promises are kept.
func run(ctx context.Context, o options) (kept bool, err error) {
	if _, err := load.Measure(os.Getpid()); err != nil {
		return false, fmt.Errorf("this needs Linux's procfs: %w", err)
	}
	r := newReport(o)
	for _, engine := range o.engines {
		for _, limits := range o.limits {
			s, err := measureEngine(ctx, engine, limits, o)
			if err != nil {
				return false, fmt.Errorf("%s, limits %s: %w", engine, limits, err)
			}
			r.Engines = append(r.Engines, s)
		}
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return r.kept(), e.Encode(r)
	}
	return r.kept(), r.print(os.Stdout)
}
