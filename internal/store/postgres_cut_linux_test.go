package store_test

import (
	"errors"
	"net/url"
	"sync"
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
