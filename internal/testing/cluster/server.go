package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// Command is a program that serves.
type Command struct {
	Program string
	Args    []string
	Env     []string
	Address string    // host:port on which it will serve
	Ready   string    // the path to which it answers 200 once it does
	Log     io.Writer // also gets its standard error, unless nil
}

// Server is a program that serves on loopback, in a process of its own. Its
// methods may be called concurrently, but for Restart beside another of the
// methods that end it.
type Server struct {
	Address string // host:port
	// Startup is the time from the program's first start to its first answer 200.
	Startup time.Duration

	command Command
	log     tail

	mu   sync.Mutex
	cmd  *exec.Cmd     // of this run
	done chan struct{} // closed when it has ended
}

// StartServer starts a program and waits until it is ready, for as long as ctx
// lives: on a busy machine that may take long. The program gets a signal to end when
// ctx ends; the caller calls Stop all the same. If the caller's process is killed, Linux
// ends the program with it. If it can't be started, or ends before it is ready, the
// error holds the end of its log.
func StartServer(ctx context.Context, command Command) (*Server, error) {
	s := &Server{Address: command.Address, command: command}
	begin := time.Now()
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	s.Startup = time.Since(begin)
	return s, nil
}

func (s *Server) run(ctx context.Context) error {
	// Not killed when ctx ends, but stopped in good order.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.command.Program, s.command.Args...) //nolint:gosec // kwai as just built, or this program itself
	cmd.Env = s.command.Env
	cmd.Stderr = &s.log
	if s.command.Log != nil {
		cmd.Stderr = io.MultiWriter(&s.log, s.command.Log)
	}
	cmd.SysProcAttr = procAttr()
	cmd.WaitDelay = 10 * time.Second // for a descendant that holds the log, after a hash perhaps
	done, started := make(chan struct{}), make(chan error)
	go func() {
		// The parent-death signal is sent when the thread ends that started the
		// child: so this one lasts as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		forget := context.AfterFunc(ctx, func() { interrupt(cmd.Process) })
		_ = cmd.Wait() // it gets a signal to end
		forget()
		close(done)
	}()
	if err := <-started; err != nil {
		return err
	}
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()
	if err := s.await(ctx, done); err != nil {
		s.Stop()
		return fmt.Errorf("%w\n%s", err, s.Log())
	}
	return nil
}

// await asks for the path in short turns until the answer is 200.
func (s *Server) await(ctx context.Context, done <-chan struct{}) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-done:
			end(errors.New("it has ended"))
		case <-ctx.Done():
		}
	}()
	client := http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if answers(ctx, &client, "http://"+s.Address+s.command.Ready) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// answers reports whether a GET is answered by 200.
func answers(ctx context.Context, client *http.Client, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection is used again
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// Stop ends the server in good order, also a paused one, and returns when it has gone.
// kwai itself bounds that (20 s for requests, 10 s for mail). Stop may be called again.
func (s *Server) Stop() {
	process, done := s.current()
	interrupt(process)
	_ = s.Continue() // or it wouldn't notice the signal
	<-done
}

// Kill ends the server at once, without any order, and returns when it has gone.
func (s *Server) Kill() {
	process, done := s.current()
	_ = process.Kill()
	<-done
}

// Restart starts the server again, on the same address, ending it in good order
// first if it runs. The context is that of [StartServer].
func (s *Server) Restart(ctx context.Context) error {
	s.Stop()
	return s.run(ctx)
}

// Done is closed when the server has ended, by itself or not. After a Restart
// it is another one.
func (s *Server) Done() <-chan struct{} {
	_, done := s.current()
	return done
}

// ExitCode is the program's exit code, once Done is closed; -1 if a signal ended it.
func (s *Server) ExitCode() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.ProcessState.ExitCode()
}

// PID is the process's number.
func (s *Server) PID() int {
	process, _ := s.current()
	return process.Pid
}

// Log is the end of what the program has written to standard error.
func (s *Server) Log() string { return s.log.String() }

func (s *Server) current() (*os.Process, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process, s.done
}

func interrupt(p *os.Process) {
	if err := p.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		_ = p.Kill() // Windows has no interrupt for others
	}
}

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

var given sync.Map // the addresses that FreeAddress has given

// FreeAddress is a free address of loopback. Its port is below the range that Linux uses
// for outgoing connections (from 32768 on): one of these could take it while a server is
// down that will be started again. It is given once in a process: HAProxy shares a port
// that is taken instead of refusing it.
func FreeAddress(ctx context.Context) (string, error) {
	for range 100 {
		address := fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(22_000)) //nolint:gosec // a port is no secret
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return "", err
		}
		if _, again := given.LoadOrStore(address, true); !again {
			return address, nil
		}
	}
	return "", errors.New("no free port found between 10000 and 32000")
}
