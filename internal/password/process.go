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

// A worker's process is this program again, under another name. It reads tasks
// from its standard input and writes results to its standard output, until the
// input ends: it can't outlive the server.
//
// It is a process for two reasons. Its priority: x/crypto computes in goroutines
// of its own, so that no thread could be told to give way. And its heap: the 19
// MiB of a hash are garbage when it is done. In the server the collector would
// go through everything for each of them; here it finds nothing else, and the
// next hash gets the same memory.

// processName is what the process is called; its arguments are no secret, its
// input is.
const processName = "kwai: password worker"

// RunWorker turns the process into a worker if it was started as one, and then
// never returns. A program that makes a Pool with Options.Processes calls it
// first of all; in a test it belongs into TestMain.
func RunWorker() {
	if len(os.Args) != 1 || os.Args[0] != processName {
		return
	}
	nameProcess()
	// What ends the server ends its process group: but first the requests under
	// way are answered. Then the input ends.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if err := work(os.Stdin, os.Stdout); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// work has one goroutine: a second one would lose its core to the first for as
// long as that waits for input.
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
		runtime.GC() // now, and not while the next hash is awaited
	}
}

// process is a worker's process, seen from the server.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	to      *json.Encoder
	by      *json.Decoder
	timeout time.Duration // one that takes longer is stuck
}

// startProcess starts one that gives way by that much (see startNice).
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

// hashTimeout is more than the dearest hash takes at the lowest priority.
const hashTimeout = time.Minute

func (p *process) compute(t task) (r result, err error) {
	defer p.killAfter(p.timeout).Stop()
	if err := p.to.Encode(t); err != nil { //nolint:gosec // to a process of ours
		return r, err
	}
	return r, p.by.Decode(&r)
}

// stop lets the process end by itself, which it does when it isn't at work.
func (p *process) stop() {
	defer p.killAfter(p.timeout / 10).Stop()
	_ = p.in.Close()
	_ = p.cmd.Wait() // how it ended tells nothing new
}

func (p *process) killAfter(d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() { _ = p.cmd.Process.Kill() })
}
