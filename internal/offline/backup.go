// Package offline does what is done to a whole database beside the server, or
// while it stands still: backup and restore of an SQLite database, and its move to
// PostgreSQL.
//
//	backup.go                          [Backup], while the server runs
//	restore.go                         [OpenBackup] and [BackupFile.Restore], while it doesn't
//	move.go                            [Move]: its steps, and the marks that make it safe to cut off
//	move_sqlite.go move_postgres.go    the two sides of it
//	move_schema.go                     tables, columns and indexes
//
// Each is safe to cut off at any moment: what was there before is there still, or
// what was to come is, whole. Files come to be under another name, are synced, and
// get theirs last. docs/architecture.md, Package offline, has the reasons.
package offline

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/database"
	"kwai/internal/folder"
)

// Backup and restore of an SQLite database. Both copy by VACUUM INTO: SQLite
// reads a state between two commits, while others write, and makes one
// file without a log. Reading the file itself would mix states, and closing
// it again would drop the locks that SQLite holds on it in the same process.

// ErrRefused is matched by errors about what was asked, not about doing it:
// nothing was changed, and naming another file or database, or ending what uses
// it, mends it.
var ErrRefused = errors.New("refused")

type refusal struct{ error }

func (refusal) Is(target error) bool { return target == ErrRefused }
func (r refusal) Unwrap() error      { return r.error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// sidecars are what SQLite and kwai may keep beside a database.
var sidecars = []string{"-wal", "-shm", "-journal", "-serving", database.Restoring, backedUp}

// Backup copies the database that databaseURL (sqlite://PATH) names, served or
// not, to a new file that only its owner can read. The copy has all that was
// answered before. It is checked, and on the disk, before it gets its name;
// where there is an error, nothing is left of it.
func Backup(ctx context.Context, databaseURL, file string) (err error) {
	path, info, err := sqliteFile(databaseURL)
	if err != nil {
		return err
	}
	if info == nil {
		return refuse("there is no database %s: `kwai serve` makes it, and --data names another folder", path)
	}
	if err := freeForBackup(file, path, info); err != nil {
		return err
	}
	db, err := openWhole(database.FileDSN(path, "busy_timeout(5000)", "trusted_schema(0)"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := database.NewReader(ctx, db).Usable(); err != nil {
		return refuse("%s: %w", path, err)
	}

	file, err = filepath.Abs(file)
	if err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.part") // mode 0600
	if err != nil {
		return refusal{err}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeAll(part.Name(), part.Name()+"-journal"))
		}
	}()
	if err := part.Close(); err != nil {
		return err
	}
	if err := vacuumInto(ctx, db, part.Name()); err != nil {
		return fmt.Errorf("copying %s: %w", path, err)
	}
	if err := checkCopy(ctx, part.Name()); err != nil {
		return fmt.Errorf("the copy of %s: %w", path, err)
	}
	// SQLite's documentation promises no sync of what VACUUM INTO makes.
	if err := syncFile(part.Name()); err != nil {
		return err
	}
	if err := os.Rename(part.Name(), file); err != nil {
		return err
	}
	return folder.Sync(filepath.Dir(file))
}

// backedUp is what stands beside a database from which a backup was made: when it
// was changed last is when. No row of it, for a backup writes nothing: it can be
// made on a full disk.
const backedUp = ".backed-up"

// NoteBackup notes that a backup of the database has been made now, for
// kwai_backup_timestamp_seconds.
func NoteBackup(databaseURL string) error {
	path, _, err := sqliteFile(databaseURL)
	if err != nil {
		return err
	}
	// Anew: a file that root made can't be touched by others, and be removed by
	// the folder's owner.
	if err := removeAll(path + backedUp); err != nil {
		return err
	}
	return folder.Make(path+backedUp, nil)
}

// BackupMetric is when the latest backup of the SQLite database was made.
func BackupMetric(databaseURL string) prometheus.Collector {
	path := database.FollowLinks(strings.TrimPrefix(databaseURL, "sqlite://"))
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kwai_backup_timestamp_seconds", Help: "When kwai backup made a backup last, in Unix time; 0 if it did not.",
	}, func() float64 {
		info, err := os.Stat(path + backedUp)
		if err != nil {
			return 0
		}
		return float64(info.ModTime().Unix())
	})
}

// freeForBackup refuses a file that is there or would be taken for a part of the
// database.
func freeForBackup(file, path string, served fs.FileInfo) error {
	switch info, err := os.Stat(file); {
	case err == nil && os.SameFile(info, served):
		return refuse("%s is the database itself", file)
	case err == nil:
		return refuse("%s is there already: name a new file", file)
	case !errors.Is(err, fs.ErrNotExist):
		return refusal{err}
	}
	target, err := os.Stat(filepath.Dir(file))
	if err != nil {
		return refuse("there is no folder for %s: %w", file, err)
	}
	home, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, suffix := range sidecars {
		if os.SameFile(target, home) && filepath.Base(file) == filepath.Base(path)+suffix {
			return refuse("%s would be taken for a part of the database: name another file", file)
		}
	}
	return nil
}

func checkCopy(ctx context.Context, path string) error {
	db, err := openWhole(unlocked(path))
	if err != nil {
		return err
	}
	return errors.Join(checkIntegrity(database.NewReader(ctx, db), "integrity_check"), db.Close())
}

// sqliteFile is the path of an SQLite database, and what is there; nil for
// nothing. The path is of the file itself, beside which its logs stand, not of a
// link to it.
func sqliteFile(databaseURL string) (path string, info fs.FileInfo, err error) {
	path, ok := strings.CutPrefix(databaseURL, "sqlite://")
	if !ok || path == "" || path == ":memory:" {
		return "", nil, refuse("it must be sqlite:// and the path of a file")
	}
	info, err = os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return database.FollowLinks(path), nil, nil
	case err != nil:
		return "", nil, refusal{err}
	case !info.Mode().IsRegular():
		return "", nil, refuse("%s is not a file", path)
	}
	return database.FollowLinks(path), info, nil
}

func location(path string) *url.URL {
	return &url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
}

// unlocked names a file to be read as it is: nobody writes it, and it may stand
// where nothing can be written or locked.
func unlocked(path string) string {
	return location(path).String() + "?immutable=1&mode=ro&_pragma=" + database.InMemory + "&_pragma=trusted_schema(0)"
}

// openWhole opens a database for what takes its time: through database/sql, where
// a context can end it.
func openWhole(name string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", name)
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// checkIntegrity says what is damaged, by integrity_check or quick_check.
func checkIntegrity(r database.Reader, pragma string) error {
	found, err := database.QueryRow(r, database.Column[string], `PRAGMA `+pragma+`(1)`)
	if err == nil && found != "ok" {
		err = fmt.Errorf("it is damaged: %s", strings.Join(strings.Fields(found), " "))
	}
	return err
}

// vacuumInto copies to a file that is there and empty: where a link has taken its
// name, nothing is made at the link's end. It needs no locks on the file: nobody else
// knows it, and a folder on another machine, where backups are kept, may have none.
func vacuumInto(ctx context.Context, db *sql.DB, file string) error {
	file, err := filepath.Abs(file)
	if err == nil {
		_, err = db.ExecContext(ctx, `VACUUM INTO $1`, location(file).String()+"?nolock=1&mode=rw")
	}
	return err
}

// syncFile brings a file to the disk. Nobody may have it open with SQLite: closing
// it would drop SQLite's locks.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeAll removes what is there.
func removeAll(paths ...string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
