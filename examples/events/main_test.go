package main

import (
	"bufio"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"kwai/internal/bus"
	"kwai/internal/store"
	"kwai/internal/testing/natstest"
	"kwai/internal/testing/need"
)

// This program is also the one that is tested.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-nats" {
		pause = 50 * time.Millisecond
		main()
		return
	}
	os.Exit(m.Run())
}

// reader is the program, running.
type reader struct {
	cmd *exec.Cmd
	ids chan string // printed
}

func start(t *testing.T, s *natstest.Server) *reader {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
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
		id, ok := <-r.ids
		if !ok {
			t.Fatalf("it ended after it had printed %q, want %q", got, want)
		}
		if len(got) > 0 || id != before {
			got = append(got, id)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("it printed %q, want %q", got, want)
	}
}

// eventually asks what NATS knows of the program until it is so.
func eventually(t *testing.T, js jetstream.JetStream, so func(*jetstream.ConsumerInfo) bool) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		c, err := js.Consumer(t.Context(), "KWAI", "test")
		if err == nil && so(c.CachedInfo()) {
			return
		}
		<-again.C
	}
}

func TestNothingIsLostWhoeverIsRestarted(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	r := start(t, s) // before there is a NATS
	s.Start()
	publish(t, s, "1", "2")
	r.wants(t, "", "1", "2")

	js := s.JetStream()
	// What it has not acknowledged when it or NATS ends, or what NATS gives it just
	// then, comes again after ten seconds: that is left to the run of all tests.
	calm := func(so func(*jetstream.ConsumerInfo) bool) {
		if !need.All() {
			eventually(t, js, so)
		}
	}
	calm(func(i *jetstream.ConsumerInfo) bool { return i.AckFloor.Stream == 2 })
	r.kill()
	calm(func(i *jetstream.ConsumerInfo) bool { return i.NumWaiting == 0 })
	publish(t, s, "3", "4")
	r = start(t, s)
	r.wants(t, "2", "3", "4")

	calm(func(i *jetstream.ConsumerInfo) bool { return i.AckFloor.Stream == 4 })
	s.Stop()
	s.Start()
	publish(t, s, "5", "6")
	r.wants(t, "4", "5", "6")

	// What it has printed is acknowledged.
	eventually(t, js, func(i *jetstream.ConsumerInfo) bool { return i.AckFloor.Stream == 6 })
}

// publish publishes as kwai does.
func publish(t *testing.T, s *natstest.Server, ids ...string) {
	t.Helper()
	n, err := bus.NewNATS(s.URL(), bus.NATSOptions{Source: "https://auth.example.org", MaxAge: time.Hour, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Connect(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		e := store.Event{ID: id, Type: "session.opened", UserID: "u", SessionID: "s", CreatedAt: time.Now()}
		for err := n.Deliver(t.Context(), e); err != nil; err = n.Deliver(t.Context(), e) {
			t.Log(err) // on a busy machine NATS may not answer in time
			time.Sleep(50 * time.Millisecond)
		}
	}
}
