//go:build unix

package test

import (
	"bufio"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kwai/internal/testing/need"
)

// logTo starts a server whose standard error is a named pipe, of which the test
// has the end that is read.
func logTo(t *testing.T) (s *site, reader *os.File) {
	t.Helper()
	pipe := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	k := install(t, "")
	command, err := k.Serve(t.Context(), append(quick, "--log-level=debug")...)
	if err != nil {
		t.Fatal(err)
	}
	command.Args = append([]string{"-c", `exec "$0" "$@" 2>` + pipe, command.Program}, command.Args...)
	command.Program = "/bin/sh"
	return startCommand(t, k, command), reader
}

// asks sends so many requests; each has a line in the log, of over 100 bytes.
func (s *site) asks(requests int) {
	s.tb.Helper()
	for i := range requests {
		res, err := s.via.RoundTrip(must(http.NewRequestWithContext(s.tb.Context(), http.MethodGet, s.URL+"/healthz", nil)))
		if err != nil {
			s.tb.Fatalf("request %d: %v", i, err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			s.tb.Fatalf("request %d: %s", i, res.Status)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestNobodyReadsTheLog: the server neither waits for who reads its log nor ends
// with it, and tells what was lost.
func TestNobodyReadsTheLog(t *testing.T) {
	t.Parallel()
	t.Run("a reader that stands still", func(t *testing.T) {
		t.Parallel()
		need.Time(t)
		s, reader := logTo(t)
		s.asks(8000) // the pipe and the server hold less
		lines := bufio.NewScanner(reader)
		for lost := false; !lost && lines.Scan(); {
			lost = strings.Contains(lines.Text(), "lines of this log were lost")
		}
		if err := lines.Err(); err != nil {
			t.Error(err)
		}
		if s.asks(1000); t.Failed() { // the pipe holds less
			return
		}
		s.stop() // though the pipe is full
	})
	t.Run("a reader that goes away", func(t *testing.T) {
		t.Parallel()
		s, reader := logTo(t)
		reader.Close()
		s.asks(500)
		s.stop()
	})
}
