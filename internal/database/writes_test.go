package database_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

// refusing are PostgreSQL statements that have each write fail with a code.
func refusing(code string) []string {
	return []string{
		`CREATE OR REPLACE FUNCTION failing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'by the test' USING ERRCODE = '` + code + `'; END $$`,
		`CREATE TRIGGER failing BEFORE INSERT OR UPDATE ON users EXECUTE FUNCTION failing()`,
		`CREATE TRIGGER failing BEFORE INSERT OR UPDATE ON meta EXECUTE FUNCTION failing()`,
	}
}

var refusingNoMore = []string{`DROP TRIGGER failing ON users`, `DROP TRIGGER failing ON meta`}

// A store that can't be written says so within a second, and finds out by itself when it can be again, although nobody writes anything.
func TestStoreKnowsWhetherItCanBeWritten(t *testing.T) {
	cases := map[string][]struct {
		name       string
		begin, end []string
		mended     bool // by the writer, which opens the database anew
	}{
		"sqlite": {
			{"is full", []string{`PRAGMA max_page_count = 1`}, []string{`PRAGMA max_page_count = 1000000`}, false},
			{"readonly", []string{`PRAGMA query_only = 1`}, nil, true},
		},
		"postgres": {
			{"53100", refusing("53100"), refusingNoMore, false},
			{"25006", refusing("25006"), refusingNoMore, false},
			{"42501", refusing("42501"), refusingNoMore, false},
			{"58030", refusing("58030"), refusingNoMore, false},
		},
	}
	bubble(t, func(t *testing.T, url string) {
		for _, c := range cases[database.EngineOf(url)] {
			var log strings.Builder
			s, err := store.Open(t.Context(), database.Options{URL: url, Serve: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
			check(t, err)
			log.Reset()
			ctx, stop := context.WithCancel(t.Context())
			following := make(chan struct{})
			go func() {
				defer close(following)
				for ; ctx.Err() == nil; time.Sleep(time.Second) {
					s.TryWriting(ctx)
				}
			}()
			run := func(statements []string) {
				t.Helper()
				for _, statement := range statements {
					check(t, s.InTx(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(statement); return err }))
				}
			}
			check(t, s.Ready(t.Context()))
			run(c.begin)
			if err := s.InTx(t.Context(), addLarge("large "+c.name, 64<<10)); err == nil {
				t.Fatalf("%s: it could be written", c.name)
			}
			time.Sleep(2 * time.Second) // of the bubble: it is tried each second
			for range 3 {
				if c.mended {
					check(t, s.Ready(t.Context()))
					break
				}
				if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), c.name) {
					t.Errorf("%s: ready: %v", c.name, err)
				}
				time.Sleep(10 * time.Second) // of the bubble: it tries some times meanwhile
			}
			storetest.WantUsers(t, s)
			run(c.end)
			time.Sleep(10 * time.Second)
			check(t, s.Ready(t.Context()))
			stop()
			<-following
			times := 1
			if c.mended {
				times = 0
			}
			if got := log.String(); strings.Count(got, "nothing can be written: /readyz") != times || strings.Count(got, "can be written again") != times {
				t.Errorf("%s: the log:\n%s", c.name, got)
			}
			if left, err := storetest.Text(s.DB.Read(t.Context()), `SELECT COUNT(*) FROM meta WHERE name = 'probe'`); err != nil || left != "0" {
				t.Errorf("%s: what it wrote is still there: %s, %v", c.name, left, err)
			}
			check(t, s.Close())
		}
	})
}

// What goes wrong with one row is no reason to take a server out.
func TestOneBadRowIsNotAnUnwritableDatabase(t *testing.T) {
	pgtest.Require(t)
	for _, code := range []string{"XX001", "42501", "58030"} {
		s := storetest.Open(t, pgtest.Database(t), nil)
		for _, statement := range []string{
			`CREATE FUNCTION bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'bad' USING ERRCODE = '` + code + `'; END $$`,
			`CREATE TRIGGER bad BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.email_key = 'bad') EXECUTE FUNCTION bad()`,
		} {
			check(t, s.InTx(t.Context(), func(tx *store.Tx) error { return discard(tx.Exec(statement)) }))
		}
		for range 3 {
			if err := s.InTx(t.Context(), storetest.AddsUser("bad")); err == nil {
				t.Fatalf("%s: it was written", code)
			}
			s.TryWriting(t.Context())
			check(t, s.Ready(t.Context()))
			check(t, s.InTx(t.Context(), storetest.AddsUser(rand.Text())))
		}
	}
}
