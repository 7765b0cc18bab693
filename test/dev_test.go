package test

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// What kwai serve --dev prints first is enough to be logged in in a browser, by the
// name of this machine and by its address.
func TestDevLoginInBrowser(t *testing.T) {
	t.Parallel()
	need.Time(t)
	browser := startBrowser(t)
	address, err := cluster.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	program := install(t, "").Program
	cmd := exec.CommandContext(t.Context(), program, "serve", "--dev", "--listen="+address)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	login := regexp.MustCompile(`^Log in at (http://localhost:[0-9]+)/login as (\S+) with the password (\S+)$`)
	var found []string
	for lines := bufio.NewScanner(out); found == nil && lines.Scan(); {
		found = login.FindStringSubmatch(lines.Text())
	}
	if found == nil {
		t.Fatal("it prints no login page")
	}
	for _, home := range []string{found[1], strings.Replace(found[1], "localhost", "127.0.0.1", 1)} {
		b := openTab(t, browser, home)
		b.open(200, home+"/login")
		b.typeInto("username", found[2])
		b.typeInto("password", found[3])
		b.click(200, "button")
		b.sees("", accountPage...)
		if got, want := eval[string](b, "location.href"), home+"/account"; got != want {
			t.Errorf("the browser is at %s, want %s", got, want)
		}
	}
}
