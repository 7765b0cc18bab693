package main

import (
	"context"
	"errors"
	"path/filepath"

	"kwai/bench/internal/load"
	"kwai/internal/testing/cluster"
)

// postgres measures on PostgreSQL; where that isn't installed, the report says so.
func (b *bench) postgres(ctx context.Context, program string) (err error) {
	postgres, err := load.StartPostgres()
	if errors.Is(err, load.ErrNoPostgres) {
		b.report.missing("PostgreSQL", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.Stop()) }()
	return b.engine(ctx, "PostgreSQL", func(ctx context.Context, size string) (cluster.Kwai, error) {
		name, err := postgres.Create(ctx, "template0")
		return cluster.Kwai{Program: program, Folder: filepath.Join(b.folder, "postgres-"+size), Database: postgres.URL(name)}, err
	}, b.besidePgbench, b.besideOneReplica)
}

// besideOneReplica compares three replicas, over which the clients spread, with
// one of them, beside which the others have nothing to do.
func (b *bench) besideOneReplica(ctx context.Context, c comparison, server *cluster.Server, s *site) error {
	addresses := []string{server.Address}
	for range 2 {
		replica, err := s.Start(ctx, throttles...)
		if err != nil {
			return err
		}
		defer replica.Stop()
		addresses = append(addresses, replica.Address)
	}
	for _, op := range []load.Operation{load.Renew(manyClients, s.sessions), load.Check(manyClients, s.sessions)} {
		c.Operation, c.Connections, c.Beside = op.Name+", three replicas", op.Connections, oneReplica
		if err := b.compare(ctx, c, b.drive(always(op), addresses...), b.drive(always(op), server.Address)); err != nil {
			return err
		}
	}
	return nil
}

const oneReplica = "one replica"
