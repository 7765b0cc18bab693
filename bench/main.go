// Command bench measures what a kwai server does on this machine.
//
//	go run ./bench [-duration 4s] [-engine all|sqlite|postgres] [-only REGEXP] [-nats=false] [-big=false] [-json]
//
// It builds kwai as it is released and starts it on new databases with default
// hashing, durability and throttles: on SQLite, and on a PostgreSQL
// server of its own where that is installed. It drives each operation of the API
// in a closed loop, from 1, 16 and 64 keep-alive connections, each of which sends
// its next request when the last one is answered, and prints each rate beside its
// limit:
//
//   - logins, and those with a wrong password, beside the rate at which all cores compute the password hash and do
//     nothing else;
//   - renewals, checks and logouts beside a bare net/http handler in a process of
//     its own, which reads the same form and answers as many bytes, driven by the
//     same client from as many connections: what the transport and the client
//     leave to a server;
//   - renewals on PostgreSQL also beside pgbench with the same statement, on the
//     same table, from 64 connections of its own: what the database leaves;
//   - renewals and checks on PostgreSQL by three replicas, over which the clients
//     spread, beside those by one of them: on one machine, which one replica uses
//     up, this shows what further replicas cost, not what they add;
//   - with events published to NATS (without -nats=false), a nats-server that is
//     built and runs in a process of its own: renewals and checks, which write no
//     event, and logins and logouts, which do, beside those without it; and how
//     fast 10,000 events are published that waited while it was away, beside a
//     bare client that publishes one after the other;
//   - logins, renewals and checks among 200,000 users and 1,000,000 sessions
//     (without -big=false) beside the small database's;
//   - renewals during a flood of wrong logins from 64 connections beside those
//     without it.
//
// Beside each rate stands the processor time of an operation, of kwai, its
// database and NATS together, without the client's. Each client goes round many
// sessions, which lie all over the table. Last come start, memory and size of the
// program, and which of the project's targets were reached. The exit code doesn't
// depend on them.
//
// A figure and its limit are measured right after each other, in three short
// rounds, and what is printed is the median of the rounds (of the maximum: the
// greatest); so a ratio holds where the machine's speed changes meanwhile. The
// client takes its part of the cores: figures are those of a server that shares
// the machine with its clients. Compare figures of one machine only.
//
// -only chooses among the lines of the tables by what they begin with, such as
// "SQLite, small: renew 64"; "NATS|replica" are those with NATS and those by replicas.
//
// With everything it takes some eleven minutes, six of them in proportion to
// -duration; the large databases are two.
//
// engine.go says what is measured on each engine and in which order, limits.go,
// pgbench.go, postgres.go and nats.go beside what; site.go makes and fills a
// database, process.go serves it, rounds.go compares; report.go and targets.go
// have what is printed. What drives kwai is package load.
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
