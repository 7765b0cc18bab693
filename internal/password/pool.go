package password

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/argon2"
)

const (
	saltBytes = 16 // RFC 9106, section 4
	keyBytes  = 32

	defaultMaxWait  = 5 * time.Second
	defaultMaxQueue = 1024
	// refuseAfter is how long a refusal takes if the queue is full: quick refusals
	// would let a flood spin.
	refuseAfter = time.Second
)

// Options of a [Pool]. The zero value is good.
type Options struct {
	Params   Params        // cost of new hashes; zero: Default
	Workers  int           // hashes at a time; 0: one per core, fewer if memory is short
	MaxWait  time.Duration // longest wait for a worker; 0: 5 s
	MaxQueue int           // how many may wait; 0: 1024
	// Processes gives each worker a process of its own, which gives way to all other
	// programs. The program must call RunWorker first.
	Processes bool
	Log       *slog.Logger // nil: none
}

// Pool hashes with a fixed number of workers. Waiting networks take turns (see
// [InTurn]). All methods may be called concurrently.
type Pool struct {
	params  Params
	maxWait time.Duration
	queue   *queue

	closing sync.Once
	closed  chan struct{}
	workers sync.WaitGroup

	metrics *metrics
}

// NewPool starts the workers. It panics if o.Params is set and not valid:
// settings must have been checked with [Params.Validate] before.
func NewPool(o Options) *Pool {
	if o.Params == (Params{}) {
		o.Params = Default
	}
	if err := o.Params.Validate(); err != nil {
		panic(err)
	}
	if o.Workers <= 0 {
		o.Workers = WorkersFor(o.Params)
	}
	if o.MaxWait <= 0 {
		o.MaxWait = defaultMaxWait
	}
	if o.MaxQueue <= 0 {
		o.MaxQueue = defaultMaxQueue
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{
		params:  o.Params,
		maxWait: o.MaxWait,
		queue:   newQueue(o.Workers, o.MaxQueue),
		closed:  make(chan struct{}),
		metrics: newMetrics(o.Workers),
	}
	share := hashingShare(cpuQuota(), runtime.NumCPU(), o.Workers)
	for i := range o.Workers {
		w := &worker{processes: o.Processes, nice: lowNice, log: o.Log, share: share}
		if i == 0 {
			w.nice = firstNice
		}
		p.workers.Go(func() { p.serve(i, w) })
	}
	return p
}

// idleAfter is how long a worker without work keeps its process and its memory.
const idleAfter = time.Minute

func (p *Pool) serve(i int, w *worker) {
	defer w.close()
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	for open := true; open; {
		var j *job
		select {
		case j, open = <-p.queue.ready[i]:
		case <-idle.C:
			w.close()
		}
		for j != nil {
			p.metrics.busy.Inc()
			j.work(w)
			p.metrics.busy.Dec()
			done, rest := j.done, w.rest()
			if rest > 0 {
				close(done)
				select {
				case <-p.closed:
				case <-time.After(rest):
				}
			}
			j = p.queue.take(i)
			if rest == 0 { // now, so that the next job finds the worker free
				close(done)
			}
			idle.Reset(idleAfter)
		}
	}
}

// Close refuses waiting and later passwords with [ErrBusy], and returns when the
// workers have finished their jobs. It may be called again.
func (p *Pool) Close() {
	p.closing.Do(func() {
		p.queue.close()
		close(p.closed)
	})
	p.workers.Wait()
}

type turnKey struct{}

// InTurn sets the network that asks and the account that it asks for, as throttling
// names them, for passwords that are hashed with the context. Without it all are of
// one network and one account.
func InTurn(ctx context.Context, network, account string) context.Context {
	return context.WithValue(ctx, turnKey{}, turn{network, account})
}

func turnOf(ctx context.Context) turn {
	t, _ := ctx.Value(turnKey{}).(turn)
	return t
}

// do waits for a worker that runs work. On any error the caller must not touch what
// work writes: it may still be running.
func (p *Pool) do(ctx context.Context, work func(*worker)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{turn: turnOf(ctx), work: work, called: make(chan bool, 1), done: make(chan struct{})}
	if err := p.enqueue(ctx, j); err != nil {
		return err
	}
	select {
	case <-j.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enqueue waits until a worker has the job.
func (p *Pool) enqueue(ctx context.Context, j *job) (err error) {
	begun := time.Now()
	if !p.queue.add(j) {
		return ErrBusy
	}
	timeout := time.NewTimer(p.maxWait)
	defer timeout.Stop()
	var refused prometheus.Counter
	select {
	case served := <-j.called:
		return p.called(served, begun)
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err, refused = ErrBusy, p.metrics.waitedTooLong
	case <-p.closed:
		err = ErrBusy
	}
	if !p.queue.leave(j) {
		return p.called(<-j.called, begun) // at the same moment
	}
	if refused != nil {
		refused.Inc()
	}
	return err
}

func (p *Pool) called(served bool, begun time.Time) error {
	if !served {
		p.metrics.queueFull.Inc()
		return p.holdBack()
	}
	p.metrics.wait.Observe(time.Since(begun).Seconds())
	return nil
}

// holdBack refuses after a while, also if the client has disconnected: a flood that
// disconnects after each request would spin.
func (p *Pool) holdBack() error {
	timeout := time.NewTimer(refuseAfter)
	defer timeout.Stop()
	select {
	case <-timeout.C:
	case <-p.closed:
	}
	return ErrBusy
}

// Hash makes an argon2id hash of the password with a fresh salt, as a PHC
// string; its cost is the pool's. The errors are [ErrBusy], ctx's, and a
// [*PolicyError] for more than [MaxBytes]; the rest of the policy is for [CheckPolicy].
func (p *Pool) Hash(ctx context.Context, password string) (hash, cost string, err error) {
	t := normalise(password)
	if t.tooLong {
		return "", "", errTooLong
	}
	salt := make([]byte, saltBytes)
	rand.Read(salt) // never fails: crypto/rand ends the process instead
	r, err := p.compute(ctx, task{Params: p.params, Salt: salt, Size: keyBytes, Password: []byte(t.nfc)})
	if err != nil {
		return "", "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$%s$%s$%s", argon2.Version, p.params.encode(), b64.EncodeToString(salt), b64.EncodeToString(r.Key)), p.Cost(), nil
}

// Verify reports whether the hash was made from the password, and if it was, whether
// it is stale: to be made anew, with this password, because it is not argon2id with the
// pool's parameters. That is possible only at a login. A hash that [Cost] would
// refuse is an error, without any work: for an account without a password, use
// VerifyDummy. The other errors are [ErrBusy] and ctx's.
func (p *Pool) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	s, err := parse(hash)
	if err != nil {
		return false, false, err
	}
	t := normalise(password)
	ok, err = p.verify(ctx, s, t)
	return ok, ok && p.stale(s, t), err
}

// stale says whether a hash of the password is to be made anew. bcrypt reads only 72
// bytes, so a longer password may not be the owner's.
func (p *Pool) stale(s stored, t typed) bool {
	if s.bcrypt != 0 {
		return max(len(t.raw), len(t.nfc)) <= bcryptBytes
	}
	return s.argon2id != p.params
}

// VerifyDummy does the work of a Verify with a hash of the given cost and no match, and
// waits in the same queue. It is for an account that doesn't exist. The cost comes
// from [Cost] or [Pool.Cost]; any other is an error, without any work. The other
// errors are those of Verify.
func (p *Pool) VerifyDummy(ctx context.Context, cost string, password string) error {
	c, err := parseCost(cost)
	if err != nil {
		return fmt.Errorf("password cost: %w", err)
	}
	_, err = p.verify(ctx, c.dummy(), normalise(password))
	return err
}

func (p *Pool) verify(ctx context.Context, s stored, t typed) (bool, error) {
	r, err := p.compute(ctx, s.task(t))
	return err == nil && s.matches(t, r), err
}

func (p *Pool) compute(ctx context.Context, t task) (result, error) {
	var r result
	var failed error
	work := func(w *worker) {
		begun := time.Now()
		if r, failed = w.compute(t); failed != nil {
			p.metrics.workerLost.Inc()
			return
		}
		p.metrics.seconds[t.kind()].Observe(time.Since(begun).Seconds())
	}
	if err := p.do(ctx, work); err != nil {
		return result{}, err
	}
	return r, failed
}

// Cost is the cost of new hashes, written as [Cost] writes it.
func (p *Pool) Cost() string {
	return cost{argon2id: p.params}.String()
}
