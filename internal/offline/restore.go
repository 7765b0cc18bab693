package offline

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"kwai/internal/database"
	"kwai/internal/folder"
	"kwai/internal/store"
)

// BackupFile is a backup that was found whole.
type BackupFile struct {
	path string
	info fs.FileInfo
	db   *sql.DB
}

// OpenBackup opens a file for Restore and refuses one that is not a whole backup
// of a kwai database that this program can use or migrate. It only reads.
func OpenBackup(ctx context.Context, file string) (_ *BackupFile, err error) {
	b := &BackupFile{path: file}
	if b.info, err = os.Stat(file); err != nil {
		return nil, refusal{err}
	}
	if !b.info.Mode().IsRegular() {
		return nil, refuse("%s is not a file", file)
	}
	readable, err := os.Open(file) // nobody in this process has it open with SQLite
	if err != nil {
		return nil, refusal{err}
	}
	_ = readable.Close()
	itself, err := filepath.EvalSymlinks(file)
	if err != nil {
		return nil, refusal{err}
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		// A part of the database would be there.
		if info, err := os.Stat(itself + suffix); err == nil && info.Size() > 0 {
			return nil, refuse("%s is no backup: it has %s beside it. Copy it by `kwai backup --database=sqlite://%s`", file, filepath.Base(itself)+suffix, file)
		}
	}
	if b.db, err = openWhole(unlocked(file)); err != nil {
		return nil, err
	}
	r := database.NewReader(ctx, b.db)
	if err = r.Usable(); err == nil {
		err = checkIntegrity(r, "integrity_check")
	}
	if err != nil {
		return nil, errors.Join(refuse("%s: %w", file, err), b.db.Close())
	}
	return b, nil
}

// Keys are the server's keys in the backup, to see which master key opens them.
func (b *BackupFile) Keys(ctx context.Context) ([]store.Key, error) {
	return store.NewReader(database.NewReader(ctx, b.db)).Keys()
}

// Close ends the reading of it.
func (b *BackupFile) Close() error { return b.db.Close() }

// Restored says what Restore has done.
type Restored struct {
	Users    int64
	Sessions int64  // that were open in the backup
	Replaced string // where the files of the database before are; "" for none
}

// EndRestore is why sessions ended that were open in a restored backup.
const EndRestore = "restore"

// Restore puts a copy of the backup in the place of the database that databaseURL
// (sqlite://PATH) names, if there is one. Nobody may have that open. Whenever it
// is cut off, there is either the database of before or the restored one, whole,
// with no log of the other; without hard links perhaps neither under its name,
// and then nothing opens it but the next Restore.
//
// Unless keepSessions, it ends in the copy what was ended since the backup, for
// all it knows: the sessions, and the recoveries, whose links would work again.
func (b *BackupFile) Restore(ctx context.Context, databaseURL string, keepSessions bool) (r Restored, err error) {
	path, info, err := sqliteFile(databaseURL)
	if err != nil {
		return r, err
	}
	if info != nil && os.SameFile(info, b.info) {
		return r, refuse("%s is the database itself", b.path)
	}
	lock, err := database.LockSQLite(ctx, path)
	if err != nil {
		return r, refusal{err}
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if info != nil && info.Size() > 0 { // there is nothing to keep of an empty one
		old, err := takeOver(ctx, path)
		if err != nil {
			return r, err
		}
		if old != nil {
			defer func() { err = errors.Join(err, old.Close()) }()
		}
	}

	// The name is always the same, as the lock is held: what was cut off leaves
	// one file at most, and this removes it.
	restoring := path + database.Restoring
	if info, err := os.Stat(restoring); err == nil && os.SameFile(info, b.info) {
		return r, refuse("%s is where the copy is made, and may be half of one: if it is a backup, keep it under another name", b.path)
	}
	if err := removeAll(restoring, restoring+"-journal"); err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeAll(restoring, restoring+"-journal"))
		}
	}()
	if err := folder.Make(restoring, nil); err != nil {
		return r, err
	}
	if err := vacuumInto(ctx, b.db, restoring); err != nil {
		return r, fmt.Errorf("copying %s: %w", b.path, err)
	}
	if err := r.settle(ctx, restoring, keepSessions); err != nil {
		return r, err
	}
	if err := syncFile(restoring); err != nil {
		return r, err
	}
	r.Replaced, err = replace(path, restoring)
	return r, err
}

