// Command oracle finds out whether kwai's answers give away which accounts exist, by
// their bytes or by their time.
//
//	go run ./bench/oracle [-engine sqlite|postgres|all] [-samples 1000]
//	                      [-states idle,load,busy,full,throttled,locked,page-idle,…,address-idle,…] [-json]
//
// It builds kwai and starts it with default hashing and throttles. The database has
// accounts that an attacker would like to distinguish from no accounts: with a password,
// revoked, with two steps, without a password yet. Their hashes are argon2id with today's parameters
// (40 %), with older ones (30 %) and bcrypt (30 %). Then it asks from one connection, in
// random order, with a check right after each request (in the state full, where an
// answer takes a second, from 128 connections):
//
//   - login with a wrong password: in the state idle each address twice; once in the
//     state load, while other connections log in, renew and recover;
//   - login that is refused for want of time, 503: once in the state busy, where 16
//     connections keep hashing so busy that the wait is too long, and once in the state
//     full, where 2,000 connections fill its queue;
//   - login that is throttled, 429: three times in the state throttled, where each
//     address has failed once too often, and three times in the state locked, where it
//     has failed so often that no wait helps;
//   - recover: three times in the states idle, load, busy and throttled. In throttled,
//     each account has had as many as it may have;
//   - the login page, as the login, in states of their own: page-idle, page-load and so
//     on. Its answer shows the address as it was typed, which is left out, and how long to
//     wait, which is compared by the number of Retry-After.
//   - the form by which a user asks for another address: three times, by a visitor who
//     has just logged in, in the states address-idle and address-load.
//
// Each request comes from a network of its own, by a header that kwai trusts here, so
// that no network's allowance is used up. -states chooses among the states; load needs
// idle before it, which finds the classes below.
//
// Each kind of address is compared with unknown addresses of the same form and length:
// by its answers' bytes (status, headers but Date, body), by their times, by the numbers
// of Retry-After, and by the times of the checks. A comparison makes four tests:
//
//   - Welch's t on all values;
//   - Welch's t on values below the 90th percentile of both kinds together;
//   - Mann and Whitney's test on ranks;
//   - Kolmogorov and Smirnov's test on distributions.
//
// Their figures are on one scale, standard deviations of the normal distribution. The
// worst one is the comparison's.
//
// An unknown address always gets the same cost, one that hashes have, in the proportions
// in which costs occur. So logins are compared in several ways:
//
//   - all addresses, each counted once, as by an attacker who tries a whole list;
//   - how many fall into each class of cost;
//   - within each class, where the noise is that of one hash alone;
//   - the classes together, which resolves best;
//   - how much the second time of an address differs from the first.
//
// For logins without a hash, times are compared as they are. If some of them are hashed
// or wait longer after all, their number is compared, too.
//
// The promise is broken if answers differ in a byte; if a figure reaches 4.5; or if
// means differ by more than 20 µs and by four standard errors or more, on recover, on a
// throttled login or after them. Then it exits 1. If it could not measure it exits 2 (go
// run exits 1 for that, too). compare.go says at the bounds how often chance alone
// reaches them.
//
// It doesn't look at what happens later than the next request: half a second after a
// recover kwai writes a mail if there is an account, and that is work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"kwai/bench/internal/load"
	"kwai/internal/testing/cluster"
)

type options struct {
	engine  string
	samples int
	states  []state
	json    bool
}

func main() {
	var o options
	flag.StringVar(&o.engine, "engine", "all", "sqlite, postgres, or all that are installed")
	flag.IntVar(&o.samples, "samples", 1000, "addresses of each kind; fewer than 200 are for trying it out")
	chosen := flag.String("states", "all", "which states to ask in: names from "+stateNames(states)+", with commas between them, or all")
	flag.BoolVar(&o.json, "json", false, "print JSON")
	flag.Parse()
	var chosenWell bool
	if o.states, chosenWell = chooseStates(*chosen); !chosenWell || flag.NArg() > 0 || o.samples < 2*fewest || o.engine != "sqlite" && o.engine != "postgres" && o.engine != "all" {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	broken, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(2)
	}
	if broken > 0 {
		os.Exit(1)
	}
}

func stateNames(all []state) string {
	var names []string
	for _, st := range all {
		names = append(names, st.name)
	}
	return strings.Join(names, ",")
}

// chooseStates gives those that are named, in their own order; false where a name
// is none's.
func chooseStates(text string) (chosen []state, ok bool) {
	if text == "all" {
		return states, true
	}
	names := strings.Split(text, ",")
	for _, st := range states {
		if slices.Contains(names, st.name) {
			chosen = append(chosen, st)
		}
	}
	return chosen, len(chosen) == len(names)
}

func run(ctx context.Context, o options) (broken int, err error) {
	folder, err := os.MkdirTemp("", "kwai-oracle-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	progress("building kwai")
	program, err := cluster.Build(ctx, folder)
	if err != nil {
		return 0, err
	}
	r := newReport(o.samples)
	err = r.measureAll(ctx, o, program, folder)
	if len(r.Blocks) == 0 {
		return 0, err
	}
	// What was measured before an error is worth printing: it took long.
	r.conclude()
	if o.json {
		return r.Broken, errors.Join(err, r.json(os.Stdout))
	}
	return r.Broken, errors.Join(err, r.print(os.Stdout))
}

// measureAll measures on the engines that are asked for.
func (r *report) measureAll(ctx context.Context, o options, program, folder string) error {
	if o.engine != "postgres" {
		if err := r.measure(ctx, o, cluster.Kwai{Program: program, Folder: filepath.Join(folder, "sqlite")}); err != nil {
			return fmt.Errorf("sqlite: %w", err)
		}
	}
	if o.engine != "sqlite" {
		err := r.measurePostgres(ctx, o, cluster.Kwai{Program: program, Folder: filepath.Join(folder, "postgres")})
		switch {
		case errors.Is(err, load.ErrNoPostgres) && o.engine == "all":
			r.Skipped = err.Error()
		case err != nil:
			return fmt.Errorf("postgres: %w", err)
		}
	}
	return nil
}

func (r *report) measurePostgres(ctx context.Context, o options, kwai cluster.Kwai) (err error) {
	postgres, err := load.StartPostgres()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.Stop()) }()
	name, err := postgres.Create(ctx, "template0")
	if err != nil {
		return err
	}
	kwai.Database = postgres.URL(name)
	return r.measure(ctx, o, kwai)
}

// measure adds one engine's blocks.
func (r *report) measure(ctx context.Context, o options, kwai cluster.Kwai) error {
	engine := "SQLite"
	if kwai.Database != "" {
		engine = "PostgreSQL"
	}
	progress("%s: making accounts", engine)
	scene, err := newScene(ctx, kwai, o.samples)
	if err != nil {
		return err
	}
	for _, st := range o.states {
		b, err := scene.measure(ctx, engine, st)
		if err != nil {
			return fmt.Errorf("%s: %w", st.title, err)
		}
		r.Blocks = append(r.Blocks, b)
	}
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
