package offline_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// backupOf is a backup of a new database that has these users.
func backupOf(t *testing.T, users ...string) (file string) {
	t.Helper()
	url := storetest.SQLite(t)
	s := storetest.Open(t, url, nil)
	for _, key := range users {
		check(t, s.InTx(t.Context(), storetest.AddsUser(key)))
	}
	file = filepath.Join(t.TempDir(), "backup.db")
	check(t, offline.Backup(t.Context(), url, file))
	return file
}

// wantRefusal is an error of one line that holds all the words.
func wantRefusal(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, offline.ErrRefused) {
		t.Fatalf("it isn't refused: %v", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error doesn't say %q: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines:\n%v", err)
	}
}

func TestBackupIsOneFileOfItsOwner(t *testing.T) {
	t.Parallel()
	file := backupOf(t, "a", "b")
	info, err := os.Stat(file)
	check(t, err)
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("it has mode %o", mode)
	}
	if diff := cmp.Diff([]string{"backup.db"}, storetest.FilesIn(t, filepath.Dir(file))); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	storetest.WantUsers(t, storetest.Open(t, "sqlite://"+file, nil), "a", "b")
}

func TestBackupRefusesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		file    string // beside the database
		prepare func(t *testing.T, database, file string)
		words   []string
	}{
		"a file that is there": {"taken", func(t *testing.T, _, file string) { check(t, os.WriteFile(file, []byte("kept"), 0o600)) }, []string{"is there already"}},
		"a folder":             {"folder", func(t *testing.T, _, file string) { check(t, os.Mkdir(file, 0o700)) }, []string{"is there already"}},
		"the database itself":  {file: "kwai.db", words: []string{"the database itself"}},
		"a link to it":         {"link", func(t *testing.T, database, file string) { check(t, os.Symlink(database, file)) }, []string{"the database itself"}},
		"its log":              {file: "kwai.db-wal", words: []string{"part of the database"}},
		"its journal":          {file: "kwai.db-journal", words: []string{"part of the database"}},
		"what a restore makes": {file: "kwai.db.restoring", words: []string{"part of the database"}},
		"no folder":            {file: "missing/backup.db", words: []string{"no folder"}},
		"in a file":            {file: "kwai.db/backup.db", words: []string{"not a directory"}},
		"no database":          {"backup.db", func(t *testing.T, database, _ string) { check(t, os.Remove(database)) }, []string{"no database", "kwai serve"}},
		"another program's": {"backup.db", func(t *testing.T, database, _ string) { alter(t, database, `DROP TABLE meta`) },
			[]string{"no kwai database"}},
		"garbage": {"backup.db", func(t *testing.T, database, _ string) { storetest.Garbage(t, database) }, []string{"not a database"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.SQLite(t)
			file := filepath.Join(filepath.Dir(storetest.Path(url)), tt.file)
			if tt.prepare != nil {
				tt.prepare(t, storetest.Path(url), file)
			}
			before := snapshot(t, filepath.Dir(storetest.Path(url)))
			wantRefusal(t, offline.Backup(t.Context(), url, file), tt.words...)
			if diff := cmp.Diff(before, snapshot(t, filepath.Dir(storetest.Path(url)))); diff != "" {
				t.Errorf("it changed the folder:\n%.500s", diff)
			}
		})
	}
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		wantRefusal(t, offline.Backup(t.Context(), "postgres://localhost/kwai", filepath.Join(t.TempDir(), "backup.db")), "sqlite://")
	})
}

// snapshot has the content of each file in a folder that tells something.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, name := range storetest.FilesIn(t, dir) {
		if !strings.HasSuffix(name, "-serving") {
			all[name] = string(storetest.Content(t, filepath.Join(dir, name)))
		}
	}
	return all
}

// A damaged database has no backup that looks like a good one.
func TestBackupOfADamagedDatabaseFails(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	s, err := store.Open(t.Context(), database.Options{URL: url, Serve: true})
	check(t, err)
	check(t, s.InTx(t.Context(), storetest.AddsUser("a")))
	check(t, s.Close())
	damageIndex(t, storetest.Path(url))
	dir := t.TempDir()
	if err := offline.Backup(t.Context(), url, filepath.Join(dir, "backup.db")); err == nil || errors.Is(err, offline.ErrRefused) {
		t.Errorf("it ended with %v", err)
	} else {
		t.Log(err)
	}
	if files := storetest.FilesIn(t, dir); len(files) > 0 {
		t.Errorf("it left %v", files)
	}
}

