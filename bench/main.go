// Command bench measures what a kwai server does on this machine.
//
//	go run ./bench [-duration 4s] [-engine all|sqlite|postgres] [-only REGEXP] [-nats=false] [-big=false] [-json]
//
// It builds kwai as it is released, and starts it on new databases with default
// hashing, durability and throttles: on SQLite, and on a PostgreSQL server of its own
// if that is installed. It runs each operation of the API in a closed loop from 1, 16
// and 64 keep-alive connections: each sends its next request when the last one is
// answered. It prints each rate beside its limit:
//
//   - logins, and logins with a wrong password, beside the rate at which all cores
//     compute the password hash and do nothing else;
//   - renewals, checks, logouts and the pages of the login and the account beside a bare
//     net/http handler in a process of its own. It reads the same form and answers as
//     many bytes, and the same client uses as many connections: this is what the
//     transport and the client leave to a server;
//   - sign-ins at an app by people who are logged in (code, tokens, userinfo) beside the
//     rate at which all cores sign ID tokens and do nothing else; an app's refreshes
//     beside the API's renewal and such a signature, one after the other;
//   - renewals on PostgreSQL also beside pgbench with the same statement, on the same
//     table, from 64 connections of its own: this is what the database leaves;
//   - renewals and checks on PostgreSQL by three replicas, over which the clients
//     spread, beside one of them. One replica uses up the machine, so this shows what
//     further replicas cost, not what they add;
//   - with events published to NATS (without -nats=false), beside no NATS. A nats-server
//     is built and runs in a process of its own. Renewals and checks write no event,
//     logins and logouts do;
//   - how fast 10,000 events are published that waited while NATS was away, beside a
//     bare client that publishes one after the other;
//   - logins, renewals and checks among 200,000 users and 1,000,000 sessions (without
//     -big=false) beside the small database;
//   - renewals during a flood of wrong logins from 64 connections beside renewals alone.
//
// Beside each rate is the processor time of an operation: of kwai, its database and
// NATS together, without the client. Each client uses many sessions in turn, spread
// over the whole table. At the end come start, memory and size of the program, and
// which of the project's targets were reached. The exit code doesn't depend on them.
//
// A figure and its limit are measured right after each other, in three short rounds.
// Printed is the median of the rounds (of the maximum: the greatest), so a ratio holds
// even if the machine's speed changes meanwhile. The client takes its part of the
// cores: figures are those of a server that shares the machine with its clients.
// Compare figures of one machine only.
//
// -only chooses lines of the tables by how they begin, such as "SQLite, small: renew
// 64"; "NATS|replica" chooses the lines with NATS and with replicas.
//
// With everything it takes some eleven minutes, six of them in proportion to
// -duration; the large databases take two.
//
// Files: engine.go says what is measured on each engine, in order; limits.go,
// pgbench.go, postgres.go and nats.go what it is compared with. site.go makes and fills
// a database, process.go serves it, rounds.go compares. report.go and targets.go print.
// Package load has the clients.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"kwai/bench/internal/load"
	"kwai/internal/testing/cluster"
)

// options are the flags.
type options struct {
	duration time.Duration
	engine   string
	only     *regexp.Regexp
	nats     bool
	big      bool
	json     bool
}

func main() {
	load.BareMain()
	var o options
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "how long each figure is measured, all rounds together")
	flag.StringVar(&o.engine, "engine", "all", "sqlite, postgres or all")
	flag.Func("only", "a regular expression of what is measured, such as \"small: renew 64\"", func(s string) (err error) {
		o.only, err = regexp.Compile(s)
		return err
	})
	flag.BoolVar(&o.nats, "nats", true, "measure with NATS too")
	flag.BoolVar(&o.big, "big", true, "measure large databases too")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of tables")
	flag.Parse()
	if flag.NArg() > 0 || o.duration <= 0 || !slices.Contains([]string{"all", "sqlite", "postgres"}, o.engine) {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	options
	folder string     // of the program and the databases
	queue  *load.NATS // nil without -nats
	report *report
}

func run(ctx context.Context, o options) error {
	folder, err := os.MkdirTemp("", "kwai-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	b := &bench{options: o, folder: folder, report: newReport(o)}
	say("building kwai")
	program, err := cluster.Build(ctx, folder)
	if err != nil {
		return err
	}
	file, err := os.Stat(program)
	if err != nil {
		return err
	}
	b.report.ProgramBytes = file.Size()
	if b.nats {
		say("building NATS")
		if b.queue, err = load.StartNATS(ctx, filepath.Join(folder, "nats")); err != nil {
			return err
		}
		defer b.queue.Stop()
	}
	if o.engine != "postgres" {
		if err := b.sqlite(ctx, program); err != nil {
			return fmt.Errorf("SQLite: %w", err)
		}
	}
	if o.engine != "sqlite" {
		if err := b.postgres(ctx, program); err != nil {
			return fmt.Errorf("PostgreSQL: %w", err)
		}
	}
	b.report.judge()
	if o.json {
		return b.report.json(os.Stdout)
	}
	return b.report.table(os.Stdout)
}

func (b *bench) sqlite(ctx context.Context, program string) error {
	return b.engine(ctx, "SQLite", func(_ context.Context, size string) (cluster.Kwai, error) {
		return cluster.Kwai{Program: program, Folder: filepath.Join(b.folder, "sqlite-"+size)}, nil
	})
}

var began = time.Now()

// say tells the user what takes so long.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%4.0f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
