package offline_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// restore is what the command does.
func restore(t *testing.T, file, url string, keepSessions bool) (offline.Restored, error) {
	t.Helper()
	b, err := offline.OpenBackup(t.Context(), file)
	if err != nil {
		return offline.Restored{}, err
	}
	defer func() { check(t, b.Close()) }()
	return b.Restore(t.Context(), url, keepSessions)
}

// left is a folder whose database a killed server left: a log not yet moved into
// it has the only trace of the user "late".
func left(t *testing.T) (url string) {
	t.Helper()
	served := storetest.SQLite(t)
	s := storetest.Open(t, served, nil)
	check(t, s.InTx(t.Context(), storetest.AddsUser("late")))
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		check(t, os.WriteFile(filepath.Join(dir, "kwai.db"+suffix), storetest.Content(t, storetest.Path(served)+suffix), 0o600))
	}
	return "sqlite://" + filepath.Join(dir, "kwai.db")
}

// Whatever was in the database's place: after it there is the backup, no log of
// the other, and the other is kept.
func TestRestoreReplacesWhatever(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare func(t *testing.T, path string)
		kept    []string // files beside the database
		late    bool     // the one that is kept is whole
	}{
		"left by a killed server": {func(*testing.T, string) {}, []string{"kwai.db.replaced"}, true},
		"closed": {func(t *testing.T, path string) {
			check(t, storetest.Open(t, "sqlite://"+path, nil).Close())
		}, []string{"kwai.db.replaced"}, true},
		"a link": {func(t *testing.T, path string) {
			check(t, storetest.Open(t, "sqlite://"+path, nil).Close())
			check(t, os.Rename(path, path+".real"))
			check(t, os.Symlink(path+".real", path))
		}, []string{"kwai.db.real", "kwai.db.real-serving", "kwai.db.real.replaced"}, false},
		"replaced before": {func(t *testing.T, path string) {
			check(t, os.WriteFile(path+".replaced", []byte("earlier"), 0o600))
		}, []string{"kwai.db.replaced", "kwai.db.replaced-2"}, false},
		"cut off after it was kept": {func(t *testing.T, path string) {
			check(t, os.Link(path, path+".replaced"))
			check(t, os.WriteFile(path+".restoring", []byte("half"), 0o600))
		}, []string{"kwai.db.replaced"}, true},
		"a newer kwai's": {func(t *testing.T, path string) {
			alter(t, path, `UPDATE meta SET value = '1000' WHERE name = 'oldest_schema'`)
		}, []string{"kwai.db.replaced"}, false},
		"empty": {func(t *testing.T, path string) {
			check(t, storetest.Open(t, "sqlite://"+path, nil).Close())
			check(t, os.Truncate(path, 0))
		}, []string{"kwai.db.replaced"}, false},
		"damaged, with its log": {storetest.Garbage, []string{"kwai.db.replaced", "kwai.db.replaced-shm", "kwai.db.replaced-wal"}, false},
		"a log alone":           {func(t *testing.T, path string) { check(t, os.Remove(path)) }, []string{"kwai.db.replaced-shm", "kwai.db.replaced-wal"}, false},
		"nothing": {func(t *testing.T, path string) {
			for _, suffix := range []string{"", "-wal", "-shm"} {
				check(t, os.Remove(path+suffix))
			}
		}, nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := backupOf(t, "a", "b")
			url := left(t)
			dir := filepath.Dir(storetest.Path(url))
			tt.prepare(t, storetest.Path(url))
			done, err := restore(t, file, url, false)
			check(t, err)
			if done.Users != 2 {
				t.Errorf("it restored %d users", done.Users)
			}
			var want []string
			if len(tt.kept) > 0 {
				want = append(want, filepath.Join(dir, tt.kept[len(tt.kept)-1]))
			}
			if base := strings.TrimSuffix(strings.TrimSuffix(strings.Join(want, ""), "-wal"), "-shm"); done.Replaced != base {
				t.Errorf("it says that the other one is %q, want %q", done.Replaced, base)
			}
			files := storetest.FilesIn(t, dir)
			wantFiles := slices.Sorted(slices.Values(append(slices.Clone(tt.kept), "kwai.db", "kwai.db-serving")))
			if diff := cmp.Diff(wantFiles, files); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			for _, name := range []string{"kwai.db", "kwai.db-serving"} {
				info, err := os.Stat(filepath.Join(dir, name))
				check(t, err)
				if info.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %o", name, info.Mode().Perm())
				}
			}
			storetest.WantUsers(t, storetest.Open(t, url, nil), "a", "b")
			if tt.late {
				storetest.WantUsers(t, storetest.Open(t, "sqlite://"+done.Replaced, nil), "late")
			}
		})
	}
}

