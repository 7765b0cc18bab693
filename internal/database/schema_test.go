package database_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/store"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

// A newer replica starts beside an older one that is in use.
func TestMigratingFailsNobody(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	db := storetest.Raw(t, url)
	check(t, storetest.Open(t, url, nil).Close())
	old := small(t, url, 8)
	storetest.Exec(t, db, database.Older...)

	// What the older program does with the tables that are changed.
	publish := func(tx *store.Tx, id string) error {
		for _, s := range []string{
			`INSERT INTO events (id, type, user_id, created_at, expires_at) VALUES ($1, 't', 'u', 1, 2)`,
			`INSERT INTO deliveries (event_id, subscriber, attempts, due_at, last_error, position) VALUES ($1, 'mail', 0, 1, '', 0)`,
			`DELETE FROM deliveries WHERE event_id = $1`,
			`DELETE FROM events WHERE id = $1`,
		} {
			if _, err := tx.Exec(s, id); err != nil {
				return err
			}
		}
		return nil
	}
	load, stop := context.WithCancel(t.Context())
	var worked atomic.Int64
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			for n := 0; load.Err() == nil; n++ {
				id := fmt.Sprintf("%d-%d", i, n)
				err := old.InTx(t.Context(), func(tx *store.Tx) error {
					if err := storetest.AddUser(tx, id); err != nil {
						return err
					}
					if err := publish(tx, id); err != nil {
						return err
					}
					_, err := tx.Exec(`SELECT pg_sleep(0.02)`) // most of the time it has locks
					return err
				})
				if err == nil {
					_, err = old.Read(t.Context()).UserByEmail(id)
				}
				if err != nil {
					t.Error(err)
				}
				worked.Add(1)
			}
		})
	}
	// One that takes longer than a migration waits: until it is tried again.
	var log lines
	begun := make(chan struct{})
	var started sync.Once
	all.Go(func() {
		err := old.InTx(t.Context(), func(tx *store.Tx) error {
			err := publish(tx, "slow")
			started.Do(func() { close(begun) })
			for err == nil && !strings.Contains(log.String(), "it is tried again") {
				_, err = tx.Exec(`SELECT pg_sleep(0.01)`)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	before := worked.Load()
	s, err := store.Open(t.Context(), database.Options{URL: url, Serve: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	stop()
	all.Wait()
	check(t, err)
	defer s.Close()
	check(t, s.Ready(t.Context()))
	if got := log.String(); !strings.Contains(got, fmt.Sprintf(`"migrated the database" version=%d`, database.SchemaVersion())) {
		t.Errorf("the log says %s", got)
	}
	t.Logf("%d transactions meanwhile", worked.Load()-before)
	if worked.Load() == before {
		t.Error("the old one did nothing meanwhile")
	}
}

// A migration may take longer than any statement of a request.
func TestMigrationsHaveTheirTime(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	storetest.Exec(t, storetest.Raw(t, url), `CREATE SEQUENCE turns`, // which counts even where a transaction is undone
		`CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('turns') = 1 THEN PERFORM pg_sleep(5.2); END IF; END $$`,
		`CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION slow()`)
	begun := time.Now()
	check(t, storetest.Open(t, url, nil).Ready(t.Context()))
	if took := time.Since(begun); took < 5*time.Second {
		t.Errorf("it took %v only", took)
	}
}

// An older database is migrated first.
func TestMoveMigratesTheOldDatabaseFirst(t *testing.T) {
	t.Parallel()
	from, to := storetest.SQLite(t), pgtest.Database(t)
	storetest.WithUser(t, from)
	storetest.Exec(t, storetest.Raw(t, from), database.Older...)
	_, err := offline.Move(t.Context(), offline.MoveOptions{From: from, To: to})
	check(t, err)
	storetest.WantUsers(t, storetest.Open(t, to, nil), "a")
}

func TestRestoreTakesAnOlderSchema(t *testing.T) {
	t.Parallel()
	old := storetest.SQLite(t)
	storetest.WithUser(t, old)
	storetest.Exec(t, storetest.Raw(t, old), database.Older...)
	file := filepath.Join(t.TempDir(), "backup.db")
	check(t, offline.Backup(t.Context(), old, file))
	backup, err := offline.OpenBackup(t.Context(), file)
	check(t, err)
	url := "sqlite://" + filepath.Join(t.TempDir(), "kwai.db")
	_, err = backup.Restore(t.Context(), url, false)
	check(t, err)
	check(t, backup.Close())
	wantRefused(t, database.Options{URL: url}, "older kwai")
	storetest.WantUsers(t, storetest.Open(t, url, nil), "a")
}