// A copy isn't made where a link leads that has taken the place of its file.
func TestNoCopyIsMadeThroughALink(t *testing.T) {
	t.Parallel()
	missing, link := filepath.Join(t.TempDir(), "missing"), filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(missing, link))
	if err := offline.VacuumInto(t.Context(), storetest.Raw(t, storetest.SQLite(t)), link); err == nil {
		t.Error("it was copied")
	}
	if _, err := os.Lstat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the link leads to was made (%v)", err)
	}
}

// damageIndex has an index miss what its table has.
func damageIndex(t *testing.T, path string) {
	t.Helper()
	alter(t, path, `CREATE TABLE other (cost TEXT)`, `CREATE INDEX other_by_cost ON other (cost)`,
		`PRAGMA writable_schema = ON`,
		`UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'other_by_cost')
			WHERE name = 'users_by_password_cost'`,
		`DELETE FROM sqlite_schema WHERE name = 'other_by_cost'`)
}

// alter changes a database, which nobody has open afterwards.
func alter(t *testing.T, path string, statements ...string) {
	t.Helper()
	db := storetest.Raw(t, "sqlite://"+path)
	db.SetMaxOpenConns(1)
	storetest.Exec(t, db, statements...)
	check(t, db.Close())
}

func TestBackupEndsWithItsContext(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := offline.Backup(ctx, url, filepath.Join(dir, "backup.db")); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if files := storetest.FilesIn(t, dir); len(files) > 0 {
		t.Errorf("it left %v", files)
	}
}

func TestOpenBackupRefuses(t *testing.T) {
	t.Parallel()
	change := func(statement string) func(*testing.T, string) {
		return func(t *testing.T, file string) { alter(t, file, statement) }
	}
	tests := map[string]struct {
		prepare func(t *testing.T, file string)
		words   []string
	}{
		"nothing":    {func(t *testing.T, file string) { check(t, os.Remove(file)) }, []string{"no such file"}},
		"a folder":   {func(t *testing.T, file string) { check(t, os.Remove(file)); check(t, os.Mkdir(file, 0o700)) }, []string{"is not a file"}},
		"empty":      {func(t *testing.T, file string) { check(t, os.Truncate(file, 0)) }, []string{"no kwai database"}},
		"garbage":    {storetest.Garbage, []string{"not a database"}},
		"half of it": {func(t *testing.T, file string) { check(t, os.Truncate(file, int64(len(storetest.Content(t, file))/2))) }, []string{"malformed"}},
		"less its end": {func(t *testing.T, file string) {
			check(t, os.Truncate(file, int64(len(storetest.Content(t, file))-4096)))
		}, []string{"malformed"}},
		"a damaged index":   {damageIndex, []string{"damaged"}},
		"another program's": {change(`DROP TABLE meta`), []string{"no kwai database"}},
		"a newer kwai's":    {change(`UPDATE meta SET value = '1000' WHERE name = 'oldest_schema'`), []string{"newer kwai", "1000"}},
		"one with a log":    {func(t *testing.T, file string) { check(t, os.WriteFile(file+"-wal", []byte("log"), 0o600)) }, []string{"backup.db-wal beside it", "kwai backup"}},
		"one with a journal": {func(t *testing.T, file string) {
			check(t, os.WriteFile(file+"-journal", []byte("log"), 0o600))
		}, []string{"backup.db-journal beside it"}},
		"a link to one with a log": {func(t *testing.T, file string) {
			theirs := filepath.Join(t.TempDir(), "kwai.db")
			check(t, os.Rename(file, theirs))
			check(t, os.WriteFile(theirs+"-wal", []byte("log"), 0o600))
			check(t, os.Symlink(theirs, file))
		}, []string{"kwai.db-wal beside it"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := backupOf(t, "a")
			tt.prepare(t, file)
			before := snapshot(t, filepath.Dir(file))
			b, err := offline.OpenBackup(t.Context(), file)
			if err == nil {
				b.Close()
			}
			wantRefusal(t, err, append(tt.words, filepath.Base(file))...)
			if !cmp.Equal(before, snapshot(t, filepath.Dir(file))) {
				t.Error("it was changed")
			}
		})
	}
}
