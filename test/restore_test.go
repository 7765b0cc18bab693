package test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/store"
	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// A backup beside a busy server has everything that was answered before it
// began, and nobody notices it.
func TestBackupHasWhatWasAnswered(t *testing.T) {
	t.Parallel()
	s := start(t, install(t, ""))
	s.user("ann@example.org", good)

	// Each client logs in, renews and logs out, again and again, and notes the
	// sessions whose end was answered.
	const clients = 8
	ended := make([][]string, clients)
	var noted sync.Mutex
	var enough atomic.Int64
	busy := make(chan struct{})
	stop := make(chan struct{})
	var working sync.WaitGroup
	for i := range clients {
		s := s.apart()
		working.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				login := s.post("login", "", "username", "ann@example.org", "password", good)
				renewed := s.post("access_token", "", "refresh_token", login.field("refresh_token"))
				logout := s.post("logout", renewed.field("access_token"), "refresh_token", renewed.field("refresh_token"))
				if login.Status != http.StatusOK || renewed.Status != http.StatusOK || logout.Status != http.StatusOK {
					t.Errorf("login %v, renewal %v, logout %v", login, renewed, logout)
					return
				}
				id := sessionOf(t, renewed.field("access_token"))
				noted.Lock()
				ended[i] = append(ended[i], id)
				noted.Unlock()
				if enough.Add(1) == int64(need.Rounds(50, 200)) {
					close(busy)
				}
			}
		})
	}
	<-busy
	var before []string
	var file string
	for i, met := 0, false; !met; i++ { // until something is answered while a backup is made
		noted.Lock()
		before = slices.Concat(ended...)
		noted.Unlock()
		file = filepath.Join(t.TempDir(), fmt.Sprint(i))
		s.mustCommand("", "backup", file)
		met = int(enough.Load()) > len(before)
	}
	close(stop)
	working.Wait()
	for warning := range strings.Lines(s.log.String()) {
		if !strings.Contains(warning, "no mail server is set") && !strings.Contains(warning, "--limits is off") {
			t.Errorf("the server warned: %s", warning)
		}
	}

	db, err := store.Open(t.Context(), database.Options{URL: "sqlite://" + file})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, id := range before {
		session, err := db.Read(t.Context()).SessionByID(id)
		if err != nil || session.EndedAt.IsZero() || session.Counter != 1 {
			t.Errorf("an answered logout is not in the backup: %+v, %v", session, err)
		}
	}
}

// Whenever a restore is killed, there is a whole database: the old one with all
// that was answered, or the restored one. The next restore clears up.
func TestKilledRestoreLeavesOneOrTheOther(t *testing.T) {
	t.Parallel()
	// What a killed server left: "late" stands in the log only.
	k := install(t, "")
	s := start(t, k)
	file := filepath.Join(t.TempDir(), "backup.db")
	s.user("ann@example.org", good)
	for range 50 { // so that copying takes its time
		s.login("ann@example.org")
	}
	s.mustCommand("", "backup", file)
	s.user("late@example.org", good)
	s.server.Kill()

	folder := func() cluster.Kwai {
		copied := k
		copied.Folder = filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(copied.Folder, os.DirFS(k.Folder)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(copied.Folder, "master.key"), 0o600); err != nil {
			t.Fatal(err)
		}
		return copied
	}
	restore := func(k cluster.Kwai) {
		t.Helper()
		if _, err := k.Command(t.Context(), "restore", file); err != nil {
			t.Fatal(err)
		}
	}
	whole := folder()
	begun := time.Now()
	restore(whole)
	took := time.Since(begun)

	kills := need.Rounds(4, 24)
	old, restored, aside := 0, 0, 0
	for i := range kills {
		whole := folder()
		data := whole.Folder
		ctx, cancel := context.WithTimeout(t.Context(), took*time.Duration(i+1)/time.Duration(kills))
		out, err := whole.Cmd(ctx, "restore", file).CombinedOutput() // killed by SIGKILL
		cancel()
		killed := strings.Contains(fmt.Sprint(err), "signal: killed")
		if err != nil && !killed && !errors.Is(err, context.DeadlineExceeded) { // or it had ended in that moment
			t.Fatalf("restore ended with %v: %s", err, out)
		}
		if _, err := os.Stat(filepath.Join(data, "kwai.db.replaced")); err == nil {
			aside++
		}
		if hasLate(t, data) {
			old++
		} else {
			restored++
		}
		restore(whole)
		if hasLate(t, data) {
			t.Error("the next restore didn't restore")
		}
		files, err := filepath.Glob(filepath.Join(data, "*"))
		if err != nil || slices.Contains(files, filepath.Join(data, "kwai.db.restoring")) {
			t.Errorf("it left %v, %v", files, err)
		}
	}
	t.Logf("of %d, killed within %v, %d were the old database, %d the restored one; %d had begun to keep the old one", kills, took, old, restored, aside)
	if old == 0 && need.All() {
		t.Error("no restore was killed in time")
	}
}