func TestRestoreRefusesAndChangesNothing(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare func(t *testing.T, url string) (file string)
		words   []string
	}{
		"a server runs": {func(t *testing.T, url string) string {
			storetest.Open(t, url, nil)
			return backupOf(t, "a")
		}, []string{"another kwai serves", "stop it first"}},
		"a command runs": {func(t *testing.T, url string) string {
			s, err := store.Open(t.Context(), database.Options{URL: url})
			check(t, err)
			t.Cleanup(func() { check(t, s.Close()) })
			return backupOf(t, "a")
		}, []string{"has", "kwai.db open"}},
		"a command writes": {func(t *testing.T, url string) string {
			db := storetest.Raw(t, url)
			db.SetMaxOpenConns(1)
			storetest.Exec(t, db, `PRAGMA journal_mode = DELETE`, `BEGIN IMMEDIATE`)
			t.Cleanup(func() { check(t, db.Close()) })
			return backupOf(t, "a")
		}, []string{"has", "kwai.db open"}},
		"it was moved": {func(t *testing.T, url string) string {
			alter(t, storetest.Path(url), `INSERT INTO meta (name, value) VALUES ('moved', '1')`)
			return backupOf(t, "a")
		}, []string{"moved to PostgreSQL"}},
		"it is the file itself": {func(t *testing.T, url string) string {
			check(t, storetest.Open(t, url, nil).Close()) // without a log
			return storetest.Path(url)
		}, []string{"the database itself"}},
		"it is a link to the file": {func(t *testing.T, url string) string {
			check(t, storetest.Open(t, url, nil).Close())
			link := filepath.Join(t.TempDir(), "link")
			check(t, os.Symlink(storetest.Path(url), link))
			return link
		}, []string{"the database itself"}},
		"it is what a restore was to make": {func(t *testing.T, url string) string {
			check(t, os.Rename(backupOf(t, "a"), storetest.Path(url)+".restoring"))
			return storetest.Path(url) + ".restoring"
		}, []string{"kwai.db.restoring", "under another name"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := left(t)
			file := tt.prepare(t, url)
			_, err := restore(t, file, url, false)
			wantRefusal(t, err, tt.words...)
			var others []string
			for _, name := range storetest.FilesIn(t, filepath.Dir(storetest.Path(url))) {
				if !strings.HasPrefix(name, "kwai.db-") && name != "kwai.db" && name != filepath.Base(file) {
					others = append(others, name)
				}
			}
			if len(others) > 0 {
				t.Errorf("it left %v", others)
			}
			if name == "it was moved" {
				alter(t, storetest.Path(url), `DELETE FROM meta WHERE name = 'moved'`) // or it can't be opened
			}
			s, err := store.Open(t.Context(), database.Options{URL: url})
			check(t, err)
			storetest.WantUsers(t, s, "late")
			check(t, s.Close())
		})
	}
}

// Who had the old database open, idle, writes neither to it nor to the new one,
// from the moment on from which a copy is made to replace it.
func TestRestoreLeavesNobodyOnTheOldDatabase(t *testing.T) {
	t.Parallel()
	from := storetest.SQLite(t)
	s := storetest.Open(t, from, nil)
	large := store.User{Profile: store.Profile{ID: "a", FirstName: strings.Repeat("x", 8<<20)}, EmailKey: "a"} // copying takes its time
	check(t, s.InTx(t.Context(), func(tx *store.Tx) error { _, err := tx.InsertUser(large, store.Password{}); return err }))
	file := filepath.Join(t.TempDir(), "backup.db")
	check(t, offline.Backup(t.Context(), from, file))

	url := storetest.SQLite(t)
	db := storetest.Raw(t, url)
	storetest.Exec(t, db, `PRAGMA journal_mode = DELETE`) // in which idle connections hold no lock
	conn, err := db.Conn(t.Context())
	check(t, err)
	defer conn.Close()
	write := func() error {
		_, err := conn.ExecContext(t.Context(), `UPDATE meta SET value = '1000'`)
		return err
	}
	done := make(chan error, 1)
	go func() {
		_, err := restore(t, file, url, false)
		done <- err
	}()
	for copying := false; !copying && len(done) == 0; {
		_, err := os.Stat(storetest.Path(url) + ".restoring")
		copying = err == nil
	}
	if err := write(); err == nil {
		t.Error("it wrote to the database while that was replaced")
	}
	check(t, <-done)
	if err := write(); err == nil {
		t.Error("it wrote to the database that was replaced")
	}
	storetest.WantUsers(t, storetest.Open(t, url, nil), "a")
}

