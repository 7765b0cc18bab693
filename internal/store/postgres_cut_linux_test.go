package store_test

import (
	"database/sql"
	"errors"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"kwai/internal/pgcluster"
	"kwai/internal/pgtest"
	"kwai/internal/store"
	"kwai/internal/store/storetest"
)

func TestACutIsNoticedAndMended(t *testing.T) {
	t.Parallel()
	address := storetest.Postgres(t)
	p := pgtest.NewPath(t, address)
	s := small(t, p.URL(address), 4)
	idle(t, s, 4)
	p.Cut()
	since := time.Now()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := s.InTx(t.Context(), adding("lost")); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("while it is cut: %v", err)
			}
			if took := time.Since(since); took > 7*time.Second {
				t.Errorf("noticed after %v", took)
			}
		})
	}
	all.Wait()
	t.Logf("noticed after %v", time.Since(since))
	p.Mend()
	took := until(t, s, "a")
	t.Logf("back after %v", took)
	if took > 5*time.Second {
		t.Errorf("back after %v", took)
	}
	wantUsers(t, s, "a")
}

// What the database works on longer than a dead path is borne is not cut off.
func TestASlowStatementIsNoCut(t *testing.T) {
	t.Parallel()
	s := small(t, storetest.Postgres(t), 2)
	check(t, s.InTx(t.Context(), func(tx *store.Tx) error { return discard(tx.Exec(`SELECT pg_sleep(4.8)`)) }))
}

// A database that stops reading for a while, as its disk does under a copy, is
// no dead path either: the move goes on.
func TestAMoveOutlastsAStall(t *testing.T) {
	t.Parallel()
	from, to := storetest.SQLite(t), pgtest.Database(t)
	withUser(t, from)
	// Far more than the sockets in between hold.
	exec(t, raw(t, from), `INSERT INTO events (id, type, user_id, created_at, expires_at) VALUES ('e', '', '', 0, 0)`,
		`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 64)
			INSERT INTO deliveries (event_id, subscriber, attempts, due_at, last_error) SELECT 'e', i, 0, 0, hex(zeroblob(1 << 19)) FROM n`)
	stalled := make(chan bool)
	db := raw(t, to)
	_, err := store.Move(t.Context(), store.MoveOptions{From: from, To: to, Progress: func(step string) {
		if step == "copied 1 rows of events" {
			go func() { stalled <- stall(t, db, 6*time.Second) }()
		}
	}})
	if !<-stalled {
		t.Error("it was copied before it could be stalled")
	}
	check(t, err)
}

// stall stops the server's process that copies, in the middle of it.
func stall(t *testing.T, db *sql.DB, d time.Duration) bool {
	t.Helper()
	var pid, busy int
	for pid == 0 {
		if err := db.QueryRowContext(t.Context(), `SELECT COUNT(*), (SELECT COALESCE(MAX(pid), 0) FROM pg_stat_progress_copy WHERE datname = current_database() AND bytes_processed > 1000000)
			FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL`).Scan(&busy, &pid); err != nil || busy == 0 {
			return false
		}
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Error(err)
	}
	<-time.After(d)
	return syscall.Kill(pid, syscall.SIGCONT) == nil
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
		wantRefused(t, store.Options{URL: theirs, Serve: serve}, "standby", "name the primary", "PostgreSQL at 127.0.0.1")
	}

	// The standby first: the order of the hosts says nothing.
	both := edit(t, theirs, both(t, url))
	s := small(t, both, 4)
	check(t, s.InTx(t.Context(), adding("before")))
	db := raw(t, theirs)
	for there := false; !there; {
		check(t, db.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM users WHERE email_key = 'before')`).Scan(&there))
	}
	idle(t, s, 4)
	check(t, primary.Kill())
	for name, err := range map[string]error{"InTx": s.InTx(t.Context(), adding("lost")), "Read": discard(s.Read(t.Context()).UserByEmail("before"))} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s between the two: %v", name, err)
		}
	}
	check(t, standby.Exec(t.Context(), `SELECT pg_promote()`))
	if took := until(t, s, "after"); took > 5*time.Second {
		t.Errorf("back after %v", took)
	}
	wantUsers(t, s, "after", "before")
	check(t, s.Close())
}

// both adds the host of another URL.
func both(t *testing.T, other string) func(*url.URL) {
	t.Helper()
	o, err := url.Parse(other)
	check(t, err)
	return func(u *url.URL) { u.Host += "," + o.Host }
}
