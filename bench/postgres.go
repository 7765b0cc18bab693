package main

import (
	"context"
	"errors"
	"path/filepath"

	"kwai/bench/internal/load"
	"kwai/internal/cluster"
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
	}, b.besidePgbench)
}
