package cluster_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kwai/internal/cluster"
)

var built string // the folder of the program; "" for none

var program = sync.OnceValues(func() (path string, err error) {
	if built, err = os.MkdirTemp("", "kwai-test-"); err != nil {
		return "", err
	}
	return cluster.Build(context.Background(), built)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

func ready(t *testing.T, s *cluster.Server, patience time.Duration) bool {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
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
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	kwai := cluster.Kwai{Program: path, Folder: filepath.Join(t.TempDir(), "data")}
	s, err := kwai.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	for _, step := range []struct {
		name     string
		do       func() error
		patience time.Duration
		ready    bool
		ended    bool
	}{
		{"start", func() error { return nil }, 10 * time.Second, true, false},
		{"pause", s.Pause, 100 * time.Millisecond, false, false},
		{"continue", s.Continue, 10 * time.Second, true, false},
		{"kill", func() error { s.Kill(); return nil }, 10 * time.Second, false, true},
		{"restart", func() error { return s.Restart(t.Context()) }, 10 * time.Second, true, false},
		{"restart what runs", func() error { return s.Restart(t.Context()) }, 10 * time.Second, true, false},
		{"pause again", s.Pause, 100 * time.Millisecond, false, false},
		{"stop what is paused", func() error { s.Stop(); return nil }, 10 * time.Second, false, true},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		late := time.Now().Add(10 * time.Second) // a process stops some time after it is told
		for ready(t, s, step.patience) != step.ready {
			if time.Now().After(late) {
				t.Fatalf("after %s it is ready: %v, want %v", step.name, !step.ready, step.ready)
			}
		}
		ended := false
		select {
		case <-s.Done():
			ended = true
		default:
		}
		if ended != step.ended {
			t.Fatalf("after %s it has ended: %v, want %v", step.name, ended, step.ended)
		}
	}
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
		c, err := nats.Connect(server.URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		js, err := jetstream.New(c)
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
	if c, err := nats.Connect("nats://" + u.Host); err == nil {
		c.Close()
		t.Error("NATS takes a client without a password")
	}
}
