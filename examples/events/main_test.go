package main_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/bus"
	"kwai/internal/bus/natstest"
	"kwai/internal/store"
)

// reader is the program, running.
type reader struct {
	cmd *exec.Cmd
	ids chan string // printed
}

func start(t *testing.T, program string, s *natstest.Server) *reader {
	t.Helper()
	r := &reader{cmd: exec.Command(program, "-nats", s.URL(), "-name", "test"), ids: make(chan string, 100)}
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.ids)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if fields := strings.Fields(lines.Text()); len(fields) == 5 && fields[1] == "kwai.session.opened" && fields[3] == "user=u" && fields[4] == "session=s" {
				r.ids <- fields[2]
			} else {
				r.ids <- lines.Text()
			}
		}
	}()
	t.Cleanup(r.kill)
	return r
}

func (r *reader) kill() {
	_ = r.cmd.Process.Kill()
	for range r.ids { // until its output ends
	}
	_ = r.cmd.Wait()
}

// wants reads the ids that come next. The first may be one that was printed
// before, just before the program ended.
func (r *reader) wants(t *testing.T, before string, want ...string) {
	t.Helper()
	var got []string
	for len(got) < len(want) {
		select {
		case id := <-r.ids:
			if len(got) > 0 || id != before {
				got = append(got, id)
			}
		case <-time.After(time.Minute):
			t.Fatalf("it printed %q, want %q", got, want)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("it printed %q, want %q", got, want)
	}
}

func TestNothingIsLostWhoeverIsRestarted(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "events")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := natstest.New(t)
	r := start(t, program, s) // before there is a NATS
	s.Start()
	publish := publisher(t, s)
	publish("1", "2")
	r.wants(t, "", "1", "2")

	r.kill()
	publish("3", "4")
	r = start(t, program, s)
	r.wants(t, "2", "3", "4")

	s.Stop()
	s.Start()
	publish("5", "6")
	r.wants(t, "4", "5", "6")

	// What it has printed is acknowledged.
	js := s.JetStream()
	for deadline := time.Now().Add(time.Minute); ; {
		c, err := js.Consumer(t.Context(), "KWAI", "test")
		if err == nil && c.CachedInfo().AckFloor.Stream == 6 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the last event is not acknowledged: ", err)
		}
	}
}

// publisher publishes as kwai does.
func publisher(t *testing.T, s *natstest.Server) func(ids ...string) {
	t.Helper()
	n, err := bus.NewNATS(s.URL(), bus.NATSOptions{Source: "https://auth.example.org", MaxAge: time.Hour, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	woken := make(chan struct{}, 10)
	if err := n.Connect(t.Context(), func() { woken <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	return func(ids ...string) {
		t.Helper()
		for _, id := range ids {
			e := store.Event{ID: id, Type: "session.opened", UserID: "u", SessionID: "s", CreatedAt: time.Now()}
			for {
				err := n.Deliver(t.Context(), e)
				if err == nil {
					break
				}
				select {
				case <-woken:
				case <-time.After(time.Minute):
					t.Fatal(fmt.Errorf("%s: %w", id, err))
				}
			}
		}
	}
}
