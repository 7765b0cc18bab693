package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
	"github.com/prometheus/client_golang/prometheus"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"kwai/internal/folder"
)

type sqliteEngine struct {
	lock    *SQLiteConn // held open by the one process that serves; or nil
	readers *readers
	writer  *writer
}

func openSQLite(ctx context.Context, path string, o Options) (_ *DB, err error) {
	if err := findSQLite(path, o.Serve); err != nil {
		return nil, err
	}
	path = FollowLinks(path)

	var e sqliteEngine
	m := newMetrics()
	defer func() {
		if err != nil {
			_ = e.Close()
			err = explainDisk(path, err)
		}
	}()
	if o.Serve {
		if e.lock, err = LockSQLite(ctx, path); err != nil {
			return nil, err
		}
		if err := folder.Create(path); err != nil {
			return nil, err
		}
	}

	// synchronous(FULL): a commit is on the disk before it is answered, which
	// WAL's usual NORMAL doesn't promise.
	pragmas := []string{"busy_timeout(5000)", "foreign_keys(1)", "synchronous(FULL)", "trusted_schema(0)"}
	writable := pragmas
	if o.Serve {
		// It stays set in the file. A command doesn't set it: that file may be
		// another program's.
		writable = append([]string{"journal_mode(WAL)"}, pragmas...)
		if err := MigrateSQLite(ctx, path, o.Log); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if e.writer, err = startWriter(FileDSN(path, writable...), o, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s := &DB{engine: &e, now: e.writer.now, metrics: m, log: o.Log}
	// A MiB of cache for each holds the upper levels of a million sessions' trees.
	e.readers = newReaders(FileDSN(path, append([]string{"query_only(1)", "cache_size(-1000)"}, pragmas...)...))
	s.readers = e.readers
	m.own = slices.Concat(ofPool(e.readers.stats), ofFiles(path), []prometheus.Collector{m.batch, m.commit})
	if o.Unchecked {
		return s, nil
	}
	if err := s.CheckVersion(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// findSQLite says whether there is a database at path or, to serve, may be made
// one.
func findSQLite(path string, serve bool) error {
	if path == "" || path == ":memory:" {
		return errors.New("sqlite:// must be followed by the path of a file")
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		// To begin anew would hide what a restore that was cut off has moved.
		if _, err := os.Lstat(FollowLinks(path) + Restoring); err == nil {
			return fmt.Errorf("there is no database %s, since a restore was cut off: run `kwai restore` again", path)
		}
		if !serve {
			return fmt.Errorf("there is no database %s: `kwai serve` makes it, and --data names another folder", path)
		}
		return nil
	}
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder, not a database", path)
	}
	return err
}

// Restoring is what a restore adds to the path of a database for the file that is
// to replace it.
const Restoring = ".restoring"

// MigrateSQLite brings the schema up to date, by connections of its own, which are
// gone before the first request.
func MigrateSQLite(ctx context.Context, path string, log *slog.Logger) error {
	db, err := sql.Open("sqlite", FileDSN(path, "journal_mode(WAL)", "busy_timeout(5000)", "foreign_keys(1)", "synchronous(FULL)", "trusted_schema(0)"))
	if err != nil {
		return err
	}
	return errors.Join(migrate(ctx, goose.DialectSQLite3, db, log), db.Close())
}

// InMemory keeps what SQLite puts aside (a savepoint's pages, a sort) out of
// temporary files: a container may have no folder for them, or a full one.
const InMemory = "temp_store(MEMORY)"

// FileDSN names the file of a database, and how it is opened.
func FileDSN(path string, pragmas ...string) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{
		"_pragma": append([]string{InMemory}, pragmas...),
		"mode":    {"rw"}, // a file that vanishes is not to be made anew
	}.Encode()}
	return u.String()
}

// LockSQLite makes sure that one process serves the database: group commit
// wants one writer, and two servers on one file are a mistake more often than
// not. The lock is SQLite's own, on a file beside the database: it works
// wherever SQLite does, and the system drops it when the process dies. It stands
// beside the database itself, as its log does: whatever link names that, there
// is one lock.
func LockSQLite(ctx context.Context, path string) (*SQLiteConn, error) {
	path = FollowLinks(path)
	if err := folder.Create(path + "-serving"); err != nil {
		return nil, err
	}
	lock, err := OpenSQLiteConn(FileDSN(path+"-serving", "busy_timeout(0)", "journal_mode(OFF)", "locking_mode(EXCLUSIVE)"))
	for _, statement := range []string{`BEGIN EXCLUSIVE`, `COMMIT`} {
		if err == nil {
			_, err = lock.Exec(ctx, statement)
		}
	}
	if err == nil {
		return lock, nil
	}
	if lock != nil {
		_ = lock.Close()
	}
	if SQLiteCode(err) == sqlite3.SQLITE_BUSY {
		return nil, fmt.Errorf("another kwai serves %s: stop it first (if none does, its folder keeps no locks, as NFS may: see docs/operating.md, Files)", path)
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}

// FollowLinks is the path of the file that path leads to by links, which need not be
// there yet.
func FollowLinks(path string) string {
	if file, err := filepath.EvalSymlinks(path); !errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(file, path)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	path = filepath.Join(dir, filepath.Base(path))
	link, err := os.Readlink(path)
	if err != nil {
		return path
	}
	if !filepath.IsAbs(link) {
		link = filepath.Join(dir, link)
	}
	return FollowLinks(link)
}

// explainDisk says what to do where a file system can't hold a database.
func explainDisk(path string, err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() {
	case sqlite3.SQLITE_CANTOPEN:
		// SQLite doesn't say why.
		f, why := os.OpenFile(path, os.O_RDWR, 0)
		if why != nil {
			return fmt.Errorf("%w: %w: let the user as whom this runs read and write it", err, why)
		}
		_ = f.Close()
	case sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMLOCK, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS:
		return fmt.Errorf("%w: its file system lacks the locks or the shared memory that SQLite needs: keep the database on a disk of this machine (--data), not on NFS, SMB or a folder of a virtual machine's host", err)
	}
	return err
}

func (e *sqliteEngine) Close() error {
	var errs []error
	if e.readers != nil {
		errs = append(errs, e.readers.close())
	}
	if e.writer != nil {
		// The server leaves one file behind, not a log to be read at the next
		// start.
		errs = append(errs, e.writer.close(e.lock != nil))
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	return errors.Join(errs...)
}

func (e *sqliteEngine) inTx(ctx context.Context, one bool, fn func(*Tx) error) error {
	return e.writer.do(ctx, one, fn)
}

// SQLiteCode is the primary result code of an error; 0 if it has none.
func SQLiteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// Duplicate says whether a row was refused because another one has its unique value, on
// either engine.
func Duplicate(err error) bool {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == uniqueViolation
}

func (e *sqliteEngine) trouble(err error) trouble {
	switch SQLiteCode(err) {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return unwritable
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL:
		return passing
	}
	if errors.Is(err, errNotOpen) {
		return unwritable
	}
	return noTrouble
}
