package database_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

// wantRefused says that Open fails with one line that holds all the words and no
// password.
func wantRefused(t *testing.T, o database.Options, words ...string) {
	t.Helper()
	s, err := store.Open(t.Context(), o)
	if err == nil {
		s.Close()
		t.Fatal("it was opened")
	}
	t.Log(err)
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error doesn't say %q: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has several lines:\n%v", err)
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("the error shows the password: %v", err)
	}
}

func TestOpenRefusesWhatIsNoURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "kwai.db", "mysql://localhost/kwai", "sqlite://", "sqlite://:memory:", "postgres://secret@:::/", "sqlite:kwai.db"} {
		s, err := store.Open(t.Context(), database.Options{URL: url, Serve: true})
		if err == nil {
			s.Close()
			t.Errorf("%q was opened", url)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the secret: %v", url, err)
		}
	}
}

func TestOpenRefusesWhatIsNoSQLiteDatabase(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		serve   bool
		words   []string
	}{
		{name: "nothing there", words: []string{"no database", "kwai serve"}},
		{name: "no folder", serve: true, prepare: func(t *testing.T, path string) { check(t, os.Remove(filepath.Dir(path))) }},
		{name: "a folder", serve: true, prepare: func(t *testing.T, path string) { check(t, os.Mkdir(path, 0o700)) }, words: []string{"folder"}},
		{name: "garbage", serve: true, prepare: storetest.Garbage},
		{name: "garbage, beside a server", prepare: storetest.Garbage},
		{name: "empty", prepare: func(t *testing.T, path string) { check(t, os.WriteFile(path, nil, 0o600)) }, words: []string{"no kwai database"}},
		{name: "truncated", serve: true, prepare: storetest.Truncated},
		{name: "truncated, beside a server", prepare: storetest.Truncated},
		{name: "another program's", prepare: func(t *testing.T, path string) {
			storetest.Exec(t, storetest.Raw(t, "sqlite://"+path), `CREATE TABLE theirs (id INTEGER)`)
		}, words: []string{"no kwai database"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			check(t, os.Mkdir(dir, 0o700))
			path := filepath.Join(dir, "kwai.db")
			if tt.prepare != nil {
				tt.prepare(t, path)
			}
			before := storetest.Content(t, path)
			wantRefused(t, database.Options{URL: "sqlite://" + path, Serve: tt.serve}, append(tt.words, path)...)
			if !bytes.Equal(storetest.Content(t, path), before) {
				t.Error("it was changed, or made")
			}
		})
	}
}

func TestOpenWithoutServeMakesNoDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wantRefused(t, database.Options{URL: "sqlite://" + filepath.Join(dir, "kwai.db")}, "kwai serve")
	if files := storetest.FilesIn(t, dir); len(files) > 0 {
		t.Errorf("it made %v", files)
	}
}

func TestOpenRefusesANewerSchemaOnlyIfItMust(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		db := storetest.Raw(t, url)
		// A newer program has been here that older ones can live with.
		storetest.Exec(t, db, `INSERT INTO schema_version (version_id, is_applied) VALUES (1000, true)`)
		for _, serve := range []bool{true, false} {
			s, err := store.Open(t.Context(), database.Options{URL: url, Serve: serve})
			check(t, err)
			check(t, s.InTx(t.Context(), nothing))
			check(t, s.Close())
		}
		// And then one that they can't.
		storetest.Exec(t, db, `UPDATE meta SET value = '1000' WHERE name = 'oldest_schema'`)
		for _, serve := range []bool{true, false} {
			wantRefused(t, database.Options{URL: url, Serve: serve}, "newer kwai", "1000", place(url))
		}
	})
}

// Whoever names another program's database by mistake loses nothing.
func TestServeOnAnotherProgramsTablesLeavesNothingHalfMade(t *testing.T) {
	t.Parallel()
	urls := map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "theirs.db") },
		"postgres": func(t *testing.T) string { return pgtest.Database(t) },
	}
	for name, newURL := range urls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := newURL(t)
			db := storetest.Raw(t, url)
			storetest.Exec(t, db, `CREATE TABLE events (theirs TEXT)`, `INSERT INTO events VALUES ('kept')`)
			wantRefused(t, database.Options{URL: url, Serve: true}, "events", place(url))
			var kept string
			check(t, db.QueryRowContext(t.Context(), `SELECT theirs FROM events`).Scan(&kept))
			if _, err := db.ExecContext(t.Context(), `SELECT 1 FROM users`); err == nil {
				t.Error("the tables before theirs were made")
			}
			storetest.Exec(t, db, `DROP TABLE events`)
			check(t, storetest.Open(t, url, nil).InTx(t.Context(), storetest.AddsUser("a")))
		})
	}
}