// takeOver brings a database into one file, without a log, and keeps everybody
// from it until the connection is closed; nil if it is too damaged for that. A
// program that opened it before and writes later gets SQLite's error that the file
// was moved: SQLite looks for that where there is no log.
func takeOver(ctx context.Context, path string) (_ *database.SQLiteConn, err error) {
	c, err := database.OpenSQLiteConn(database.FileDSN(path, "busy_timeout(1000)", "trusted_schema(0)"))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	r := c.Reader(ctx)
	mode, err := database.QueryRow(r, database.Column[string], `PRAGMA journal_mode = DELETE`)
	if err == nil && mode != "delete" {
		err = fmt.Errorf("%s keeps its log (journal_mode=%s)", path, mode)
	}
	if err == nil {
		_, err = c.Exec(ctx, `BEGIN EXCLUSIVE`)
	}
	if err == nil {
		err = unmoved(r)
	}
	switch database.SQLiteCode(err) {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return nil, refuse("a command or another program has %s open: end it first", path)
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR:
		return nil, c.Close() // the reason to restore
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// settle counts what is in the copy and ends what must not go on.
func (r *Restored) settle(ctx context.Context, path string, keepSessions bool) error {
	db, err := openWhole(database.FileDSN(path, "synchronous(FULL)", "trusted_schema(0)"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	t, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = t.Rollback() }()
	counts := t.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM users), (SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL)`)
	if err := counts.Scan(&r.Users, &r.Sessions); err != nil {
		return err
	}
	if !keepSessions {
		if err := endEverything(ctx, t); err != nil {
			return err
		}
	}
	return errors.Join(t.Commit(), db.Close())
}

// endEverything ends all sessions and recoveries. A link that was used after the
// backup would work again; so it would if the backup had only what the link is
// made of, a request or an event that is not mailed yet: those are overtaken by a
// recovery of now, which nobody has. Changes of addresses that aren't finished end, too, and
// sessions of apps, which hear of that as of every end; a backup of 0.1.0 has no tables of
// them.
func endEverything(ctx context.Context, tx *sql.Tx) error {
	now := time.Now().UnixMicro()
	nowText := strconv.FormatInt(now, 10)
	for _, statement := range []string{
		`UPDATE sessions SET ended_at = $1, end_reason = '` + EndRestore + `' WHERE ended_at IS NULL`,
		`UPDATE recoveries SET ended_at = $1 WHERE ended_at IS NULL`,
		`UPDATE users SET recovery_requested_at = $1`,
	} {
		if _, err := tx.ExecContext(ctx, statement, now); err != nil {
			return err
		}
	}
	for _, later := range []struct{ table, statement string }{
		{"email_changes", `DELETE FROM email_changes`},
		{"logouts", `INSERT INTO logouts (id, app_id, user_id, sid, created_at, attempts, due_at, last_error)
			SELECT MIN(s.id), s.app_id, s.user_id, s.sid, ` + nowText + `, 0, ` + nowText + `, ''
			FROM app_sessions s JOIN apps ON apps.id = s.app_id WHERE apps.backchannel_url <> '' AND s.ended_at IS NULL
			GROUP BY s.app_id, s.user_id, s.sid ON CONFLICT DO NOTHING`},
		{"app_sessions", `UPDATE app_sessions SET ended_at = ` + nowText + `, end_reason = '` + EndRestore + `' WHERE ended_at IS NULL`},
	} {
		there, err := database.QueryRow(database.NewReader(ctx, tx), database.Column[int64], `SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = $1`, later.table)
		if err == nil && there > 0 {
			_, err = tx.ExecContext(ctx, later.statement)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replace gives the file the name path. What has that name, and its logs if it
// was too damaged to be rid of them, get another, which is returned; so do logs
// that are there alone: SQLite would apply them to the new file.
func replace(path, file string) (_ string, err error) {
	aside, err := nameAside(path)
	if err != nil {
		return "", err
	}
	moved := false
	err = os.Link(path, aside)
	if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
		// Hard links are not for every file system. Until the other one has the
		// name none has: refuseHalfRestored.
		if err = os.Rename(path, aside); err == nil {
			defer func() {
				if err != nil {
					err = errors.Join(err, os.Rename(aside, path))
				}
			}()
		}
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrExist): // nameAside: it is the same file
		moved = true
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		switch err := os.Rename(path+suffix, aside+suffix); {
		case err == nil:
			moved = true
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	if !moved {
		aside = ""
	}
	// Not before the logs are gone, on the disk too.
	if err := folder.Sync(filepath.Dir(path)); err != nil {
		return "", err
	}
	if err := os.Rename(file, path); err != nil {
		return "", err
	}
	return aside, folder.Sync(filepath.Dir(path))
}

// nameAside is a name for what is replaced: free, or that of the same file, from
// a restore that was cut off.
func nameAside(path string) (string, error) {
	for i := 1; ; i++ {
		aside := path + ".replaced"
		if i > 1 {
			aside = fmt.Sprintf("%s.replaced-%d", path, i)
		}
		taken, err := os.Lstat(aside)
		if errors.Is(err, fs.ErrNotExist) {
			return aside, nil
		}
		if err != nil {
			return "", err
		}
		if own, err := os.Lstat(path); err == nil && os.SameFile(own, taken) {
			return aside, nil
		}
	}
}

// unmoved refuses to replace a database that has been moved: what stands where it
// has gone is newer. One that isn't kwai's may go.
func unmoved(r database.Reader) error {
	tables, err := database.QueryRow(r, database.Column[int64], `SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'`)
	if err != nil || tables == 0 {
		return err
	}
	if err := r.RefuseMoved(); err != nil && database.SQLiteCode(err) == 0 {
		return refuse("%w", err)
	} else if err != nil {
		return err
	}
	return nil
}
