package main

import (
	"context"
	"errors"

	"kwai/bench/internal/load"
	"kwai/internal/cluster"
)

// manyLogouts is for how many logouts a second, from so many connections,
// sessions are opened beforehand. If the machine does more, they are measured for
// less long.
var manyLogouts = map[int]int{1: 1000, 16: 3000, 64: 3000}

// engine measures all that is measured on SQLite and on PostgreSQL alike. install
// gives a new installation; more, if it isn't nil, measures what only this engine
// has.
func (b *bench) engine(
	ctx context.Context, name string, install func(ctx context.Context, database string) (cluster.Kwai, error),
	more func(context.Context, comparison, *cluster.Server, *site) error,
) (err error) {
	spare := 0
	for _, perSecond := range manyLogouts {
		spare += b.logouts(perSecond) * rounds
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
	if more != nil {
		if err := more(ctx, c, server, small); err != nil {
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
		func(s *site) load.Operation { return load.Renew(64, s.sessions) },
		func(s *site) load.Operation { return load.Check(64, s.sessions) },
	} {
		there, here := op(big), op(small)
		c.Operation, c.Connections = there.Name, there.Connections
		if err := b.compare(ctx, c, b.drive(large, there), b.drive(server, here)); err != nil {
			return err
		}
	}
	return nil
}

// logouts is how many sessions a turn of so many logouts a second uses up.
func (b *bench) logouts(perSecond int) int {
	return max(64, int(1.1*b.round().Seconds()*float64(perSecond)))
}

// small measures each operation from a few, some and many connections.
func (b *bench) small(ctx context.Context, c comparison, server *cluster.Server, s *site) error {
	spare := s.spare
	for _, n := range []int{1, 16, 64} {
		if err := b.besideHash(ctx, c, server, load.Login(n, s.logins)); err != nil {
			return err
		}
		// A turn of logouts has its own sessions, since it uses them up.
		size := b.logouts(manyLogouts[n])
		own := spare[:rounds*size]
		spare = spare[rounds*size:]
		renew, check := load.Renew(n, s.sessions), load.Check(n, s.sessions)
		for _, op := range []func(int) load.Operation{
			func(int) load.Operation { return renew },
			func(int) load.Operation { return check },
			func(round int) load.Operation { return load.Logout(n, own[round*size:][:size]) },
		} {
			if err := b.besideBare(ctx, c, server, op); err != nil {
				return err
			}
		}
	}
	return b.underFlood(ctx, c, server, s)
}
