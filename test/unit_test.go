package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// systemd understands deploy/kwai.service, also with every line that is offered
// there in a comment.
func TestUnitIsUnderstood(t *testing.T) {
	t.Parallel()
	need.Time(t)
	analyze := need.Program(t, "systemd-analyze")
	k := install(t, "")
	unit := string(readFile(t, filepath.Join("..", "deploy", "kwai.service")))
	offered := regexp.MustCompile(`(?m)^#([A-Z][A-Za-z]+=)`)
	if n := len(offered.FindAllString(unit, -1)); n < 8 {
		t.Errorf("only %d lines are offered", n)
	}
	for name, text := range map[string]string{"as it is": unit, "with all": offered.ReplaceAllString(unit, "$1")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "kwai.service")
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "/usr/local/bin/kwai", k.Program)), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput()
			// Other units that this machine has are none of ours.
			if err != nil || bytes.Contains(out, []byte("kwai.service")) || bytes.Contains(out, []byte(path)) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// The settings file that docs/operating.md has for the unit is that of commands
// beside the server, on both engines; and of the server, which gets its secrets in
// another way.
func TestDocumentedUnitSettings(t *testing.T) {
	eachOfAll(t, func(t *testing.T, k cluster.Kwai) {
		s := start(t, k)
		s.user("ann@example.org", good)
		dir := t.TempDir()
		for name, text := range map[string]string{"smtp": "smtp://user:password@mail.example.org:587", "database": k.DatabaseURL()} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		key, err := os.ReadFile(s.masterKey())
		if err != nil {
			t.Fatal(err)
		}
		settings := unitSettings(t)
		if k.Database != "" {
			settings = regexp.MustCompile(`(?m)^#([a-z])`).ReplaceAllString(settings, "$1")
		}
		text := strings.NewReplacer("/etc/kwai", dir, "/var/lib/kwai", k.Folder).Replace(settings)
		path := filepath.Join(dir, "kwai.toml")
		for name, text := range map[string][]byte{path: []byte(text), filepath.Join(dir, "master.key"): key} {
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, args := range [][]string{{"user", "list"}, {"key", "list"}, {"key", "rotate", "--purpose=mac"}, {"status"}} {
			cmd := exec.CommandContext(t.Context(), k.Program, append(args, "--config="+path)...)
			cmd.Env = []string{} // without any other settings
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("kwai %v: %v: %s", args, err, out)
			}
		}
	})
}

// unitSettings are the settings file that docs/operating.md has for the unit.
func unitSettings(t *testing.T) string {
	t.Helper()
	_, settings, found := strings.Cut(string(readFile(t, filepath.Join("..", "docs", "operating.md"))), "of the server and of the commands beside it:\n\n")
	settings, _, _ = strings.Cut(settings, "\n\n")
	if !found {
		t.Fatal("there are none")
	}
	return regexp.MustCompile(`(?m)^    `).ReplaceAllString(settings, "")
}
