package pgcluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
)

// server is one run of the postgres program and of the processes it forks.
type server struct {
	cmd  *exec.Cmd
	log  *serverLog
	done chan struct{} // closed when the last process has gone
	err  error         // how it ended; to be read after done
}

func launch(cmd *exec.Cmd) (*server, error) {
	s := &server{cmd: cmd, log: &serverLog{ready: make(chan struct{})}, done: make(chan struct{})}
	// Every process of the server holds this pipe, so Wait, which reads it to
	// its end, waits for all of them.
	cmd.Stderr = s.log
	started := make(chan error)
	go func() {
		// The parent-death signal is sent when the *thread* that started the
		// child ends, so this one has to last as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			s.err = cmd.Wait()
			close(s.done)
		}
	}()
	return s, <-started
}

// end signals the server and waits until its last process has gone.
func (s *server) end(signal os.Signal) error {
	if err := s.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("pgcluster: stop PostgreSQL: %w", err)
	}
	<-s.done
	return nil
}

// serverLog keeps the end of the server's output, and looks for the line that says it
// is ready, maybe only for reading.
type serverLog struct {
	ready chan struct{}

	mu   sync.Mutex
	text []byte
	seen bool
}

const logLimit = 32 << 10

func (l *serverLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if !l.seen && bytes.Contains(l.text, []byte("database system is ready to accept ")) {
		l.seen = true
		close(l.ready)
	}
	if over := len(l.text) - logLimit; over > 0 {
		l.text = append([]byte(nil), l.text[over:]...)
	}
	return len(p), nil
}

func (l *serverLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
