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
	"kwai/internal/testing/need"
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

// niceValue is this process's own.
func niceValue(t *testing.T) int {
	t.Helper()
	own, err := syscall.Getpriority(syscall.PRIO_PROCESS, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return 20 - own // as the system call tells it
}

func TestWorkersInProcesses(t *testing.T) { // not parallel: it counts processes
	var log bytes.Buffer
	p := newPool(t, password.Options{Workers: 2, Processes: true, MaxWait: time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if w := workers(t); w != nil {
		t.Errorf("before the first hash there are processes: %v", w)
	}

	// Who comes alone never gets the worker that other programs leave nothing.
	for range 8 {
		verify(t, p, bcryptUU, "U*U")
	}
	if w := workers(t); len(w) != 1 || w[0].nice != min(niceValue(t)+5, 19) {
		t.Errorf("for one password after the other there are the processes %v, want one, nicer by 5", w)
	}

	// hold has a free worker do something else.
	hold := func() (release func()) {
		held, released := make(chan struct{}), make(chan struct{})
		go func() { _ = p.Occupy(t.Context(), func() { close(held); <-released }) }()
		<-held
		return func() { close(released) }
	}
	// One after the other, then both at once.
	releaseOne := hold()
	verify(t, p, bcryptUU, "U*U")
	releaseOther := hold()
	releaseOne()
	verify(t, p, bcryptUU, "U*U")
	releaseOther()
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			for range need.Rounds(5, 20) {
				hash, _, err := p.Hash(t.Context(), "pässword")
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

	here := niceValue(t)
	running := workers(t)
	var nice []int
	for _, w := range running {
		nice = append(nice, w.nice)
		if w.environ != "" {
			t.Errorf("the process %d has the environment %q", w.pid, w.environ)
		}
	}
	// 19 is the highest that there is.
	if slices.Sort(nice); !slices.Equal(nice, []int{min(here+5, 19), min(here+10, 19)}) {
		t.Errorf("beside %d, the processes have the nice values %v, want 5 and 10 more", here, nice)
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
	if err := p.Hurry(t.Context(), 2, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, w := range running {
		if err := syscall.Kill(w.pid, syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
	}
	hashes()
	replaced := func(after string) {
		t.Helper()
		if !strings.Contains(log.String(), "was lost") {
			t.Errorf("after the processes were %s the log says: %q", after, log.String())
		}
		if len(workers(t, running...)) == 0 {
			t.Errorf("after the processes were %s there are only %v", after, workers(t))
		}
	}
	replaced("stopped")
	log.Reset()
	running = workers(t)
	for _, w := range running {
		if err := syscall.Kill(w.pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	hashes()
	replaced("killed")
	p.Close()
	if w := workers(t); w != nil {
		t.Errorf("after Close there are still %v", w)
	}
}
