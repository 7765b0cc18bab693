package password_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kwai/internal/password"
)

// worker is a worker's process, as the system shows it.
type worker struct {
	pid, nice int
	environ   string
}

// workers are the processes that a pool of this process has. Other tests have
// pools of their own: before tells which of them were there.
func workers(t *testing.T, before ...worker) (found []worker) {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		// PID (COMM) STATE PPID … NICE, which is the 19th.
		stat, _ := os.ReadFile(folder + "/stat")
		name, _ := os.ReadFile(folder + "/cmdline")
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if string(name) != "kwai: password worker\x00" || len(fields) < 17 || fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		w := worker{}
		w.pid, _ = strconv.Atoi(filepath.Base(folder))
		w.nice, _ = strconv.Atoi(fields[16])
		environ, _ := os.ReadFile(folder + "/environ")
		w.environ = string(environ)
		if !slices.ContainsFunc(before, func(b worker) bool { return b.pid == w.pid }) {
			found = append(found, w)
		}
	}
	return found
}

func TestWorkersInProcesses(t *testing.T) { // not parallel: it counts processes
	var log bytes.Buffer
	p := newPool(t, password.Options{Workers: 2, Processes: true, MaxWait: time.Minute, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if w := workers(t); w != nil {
		t.Errorf("before the first hash there are processes: %v", w)
	}

	// Both workers at once.
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			for range 20 {
				hash, err := p.Hash(t.Context(), "pässword")
				if err != nil {
					t.Error(err)
					return
				}
				for pw, want := range map[string]bool{"pässword": true, "pa\u0308ssword": true, "password": false} {
					if got := verify(t, p, hash, pw); got != want {
						t.Errorf("%q matches: %v, want %v", pw, got, want)
					}
				}
			}
		})
	}
	both.Wait()
	// bcrypt reads the raw bytes, which need not be text.
	for pw, want := range map[string]bool{"U*U": true, "U*U*": false, "\xff\xfe": false} {
		if got := verify(t, p, bcryptUU, pw); got != want {
			t.Errorf("bcrypt: %q matches: %v, want %v", pw, got, want)
		}
	}

	own, err := syscall.Getpriority(syscall.PRIO_PROCESS, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	running := workers(t)
	var nice []int
	for _, w := range running {
		nice = append(nice, w.nice-(20-own))
		if w.environ != "" {
			t.Errorf("the process %d has the environment %q", w.pid, w.environ)
		}
	}
	if slices.Sort(nice); !slices.Equal(nice, []int{5, 19}) {
		t.Errorf("the processes give way by %v, want 5 and 19", nice)
	}

	// What ends the server's process group must not end them: requests under way
	// are answered first.
	for _, w := range running {
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			if err := syscall.Kill(w.pid, s); err != nil {
				t.Error(err)
			}
		}
	}
	hashes := func() {
		t.Helper()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if !verify(t, p, bcryptUU, "U*U") {
					t.Error("no match")
				}
			})
		}
		all.Wait()
	}
	hashes()
	if log.Len() > 0 {
		t.Errorf("the log says: %s", log.String())
	}

	if took, err := p.HashTook(t.Context()); err != nil || took <= 0 {
		t.Errorf("a hash counted for %v of the worker's share (%v)", took, err)
	}

	// One that is stuck is ended and replaced; so is one that is lost.
	defer password.SetPatience(5 * time.Second)() // which a new one may need to start on a busy machine
	for _, w := range running {
		if err := syscall.Kill(w.pid, syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
	}
	hashes()
	if !strings.Contains(log.String(), "was lost") || len(workers(t, running...)) == 0 {
		t.Errorf("after the processes were stopped there are %v; the log says: %s", workers(t), log.String())
	}
	log.Reset()
	running = workers(t)
	for _, w := range running {
		if err := syscall.Kill(w.pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	hashes()
	if !strings.Contains(log.String(), "was lost") || len(workers(t, running...)) == 0 {
		t.Errorf("after the processes were killed there are %v; the log says: %s", workers(t), log.String())
	}
	p.Close()
	if w := workers(t); w != nil {
		t.Errorf("after Close there are still %v", w)
	}
}
