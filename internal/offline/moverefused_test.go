package offline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"kwai/internal/offline"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

func wantMoveError(t *testing.T, err error, target bool, words ...string) {
	t.Helper()
	t.Log(err)
	refused, ok := errors.AsType[*offline.MoveError](err)
	if !ok || refused.Target != target {
		t.Fatalf("got %v (%T), want a refusal; of the target: %v", err, err, target)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error doesn't say %q: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows the password: %v", err)
	}
}

// What can't be moved is left as it was, and so is where it can't be moved to.
func TestMoveRefuses(t *testing.T) {
	t.Parallel()
	statements := func(all ...string) func(*testing.T, string) string {
		return func(t *testing.T, url string) string {
			storetest.Exec(t, storetest.Raw(t, url), all...)
			return url
		}
	}
	fresh := func(all ...string) func(*testing.T, string) string {
		return func(t *testing.T, _ string) string { return statements(all...)(t, pgtest.Database(t)) }
	}
	withURL := func(change func(*url.URL)) func(*testing.T, string) string {
		return func(t *testing.T, text string) string {
			u, err := url.Parse(text)
			check(t, err)
			change(u)
			return u.String()
		}
	}
	empty := pgtest.Database(t)
	tests := []struct {
		name     string
		from, to func(t *testing.T, url string) string // the URL to use instead
		target   bool                                  // is what is wrong
		words    []string
	}{
		{name: "from PostgreSQL", from: func(t *testing.T, _ string) string { return storetest.Postgres(t) }, words: []string{"SQLite"}},
		{name: "from nothing", from: func(t *testing.T, url string) string { return url + "-none" }, words: []string{"no database"}},
		{name: "from a folder", from: func(t *testing.T, _ string) string { return "sqlite://" + t.TempDir() }, words: []string{"not a file"}},
		{name: "from garbage", from: func(t *testing.T, url string) string { storetest.Garbage(t, storetest.Path(url)); return url }, words: []string{"not a database"}},
		{name: "from half a database", from: func(t *testing.T, url string) string { storetest.Truncated(t, storetest.Path(url)); return url }, words: []string{"malformed"}},
		{name: "from one with a damaged page", from: damaged, words: []string{"damaged"}},
		{name: "from another program's", from: func(t *testing.T, url string) string {
			check(t, os.Remove(storetest.Path(url)))
			return statements(`CREATE TABLE theirs (id)`)(t, url)
		}, words: []string{"no kwai database"}},
		{name: "from a newer one", from: statements(`UPDATE meta SET value = '1000' WHERE name = 'oldest_schema'`), words: []string{"newer kwai", "1000"}},
		{name: "from a newer one that this program can use", from: statements(`INSERT INTO schema_version (version_id, is_applied) VALUES (1000, true)`), words: []string{"newer kwai", "1000"}},
		{name: "from one that is served", from: func(t *testing.T, url string) string { storetest.Open(t, url, nil); return url }, words: []string{"another kwai serves", "stop it"}},
		{name: "to SQLite", to: func(t *testing.T, _ string) string { return storetest.SQLite(t) }, target: true, words: []string{"postgres://"}},
		{name: "to what is no URL", to: func(*testing.T, string) string { return "postgres://secret@:::/" }, target: true, words: []string{"postgres://"}},
		{name: "to nobody", to: withURL(func(u *url.URL) { u.Host = "127.0.0.1:1" }), target: true, words: []string{"127.0.0.1"}},
		{name: "with a wrong password", to: withURL(func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "secret") }), target: true, words: []string{"password authentication failed"}},
		{name: "to no database", to: withURL(func(u *url.URL) { u.Path = "none" }), target: true, words: []string{"does not exist"}},
		{name: "to one with an account", to: func(t *testing.T, _ string) string {
			to := storetest.Postgres(t)
			storetest.WithUser(t, to)
			return to
		}, target: true, words: []string{"uses it already", "users"}},
		{name: "to one that was served", to: func(t *testing.T, _ string) string {
			return statements(`INSERT INTO keys VALUES ('k', 'sign', '', 1, 1)`)(t, storetest.Postgres(t))
		}, target: true, words: []string{"uses it already", "keys"}},
		{name: "to another program's", to: fresh(`CREATE TABLE theirs (id INT)`), target: true, words: []string{"theirs"}},
		{name: "to another program's, of the same name", to: fresh(`CREATE TABLE users (id INT)`), target: true, words: []string{"users"}},
		{name: "to a newer one", to: func(t *testing.T, _ string) string {
			return statements(`INSERT INTO schema_version (version_id, is_applied) VALUES (1000, true)`)(t, storetest.Postgres(t))
		}, target: true, words: []string{"newer kwai"}},
		{name: "to where another's move has begun", to: func(t *testing.T, _ string) string {
			return statements(`INSERT INTO meta VALUES ('move', 'x'), ('moving', 'x')`)(t, storetest.Postgres(t))
		}, target: true, words: []string{"another database", "drop"}},
		{name: "to another encoding", to: func(t *testing.T, url string) string {
			storetest.Exec(t, storetest.Raw(t, url), `CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'`)
			t.Cleanup(func() { storetest.Raw(t, url).ExecContext(context.Background(), `DROP DATABASE latin WITH (FORCE)`) })
			return url[:strings.LastIndex(url, "/")] + "/latin?sslmode=disable"
		}, target: true, words: []string{"LATIN1", "UTF8"}},
		{name: "to where no table may be made", to: fresh(`DROP SCHEMA public`), target: true, words: []string{"schema"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			from, to := storetest.SQLite(t), empty
			if tt.from != nil {
				from = tt.from(t, from)
			}
			if tt.to != nil {
				to = tt.to(t, to)
			}
			var before []byte
			var shapeBefore []string
			// What has it open would lose its locks if it were read here; the migration comes before the damage is found.
			if !strings.HasPrefix(from, "postgres") && tt.name != "from one that is served" && tt.name != "from one with a damaged page" {
				before = storetest.Content(t, storetest.Path(from))
			}
			if to == empty {
				shapeBefore = shape(t, to)
			}
			_, err := offline.Move(t.Context(), offline.MoveOptions{From: from, To: to})
			wantMoveError(t, err, tt.target, tt.words...)
			if before != nil && !bytes.Equal(before, storetest.Content(t, storetest.Path(from))) {
				t.Error("the old database was changed")
			}
			if shapeBefore != nil && !slices.Equal(shapeBefore, shape(t, to)) {
				t.Error("the new database was changed")
			}
			if tt.target { // the old one is as it was
				check(t, storetest.Open(t, from, nil).InTx(t.Context(), storetest.AddsUser("a")))
			}
		})
	}
}