// What was ended after the backup doesn't come back, nor does a link that was
// used since, whatever the backup has of it: the recovery, or only the request.
func TestRestoreEndsWhatMayHaveEnded(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]bool{"ended": false, "kept": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := storetest.SQLite(t)
			s := storetest.Open(t, from, nil)
			requested := time.Now()
			storetest.At(t, s, requested, func(tx *store.Tx) error {
				for _, key := range []string{"a", "b"} {
					id := "user-" + key
					_, err := tx.InsertUser(store.User{Profile: store.Profile{ID: id, Email: key}, EmailKey: key}, store.Password{})
					if err == nil {
						_, err = tx.OpenSession(store.Session{ID: "session-" + key, UserID: id, Kind: store.KindAPI}, 10)
					}
					if err != nil {
						return err
					}
				}
				return tx.InsertRecovery(store.Recovery{
					RequestID: "request", MACKey: "key", IDHash: []byte("hash"), UserID: "user-a", ExpiresAt: requested.Add(time.Hour),
				})
			})
			storetest.Exec(t, storetest.Raw(t, from), `INSERT INTO email_changes VALUES ('user-b', 'request', 'c', 'c', 0, 9000000000000000)`)
			// Two sessions at each of two apps, of which one hears of logouts; an ended one; and
			// a logout that waits.
			for _, statement := range []string{
				`INSERT INTO apps VALUES ('wiki', 'Wiki', 'hash', NULL, 'https://x/', '', '', 'https://x/logout', '', 0), ('mail', 'Mail', NULL, NULL, 'https://y/', '', '', '', '', 0)`,
				`INSERT INTO user_groups (name, created_at) VALUES ('staff', 0)`,
				`INSERT INTO group_members VALUES ('staff', 'user-a')`,
				`INSERT INTO app_groups VALUES ('wiki', 'staff')`,
				`INSERT INTO grants VALUES ('user-a', 'wiki', 'openid', 0, 1)`,
				`INSERT INTO app_sessions SELECT id, 'user-a', 'session-a', app, sid, 'openid', NULL, 'pwd', 0, 0, 0, 0, 0, 0, 0, ended, 'logout' FROM
					(SELECT 'w1' AS id, 'wiki' AS app, 'sid-w' AS sid, NULL AS ended UNION SELECT 'w2', 'wiki', 'sid-w', NULL UNION SELECT 'm1', 'mail', 'sid-m', NULL UNION SELECT 'w3', 'wiki', 'sid-e', 7)`,
				`UPDATE app_sessions SET end_reason = NULL WHERE ended_at IS NULL`,
				`UPDATE users SET two_steps_at = 5 WHERE id = 'user-a'`,
				`INSERT INTO authenticators VALUES ('user-a', 'sealed', 7, 5, 6)`,
				`INSERT INTO recovery_codes VALUES ('user-a', 'used', 5, 6), ('user-a', 'left', 5, NULL)`,
				`INSERT INTO passkeys VALUES ('key', 'user-a', 'localhost', 'Phone', '{}', 8, 5, NULL)`,
				`INSERT INTO logouts VALUES ('w0', 'wiki', 'user-b', 'sid-0', 0, 3, 0, NULL, '')`,
			} {
				storetest.Exec(t, storetest.Raw(t, from), statement)
			}
			file := filepath.Join(t.TempDir(), "backup.db")
			check(t, offline.Backup(t.Context(), from, file))
			url := "sqlite://" + filepath.Join(t.TempDir(), "kwai.db")
			done, err := restore(t, file, url, keep)
			check(t, err)
			if diff := cmp.Diff(offline.Restored{Users: 2, Sessions: 2}, done); diff != "" {
				t.Errorf("it did (-want +got):\n%s", diff)
			}

			s = storetest.Open(t, url, nil)
			for _, id := range []string{"session-a", "session-b"} {
				session, err := s.Read(t.Context()).SessionByID(id)
				check(t, err)
				if live := session.Live(time.Now(), store.Lifetimes{Idle: time.Hour, Session: time.Hour}); live != keep {
					t.Errorf("%s is live: %v", id, live)
				}
			}
			changes, err := storetest.Text(s.DB.Read(t.Context()), `SELECT COUNT(*) FROM email_changes`)
			check(t, err)
			if want := map[bool]string{false: "0", true: "1"}[keep]; changes != want {
				t.Errorf("%s changes of addresses are left, want %s", changes, want)
			}
			for query, want := range map[string][2]string{ // where they are ended, and kept
				`SELECT group_concat(id || ' ' || COALESCE(end_reason, 'live'), ', ') FROM (SELECT * FROM app_sessions ORDER BY id)`: {
					"m1 restore, w1 restore, w2 restore, w3 logout", "m1 live, w1 live, w2 live, w3 logout",
				},
				`SELECT group_concat(app_id || ' ' || user_id || ' ' || sid || ' ' || attempts, ', ') FROM (SELECT * FROM logouts ORDER BY id)`: {
					"wiki user-b sid-0 3, wiki user-a sid-w 0", "wiki user-b sid-0 3",
				},
				`SELECT COUNT(*) FROM grants, group_members, app_groups, user_groups`: {"1", "1"},
				`SELECT MIN(ended_at) FROM app_sessions`:                              {"7", "7"},
				// Nothing of factors is lost: else who knows a password would be in by that alone.
				`SELECT two_steps_at || ' ' || secret || ' ' || last_step || ' ' || passkeys.id || ' ' || last_challenge || ' ' ||
					(SELECT group_concat(hash || ' ' || COALESCE(used_at, 'left'), ', ') FROM (SELECT * FROM recovery_codes ORDER BY hash))
					FROM users JOIN authenticators ON authenticators.user_id = users.id JOIN passkeys ON passkeys.user_id = users.id`: {
					"5 sealed 7 key 8 left left, used 6", "5 sealed 7 key 8 left left, used 6",
				},
			} {
				got, err := storetest.Text(s.DB.Read(t.Context()), query)
				check(t, err)
				if want := want[map[bool]int{false: 0, true: 1}[keep]]; got != want {
					t.Errorf("%s: %q, want %q", query, got, want)
				}
			}
			reason, err := storetest.Text(s.DB.Read(t.Context()), `SELECT MAX(end_reason) FROM sessions`)
			check(t, err)
			if want := map[bool]string{false: offline.EndRestore}[keep]; reason != want {
				t.Errorf("the reason is %q, want %q", reason, want)
			}
			storetest.At(t, s, time.Now(), func(tx *store.Tx) error {
				used, err := tx.UseRecovery([]byte("hash"))
				if used != keep {
					t.Errorf("the recovery can be used: %v", used)
				}
				claimed, err2 := tx.ClaimRecovery("user-b", requested.Add(time.Second/1000))
				if claimed != keep {
					t.Errorf("one can be made for a request of before: %v", claimed)
				}
				again, err3 := tx.ClaimRecovery("user-b", tx.Now)
				if !again {
					t.Error("none can be made for a new request")
				}
				return errors.Join(err, err2, err3)
			})
		})
	}
}

