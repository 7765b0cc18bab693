package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"kwai/internal/testing/need"
	"kwai/internal/testing/pgtest"
)

// TestClusterOutlivesAReplicaAndLeavesNothing runs the whole as a newcomer does.
func TestClusterOutlivesAReplicaAndLeavesNothing(t *testing.T) {
	t.Parallel()
	need.Time(t) // to build kwai and to start all of it
	pgtest.Require(t)
	folder := filepath.Join(t.TempDir(), "cluster")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"--listen=127.0.0.1:0", "--check-timeout=1h", "--folder=" + folder}, w)
		w.Close()
		ended <- err
	}()
	lines := bufio.NewScanner(r)
	until := func(text string) (read string) {
		t.Helper()
		for lines.Scan() {
			read += lines.Text() + "\n"
			if strings.Contains(lines.Text(), text) {
				return read
			}
		}
		t.Fatalf("it ended before it said %q: %v\n%s", text, <-ended, read)
		return ""
	}
	printed := until("Ctrl-C ends all of it")
	find := func(pattern string) []string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(printed)
		if m == nil {
			t.Fatalf("nothing like %s in:\n%s", pattern, printed)
		}
		return m[1:]
	}

	login := find(`curl -d username=(\S+) -d password=(\S+) (\S+)`)
	logIn := func(times int) {
		t.Helper()
		form := url.Values{"username": login[:1], "password": login[1:2]}
		for i := range times {
			answer, err := http.PostForm(login[2], form)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Fatalf("login %d: %s", i+1, answer.Status)
			}
		}
	}
	logIn(10)
	pid, err := strconv.Atoi(find(`kill -9 (\d+)`)[0])
	if err != nil {
		t.Fatal(err)
	}
	victim, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	logIn(10) // also before anybody has noticed
	until("replica 1 (process " + strconv.Itoa(pid))

	// What is written while it ends.
	go func() { _, _ = io.Copy(io.Discard, r) }()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	addresses := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(printed, -1)
	if len(addresses) < 9 { // balancer, three times two, PostgreSQL, NATS
		t.Errorf("it printed these addresses only: %v", addresses)
	}
	for _, a := range addresses {
		if c, err := new(net.Dialer).DialContext(t.Context(), "tcp", a); err == nil {
			c.Close()
			t.Errorf("somebody still listens on %s", a)
		}
	}
	noProcesses(t, folder)
}

// noProcesses waits until no program of the folder runs. Those that hash
// passwords end when they see that their server has gone.
func noProcesses(t *testing.T, folder string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var left []string
		links, _ := filepath.Glob("/proc/[0-9]*/exe") // none but on Linux
		for _, link := range links {
			if program, err := os.Readlink(link); err == nil && strings.HasPrefix(program, folder) {
				left = append(left, link+" "+program)
			}
		}
		if len(left) == 0 {
			return
		}
		t.Logf("still there: %v", left)
		<-tick.C
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ flag, want string }{
		{"--replicas=0", "--replicas"},
		{"--check-timeout=0s", "--check-timeout"},
		{"--listen=0.0.0.0:8080", "not an address on loopback"},
		{"--listen=localhost", "not an address on loopback"},
		{"--folder=" + full, "is not empty"},
		{"--folder=" + filepath.Join(full, "letter"), "--folder"},
		{"more", "too much"},
	} {
		o, err := parse([]string{c.flag})
		if err == nil {
			_, err = ownFolder(o.folder)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.flag, err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(full, "letter")); err != nil {
		t.Error(err)
	}
}
