package test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgtest"
)

// TestCrashOfAMove: at whatever moment the program is killed, one of the two
// databases can be used and is whole, or, when everything has been copied,
// neither can; and run again it ends what it began.
func TestCrashOfAMove(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	folder := t.TempDir()
	original := filepath.Join(folder, "kwai.db")
	makeCrowd(t, "sqlite://"+original)
	want := crowd(t, "sqlite://"+original)
	program := install(t, "").Program // before time is taken
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
	usual := 500 * time.Millisecond // how long it takes
	ended := make(map[string]int)
	for i := range need.Rounds(1, 12) + 1 {
		from, to := "sqlite://"+filepath.Join(folder, fmt.Sprint(i, ".db")), patient(pgtest.Database(t))
		text, err := os.ReadFile(original)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(strings.TrimPrefix(from, "sqlite://"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		switch {
		case i == 0: // to see how long it takes
			killMove(t, program, from, to, never, "")
			usual = time.Since(began)
		case i%2 == 0: // at a step, or soon after
			steps := []string{"of users", "of sessions", "indexes", "compared", "complete", "complete", "refuses", "refuses"}
			killMove(t, program, from, to, time.Duration(rng.Int64N(int64(10*time.Millisecond))), steps[rng.IntN(len(steps))])
		default:
			killMove(t, program, from, to, time.Duration(rng.Int64N(int64(usual))), "")
		}
		ended[stateOfMove(t, from, to, want)]++
		killMove(t, program, from, to, never, "")
		if state := stateOfMove(t, from, to, want); state != "moved" {
			t.Errorf("run again, it ends as: %s", state)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("a move takes %v; after kills: %v", usual, ended)
	if need.All() && (ended["moved"] == 0 || ended["not moved"] == 0) {
		t.Errorf("it was never killed in the middle, or not run at all: %v", ended)
	}
}

// never is when a move is killed that isn't.
const never = -1

// killMove runs a move and kills it so long after it has said that, or begun. It
// must do what it can if it isn't killed.
func killMove(t *testing.T, program, from, to string, after time.Duration, said string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	move := exec.CommandContext(ctx, program, "move", "--database="+from, "--to="+to)
	stderr, err := move.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := move.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { time.AfterFunc(after, cancel) }
	if said == "" && after != never {
		kill()
	}
	var log strings.Builder
	for lines := bufio.NewScanner(io.TeeReader(stderr, &log)); lines.Scan(); {
		if said != "" && strings.Contains(lines.Text(), said) {
			kill()
		}
	}
	if err := move.Wait(); err != nil && ctx.Err() == nil {
		t.Fatalf("%v: %s", err, &log)
	}
}

// stateOfMove says which of the databases can be used, which must be whole.
func stateOfMove(t *testing.T, from, to, want string) string {
	t.Helper()
	waitUntilAlone(t, to)
	source, target := opened(t, from), opened(t, to)
	switch {
	case source == nil:
		if got := crowd(t, from); got != want {
			t.Errorf("the old database has %s, want %s", got, want)
		}
		switch {
		case target == nil:
			if got := crowd(t, to); !strings.HasPrefix(got, "0 rows") {
				t.Errorf("both can be used; the new one has %s", got)
			}
		case strings.Contains(target.Error(), "run `kwai move` again"):
			return "copied"
		case !strings.Contains(target.Error(), "no kwai database") && !strings.Contains(target.Error(), "older kwai"):
			t.Errorf("the new database: %v", target)
		}
		return "not moved"
	case !strings.Contains(source.Error(), "moved to PostgreSQL"):
		t.Errorf("the old database: %v", source)
	case target == nil:
		if got := crowd(t, to); got != want {
			t.Errorf("the new database has %s, want %s", got, want)
		}
		return "moved"
	case !strings.Contains(target.Error(), "run `kwai move` again"):
		t.Errorf("the old one has been moved; the new one: %v", target)
	}
	return "not finished"
}

// opened opens a database as a server does if it is SQLite's, and as a command
// does if not, which leaves it as it is.
func opened(t *testing.T, url string) error {
	t.Helper()
	s, err := store.Open(t.Context(), database.Options{URL: url, Serve: strings.HasPrefix(url, "sqlite")})
	if err != nil {
		return err
	}
	return s.Close()
}

// waitUntilAlone waits until PostgreSQL has seen that the program was killed, and
// ended what that had asked for.
func waitUntilAlone(t *testing.T, url string) {
	t.Helper()
	db := rawDatabase(t, url)
	defer db.Close()
	db.SetMaxOpenConns(1)
	for others := 1; others > 0; {
		err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&others)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// makeCrowd makes a database of a size that takes a moment to copy.
func makeCrowd(t *testing.T, url string) {
	t.Helper()
	s, err := store.Open(t.Context(), database.Options{URL: url, Serve: true})
	if err != nil {
		t.Fatal(err)
	}
	db := rawDatabase(t, url)
	defer db.Close()
	for _, statement := range []string{
		`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
			INSERT INTO users (id, email, email_key, first_name, last_name, created_at) SELECT lower(hex(randomblob(16))), i, i, 'Ann', i, i FROM n`,
		`INSERT INTO sessions (id, user_id, counter, floor, mark, prior, created_at, renewed_at)
			SELECT lower(hex(randomblob(16))), u.id, v.last_name, 0, 0, 0, 1, 1 FROM users u, users v WHERE v.created_at <= ` + strconv.Itoa(need.Rounds(2, 6)),
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// crowd tells what is in such a database.
func crowd(t *testing.T, url string) string {
	t.Helper()
	db := rawDatabase(t, url)
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), `SELECT id || ' ' || email || ' ' || created_at FROM users
		UNION ALL SELECT id || ' ' || user_id || ' ' || counter FROM sessions`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			t.Fatal(err)
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return fmt.Sprintf("%d rows of hash %.8x", len(all), sha256.Sum256([]byte(strings.Join(all, "\n"))))
}
