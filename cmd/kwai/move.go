package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/store"
)

type moveCmd struct {
	To string `required:"" placeholder:"URL" help:"The empty PostgreSQL database: postgres://…; @FILE reads it from a file."`
}

func (cmd *moveCmd) Help() string {
	return "Stop the server first. The old database stays as it is, but refuses to be used from then on. " +
		"Where a move was interrupted, the same command begins anew or finishes it."
}

func (cmd *moveCmd) Run(ctx context.Context, s *Settings, c console) error {
	to := cmd.To
	if err := fromFile("--to", &to); err != nil {
		return err
	}
	if err := s.checkMovedKeys(ctx, c); err != nil {
		return &usageError{"--master-key-file", err}
	}
	began := time.Now()
	report, err := offline.Move(ctx, offline.MoveOptions{From: s.Database, To: to, Log: s.logger(c), Progress: func(step string) {
		fmt.Fprintf(c.err, "%6.1fs  %s\n", time.Since(began).Seconds(), step)
	}})
	if refused, ok := errors.AsType[*offline.MoveError](err); ok {
		if refused.Target {
			return &usageError{"--to", err}
		}
		return &usageError{"--database", err}
	}
	if err != nil {
		return err
	}
	file := strings.TrimPrefix(s.Database, "sqlite://")
	masterKey, err := filepath.Abs(s.masterKeyFile())
	if err != nil {
		return err
	}
	switch {
	case report.Already:
		fmt.Fprintf(c.out, "%s has been moved to PostgreSQL at %s already: there is nothing left to do.\n", file, report.To)
	case report.Resumed:
		fmt.Fprintf(c.out, "Finished the move of %s to PostgreSQL at %s.\n", file, report.To)
	default:
		fmt.Fprintf(c.out, "Moved %s to PostgreSQL at %s in %s: %s.\n", file, report.To, time.Since(began).Round(time.Second/10), counts(report.Tables))
	}
	fmt.Fprintf(c.out, `
Start the server with these settings, and all others as before:
  --database=%s
  --master-key-file=%s
  --public-url=%s

Keep the master key: it opens the keys in the new database, too. Back that up by
pg_dump from now on: kwai backup of the old one fails. Once the server serves from
there and the new database is in your backups, delete the old one:
  rm %[4]s
`, cmd.setting(), masterKey, cmp.Or(s.PublicURL, "(as it was: tokens name it; where it was not set, http:// and the address it listened on)"), strings.Join(leftOver(file), " "))
	return nil
}

// checkMovedKeys refuses a move to a database whose keys no master key would open:
// there is no way back. A database that can't be opened is left to Move.
func (s *Settings) checkMovedKeys(ctx context.Context, c console) error {
	db, err := store.Open(ctx, database.Options{URL: s.Database})
	if err != nil {
		return nil //nolint:nilerr // Move has the same error
	}
	keys, err := db.Read(ctx).Keys()
	if err = errors.Join(err, db.Close()); err != nil || len(keys) == 0 {
		return err
	}
	return s.checkKeys(keys, strings.TrimPrefix(s.Database, "sqlite://"), c)
}

// setting is what --database is to be, without a password.
func (cmd *moveCmd) setting() string {
	if strings.HasPrefix(cmd.To, "@") {
		return cmd.To
	}
	return "(what --to was; better in a file, as @FILE)"
}

// leftOver are the files of a database that has been moved, for the shell. Files
// that restores put aside are among them.
func leftOver(file string) []string {
	if path, err := filepath.EvalSymlinks(file); err == nil {
		file = path
	}
	all := []string{quoted(file), quoted(file + "-serving")}
	beside, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		return all // the two are there, whatever else is
	}
	for _, entry := range beside {
		if strings.HasPrefix(entry.Name(), filepath.Base(file)+".replaced") {
			all = append(all, quoted(filepath.Join(filepath.Dir(file), entry.Name())))
		}
	}
	return all
}

// quoted is a path for the shell.
func quoted(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// counts are the tables of a report that have rows.
func counts(tables []offline.MovedTable) string {
	var all []string
	for _, t := range tables {
		if t.Rows > 0 && t.Name != "meta" {
			all = append(all, fmt.Sprintf("%s %d", t.Name, t.Rows))
		}
	}
	return strings.Join(all, ", ")
}
