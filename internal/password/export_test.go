package password

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// DefaultWorkers is under test with made-up machines.
var DefaultWorkers = defaultWorkers

// HashingShare is under test with made-up machines.
var HashingShare = hashingShare

// OccupyAt has a worker that may hash for that share of its time hash for d.
func (p *Pool) OccupyAt(ctx context.Context, share float64, d time.Duration) error {
	return p.do(ctx, func(w *worker) {
		time.Sleep(d)
		w.share, w.took = share, d
	})
}

// Stale says whether a hash would be made anew with a password that matches it; so
// would one that can't be read.
func (p *Pool) Stale(hash, password string) bool {
	s, err := parse(hash)
	return err != nil || p.stale(s, normalise(password))
}

// Blocklist is the list as embedded, for a look-up of every line.
var Blocklist = blocklist

// Occupy has a worker run work: tests hold workers with it for as long as they
// like, which no hash does.
func (p *Pool) Occupy(ctx context.Context, work func()) error {
	return p.do(ctx, func(*worker) { work() })
}

// Hurry has the processes that there are count as stuck after d, in a pool of that
// many workers, of which none is at work. Those that come after them have time.
func (p *Pool) Hurry(ctx context.Context, workers int, d time.Duration) error {
	var all sync.WaitGroup
	all.Add(workers)
	errs := make(chan error, workers)
	for range workers {
		go func() {
			errs <- p.do(ctx, func(w *worker) {
				w.process.timeout = d
				all.Done()
				all.Wait() // so that each worker takes one
			})
		}()
	}
	var err error
	for range workers {
		err = errors.Join(err, <-errs)
	}
	return err
}

// HashTook hashes and returns the time that the worker holds against its share.
func (p *Pool) HashTook(ctx context.Context) (took time.Duration, err error) {
	t := task{Params: p.params, Salt: make([]byte, saltBytes), Size: keyBytes}
	var failed error
	err = p.do(ctx, func(w *worker) {
		_, failed = w.compute(t)
		took = w.took
	})
	if err == nil {
		err = failed
	}
	return took, err
}

// NewWatchedPool is a pool of one worker. It calls note with each task that it does:
// everything on which its time depends.
func NewWatchedPool(o Options, note func(work string)) *Pool {
	p := &Pool{params: o.Params, maxWait: time.Hour, queue: newQueue(1, 1), closed: make(chan struct{}), metrics: newMetrics(1)}
	tasks, in := io.Pipe()
	by, out := io.Pipe()
	w := &worker{processes: true, share: 1, process: &process{
		cmd: new(exec.Cmd), in: in, to: json.NewEncoder(in), by: json.NewDecoder(by), timeout: time.Hour,
	}}
	p.workers.Go(func() { p.serve(0, w) })
	go func() {
		from, to := json.NewDecoder(tasks), json.NewEncoder(out)
		for {
			var t task
			if from.Decode(&t) != nil {
				return
			}
			work := fmt.Sprintf("argon2id %+v, key of %d bytes", t.Params, t.Size)
			if t.Bcrypt != "" {
				// Whatever it says but that there is no match, it has not computed.
				err := bcrypt.CompareHashAndPassword([]byte(t.Bcrypt), nil)
				work = fmt.Sprintf("bcrypt %s: %v", t.Bcrypt[4:6], err)
			}
			note(fmt.Sprintf("%s, password of %d bytes, or %d", work, len(t.Password), len(t.Or)))
			if to.Encode(t.compute()) != nil {
				return
			}
		}
	}()
	return p
}

// ProcessorTime is what this process has used so far.
var ProcessorTime = processorTime

// MaxLines is how many networks a queue remembers.
const MaxLines = maxLines

// Lines is how many it remembers now.
func (p *Pool) Lines() int {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	return len(p.queue.lines)
}
