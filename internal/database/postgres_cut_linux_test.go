package database_test

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"testing"
	"time"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/store"
	"kwai/internal/testing/pgcluster"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

func TestACutIsNoticedAndMended(t *testing.T) {
	t.Parallel()
	address := storetest.Postgres(t)
	p := pgtest.NewPath(t, address)
	s := small(t, p.URL(address), 4)
	idle(t, s, 4)
	p.Cut()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			err := s.InTx(t.Context(), storetest.AddsUser("lost"))
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("while it is cut: %v", err)
			}
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the cut wasn't noticed before the transaction's own time was over: %v", err)
			}
		})
	}
	all.Wait()
	p.Mend()
	until(t, s, "a", 4)
	storetest.WantUsers(t, s, "a")
}

// What the database works on longer than a dead path is borne is not cut off.
func TestASlowStatementIsNoCut(t *testing.T) {
	t.Parallel()
	s, err := store.Open(t.Context(), database.Options{URL: storetest.Postgres(t)}.DeadAfter(500*time.Millisecond))
	check(t, err)
	defer s.Close()
	check(t, s.InTx(t.Context(), func(tx *store.Tx) error { return discard(tx.Exec(`SELECT pg_sleep(1.5)`)) }))
}

// A database that stops reading for a while, as its disk does under a copy, is
// no dead path either: the move goes on.
func TestAMoveOutlastsAStall(t *testing.T) {
	t.Parallel()
	from, to := storetest.SQLite(t), storetest.Postgres(t)
	storetest.WithUser(t, from)
	// Far more than the sockets in between hold.
	storetest.Exec(t, storetest.Raw(t, from), `INSERT INTO events (id, type, user_id, created_at, expires_at) VALUES ('e', '', '', 0, 0)`,
		`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 24)
			INSERT INTO deliveries (event_id, subscriber, attempts, due_at, last_error, position) SELECT 'e', i, 0, 0, hex(zeroblob(1 << 19)), 0 FROM n`)
	// Longer than a path that isn't copied over may be dead.
	storetest.Exec(t, storetest.Raw(t, to), `CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(6); RETURN NEW; END $$`,
		`CREATE TRIGGER stall BEFORE INSERT ON deliveries FOR EACH ROW WHEN (NEW.subscriber = '2') EXECUTE FUNCTION stall()`)
	_, err := offline.Move(t.Context(), offline.MoveOptions{From: from, To: to})
	check(t, err)
}

func TestAStandbyIsRefusedUntilItIsThePrimary(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	primary, err := pgcluster.Start(pgcluster.Options{Settings: []string{"fsync=off", "shared_buffers=16MB"}})
	check(t, err)
	defer func() { check(t, primary.Stop()) }()
	url := primary.URL("postgres")
	storetest.Open(t, url, nil)
	standby, err := primary.Standby()
	check(t, err)
	defer func() { check(t, standby.Stop()) }()
	theirs := standby.URL("postgres")
	for _, serve := range []bool{true, false} {
		wantRefused(t, database.Options{URL: theirs, Serve: serve}, "standby", "name the primary", "PostgreSQL at 127.0.0.1")
	}

	// The standby first: the order of the hosts says nothing.
	both := edit(t, theirs, both(t, url))
	s := small(t, both, 4)
	check(t, s.InTx(t.Context(), storetest.AddsUser("before")))
	db := storetest.Raw(t, theirs)
	for there := false; !there; {
		check(t, db.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM users WHERE email_key = 'before')`).Scan(&there))
	}
	idle(t, s, 4)
	check(t, primary.Kill())
	for name, err := range map[string]error{"InTx": s.InTx(t.Context(), storetest.AddsUser("lost")), "Read": discard(s.Read(t.Context()).UserByEmail("before"))} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s between the two: %v", name, err)
		}
	}
	check(t, standby.Exec(t.Context(), `SELECT pg_promote()`))
	until(t, s, "after", 4)
	storetest.WantUsers(t, s, "after", "before")
	check(t, s.Close())
}

// both adds the host of another URL.
func both(t *testing.T, other string) func(*url.URL) {
	t.Helper()
	o, err := url.Parse(other)
	check(t, err)
	return func(u *url.URL) { u.Host += "," + o.Host }
}