// The backup stays as it is, also where nothing can be written.
func TestRestoreOnlyReadsTheBackup(t *testing.T) {
	t.Parallel()
	file := backupOf(t, "a")
	before := storetest.Content(t, file)
	check(t, os.Chmod(filepath.Dir(file), 0o500))
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(file), 0o700) })
	_, err := restore(t, file, "sqlite://"+filepath.Join(t.TempDir(), "kwai.db"), false)
	check(t, err)
	if !bytes.Equal(before, storetest.Content(t, file)) {
		t.Error("it was changed")
	}
	if diff := cmp.Diff([]string{"backup.db"}, storetest.FilesIn(t, filepath.Dir(file))); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// Without hard links a restore that is cut off may leave no database under the
// name: none is made anew there, and the next restore goes on.
func TestNothingBeginsAnewAfterHalfARestore(t *testing.T) {
	t.Parallel()
	file := backupOf(t, "a")
	for name, path := range map[string]string{"a file": "kwai.db", "a link": "link"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			check(t, os.WriteFile(filepath.Join(dir, "kwai.db.restoring"), []byte("half"), 0o600))
			check(t, os.Symlink("kwai.db", filepath.Join(dir, "link")))
			url := "sqlite://" + filepath.Join(dir, path)
			for _, serve := range []bool{false, true} {
				wantRefused(t, database.Options{URL: url, Serve: serve}, "run `kwai restore` again")
			}
			if diff := cmp.Diff([]string{"kwai.db.restoring", "link"}, storetest.FilesIn(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			_, err := restore(t, file, "sqlite://"+filepath.Join(dir, "kwai.db"), false)
			check(t, err)
			storetest.WantUsers(t, storetest.Open(t, url, nil), "a")
		})
	}
}
