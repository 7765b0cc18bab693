package main

import (
	"context"
	"errors"

	"kwai/bench/internal/load"
	"kwai/internal/testing/cluster"
)

// manyLogouts is for how many logouts a second, from so many connections,
// sessions are opened beforehand. If the machine does more, they are measured for
// less long.
var manyLogouts = map[int]int{1: 1000, 16: 3000, manyClients: 3000}

// manyClients are the most connections from which anything is measured.
const manyClients = 64

// installer gives a new installation.
type installer func(ctx context.Context, database string) (cluster.Kwai, error)

// engine measures all that is measured on SQLite and on PostgreSQL alike, and
// what more measures, which only this engine has.
func (b *bench) engine(ctx context.Context, name string, install installer, more ...func(context.Context, comparison, *cluster.Server, *site) error) (err error) {
	spare := 0
	for n := range manyLogouts {
		spare += b.spare(n)
	}
	if b.nats {
		spare += b.spare(manyClients)
	}
	c := comparison{Engine: name, Database: "small"}
	small, server, done, err := b.serve(ctx, c, install, 0, 0, spare)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := b.small(ctx, c, server, small); err != nil {
		return err
	}
	for _, measure := range more {
		if err := measure(ctx, c, server, small); err != nil {
			return err
		}
	}
	if b.nats {
		if err := b.besideNoNATS(ctx, c, install, server, small); err != nil {
			return err
		}
	}
	if !b.big {
		return nil
	}
	c = comparison{Engine: name, Database: "big", Beside: "small database"}
	big, large, over, err := b.serve(ctx, c, install, bigUsers, bigSessions, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, over()) }()
	for _, op := range []func(s *site) load.Operation{
		func(s *site) load.Operation { return load.Login(16, s.logins) },
		func(s *site) load.Operation { return load.Renew(manyClients, s.sessions) },
		func(s *site) load.Operation { return load.Check(manyClients, s.sessions) },
	} {
		there, here := op(big), op(small)
		c.Operation, c.Connections = there.Name, there.Connections
		if err := b.compare(ctx, c, b.drive(always(there), large.Address), b.drive(always(here), server.Address)); err != nil {
			return err
		}
	}
	return nil
}

// logout ends sessions of its own, from so many connections: each turn has
// others, since it uses them up.
func (b *bench) logout(connections int, s *site) func(round int) load.Operation {
	n := b.spare(connections)
	own, size := s.spare[:n], n/rounds
	s.spare = s.spare[n:]
	return func(round int) load.Operation { return load.Logout(connections, own[round*size:][:size]) }
}

// spare is how many sessions all turns of it use up.
func (b *bench) spare(connections int) int {
	return rounds * max(64, int(1.1*b.round().Seconds()*float64(manyLogouts[connections])))
}

// small measures each operation from a few, some and many connections.
func (b *bench) small(ctx context.Context, c comparison, server *cluster.Server, s *site) error {
	for _, n := range []int{1, 16, manyClients} {
		if err := b.besideHash(ctx, c, server, load.Login(n, s.logins)); err != nil {
			return err
		}
		for _, op := range []func(int) load.Operation{
			always(load.Renew(n, s.sessions)), always(load.Check(n, s.sessions)), b.logout(n, s),
			always(load.LoginPage(n)), always(load.AccountPage(n, s.cookies)),
		} {
			if err := b.besideBare(ctx, c, server, op); err != nil {
				return err
			}
		}
	}
	if err := b.besideHash(ctx, c, server, load.WrongLogin(16, s.logins)); err != nil {
		return err
	}
	for _, n := range []int{16, manyClients} {
		if err := b.besideSignature(ctx, c, server, s, n); err != nil {
			return err
		}
	}
	return b.underFlood(ctx, c, server, s)
}
