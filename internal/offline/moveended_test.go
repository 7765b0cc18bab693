package offline_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/store"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

// The steps that a move tells of, by how they begin.
const (
	stepCopied   = "copied 1 rows of users"
	stepCompared = "compared"
	stepComplete = "the copy is complete"
	stepMarked   = "the old database refuses"
)

// A move that ends at any step leaves one database that can be used, or none;
// and run again it does the whole of it.
func TestMoveGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	lose := func(t *testing.T, to string, _ context.CancelFunc) {
		// Every connection to the database but this one.
		storetest.Exec(t, storetest.Raw(t, to), `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	}
	interrupt := func(_ *testing.T, _ string, cancel context.CancelFunc) { cancel() }
	crash := func(*testing.T, string, context.CancelFunc) { panic("crash") }
	for _, tt := range []struct {
		name, step     string
		end            func(t *testing.T, to string, cancel context.CancelFunc)
		source, target string // how each is refused then; "" for not
		resumed, done  bool   // the second run has nothing to copy, or the first was not ended
	}{
		{"lost while copying", stepCopied, lose, "", "", false, false},
		{"interrupted while copying", stepCopied, interrupt, "", "", false, false},
		{"crashed while copying", stepCopied, crash, "", "", false, false},
		{"lost before the commit", stepCompared, lose, "", "", false, false},
		{"crashed before the commit", stepCompared, crash, "", "", false, false},
		{"lost after the commit", stepComplete, lose, "moved to PostgreSQL", "run `kwai move` again", true, false},
		{"interrupted after the commit", stepComplete, interrupt, "moved to PostgreSQL", "", true, true},
		{"crashed after the commit", stepComplete, crash, "", "run `kwai move` again", false, false},
		{"lost after the mark", stepMarked, lose, "moved to PostgreSQL", "run `kwai move` again", true, false},
		{"interrupted after the mark", stepMarked, interrupt, "moved to PostgreSQL", "", true, true},
		{"crashed after the mark", stepMarked, crash, "moved to PostgreSQL", "run `kwai move` again", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// Migrated, so that it can be opened where nothing has been copied.
			from, to := storetest.SQLite(t), storetest.Postgres(t)
			storetest.WithUser(t, from)
			// One who had it open before, and writes as soon as that can be.
			other, err := store.Open(t.Context(), database.Options{URL: to})
			check(t, err)
			defer other.Close()
			reached := false
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err = crashing(func() error {
				_, err := offline.Move(ctx, offline.MoveOptions{From: from, To: to, Progress: func(step string) {
					if strings.HasPrefix(step, tt.step) {
						reached = true
						tt.end(t, to, cancel)
					}
				}})
				return err
			})
			t.Log(err)
			if !reached || (err == nil) != tt.done {
				t.Fatalf("the step was reached: %v; the error: %v", reached, err)
			}
			for _, db := range []struct{ url, refused string }{{from, tt.source}, {to, tt.target}} {
				for _, serve := range []bool{true, false} {
					if db.refused != "" {
						wantRefused(t, database.Options{URL: db.url, Serve: serve}, db.refused)
					}
				}
			}
			if tt.source == "" {
				s := storetest.Open(t, from, nil)
				check(t, s.InTx(t.Context(), storetest.AddsUser("b")))
				check(t, s.Close())
			}
			if tt.target != "" {
				if err := again(t, other, "a third"); err == nil || !strings.Contains(err.Error(), "kwai_moving") {
					t.Errorf("one who had the new database open was answered %v", err)
				}
				_, err := offline.Move(t.Context(), offline.MoveOptions{From: storetest.SQLite(t), To: to})
				wantMoveError(t, err, true, "another database")
			}

			report, err := offline.Move(t.Context(), offline.MoveOptions{From: from, To: to})
			if err != nil || report.Resumed != tt.resumed || report.Already != tt.done {
				t.Fatalf("again: %+v, %v", report, err)
			}
			want := []string{"a"}
			if tt.source == "" {
				want = append(want, "b")
			}
			wantRefused(t, database.Options{URL: from}, "moved to PostgreSQL")
			storetest.WantUsers(t, storetest.Open(t, to, nil), want...)
			check(t, again(t, other, "c"))
			if diff := cmp.Diff(shapeOfNew(t), shape(t, to)); diff != "" {
				t.Errorf("the new database isn't like a new one (-want +got):\n%s", diff)
			}
		})
	}
}

// again adds a user, with a second try where the connection was lost.
func again(t *testing.T, s *store.Store, key string) error {
	t.Helper()
	err := s.InTx(t.Context(), storetest.AddsUser(key))
	if errors.Is(err, store.ErrUnavailable) {
		err = s.InTx(t.Context(), storetest.AddsUser(key))
	}
	return err
}

// crashing makes an error of a panic.
func crashing(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// Who would write to the old database while it is moved waits, and is refused
// when it is over; who would serve it is refused at once.
func TestMoveKeepsWritersOut(t *testing.T) {
	t.Parallel()
	from, to := storetest.SQLite(t), pgtest.Database(t)
	storetest.WithUser(t, from)
	beside, err := store.Open(t.Context(), database.Options{URL: from})
	check(t, err)
	defer beside.Close()
	wrote := make(chan error, 1)
	_, err = offline.Move(t.Context(), offline.MoveOptions{From: from, To: to, Progress: func(step string) {
		if !strings.HasPrefix(step, stepCopied) {
			return
		}
		wantRefused(t, database.Options{URL: from, Serve: true}, "another kwai serves")
		storetest.WantUsers(t, beside, "a")
		go func() { wrote <- beside.InTx(context.WithoutCancel(t.Context()), storetest.AddsUser("late")) }()
		select {
		case err := <-wrote:
			t.Errorf("a write during the move ended: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}})
	check(t, err)
	if err := <-wrote; err == nil || !strings.Contains(err.Error(), "moved to PostgreSQL") {
		t.Errorf("after the move it was answered %v", err)
	}
	storetest.WantUsers(t, storetest.Open(t, to, nil), "a")
}
