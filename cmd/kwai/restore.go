package main

import (
	"context"
	"errors"
	"fmt"

	"kwai/internal/folder"
	"kwai/internal/offline"
)

type restoreCmd struct {
	File         string `arg:"" help:"A file that kwai backup made."`
	KeepSessions bool   `help:"Let the sessions and recoveries of the backup go on, also those that have ended since."`
}

func (cmd *restoreCmd) Help() string {
	return "Replaces the SQLite database; no server may run on it. The one that was there is kept beside it. What root makes belongs to the owner of the folder. Users log in again, unless --keep-sessions."
}

func (cmd *restoreCmd) Run(ctx context.Context, s *Settings, c console) (err error) {
	if !s.onSQLite() {
		return &usageError{"--database", errors.New("restore PostgreSQL by pg_restore: see docs/operating.md")}
	}
	backup, err := offline.OpenBackup(ctx, cmd.File)
	if err != nil {
		return asUsageError(err)
	}
	defer func() { err = errors.Join(err, backup.Close()) }()
	keys, err := backup.Keys(ctx)
	if err != nil {
		return err
	}
	if err := s.checkKeys(keys, cmd.File, c); err != nil {
		return &usageError{"--master-key-file", err}
	}
	if err := folder.MakeFolder(s.Data); err != nil {
		return &usageError{"--data", err}
	}
	done, err := backup.Restore(ctx, s.Database, cmd.KeepSessions)
	if err != nil {
		return asUsageError(err)
	}
	warnOfFolder(s.logger(c), s.Data)
	sessions := "ended"
	if cmd.KeepSessions {
		sessions = "kept"
	}
	_, err = fmt.Fprintf(c.out, "restored %s: users: %d, sessions %s: %d\n", cmd.File, done.Users, sessions, done.Sessions)
	if err == nil && done.Replaced != "" {
		_, err = fmt.Fprintf(c.out, "the database it replaced is %s: delete it once it is no longer needed\n", done.Replaced)
	}
	return err
}