// damaged is a database of which a page is overwritten.
func damaged(t *testing.T, url string) string {
	t.Helper()
	s := storetest.Open(t, url, nil)
	for i := range 300 {
		check(t, s.InTx(t.Context(), storetest.AddsUser(fmt.Sprintf("user%d@example.org", i))))
	}
	check(t, s.Close())
	var page int64
	check(t, storetest.Raw(t, url).QueryRowContext(t.Context(), `SELECT rootpage FROM sqlite_schema WHERE name = 'users'`).Scan(&page))
	f, err := os.OpenFile(storetest.Path(url), os.O_RDWR, 0)
	check(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 2048), (page-1)*4096)
	check(t, err)
	check(t, f.Close())
	return url
}

// A value that PostgreSQL has no place for is named, and nothing moved.
func TestMoveNamesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	for value, words := range map[string]string{
		`first_name = 'a' || char(0)`:          "users.first_name",
		`last_name = CAST(x'ff' AS TEXT)`:      "users.last_name",
		`created_at = 'yesterday'`:             "users.created_at",
		`email = x'61'`:                        "users.email",
		`id = 'b', revoked_at = 1.5`:           "users.revoked_at",
		`id = 'b', last_login_at = 'noon'`:     "is \"b\"",
		`first_name = 'é' || char(0) || 'ü'  `: "NUL",
	} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			from, to := storetest.SQLite(t), pgtest.Database(t)
			storetest.WithUser(t, from)
			storetest.Exec(t, storetest.Raw(t, from), `UPDATE users SET `+value)
			_, err := offline.Move(t.Context(), offline.MoveOptions{From: from, To: to})
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("got %v, want an error with %q", err, words)
			}
		})
	}
}

// What arrives is compared, not merely counted: a rule of the target's, say, may
// have changed it on its way.
func TestMoveComparesWhatArrives(t *testing.T) {
	t.Parallel()
	from, to := storetest.SQLite(t), storetest.Postgres(t)
	storetest.WithUser(t, from)
	storetest.Exec(t, storetest.Raw(t, to),
		`CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.first_name = 'Mallory'; RETURN NEW; END $$`,
		`CREATE TRIGGER meddle BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION meddle()`)
	_, err := offline.Move(t.Context(), offline.MoveOptions{From: from, To: to})
	if err == nil || !strings.Contains(err.Error(), "users") {
		t.Fatalf("got %v, want an error that names the table", err)
	}
	storetest.Open(t, from, nil) // as before
}
