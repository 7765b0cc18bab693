package pgcluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"kwai/internal/testing/pgcluster"
)

func startCluster(t *testing.T, options pgcluster.Options) *pgcluster.Cluster {
	t.Helper()
	requirePostgres(t)
	c, err := pgcluster.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(c.Dir()); !os.IsNotExist(err) {
			t.Errorf("the folder is still there: %v", err)
		}
	})
	return c
}

func TestClusterComesBackWithItsData(t *testing.T) {
	t.Parallel()
	c := startCluster(t, pgcluster.Options{Settings: []string{"max_connections=20"}})
	url := c.URL("postgres")
	for setting, want := range map[string]string{"fsync": "on", "synchronous_commit": "on", "max_connections": "20"} {
		if got := query(t, url, "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
	exec(t, url, "CREATE TABLE mark AS SELECT 1 AS n")

	if err := c.Restart(); err != nil {
		t.Fatal(err)
	}
	exec(t, url, "INSERT INTO mark VALUES (2)")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("the server answers after it was killed")
	}
	if err := c.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := query(t, url, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM mark"); got != "1 2" {
		t.Errorf("after a restart and a kill the table holds %q", got)
	}
}

func TestFindWantsBothProgramsInOneFolder(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, file := range []string{"half/initdb", "old/initdb", "old/postgres", "new/initdb", "new/postgres"} {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ dirs, want string }{
		{"", ""},
		{"half", ""},
		{"absent half new old", "new"},
		{"old new", "old"},
	} {
		var dirs []string
		for _, name := range strings.Fields(c.dirs) {
			dirs = append(dirs, filepath.Join(root, name))
		}
		want := ""
		if c.want != "" {
			want = filepath.Join(root, c.want)
		}
		if got, ok := pgcluster.Find(dirs); got != want || ok != (want != "") {
			t.Errorf("of folders %q: %q, %v", c.dirs, got, ok)
		}
	}
}
