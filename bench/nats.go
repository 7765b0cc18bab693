package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kwai/bench/internal/load"
	"kwai/internal/testing/cluster"
)

const (
	withNATS = "NATS"
	noNATS   = "no NATS"

	backlog = 10_000 // events

	natsTimeout = 2 * time.Minute // until all events are published
	kwaiStream  = "KWAI"
	bareStream  = "BARE"
)

// besideNoNATS compares an installation whose events go to NATS with one that
// has no subscriber outside.
func (b *bench) besideNoNATS(ctx context.Context, c comparison, install installer, without *cluster.Server, small *site) error {
	conn, err := nats.Connect(b.queue.URL, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	c.Database, c.Beside = withNATS, noNATS
	s, with, done, err := b.serve(ctx, c, func(ctx context.Context, database string) (cluster.Kwai, error) {
		kwai, err := install(ctx, database)
		kwai.Bus = b.queue.URL
		return kwai, err
	}, 0, 0, b.spare(manyClients))
	if err != nil {
		return err
	}
	err = b.events(ctx, c, js, with, without, s, small)
	if err = errors.Join(err, done()); err != nil {
		return err
	}
	return b.backlog(ctx, c, js, s)
}

func (b *bench) events(ctx context.Context, c comparison, js jetstream.JetStream, with, without *cluster.Server, s, small *site) error {
	for _, op := range []struct {
		here, there func(round int) load.Operation
		events      bool // each writes an event
	}{
		{always(load.Renew(manyClients, s.sessions)), always(load.Renew(manyClients, small.sessions)), false},
		{always(load.Check(manyClients, s.sessions)), always(load.Check(manyClients, small.sessions)), false},
		{always(load.Login(16, s.logins)), always(load.Login(16, small.logins)), true},
		{b.logout(manyClients, s), b.logout(manyClients, small), true},
	} {
		c.Operation, c.Connections = op.here(0).Name, op.here(0).Connections
		drive := b.drive(op.here, with.Address)
		if err := b.compare(ctx, c, func(ctx context.Context, round int) (load.Figures, error) {
			before, err := published(ctx, js, 0)
			if err != nil {
				return load.Figures{}, err
			}
			f, err := drive(ctx, round)
			if err == nil && op.events {
				// What is left to be published mustn't disturb the other side's turn.
				_, err = published(ctx, js, before+uint64(f.Done))
			}
			return f, err
		}, b.drive(op.there, without.Address)); err != nil {
			return err
		}
	}
	return nil
}

// backlog compares how fast events are published that have waited while NATS was
// away with how fast a bare client publishes. The rate is NATS's own: the times
// at which it stored the first and the last.
func (b *bench) backlog(ctx context.Context, c comparison, js jetstream.JetStream, s *site) error {
	server, err := s.Start(ctx, load.QuickHashes...)
	if err != nil {
		return err
	}
	defer server.Stop()
	c.Operation, c.Connections, c.Beside = "publish a backlog", 1, "bare publisher"
	return b.compare(ctx, c, func(ctx context.Context, _ int) (f load.Figures, err error) {
		before, err := published(ctx, js, 0)
		if err != nil {
			return f, err
		}
		b.queue.Stop()
		if _, err := load.OpenSessions(ctx, server.Address, s.owners, backlog); err != nil {
			return f, err
		}
		if err := b.queue.Restart(ctx); err != nil {
			return f, err
		}
		after, err := published(ctx, js, before+backlog)
		if err != nil {
			return f, err
		}
		first, err := stored(ctx, js, before+1)
		if err != nil {
			return f, err
		}
		last, err := stored(ctx, js, after)
		if err != nil {
			return f, err
		}
		f.Operations, f.Seconds = int(after-before), last.Time.Sub(first.Time).Seconds()
		f.PerSecond = float64(f.Operations) / f.Seconds
		return f, nil
	}, func(ctx context.Context, _ int) (load.Figures, error) { return publish(ctx, js, b.round()) })
}

// published waits until the stream has had that many events and returns how many
// it has had.
func published(ctx context.Context, js jetstream.JetStream, n uint64) (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, natsTimeout, errors.New("kwai doesn't publish what it should"))
	defer cancel()
	for {
		stream, err := js.Stream(ctx, kwaiStream)
		if err == nil && stream.CachedInfo().State.LastSeq >= n {
			return stream.CachedInfo().State.LastSeq, nil
		}
		select { // NATS may have been started just now
		case <-ctx.Done():
			return 0, errors.Join(context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stored is one of the events in the stream.
func stored(ctx context.Context, js jetstream.JetStream, n uint64) (*jetstream.RawStreamMsg, error) {
	stream, err := js.Stream(ctx, kwaiStream)
	if err != nil {
		return nil, err
	}
	return stream.GetMsg(ctx, n)
}

// publish publishes the same event again and again as kwai does, one when the
// last one is stored, in a stream of the same kind, and does nothing else.
func publish(ctx context.Context, js jetstream.JetStream, duration time.Duration) (f load.Figures, err error) {
	like, err := js.Stream(ctx, kwaiStream)
	if err != nil {
		return f, err
	}
	config := like.CachedInfo().Config
	config.Name, config.Subjects = bareStream, []string{"bare.>"}
	if _, err := js.CreateOrUpdateStream(ctx, config); err != nil {
		return f, err
	}
	event, err := like.GetMsg(ctx, like.CachedInfo().State.LastSeq)
	if err != nil {
		return f, err
	}
	m := nats.NewMsg("bare.session.opened")
	m.Header, m.Data = event.Header, event.Data
	begin := time.Now()
	for time.Since(begin) < duration {
		if _, err := js.PublishMsg(ctx, m, jetstream.WithMsgID(uuid.NewString()), jetstream.WithExpectStream(bareStream)); err != nil {
			return f, fmt.Errorf("publishing: %w", err)
		}
		f.Operations++
	}
	f.Seconds = time.Since(begin).Seconds()
	f.PerSecond = float64(f.Operations) / f.Seconds
	return f, nil
}