// hasLate serves the database and says whether it is the old one; it must be
// whole.
func hasLate(t *testing.T, data string) bool {
	t.Helper()
	db, err := store.Open(t.Context(), database.Options{URL: "sqlite://" + filepath.Join(data, "kwai.db"), Serve: true})
	if err != nil {
		t.Fatal(err)
	}
	users, err := db.Read(t.Context()).UsersAfter("", 10)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	// Its backup is a check of all of it.
	check := filepath.Join(t.TempDir(), "check.db")
	if err := offline.Backup(t.Context(), "sqlite://"+filepath.Join(data, "kwai.db"), check); err != nil {
		t.Error(err)
	}
	if len(users) == 0 || users[0].Email != "ann@example.org" || len(users) > 2 {
		t.Fatalf("the database is neither the old one nor the restored one: %v", users)
	}
	return len(users) == 2
}

// A file is on the disk before it gets its name, and the name before the command says
// so. The old database is without its log before the new one has its name.
func TestBackupAndRestoreAreDurable(t *testing.T) {
	t.Parallel()
	strace := requireStrace(t)
	k := install(t, "")
	data, file := k.Folder, filepath.Join(t.TempDir(), "backup.db")
	s := start(t, k)
	s.user("ann@example.org", good)
	s.mustCommand("", "backup", file+".first")
	s.server.Kill() // its log stays
	for _, tt := range []struct {
		args  []string
		steps []string
	}{
		{[]string{"backup", file}, []string{
			`fsync\(\d+<\S+\.part>`, `rename\w*\(.*\.part", .*backup\.db"`, `fsync\(\d+<` + filepath.Dir(file) + `>`, `write\(1<`,
		}},
		{[]string{"restore", file + ".first"}, []string{
			`unlink\w*\(.*kwai\.db-wal"`, `fsync\(\d+<\S+\.restoring>`, `link\w*\(.*kwai\.db", .*kwai\.db\.replaced"`, `fsync\(\d+<` + data + `>`,
			`rename\w*\(.*kwai\.db\.restoring", .*kwai\.db"`, `fsync\(\d+<` + data + `>`, `write\(1<`,
		}},
	} {
		trace := filepath.Join(t.TempDir(), "trace")
		under := []string{"--follow-forks", "--decode-fds=path", "--output=" + trace, "--trace=fsync,write,/(rename|link).*"}
		cmd := k.Cmd(t.Context(), tt.args...)
		cmd.Path, cmd.Args = strace, slices.Concat([]string{strace}, under, cmd.Args)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", tt.args, err, out)
		}
		text, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		rest := string(text)
		for _, step := range tt.steps {
			at := regexp.MustCompile(step).FindStringIndex(rest)
			if at == nil {
				t.Fatalf("%s: no %s behind what comes before it:\n%s", tt.args[0], step, text)
			}
			rest = rest[at[1]:]
		}
	}
}
