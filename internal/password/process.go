package password

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// A worker's process is this program again, under another name. It reads tasks from
// its standard input and writes results to its standard output, until the input ends:
// it can't outlive the server.
//
// It is a process for two reasons:
//
//   - Its priority. x/crypto computes in goroutines of its own, so no thread could be
//     made to give way.
//   - Its heap. The 19 MiB of a finished hash are garbage. In the server the collector
//     would go through everything for each of them; here it finds nothing else, and
//     the next hash gets the same memory.

// processName is the name of the process. Its arguments are no secret; its input is.
const processName = "kwai: password worker"

// RunWorker turns the process into a worker if it was started as one, and then
// never returns. A program that makes a Pool with Options.Processes calls it
// first of all; in a test it belongs into TestMain.
func RunWorker() {
	if len(os.Args) != 1 || os.Args[0] != processName {
		return
	}
	nameProcess()
	// A signal to the server reaches its process group. Ignore it: first the
	// requests under way are answered, then the input ends.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if err := work(os.Stdin, os.Stdout); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// work has one goroutine: a second one would lose its core to the first while that
// waits for input.
func work(in io.Reader, out io.Writer) error {
	runtime.GOMAXPROCS(1) // a worker takes one core, whatever a hash's parallelism
	debug.SetGCPercent(-1)
	from, to := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var t task
		if err := from.Decode(&t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		begun := processorTime()
		r := t.compute()
		r.Took = processorTime() - begun
		if err := to.Encode(r); err != nil {
			return err
		}
		runtime.GC() // now, and not while a client waits for the next hash
	}
}

// process is a worker's process, seen from the server.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	to      *json.Encoder
	by      *json.Decoder
	timeout time.Duration // a hash that takes longer is stuck
}

// startProcess starts a process with a nice value higher by that much (see startNice).
func startProcess(nice int) (*process, error) {
	program, err := executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program) //nolint:gosec,noctx // itself; it lives until its input ends
	cmd.Args = []string{processName}
	cmd.Env = []string{} // the server's may hold passwords
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startNice(cmd, nice); err != nil {
		return nil, err
	}
	return &process{cmd, in, json.NewEncoder(in), json.NewDecoder(out), hashTimeout}, nil
}

// hashTimeout is longer than the most expensive hash takes at the lowest priority.
const hashTimeout = time.Minute

func (p *process) compute(t task) (r result, err error) {
	defer p.killAfter(p.timeout).Stop()
	if err := p.to.Encode(t); err != nil { //nolint:gosec // to a process of ours
		return r, err
	}
	return r, p.by.Decode(&r)
}

// stop lets the process end by itself, which it does when it has no work.
func (p *process) stop() {
	defer p.killAfter(p.timeout / 10).Stop()
	_ = p.in.Close()
	_ = p.cmd.Wait() // how it ended doesn't matter
}

func (p *process) killAfter(d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() { _ = p.cmd.Process.Kill() })
}
