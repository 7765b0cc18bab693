package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kwai/bench/internal/load"
	"kwai/internal/password"
	"kwai/internal/testing/cluster"
)

// Of accounts. Their hashes are of default cost but for the few who own the
// sessions: a login to an unknown address costs what a hash in use costs, in
// the proportions of the costs, so there must be many more of the others.
const (
	sessionOwners = 32 // who may have ten thousand sessions each
	honestOwners  = 256
	victims       = 2048 // whose passwords the flood guesses
)

// target is a kwai server that is flooded, and what its clients know.
type target struct {
	server  *cluster.Server
	metrics string // its URL
	client  http.Client
	honest  string // the address of honest clients; "" where nobody is throttled

	logins    []string       // addresses for honest logins
	victims   []string       // addresses for others
	sessions  []load.Session // that are renewed and checked
	logouts   []load.Session // each of which can be ended
	forgeable string         // a refresh token
	cookies   cookies
	app       load.App
	code      string // for it
}

// startTarget builds kwai, fills a database and starts the server. stop ends it
// and removes all it has made.
func startTarget(ctx context.Context, engine string, throttles bool, o options) (t *target, stop func(), err error) {
	var made []func()
	undo := func() {
		for _, f := range slices.Backward(made) {
			f()
		}
	}
	defer func() {
		if err != nil {
			undo()
		}
	}()
	folder, err := os.MkdirTemp("", "kwai-flood-")
	if err != nil {
		return nil, nil, err
	}
	made = append(made, func() { _ = os.RemoveAll(folder) })
	progress("building kwai")
	kwai := cluster.Kwai{Folder: filepath.Join(folder, "data")}
	if kwai.Program, err = cluster.Build(ctx, folder); err != nil {
		return nil, nil, err
	}
	if engine == "postgres" {
		progress("starting PostgreSQL")
		postgres, err := load.StartPostgres()
		if err != nil {
			return nil, nil, err
		}
		made = append(made, func() { _ = postgres.Stop() })
		name, err := postgres.Create(ctx, "template0")
		if err != nil {
			return nil, nil, err
		}
		kwai.Database = postgres.URL(name)
	}
	var group *cgroup
	if o.quota != 0 { // first: where it can't be had, the rest is in vain
		if group, err = newCgroup("/sys/fs/cgroup", fmt.Sprintf("kwai-flood-%d", os.Getpid()), o.quota); err != nil {
			return nil, nil, fmt.Errorf("-quota: %w", err)
		}
		made = append(made, group.remove)
	}
	if t, err = fill(ctx, kwai, o.duration); err != nil { // with all cores
		return nil, nil, err
	}
	if group != nil {
		if kwai.Program, err = group.wrap(kwai.Program); err != nil {
			return nil, nil, err
		}
	}
	metrics, err := cluster.FreeAddress(ctx)
	if err != nil {
		return nil, nil, err
	}
	flags := []string{"--metrics-listen=" + metrics, atURL}
	if throttles {
		flags = append(flags, load.TrustClients...)
		t.honest = load.NewNetwork()
	}
	if t.server, err = kwai.Start(ctx, flags...); err != nil {
		return nil, nil, err
	}
	made = append(made, t.server.Stop)
	t.metrics = "http://" + metrics + "/metrics"
	t.client.Timeout = 20 * time.Second // under a flood
	return t, undo, nil
}

// fill makes accounts and sessions.
func fill(ctx context.Context, kwai cluster.Kwai, duration time.Duration) (*target, error) {
	progress("making accounts and sessions")
	server, err := kwai.Start(ctx) // makes the database
	if err != nil {
		return nil, err
	}
	server.Stop()
	owners := load.Emails("session", sessionOwners)
	t := &target{logins: load.Emails("login", honestOwners), victims: load.Emails("victim", victims)}
	hash := load.Hash(password.Default)
	if err := errors.Join(
		load.AddAccounts(ctx, kwai.DatabaseURL(), owners, load.Hash(load.QuickCost)),
		load.AddAccounts(ctx, kwai.DatabaseURL(), t.logins, hash),
		load.AddAccounts(ctx, kwai.DatabaseURL(), t.victims, hash),
	); err != nil {
		return nil, err
	}
	if server, err = kwai.Start(ctx, append(slices.Clone(load.QuickHashes), atURL)...); err != nil {
		return nil, err
	}
	defer server.Stop()
	if t.cookies, err = makeCookies(ctx, server.Address, owners); err != nil {
		return nil, err
	}
	if t.app, t.code, err = makeApp(ctx, kwai, server.Address, t.cookies.live); err != nil {
		return nil, err
	}
	const kept = 16 * honestConnections
	n := kept + 1 + logoutMeasures*logoutsAtATime(duration)
	sessions, err := load.OpenSessions(ctx, server.Address, owners, n)
	if err != nil {
		return nil, err
	}
	t.sessions, t.forgeable, t.logouts = sessions[:kept], sessions[kept].Refresh, sessions[kept+1:]
	return t, nil
}

// makeApp makes an app, and has a code made for it.
func makeApp(ctx context.Context, kwai cluster.Kwai, address, cookie string) (a load.App, code string, err error) {
	if a, err = load.MakeApp(ctx, kwai); err != nil {
		return a, "", err
	}
	if err := load.AwaitAppKeys(ctx, address); err != nil {
		return a, "", err
	}
	c := load.NewConnContext(ctx, address)
	defer c.Close()
	code, err = c.Code(a, cookie)
	return a, code, err
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
