package database_test

import (
	"bytes"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

const secret = "s3cret-of-the-role"

// asRole makes a role for the time of the test and returns the URL with it.
func asRole(t *testing.T, address, options string) string {
	t.Helper()
	name := "role_of_" + databaseName(t, address)
	db := storetest.Raw(t, address)
	storetest.Exec(t, db, `CREATE ROLE `+name+` LOGIN PASSWORD '`+secret+`' `+options)
	t.Cleanup(func() {
		for _, s := range []string{`DROP OWNED BY ` + name + ` CASCADE`, `DROP ROLE ` + name} {
			if _, err := db.Exec(s); err != nil {
				t.Error(err)
			}
		}
	})
	return edit(t, address, func(u *url.URL) { u.User = url.UserPassword(name, secret) })
}

func edit(t *testing.T, address string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(address)
	check(t, err)
	change(u)
	return u.String()
}

// encoded makes a database of an encoding.
func encoded(t *testing.T, encoding string) string {
	t.Helper()
	address := pgtest.Database(t)
	db, name := storetest.Raw(t, address), strings.ToLower(encoding)+"_of_"+databaseName(t, address)
	storetest.Exec(t, db, `CREATE DATABASE `+name+` ENCODING '`+encoding+`' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
	t.Cleanup(func() {
		if _, err := db.Exec(`DROP DATABASE ` + name + ` WITH (FORCE)`); err != nil {
			t.Error(err)
		}
	})
	return edit(t, address, func(u *url.URL) { u.Path = "/" + name })
}

func TestOpenSaysWhatToDoAboutADatabaseThatWontDo(t *testing.T) {
	t.Parallel()
	some := pgtest.Database(t) // for those that ask for another than there is
	with := func(statements ...string) func(*testing.T) string {
		return func(t *testing.T) string {
			url := pgtest.Database(t)
			storetest.Exec(t, storetest.Raw(t, url), statements...)
			return url
		}
	}
	tests := []struct {
		name  string
		url   func(*testing.T) string
		words []string
	}{
		{"wrong password", func(t *testing.T) string {
			return edit(t, some, func(u *url.URL) { u.User = url.UserPassword("kwai", secret) })
		}, []string{`user "kwai" may not log in`, "password"}},
		{"nobody listens", func(*testing.T) string {
			return "postgres://kwai:" + secret + "@127.0.0.1:1/kwai"
		}, []string{"can't be reached", "connection refused"}},
		{"several hosts, none there", func(*testing.T) string {
			return "postgres://kwai:" + secret + "@127.0.0.1:1,127.0.0.1:2/kwai"
		}, []string{"127.0.0.1:1, 127.0.0.1:2", "can't be reached", "127.0.0.1:2: connect: connection refused"}},
		{"no such database", func(t *testing.T) string {
			return edit(t, some, func(u *url.URL) { u.Path = "/nowhere" })
		}, []string{`CREATE DATABASE "nowhere" OWNER "kwai"`}},
		{"SQL_ASCII", func(t *testing.T) string { return encoded(t, "SQL_ASCII") }, []string{"encoding is SQL_ASCII", "ENCODING 'UTF8'"}},
		{"LATIN1", func(t *testing.T) string { return encoded(t, "LATIN1") }, []string{"encoding is LATIN1"}},
		{"may not make tables", func(t *testing.T) string {
			url := pgtest.Database(t)
			storetest.Exec(t, storetest.Raw(t, url), `REVOKE CREATE ON SCHEMA public FROM PUBLIC`) // PostgreSQL 13 and 14
			return asRole(t, url, "")
		}, []string{`lacks a right: let it own the database`, "permission denied for schema public"}},
		{"may not use the tables", func(t *testing.T) string { return asRole(t, storetest.Postgres(t), "") },
			[]string{"lacks a right", "permission denied for table"}},
		{"no schema", func(t *testing.T) string {
			url := pgtest.Database(t)
			storetest.Exec(t, storetest.Raw(t, url), `DROP SCHEMA public`)
			return url
		}, []string{"has no schema"}},
		{"no connections left", func(t *testing.T) string { return asRole(t, pgtest.Database(t), "CONNECTION LIMIT 0") },
			[]string{"max_connections", "--database-connections"}},
		{"another program's tables", with(`CREATE TABLE members (id int)`, `CREATE VIEW adults AS SELECT id FROM members`),
			[]string{"tables that aren't kwai's (adults, members)", "for kwai alone"}},
		{"another program's versions", with(`CREATE TABLE schema_version (version int)`), []string{"aren't kwai's (schema_version)"}},
		{"another program's meta", with(`CREATE TABLE meta (id int)`,
			`CREATE TABLE schema_version (id int, version_id bigint, is_applied boolean, tstamp timestamp)`), []string{"aren't kwai's"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address := tt.url(t)
			same := edit(t, some, func(u *url.URL) { u.Path = "/" + databaseName(t, address) }) // as superuser
			before := tables(t, same)
			wantRefused(t, database.Options{URL: address, Serve: true}, append(tt.words, "PostgreSQL at ")...)
			if after := tables(t, same); after != before {
				t.Errorf("there were %q, now there are %q", before, after)
			}
		})
	}
}

// tables lists those in a database, or nothing where there is none.
func tables(t *testing.T, address string) (names string) {
	t.Helper()
	_ = storetest.Raw(t, address).QueryRowContext(t.Context(), `SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')`).Scan(&names)
	return names
}

// Where nothing says that TLS must be had, that the server has none is no reason.
func TestAWrongPasswordIsNotToldAsTLS(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"", "prefer", "allow"} {
		address := edit(t, pgtest.Database(t), func(u *url.URL) {
			u.User = url.UserPassword("kwai", secret)
			u.RawQuery = ""
			if mode != "" {
				u.RawQuery = "sslmode=" + mode
			}
		})
		_, err := store.Open(t.Context(), database.Options{URL: address, Serve: true})
		if err == nil || !strings.Contains(err.Error(), "password authentication failed") || strings.Contains(err.Error(), "TLS") {
			t.Errorf("sslmode=%s: %v", mode, err)
		}
	}
}

func TestCommandsMakeNoTables(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	wantRefused(t, database.Options{URL: url}, "no kwai database", "PostgreSQL at 127.0.0.1")
	if names := tables(t, url); names != "" {
		t.Errorf("it made %s", names)
	}
}

func TestServersAreJudged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		version           int64
		encoding, timeout string
		word              string // "" where it will do
	}{
		{130000, "UTF8", "5s", ""},
		{150018, "UTF8", "5s", ""},
		{180000, "UTF8", "5s", ""},
		{129999, "UTF8", "5s", "needs PostgreSQL 13"},
		{90624, "UTF8", "5s", "needs PostgreSQL 13"},
		{150000, "LATIN1", "5s", "encoding is LATIN1"},
		{150000, "UTF8", "0", "pooler"},
	} {
		err := database.CheckServer(tt.version, tt.encoding, tt.timeout)
		if (err == nil) != (tt.word == "") || err != nil && !strings.Contains(err.Error(), tt.word) {
			t.Errorf("version %d, %s, time-out %s: %v, want %q", tt.version, tt.encoding, tt.timeout, err, tt.word)
		}
	}
}

