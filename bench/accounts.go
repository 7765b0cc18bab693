package main

import (
	"context"
	"fmt"
	"slices"

	"kwai/internal/auth"
	hashing "kwai/internal/password"
	"kwai/internal/store"
)

// password is that of all accounts.
const password = "correct horse battery"

// quick are hashes that cost next to nothing.
var quick = hashing.Params{MemoryKiB: 64, Time: 1, Threads: 1}

// accounts are the addresses of those made: to measure logins by, with hashes of
// the default cost, and to open sessions by, with quick ones.
type accounts struct{ logins, sessions []string }

// makeAccounts writes the accounts past the server, as its commands do; all of
// one kind have one hash, which is thus computed once.
func makeAccounts(ctx context.Context, database string) (a accounts, err error) {
	db, err := store.Open(ctx, store.Options{URL: database})
	if err != nil {
		return a, err
	}
	defer db.Close()
	rules := &auth.Service{Store: db, Settings: auth.Defaults}
	create := func(kind string, n int, params hashing.Params) ([]string, error) {
		pool := hashing.NewPool(hashing.Options{Params: params, Workers: 1})
		defer pool.Close()
		hash, err := pool.Hash(ctx, password)
		if err != nil {
			return nil, err
		}
		var emails []string
		for i := range n {
			email := fmt.Sprintf("%s%d@example.org", kind, i)
			if _, err := rules.CreateUser(ctx, auth.NewUser{Email: email, FirstName: "Ann", LastName: "Other", Hash: hash}); err != nil {
				return nil, err
			}
			emails = append(emails, email)
		}
		return emails, nil
	}
	if a.logins, err = create("login", 256, hashing.Default); err != nil {
		return a, err
	}
	a.sessions, err = create("session", 64, quick)
	return a, err
}

// openSessions logs in n times, from that many connections.
func openSessions(ctx context.Context, address string, emails []string, connections, n int) ([]session, error) {
	opened := make([][]session, connections)
	err := inParallel(ctx, connections, func(i int) error {
		c := &conn{address: address}
		defer c.close()
		for k := i; k < n && ctx.Err() == nil; k += connections {
			s, err := logIn(c, emails[k%len(emails)])
			if err != nil {
				return err
			}
			opened[i] = append(opened[i], s)
		}
		return ctx.Err()
	})
	return slices.Concat(opened...), err
}
