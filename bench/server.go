package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// server is a program that serves on loopback.
type server struct {
	address  string // host:port
	database string // kwai's, as its setting has it
	cmd      *exec.Cmd
	log      bytes.Buffer // to be read when it has ended
}

// build builds kwai and returns the program's path.
func build(ctx context.Context, folder string) (string, error) {
	path := filepath.Join(folder, "kwai")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", path, "kwai/cmd/kwai") //nolint:gosec // a folder of its own
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build (run this within the module): %w\n%s", err, out)
	}
	return path, nil
}

// startKwai starts kwai on the data in a folder, without throttles and with
// default settings but for the flags.
func startKwai(ctx context.Context, program, folder string, flags ...string) (*server, error) {
	data := filepath.Join(folder, "data")
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{address: address, database: "sqlite://" + filepath.Join(data, "kwai.db")}
	// Tokens stay valid when it is started again: they name the public URL.
	args := append([]string{"serve", "--listen=" + address, "--data=" + data, "--public-url=http://127.0.0.1:8080", "--log-level=warn", "--limits=off"}, flags...)
	s.cmd = exec.CommandContext(ctx, program, args...) //nolint:gosec // what was built just before
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "KWAI_") {
			s.cmd.Env = append(s.cmd.Env, v)
		}
	}
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.await(ctx, "/readyz"); err != nil {
		s.stop()
		return nil, fmt.Errorf("kwai serve: %w\n%s", err, s.log.Bytes())
	}
	return s, nil
}

// stop ends the server in good order. It may be called again.
func (s *server) stop() {
	if s == nil || s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait()
}

// await waits until the server answers 200 to a path.
func (s *server) await(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+path, nil)
		if err != nil {
			return err
		}
		r.Close = true
		if res, err := http.DefaultClient.Do(r); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("it doesn't answer")
		case <-tick.C:
		}
	}
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
