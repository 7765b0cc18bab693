package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"kwai/internal/offline"
)

type backupCmd struct {
	File string `arg:"" help:"The file to make."`
}

func (cmd *backupCmd) Help() string {
	return "Copies the SQLite database, beside a running server or without one."
}

func (cmd *backupCmd) Run(ctx context.Context, s *Settings, c console) error {
	if !s.onSQLite() {
		return &usageError{"--database", errors.New("back up PostgreSQL by pg_dump: see docs/operating.md, which has a line for each night")}
	}
	if err := offline.Backup(ctx, s.Database, cmd.File); err != nil {
		return asUsageError(err)
	}
	warnOfFolder(s.logger(c), filepath.Dir(cmd.File))
	if err := offline.NoteBackup(s.Database); err != nil {
		_, _ = fmt.Fprintf(c.err, "kwai: the backup is complete, but that it was made can't be noted beside the database, so that an alert may say that there is none: %v\n", err)
	}
	_, err := fmt.Fprintf(c.out, "%s is of no use without the master key (%s): keep a copy of that too, never in the same place\n", cmd.File, s.masterKeyFile())
	return err
}

// asUsageError makes a usage error of a refusal: another command line mends it.
func asUsageError(err error) error {
	if errors.Is(err, offline.ErrRefused) {
		return &usageError{"", err}
	}
	return err
}
