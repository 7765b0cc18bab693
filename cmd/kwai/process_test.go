package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// built is the folder of the program that program built; "" for none.
var built string

// program builds kwai, as users run it, once for all tests.
var program = sync.OnceValues(func() (path string, err error) {
	if built, err = os.MkdirTemp("", "kwai-test-"); err != nil {
		return "", err
	}
	path = filepath.Join(built, "kwai")
	return path, build(path)
})

func build(path string, flags ...string) error {
	build := exec.Command("go", append([]string{"build", "-buildvcs=false", "-o", path}, append(flags, ".")...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// removeProgram is for the end of all tests.
func removeProgram() {
	if built != "" {
		os.RemoveAll(built)
	}
}

// process is `kwai serve` as a process of its own, which can be killed and
// started again.
type process struct {
	tb   testing.TB
	URL  string   // without a path; the same after a restart
	args []string // the program, or what runs it, and its arguments
	log  *logBuffer
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
}

// launch starts the program until the end of the test. A test that needs
// another program around it gives that one as under.
func launch(tb testing.TB, under []string, flags ...string) *process {
	tb.Helper()
	path, err := program()
	if err != nil {
		tb.Fatal(err)
	}
	return launchProgram(tb, append(slices.Clone(under), path), flags...)
}

// launchProgram is launch for a program, or what runs it and the program.
func launchProgram(tb testing.TB, program []string, flags ...string) *process {
	tb.Helper()
	listen := freeAddress(tb)
	p := &process{tb: tb, URL: "http://" + listen}
	p.args = append(slices.Clone(program), "serve", "--listen="+listen, "--log-format=json")
	p.args = append(append(p.args, quick...), flags...)
	p.start()
	tb.Cleanup(p.kill)
	return p
}

// start starts the program and returns when it serves.
func (p *process) start() {
	p.tb.Helper()
	log, gone := newLogBuffer(p.tb), make(chan struct{})
	cmd := exec.Command(p.args[0], p.args[1:]...)
	// Should the test itself be killed, the program ends with its next line:
	// so Go does where nobody reads the standard error any more.
	stderr, err := cmd.StderrPipe()
	if err != nil {
		p.tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.tb.Fatal(err)
	}
	p.log, p.cmd, p.gone = log, cmd, gone
	go func() {
		defer close(gone)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintf(log, "%s\n", lines.Bytes())
		}
		_ = cmd.Wait()
	}()
	select {
	case <-log.serving:
	case <-gone:
		p.tb.Fatalf("kwai serve ended: %v: %s", cmd.ProcessState, log)
	case <-time.After(time.Minute):
		p.tb.Fatalf("kwai serve doesn't serve: %s", log)
	}
}

// warnings are the log's lines since the start that tell of trouble.
func (p *process) warnings() string {
	var b strings.Builder
	for line := range strings.Lines(p.log.String()) {
		if !strings.Contains(line, `"level":"INFO"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// kill ends the program by SIGKILL and returns when it has gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// freeAddress is an address on loopback that nobody listens on, with a port
// below those that Linux gives to outgoing connections: one of these could
// take it while the program is down.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(22_000)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	tb.Fatal("no port is free")
	return ""
}
