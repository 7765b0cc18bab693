package main

import (
	"context"
	"math/rand/v2"

	"kwai/bench/internal/load"
	"kwai/internal/password"
	"kwai/internal/testing/cluster"
)

// How many there are. Measured sessions have each a user of their own, as far as
// there are that many; all other users and sessions are there to be in the way.
const (
	bigUsers    = 200_000
	bigSessions = 1_000_000
	walked      = 4096 // sessions renewed and checked
	browsers    = 1024 // sessions of browsers
	owners      = 4096 // their users
	loggers     = 256  // users who log in, with hashes of default cost
)

// throttles are the flags of a server that is measured: it counts logins, as by
// default. Users come from one network, which their accounts know after their
// first login, and succeed; only the flood's failures would be too many for the
// default, and are to be hashed.
var throttles = []string{"--limits=on", "--limit-free=100"}

// site is an installation of kwai with what its clients know.
type site struct {
	cluster.Kwai
	logins   []string       // addresses of those who log in
	owners   []string       // addresses of those whose the sessions are; their hashes cost next to nothing
	sessions []load.Session // to be renewed and checked
	spare    []load.Session // to be ended
	cookies  []string       // of browsers
	app      load.App
	atApp    []load.Session // one of each browser
}

// newSite fills a new installation: with as many users and sessions as said, if
// that is more than are needed, and sessions to be ended. These write no events.
func newSite(ctx context.Context, kwai cluster.Kwai, users, sessions, spare int) (*site, error) {
	s := &site{Kwai: kwai}
	s.Bus = ""
	defer func() { s.Bus = kwai.Bus }()
	// A start makes the database.
	server, err := s.Start(ctx)
	if err != nil {
		return nil, err
	}
	server.Stop()
	// Those who are measured are anywhere among the users.
	accounts := make([]load.Account, max(users, owners+loggers))
	emails := load.Emails("user", len(accounts))
	dear, cheap := load.Hash(password.Default), load.Hash(load.QuickCost)
	for i, at := range rand.Perm(len(accounts)) { //nolint:gosec // no secret
		accounts[at] = load.Account{Email: emails[at], Hash: dear}
		switch {
		case i < loggers:
			s.logins = append(s.logins, emails[at])
		case i < loggers+owners:
			s.owners = append(s.owners, emails[at])
			accounts[at].Hash = cheap
		}
	}
	if err := load.AddKinds(ctx, kwai.DatabaseURL(), accounts); err != nil {
		return nil, err
	}
	if err := s.open(ctx, spare); err != nil {
		return nil, err
	}
	if sessions > walked+spare {
		return s, load.SpreadSessions(ctx, kwai.DatabaseURL(), sessions)
	}
	return s, nil
}

// open opens the sessions at a server whose hashes cost next to nothing.
func (s *site) open(ctx context.Context, spare int) error {
	server, err := s.Start(ctx, load.QuickHashes...)
	if err != nil {
		return err
	}
	defer server.Stop()
	if s.sessions, err = load.OpenSessions(ctx, server.Address, s.owners, walked); err != nil {
		return err
	}
	if s.spare, err = load.OpenSessions(ctx, server.Address, s.owners, spare); err != nil {
		return err
	}
	if s.cookies, err = load.OpenBrowserSessions(ctx, server.Address, s.owners, browsers); err != nil {
		return err
	}
	if s.app, err = load.MakeApp(ctx, s.Kwai); err != nil {
		return err
	}
	if err := load.AwaitAppKeys(ctx, server.Address); err != nil {
		return err
	}
	s.atApp, err = load.OpenAppSessions(ctx, server.Address, s.app, s.cookies)
	return err
}
