package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"kwai/internal/store"
	"kwai/internal/token"
)

type restoreCmd struct {
	File         string `arg:"" help:"A file that kwai backup made."`
	KeepSessions bool   `help:"Let the sessions and recoveries of the backup go on, also those that have ended since."`
}

func (cmd *restoreCmd) Help() string {
	return "Replaces the SQLite database; no server may run on it. The one that was there is kept beside it. Users log in again, unless --keep-sessions."
}

func (cmd *restoreCmd) Run(ctx context.Context, s *Settings, c console) (err error) {
	if !s.onSQLite() {
		return &usageError{"--database", errors.New("restore PostgreSQL by pg_restore: see docs/operating.md")}
	}
	backup, err := store.OpenBackup(ctx, cmd.File)
	if err != nil {
		return orUsage(err)
	}
	defer func() { err = errors.Join(err, backup.Close()) }()
	if err := cmd.checkKeys(ctx, s, c, backup); err != nil {
		return &usageError{"--master-key-file", err}
	}
	if err := os.MkdirAll(s.Data, 0o700); err != nil {
		return &usageError{"--data", err}
	}
	done, err := backup.Restore(ctx, s.Database, cmd.KeepSessions)
	if err != nil {
		return orUsage(err)
	}
	sessions := "ended"
	if cmd.KeepSessions {
		sessions = "kept"
	}
	_, err = fmt.Fprintf(c.out, "restored %s: users: %d, sessions %s: %d\n", cmd.File, done.Users, sessions, done.Sessions)
	if err == nil && done.Replaced != "" {
		_, err = fmt.Fprintf(c.out, "the database it replaced is %s: delete it once it isn't needed any more\n", done.Replaced)
	}
	return err
}

// checkKeys refuses a backup that the server could not start on: its keys must
// open under the master key in use, which is never made here.
func (cmd *restoreCmd) checkKeys(ctx context.Context, s *Settings, c console, backup *store.BackupFile) error {
	named := *s
	named.MasterKeyFile = s.masterKeyFile() // what is named is not made
	master, err := named.masterKey(s.logger(c))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: put the master key there that was in use when %s was made, or name its file", named.MasterKeyFile, cmd.File)
	}
	if err != nil {
		return err
	}
	rows, err := backup.Keys(ctx)
	if err != nil {
		return err
	}
	keys := make([]token.Key, len(rows))
	for i, row := range rows {
		keys[i] = token.Key{ID: row.ID, Purpose: token.Purpose(row.Purpose), Sealed: row.Sealed, CreatedAt: row.CreatedAt}
	}
	switch _, err := master.OpenKeyring(keys); {
	case errors.Is(err, token.ErrNoMaster):
		return fmt.Errorf("%s was made under another master key than that in %s: name the file with the one that was in use then", cmd.File, named.MasterKeyFile)
	case err != nil:
		return fmt.Errorf("%s: %w", cmd.File, err)
	}
	return nil
}
