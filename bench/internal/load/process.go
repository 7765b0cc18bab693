package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"
)

const (
	startPatience = 30 * time.Second
	stopPatience  = 40 * time.Second // kwai gives requests 20 s, mail 10 s
)

// Server is a program that serves on loopback. Its methods may be called
// concurrently.
type Server struct {
	Address string // host:port
	// Startup is the time from the program's start to its first answer 200.
	Startup time.Duration

	cmd  *exec.Cmd
	log  tail
	done chan struct{} // closed when it has ended
}

// start starts a program that will serve on the address and waits until it
// answers 200 to the path. It ends when ctx does.
func start(ctx context.Context, address, path string, env []string, program string, args ...string) (*Server, error) {
	s := &Server{Address: address, done: make(chan struct{})}
	s.cmd = exec.CommandContext(ctx, program, args...) //nolint:gosec // kwai as just built, or this program itself
	s.cmd.Env = env
	s.cmd.Stderr = &s.log
	s.cmd.WaitDelay = time.Second // for a descendant that holds the log
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait() // it is told to end
		close(s.done)
	}()
	if err := s.await(ctx, path); err != nil {
		s.Stop()
		return nil, fmt.Errorf("%w\n%s", err, s.Log())
	}
	s.Startup = time.Since(begin)
	return s, nil
}

// await asks for a path in short turns until the answer is 200.
func (s *Server) await(ctx context.Context, path string) error {
	c := NewConn(s.Address)
	defer c.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(startPatience)
	for {
		if status, err := c.Get(path, ""); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return errors.New("it has ended")
		case <-late:
			return errors.New("it doesn't answer")
		case <-tick.C:
		}
	}
}

// Stop ends the server in good order and returns when it has gone. It may be
// called again.
func (s *Server) Stop() {
	if s.cmd.Process.Signal(os.Interrupt) != nil {
		_ = s.cmd.Process.Kill() // Windows has no interrupt for others
	}
	select {
	case <-s.done:
	case <-time.After(stopPatience):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// PID is the process's number.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Log is the end of what the program has written to standard error.
func (s *Server) Log() string { return s.log.String() }

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - tailBytes; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// FreeAddress is an address of loopback on which nobody listens.
func FreeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
