package main

import (
	"context"
	"sync"
	"time"

	"kwai/bench/internal/load"
	"kwai/internal/testing/cluster"
)

// drive measures an operation at a server, or at several over which its clients
// spread. It may be another in each turn.
func (b *bench) drive(op func(round int) load.Operation, addresses ...string) side {
	return func(ctx context.Context, round int) (load.Figures, error) {
		return load.Drive(ctx, op(round), b.round(), addresses...)
	}
}

// always is the same operation in each turn.
func always(op load.Operation) func(int) load.Operation {
	return func(int) load.Operation { return op }
}

// besideBare compares an operation with the bare handler, which gets the request
// that kwai was sent last and answers as many bytes as kwai did then. The
// operation may be another in each turn.
func (b *bench) besideBare(ctx context.Context, c comparison, server *cluster.Server, op func(round int) load.Operation) error {
	var last load.Exchange
	c.Operation, c.Connections, c.Beside = op(0).Name, op(0).Connections, "bare handler"
	return b.compare(ctx, c, func(ctx context.Context, round int) (load.Figures, error) {
		f, err := load.Drive(ctx, op(round), b.round(), server.Address)
		last = f.Last
		return f, err
	}, func(ctx context.Context, round int) (load.Figures, error) {
		bare, err := load.StartBare(ctx, last.Size)
		if err != nil {
			return load.Figures{}, err
		}
		defer bare.Stop()
		return load.Drive(ctx, load.Again(op(round), last.Request), b.round(), bare.Address)
	})
}

// besideHash compares logins with the bare hash.
func (b *bench) besideHash(ctx context.Context, c comparison, server *cluster.Server, op load.Operation) error {
	c.Operation, c.Connections, c.Beside = op.Name, op.Connections, "bare hash"
	return b.compare(ctx, c, b.drive(always(op), server.Address), func(ctx context.Context, _ int) (load.Figures, error) {
		rate, err := load.HashRate(ctx, b.round())
		return load.Figures{PerSecond: rate, Seconds: b.round().Seconds()}, err
	})
}

// besideSignature compares what apps do from so many connections with the bare signature of
// an ID token: a sign-in, and a refresh with a renewal by the API and a signature.
func (b *bench) besideSignature(ctx context.Context, c comparison, server *cluster.Server, s *site, connections int) error {
	signatures := func(ctx context.Context, duration time.Duration) (load.Figures, error) {
		rate, err := load.SignRate(ctx, duration)
		return load.Figures{PerSecond: rate, Seconds: duration.Seconds()}, err
	}
	op := load.SignIn(connections, s.app, s.cookies)
	c.Operation, c.Connections, c.Beside = op.Name, connections, bareSignature
	err := b.compare(ctx, c, b.drive(always(op), server.Address), func(ctx context.Context, _ int) (load.Figures, error) {
		return signatures(ctx, b.round())
	})
	if err != nil {
		return err
	}
	op = load.RefreshApp(connections, s.app, s.atApp)
	c.Operation, c.Beside = op.Name, renewAndSign
	return b.compare(ctx, c, b.drive(always(op), server.Address), func(ctx context.Context, _ int) (load.Figures, error) {
		f, err := load.Drive(ctx, load.Renew(connections, s.sessions), b.round()/2, server.Address)
		if err != nil {
			return f, err
		}
		signed, err := signatures(ctx, b.round()/2)
		f.PerSecond = 1 / (1/f.PerSecond + 1/signed.PerSecond) // one after the other
		f.CPU = 0
		return f, err
	})
}

const (
	bareSignature = "bare RS256"
	renewAndSign  = "renew + RS256"
)

// underFlood compares renewals during a flood of wrong logins with those without
// it.
func (b *bench) underFlood(ctx context.Context, c comparison, server *cluster.Server, s *site) error {
	op := load.Renew(16, s.sessions)
	c.Operation, c.Connections, c.Beside = "renew under a flood", op.Connections, "no flood"
	return b.compare(ctx, c, func(ctx context.Context, _ int) (load.Figures, error) {
		flooding, end := context.WithCancel(ctx)
		var flood sync.WaitGroup
		flood.Go(func() {
			_, _ = load.Drive(flooding, load.WrongLogin(64, s.logins), time.Hour, server.Address)
		})
		defer flood.Wait()
		defer end()
		// The first tenth, which doesn't count, is when the flood rises.
		f, err := load.Drive(ctx, op, b.round(), server.Address)
		f.CPU = 0 // most of it is the flood's
		return f, err
	}, b.drive(always(op), server.Address))
}
