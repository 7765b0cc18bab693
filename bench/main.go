// Command bench measures what a kwai server does on this machine.
//
//	go run ./bench [-duration 5s] [-json]
//
// It builds kwai as it stands, starts it on a new SQLite database with default
// hashing and durability and without throttles, and drives each operation of
// its API in turn: from keep-alive connections, each of which sends its next
// request when the last one is answered. Beside each operation, with the same
// client and as many connections, it drives a bare net/http handler in a
// process of its own, which reads the same form and answers as many bytes: its
// rate is what the transport and the client leave to a server. Beside logins
// stands the rate at which all cores compute the password hash and nothing else.
//
// The client takes its part of the cores: the figures are those of a server that
// shares the machine with its clients. Compare figures of one machine only, and
// of runs that nothing else disturbed.
//
// main.go says what is measured; one file each has the server, the bare handler,
// the accounts and sessions, the HTTP client, the loop that drives it, the
// latencies, the report.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

type options struct {
	duration    time.Duration
	connections int
	logins      int
	json        bool
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == bareCommand {
		fmt.Fprintln(os.Stderr, serveBare())
		os.Exit(1)
	}
	var o options
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "how long each operation is measured")
	flag.IntVar(&o.connections, "connections", 64, "connections of renewals, checks and logouts")
	flag.IntVar(&o.logins, "login-connections", 16, "connections of logins")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	flag.Parse()
	if flag.NArg() > 0 || o.duration <= 0 || o.connections < 1 || o.logins < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// maxLogouts is for how many logouts a second sessions are opened beforehand.
const maxLogouts = 4000

func run(ctx context.Context, o options) (err error) {
	folder, err := os.MkdirTemp("", "kwai-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	fmt.Fprintln(os.Stderr, "building kwai")
	program, err := build(ctx, folder)
	if err != nil {
		return err
	}
	// The sessions are opened by a server whose hashes cost next to nothing, or
	// opening them would take longer than all the rest.
	fmt.Fprintln(os.Stderr, "making accounts and sessions")
	kwai, err := startKwai(ctx, program, folder, "--hash-memory=64", "--hash-time=1")
	if err != nil {
		return err
	}
	defer func() { kwai.stop() }()
	accounts, err := makeAccounts(ctx, kwai.database)
	if err != nil {
		return err
	}
	// A logout uses a session up: if the machine does more of them a second, they
	// are measured for less long.
	n := max(o.connections, int(1.1*o.duration.Seconds()*maxLogouts))
	sessions, err := openSessions(ctx, kwai.address, accounts.sessions, o.connections, n)
	if err != nil {
		return err
	}
	kwai.stop()
	if kwai, err = startKwai(ctx, program, folder); err != nil {
		return err
	}

	r := newReport(o)
	fmt.Fprintln(os.Stderr, "measuring the bare hash")
	r.HashesPerSecond = hashRate(o.duration)
	for _, op := range []operation{
		{"login", o.logins, login(accounts.logins)},
		{"renew", o.connections, renew(sessions)},
		{"check", o.connections, check(sessions)},
		{"logout", o.connections, logout(sessions)},
	} {
		if err := r.measure(ctx, op, kwai); err != nil {
			return fmt.Errorf("%s: %w", op.name, err)
		}
	}
	if o.json {
		return r.json(os.Stdout)
	}
	return r.table(os.Stdout)
}
