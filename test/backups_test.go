package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"kwai/internal/pgcluster"
	"kwai/internal/pgtest"
	"kwai/internal/store/storetest"
	"kwai/internal/testing/need"
)

// documented is the one line of docs/operating.md that is to be copied and begins
// so, without that beginning and without cron's way of writing a percent sign.
func documented(t *testing.T, begins string) (line string) {
	t.Helper()
	for l := range strings.Lines(string(readFile(t, filepath.Join("..", "docs", "operating.md")))) {
		if rest, ok := strings.CutPrefix(l, "    "+begins); ok {
			if line != "" {
				t.Fatalf("docs/operating.md has several lines that begin with %q", begins)
			}
			line = strings.ReplaceAll(strings.TrimSpace(rest), `\%`, "%")
		}
	}
	if line == "" {
		t.Fatalf("docs/operating.md has no line that begins with %q", begins)
	}
	return line
}

// shell runs a line with these names in the places of others.
func shell(t *testing.T, line string, env []string, names ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.NewReplacer(names...).Replace(line))
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", cmd.Args[2], err, out)
	}
	return string(out)
}

// onlyFile is the one file of a folder, which nobody else can read.
func onlyFile(t *testing.T, dir string) (path string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	path = filepath.Join(dir, files[0].Name())
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	return path
}

// The lines for each night in docs/operating.md are run as they stand there, but
// for the folders, and what they make is restored.
func TestDocumentedBackups(t *testing.T) {
	t.Parallel()
	need.Time(t)
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s := start(t, install(t, ""))
		s.user("ann@example.org", good)
		dir := t.TempDir()
		if said := shell(t, documented(t, "30 3 * * * kwai "), nil,
			"/usr/local/bin/kwai", s.kwai.Program, "--data=/var/lib/kwai", "--database=sqlite://"+filepath.Join(s.kwai.Folder, "kwai.db"), "/var/backups/kwai", dir); said != "" {
			t.Errorf("cron would mail %s", said)
		}
		s.stop()
		s.mustCommand("", "restore", onlyFile(t, dir), "--master-key-file="+s.masterKey())
		s.restart()
		s.login("ann@example.org")
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		k := install(t, storetest.Postgres(t))
		s := start(t, k)
		s.user("ann@example.org", good)
		dir := t.TempDir()
		service := func(url string) (env []string) {
			config, err := pgx.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "pg_service.conf")
			text := fmt.Sprintf("[kwai]\nhost=%s\nport=%d\ndbname=%s\nuser=%s\npassword=%s\n", config.Host, config.Port, config.Database, config.User, config.Password)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			dump, err := pgcluster.Program("pg_dump")
			if err != nil {
				t.Fatal(err)
			}
			return []string{"PGSERVICEFILE=" + path, "PATH=" + filepath.Dir(dump) + string(filepath.ListSeparator) + os.Getenv("PATH")}
		}
		if said := shell(t, documented(t, "30 3 * * * root "), service(k.Database), "/var/backups/kwai", dir); said != "" {
			t.Errorf("cron would mail %s", said)
		}
		s.stop()
		restored := pgtest.Database(t)
		shell(t, "pg_restore "+documented(t, "pg_restore ")+" && "+`psql --quiet -v ON_ERROR_STOP=1 -c "UPDATE sessions `+documented(t, "UPDATE sessions ")+`" service=kwai`,
			service(restored), "kwai-2026-11-22.dump", onlyFile(t, dir))
		k.Database = restored
		start(t, k).login("ann@example.org")
	})
}