// Other programs' extensions put views into the schema, and a start may have
// been interrupted after its first table.
func TestServeTakesWhatIsAsGoodAsEmpty(t *testing.T) {
	t.Parallel()
	for name, statements := range map[string][]string{
		"interrupted first start": {`CREATE TABLE schema_version (id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, version_id bigint NOT NULL,
			is_applied boolean NOT NULL, tstamp timestamp NOT NULL DEFAULT now())`, `INSERT INTO schema_version (version_id, is_applied) VALUES (0, true)`},
		"others' tables in other schemas": {`CREATE SCHEMA theirs`, `CREATE TABLE theirs.users (id int)`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			storetest.Exec(t, storetest.Raw(t, url), statements...)
			check(t, storetest.Open(t, url, nil).InTx(t.Context(), storetest.AddsUser("a")))
		})
	}
}

// A role needs no more than to own its database.
func TestTheOwnerOfADatabaseCanServe(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t)
	theirs := asRole(t, address, "")
	u, err := url.Parse(theirs)
	check(t, err)
	storetest.Exec(t, storetest.Raw(t, address), `ALTER DATABASE `+databaseName(t, address)+` OWNER TO `+u.User.Username(),
		`GRANT ALL ON SCHEMA public TO `+u.User.Username()) // PostgreSQL 15's owner has it anyway
	var log bytes.Buffer
	s, err := store.Open(t.Context(), database.Options{URL: theirs, Serve: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	check(t, err)
	check(t, s.InTx(t.Context(), storetest.AddsUser("a")))
	check(t, s.Close())
	storetest.Exec(t, storetest.Raw(t, address), `ALTER DATABASE `+databaseName(t, address)+` OWNER TO kwai`)
	if strings.Contains(log.String(), secret) {
		t.Errorf("the log shows the password: %s", log.String())
	}
}
