package main

import (
	"context"
	"errors"
	"path/filepath"

	"kwai/bench/internal/load"
)

// postgres measures on PostgreSQL; where that isn't installed, the report says so.
func (b *bench) postgres(ctx context.Context, program string) (err error) {
	cluster, err := load.StartPostgres()
	if errors.Is(err, load.ErrNoPostgres) {
		b.report.missing("PostgreSQL", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	return b.engine(ctx, "PostgreSQL", func(ctx context.Context, size string) (load.Kwai, error) {
		name, err := cluster.Create(ctx, "template0")
		return load.Kwai{Program: program, Folder: filepath.Join(b.folder, "postgres-"+size), Database: cluster.URL(name)}, err
	}, b.besidePgbench)
}