// place is what an error about opening must name.
func place(url string) string {
	if strings.HasPrefix(url, "sqlite://") {
		return storetest.Path(url)
	}
	return "127.0.0.1"
}

func TestOpenWithoutServeWantsAMigratedDatabase(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		storetest.Exec(t, storetest.Raw(t, url), `DELETE FROM schema_version WHERE version_id > 0`)
		wantRefused(t, database.Options{URL: url}, "older kwai", "kwai serve", place(url))
	})
}

func TestDatabasesFromBefore010AreRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		storetest.Exec(t, storetest.Raw(t, url), `DELETE FROM schema_version WHERE version_id > 3`, `INSERT INTO schema_version (version_id, is_applied) VALUES (3, true)`,
			`UPDATE meta SET value = '1' WHERE name = 'oldest_schema'`)
		for _, serve := range []bool{true, false} {
			wantRefused(t, database.Options{URL: url, Serve: serve}, "before 0.1.0", place(url))
		}
	})
}

// A server that runs finds out that a newer one has changed the database.
func TestReadyTellsOfANewerSchema(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		check(t, s.Ready(t.Context()))
		storetest.Exec(t, storetest.Raw(t, url), `UPDATE meta SET value = '1000' WHERE name = 'oldest_schema'`)
		if err := s.Ready(t.Context()); err == nil {
			t.Error("it is ready")
		}
	})
}

func TestOneProcessServesAnSQLiteDatabase(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	first := storetest.Open(t, url, nil)
	wantRefused(t, database.Options{URL: url, Serve: true}, "another kwai serves "+storetest.Path(url))
	check(t, first.InTx(t.Context(), storetest.AddsUser("a")))
	check(t, first.Close())
	storetest.WantUsers(t, storetest.Open(t, url, nil), "a")
}

func TestCommandsWorkBesideAServer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		server := storetest.Open(t, url, nil)
		command, err := store.Open(t.Context(), database.Options{URL: url})
		check(t, err)
		defer command.Close()
		check(t, command.InTx(t.Context(), storetest.AddsUser("a")))
		check(t, server.InTx(t.Context(), storetest.AddsUser("b")))
		check(t, command.InTx(t.Context(), storetest.AddsUser("c")))
		storetest.WantUsers(t, server, "a", "b", "c")
		storetest.WantUsers(t, command, "a", "b", "c")
		check(t, command.Close())
		check(t, server.InTx(t.Context(), storetest.AddsUser("d")))
		storetest.WantUsers(t, server, "a", "b", "c", "d")
	})
}

func TestOnlyTheOwnerCanReadTheFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := storetest.Open(t, "sqlite://"+filepath.Join(dir, "kwai.db"), nil)
	check(t, s.InTx(t.Context(), storetest.AddsUser("a")))
	files := storetest.FilesIn(t, dir)
	if len(files) < 3 { // the write-ahead log and its index among them
		t.Errorf("files: %v", files)
	}
	for _, name := range files {
		info, err := os.Stat(filepath.Join(dir, name))
		check(t, err)
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o", name, mode)
		}
	}
}

// A file that somebody made for it, readable by everyone, is no longer.
func TestAFileThatIsThereIsTakenFromTheOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kwai.db")
	check(t, os.WriteFile(path, nil, 0o644))
	storetest.Open(t, "sqlite://"+path, nil)
	info, err := os.Stat(path)
	check(t, err)
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("it has mode %o", mode)
	}
}

// Somebody holds the file's lock: a backup by another program, say.
func TestForeignWriterIsWaitedForThenUnavailable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		url := storetest.SQLite(t)
		s := storetest.Open(t, url, nil)
		const timeout = 50 * time.Millisecond // of the bubble; each has SQLite look once more, for five real ones
		if was := s.WaitAtMost(timeout); was < timeout || was > 10*time.Second {
			t.Errorf("a server waits for %v", was)
		}
		foreign, err := storetest.Raw(t, url).Conn(t.Context())
		check(t, err)
		defer foreign.Close()
		foreignly := func(statement string) {
			_, err := foreign.ExecContext(context.Background(), statement)
			check(t, err)
		}
		foreignly(`BEGIN IMMEDIATE`)
		start := time.Now()
		if err := s.InTx(t.Context(), storetest.AddsUser("a")); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("while it is locked: %v", err)
		}
		if waited := time.Since(start); waited < timeout || waited > 2*timeout {
			t.Errorf("it was waited for %v", waited)
		}
		storetest.WantUsers(t, s)
		waits := begin(t.Context(), s, storetest.AddsUser("b"))
		foreignly(`COMMIT`)
		if <-waits.done; waits.err != nil {
			t.Errorf("what waited when the lock was given back: %v", waits.err)
		}
		storetest.WantUsers(t, s, "b")
	})
}
