package main

import (
	"context"
	"time"

	"kwai/bench/internal/load"
	"kwai/internal/testing/cluster"
)

// process is what the program takes on one database.
type process struct {
	Engine            string     `json:"engine"`
	Database          string     `json:"database"`
	StartMilliseconds float64    `json:"start_ms"` // to the first answer that it is ready; median of several
	Idle              load.Usage `json:"idle"`     // a second later
	Peak              load.Peak  `json:"peak"`     // until all was measured; sampled
}

// serve makes and fills an installation and serves it. The function returned
// stops the server and notes in the report what it took at most.
func (b *bench) serve(
	ctx context.Context, c comparison, install installer, users, sessions, spare int,
) (s *site, server *cluster.Server, done func() error, err error) {
	say("making a %s database on %s", c.Database, c.Engine)
	kwai, err := install(ctx, c.Database)
	if err != nil {
		return nil, nil, nil, err
	}
	if s, err = newSite(ctx, kwai, users, sessions, spare); err != nil {
		return nil, nil, nil, err
	}
	var starts []float64
	for range 5 {
		if server != nil {
			server.Stop()
		}
		if server, err = s.Start(ctx, throttles...); err != nil {
			return nil, nil, nil, err
		}
		starts = append(starts, server.Startup.Seconds()*1000)
	}
	p := process{Engine: c.Engine, Database: c.Database, StartMilliseconds: median(starts)}
	select {
	case <-time.After(time.Second): // what a start takes has been given back by then
	case <-ctx.Done():
	}
	watched := func() (load.Peak, error) { return load.Peak{}, nil }
	if p.Idle, err = load.Measure(server.PID()); err != nil {
		b.report.missing("what a process uses", err)
	} else {
		watched = load.Watch(ctx, server.PID(), 200*time.Millisecond)
	}
	own := len(b.report.Processes)
	b.report.Processes = append(b.report.Processes, p)
	return s, server, func() (err error) {
		b.report.Processes[own].Peak, err = watched()
		server.Stop()
		return err
	}, nil
}
