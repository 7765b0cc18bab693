package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// This program is also the servers of its tests:
//
//	serve ADDRESS   serves until it is interrupted
//	refuse          ends at once
//	dawdle          never serves
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		os.Exit(serve(os.Args[2]))
	case len(os.Args) == 2 && os.Args[1] == "refuse":
		fmt.Fprintln(os.Stderr, "no way")
		os.Exit(1)
	case len(os.Args) == 2 && os.Args[1] == "dawdle":
		fmt.Fprintln(os.Stderr, "dawdling")
		time.Sleep(time.Hour)
	}
	need.ShareCores()
	os.Exit(m.Run())
}

func serve(address string) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := &http.Server{Addr: address, ReadHeaderTimeout: time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			http.NotFound(w, r)
		}
	})}
	ended := make(chan error)
	context.AfterFunc(ctx, func() { ended <- server.Shutdown(context.Background()) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "in good order:", <-ended)
	return 0
}

// command has this program serve.
func command(t *testing.T, args ...string) cluster.Command {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address, err := cluster.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if args[0] == "serve" {
		args = append(args, address)
	}
	return cluster.Command{Program: program, Args: args, Env: os.Environ(), Address: address, Ready: "/readyz"}
}

// answers says whether the server answers 200 within the time; 0: however long
// it takes.
func answers(t *testing.T, s *cluster.Server, within time.Duration) bool {
	t.Helper()
	client := http.Client{Timeout: within, Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Address+"/readyz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func TestServerIsPausedEndedAndStartedAgain(t *testing.T) {
	t.Parallel()
	t.Run("a program", func(t *testing.T) {
		t.Parallel()
		s, err := cluster.StartServer(t.Context(), command(t, "serve"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		const order = "in good order: <nil>\n"
		pauseEndAndStart(t, s)
		// It was stopped twice and killed once.
		if got := strings.Count(s.Log(), order); got != 2 {
			t.Errorf("it ended %d times in good order, want 2; its log: %q", got, s.Log())
		}
	})
	t.Run("kwai", func(t *testing.T) {
		t.Parallel()
		need.Time(t) // to build it
		program, err := cluster.Build(t.Context(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s, err := cluster.Kwai{Program: program, Folder: filepath.Join(t.TempDir(), "data")}.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		pauseEndAndStart(t, s)
	})
}

func pauseEndAndStart(t *testing.T, s *cluster.Server) {
	t.Helper()
	if s.Startup <= 0 {
		t.Errorf("it took %v to start", s.Startup)
	}
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"start", func() error { return nil }, "serves"},
		{"pause", s.Pause, "stands still"},
		{"continue", s.Continue, "serves"},
		{"kill", func() error { s.Kill(); return nil }, "has ended"},
		{"restart", func() error { return s.Restart(t.Context()) }, "serves"},
		{"restart what runs", func() error { return s.Restart(t.Context()) }, "serves"},
		{"pause again", s.Pause, "stands still"},
		{"stop what is paused", func() error { s.Stop(); return nil }, "has ended"},
	} {
		if err := step.do(); errors.Is(err, errors.ErrUnsupported) {
			t.Skip("this system can't pause a process")
		} else if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		ended := false
		select {
		case <-s.Done():
			ended = true
		default:
		}
		if ended != (step.want == "has ended") {
			t.Fatalf("after %s it has ended: %v", step.name, ended)
		}
		if step.want == "stands still" {
			for answers(t, s, 100*time.Millisecond) { // a process stops some time after the signal
			}
		} else if got, want := answers(t, s, 0), step.want == "serves"; got != want {
			t.Fatalf("after %s it answers: %v, want %v", step.name, got, want)
		}
	}
}

func TestProgramThatEndsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	_, err := cluster.StartServer(t.Context(), command(t, "refuse"))
	if err == nil || err.Error() != "it has ended\nno way\n" {
		t.Errorf("the error is %v, want that it has ended and what it said", err)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	started := command(t, "dawdle")
	started.Log = writer(func(p []byte) { cancel() })
	_, err := cluster.StartServer(ctx, started)
	if !errors.Is(err, context.Canceled) || !strings.HasSuffix(err.Error(), "\ndawdling\n") {
		t.Errorf("the error is %v, want that it was cancelled and what the program said", err)
	}
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestNATSComesBackWithItsStreams(t *testing.T) {
	t.Parallel()
	server, err := cluster.StartNATS(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	connect := func() jetstream.JetStream {
		t.Helper()
		c, err := nats.Connect(server.URL(), nats.Timeout(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		js, err := jetstream.New(c, jetstream.WithDefaultTimeout(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return js
	}
	js := connect()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "marks", Subjects: []string{"mark"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "mark", []byte("here")); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	stream, err := connect().Stream(t.Context(), "marks")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.GetMsg(t.Context(), 1); err != nil || string(m.Data) != "here" {
		t.Errorf("after a restart the stream holds %v, %v", m, err)
	}
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	c, err := nats.Connect("nats://"+u.Host, nats.Timeout(time.Hour))
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a client without a password gets %v, want %v", err, nats.ErrAuthorization)
	}
}
