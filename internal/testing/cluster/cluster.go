// Package cluster runs kwai as a cluster on one machine: PostgreSQL, NATS with
// JetStream, replicas as processes of their own, and a load balancer. It is for tests,
// measurements and newcomers (scripts/cluster), not for real users. All of it is on
// loopback, without TLS, and stopping it removes all its data.
//
//	program, err := cluster.Build(ctx, folder)
//	c, err := cluster.Start(ctx, cluster.Options{Program: program, Folder: folder, Replicas: 3})
//	if errors.Is(err, pgcluster.ErrNoPrograms) … // PostgreSQL isn't installed
//	defer c.Stop()
//	balancer := cluster.NewBalancer(c.Addresses()...)
//	go balancer.Watch(ctx)
//	http.Serve(listener, balancer)
//
// Replicas trust 127.0.0.1, where the balancer is, about where requests come from.
//
// Each part can be ended and started again while the others go on:
//
//	c.Replicas[0].Kill()         // SIGKILL; Stop: in good order
//	c.Replicas[0].Restart(ctx)   // on the same address
//	c.Replicas[1].Pause()        // SIGSTOP; Continue
//	c.NATS.Stop()                // Start
//	c.Postgres.Kill()            // Restart
//
// [Kwai] is one installation without the rest, on SQLite too. It needs Go to
// build kwai, and PostgreSQL's programs (package pgcluster) for a cluster; NATS
// runs within this process.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"kwai/internal/testing/pgcluster"
)

// Options say what a cluster is made of.
type Options struct {
	Program  string // as Build returns it
	Folder   string // of its data; made where it isn't there, never removed
	Replicas int
	LocalBus bool     // without NATS
	Flags    []string // for each replica; they come after the defaults of Kwai.Start
	// Log, if it isn't nil, makes what also gets what replica i writes.
	Log func(i int) (io.Writer, error)
}

// Cluster is a running cluster.
type Cluster struct {
	Kwai     Kwai // what the replicas share: database, bus, folder, master key
	Postgres *pgcluster.Cluster
	NATS     *NATS // nil with LocalBus
	Replicas []*Replica
}

// Replica is one of the servers.
type Replica struct {
	*Server
	Metrics string // host:port of its --metrics-listen
}

// Start starts a cluster, its replicas one after the other; all are ready when
// it returns. ctx bounds the start only: the caller must Stop the cluster. What
// was started is ended again where the error isn't nil.
func Start(ctx context.Context, o Options) (c *Cluster, err error) {
	c = &Cluster{Kwai: Kwai{Program: o.Program, Folder: filepath.Join(o.Folder, "data")}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
			c = nil
		}
	}()
	if err := os.MkdirAll(o.Folder, 0o700); err != nil {
		return c, err
	}
	if c.Postgres, err = pgcluster.Start(pgcluster.Options{Settings: []string{"max_connections=300"}}); err != nil {
		return c, err
	}
	name, err := c.Postgres.Create(ctx, "template0")
	if err != nil {
		return c, err
	}
	c.Kwai.Database = c.Postgres.URL(name)
	if !o.LocalBus {
		if c.NATS, err = StartNATS(ctx, filepath.Join(o.Folder, "nats")); err != nil {
			return c, err
		}
		c.Kwai.Bus = c.NATS.URL()
	}
	for i := range o.Replicas {
		if err := c.add(ctx, i, o); err != nil {
			return c, fmt.Errorf("replica %d: %w", i+1, err)
		}
	}
	return c, nil
}

func (c *Cluster) add(ctx context.Context, i int, o Options) (err error) {
	var log io.Writer
	if o.Log != nil {
		if log, err = o.Log(i); err != nil {
			return err
		}
	}
	metrics, err := FreeAddress(ctx)
	if err != nil {
		return err
	}
	// A server ends with its context: from here on, Stop ends it.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, end)()
	server, err := c.Kwai.start(life, log, append([]string{"--metrics-listen=" + metrics, "--trusted-proxies=127.0.0.1"}, o.Flags...)...)
	if err != nil {
		return err
	}
	c.Replicas = append(c.Replicas, &Replica{server, metrics})
	return nil
}

// Addresses are those of the replicas, host:port.
func (c *Cluster) Addresses() (addresses []string) {
	for _, r := range c.Replicas {
		addresses = append(addresses, r.Address)
	}
	return addresses
}

// Stop ends all in good order: first the replicas, all at the same time, then
// NATS and PostgreSQL, of which nothing is kept.
func (c *Cluster) Stop() error {
	var replicas sync.WaitGroup
	for _, r := range c.Replicas {
		replicas.Go(r.Stop)
	}
	replicas.Wait()
	if c.NATS != nil {
		c.NATS.Stop()
	}
	if c.Postgres != nil {
		return c.Postgres.Stop()
	}
	return nil
}
