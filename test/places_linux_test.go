package test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kwai/internal/cluster"
	"kwai/internal/mail/mailtest"
	"kwai/internal/testing/need"
)

// A container of the program and its data alone has no folder for temporary
// files: nothing may need one.
func TestNoTemporaryFolder(t *testing.T) {
	t.Parallel()
	need.Root(t, "to give the server a root folder of its own")
	root := t.TempDir()
	within := func(args ...string) []string {
		return append([]string{"--userspec=65532:65532", root, "/kwai"}, args...)
	}
	copyProgram(t, filepath.Join(root, "kwai"))
	data := filepath.Join(root, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	address, err := cluster.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mails := mailtest.Serve(t)
	env := []string{"KWAI_DATA=/data", "KWAI_HASH_MEMORY=64", "KWAI_HASH_TIME=1"}
	s := startCommand(t, cluster.Kwai{}, cluster.Command{
		Program: "chroot", Env: env, Address: address, Ready: "/readyz",
		Args: within("serve", "--listen="+address, "--smtp="+mails.URL()),
	})

	invite := exec.CommandContext(t.Context(), "chroot", within("user", "create", "ann@example.org")...)
	invite.Env = env
	if out, err := invite.CombinedOutput(); err != nil {
		t.Fatalf("kwai user create: %v: %s", err, out)
	}
	mail, err := mails.Wait(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if a := s.post("reset", "", "uuid", mail[0].RecoveryID(), "password", good); a.Status != http.StatusOK {
		t.Errorf("the first password: %v\n%s", a, s.log)
	}
	for range 300 { // rows enough that a transaction doesn't fit into the least memory
		if a := s.post("login", "", "username", "ann@example.org", "password", good); a.Status != http.StatusOK {
			t.Fatalf("a login: %v\n%s", a, s.log)
		}
	}
	revoke := exec.CommandContext(t.Context(), "chroot", within("user", "revoke", "ann@example.org")...)
	revoke.Env = env
	if out, err := revoke.CombinedOutput(); err != nil {
		t.Errorf("kwai user revoke: %v: %s", err, out)
	}
	backup := exec.CommandContext(t.Context(), "chroot", within("backup", "/data/backup.db")...)
	backup.Env = env
	if out, err := backup.CombinedOutput(); err != nil {
		t.Errorf("kwai backup: %v: %s", err, out)
	}
	if strings.Contains(s.log.String(), "disk I/O error") {
		t.Errorf("the server warned: %s", s.log)
	}
}

// copyProgram copies the program to a path.
func copyProgram(t *testing.T, to string) {
	t.Helper()
	// Of its own: with the race detector the program needs libraries.
	path, err := cluster.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, from); err != nil {
		t.Fatal(err)
	}
}
