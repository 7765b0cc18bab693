package password

import (
	"log/slog"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// task is the expensive part of one verification or of a new hash. A worker does it,
// in this process or in one of its own.
type task struct {
	// Either argon2id…
	Params Params
	Salt   []byte
	Size   uint32 // of the key, in bytes
	// …or bcrypt.
	Bcrypt string

	Password []byte
	Or       []byte // another form of it, unless nil
}

// result is what came of it.
type result struct {
	Key     []byte        // argon2id's
	Or      []byte        // argon2id's of the other form, if there is one
	Matches bool          // bcrypt
	Took    time.Duration // of processor time
}

func (t task) compute() result {
	if t.Bcrypt == "" {
		key := func(password []byte) []byte {
			return argon2.IDKey(password, t.Salt, t.Params.Time, t.Params.MemoryKiB, t.Params.Threads, t.Size)
		}
		r := result{Key: key(t.Password)}
		if t.Or != nil {
			r.Or = key(t.Or)
		}
		return r
	}
	compare := func(password []byte) bool {
		password = password[:min(len(password), bcryptBytes)]
		return bcrypt.CompareHashAndPassword([]byte(t.Bcrypt), password) == nil
	}
	return result{Matches: compare(t.Password) || t.Or != nil && compare(t.Or)}
}

// Workers give way to everything else. The first gives way less: logins depend on it while
// something else wants all cores. The others must get something then, too: with a nice
// value of 19 the second of two logins took seven times as long, up to being cut off.
const (
	firstNice = 5
	lowNice   = 10
)

// worker computes one task at a time.
type worker struct {
	processes bool
	nice      int
	log       *slog.Logger
	process   *process // nil until the first task, and while none can be started
	warned    bool     // that none can be started

	share float64       // of its time in which it may hash
	took  time.Duration // by the last hash
}

// rest is how long a worker must pause after a hash to keep within its share.
func (w *worker) rest() time.Duration {
	defer func() { w.took = 0 }()
	return time.Duration(float64(w.took) * (1/w.share - 1))
}

// compute fails with ErrBusy if the worker's process is lost twice.
func (w *worker) compute(t task) (result, error) {
	for range 2 {
		if !w.start() {
			begun := time.Now()
			r := t.compute()
			w.took = time.Since(begun)
			return r, nil
		}
		r, err := w.process.compute(t)
		if err == nil {
			w.took = r.Took
			return r, nil
		}
		// Somebody ended it; memory may be short.
		w.log.Warn("a process that hashes passwords was lost; another one is started", "error", err)
		w.close()
	}
	return result{}, ErrBusy
}

// start makes sure that the worker has a process, if it should have one. If the system
// forbids to start any, the server hashes itself: users must get in.
func (w *worker) start() bool {
	if w.process != nil || !w.processes {
		return w.process != nil
	}
	var err error
	if w.process, err = startProcess(w.nice); err != nil && !w.warned {
		w.log.Warn("no process can be started to hash passwords in: the server does it itself, and a flood of logins slows everything down", "error", err)
	}
	w.warned = err != nil
	return err == nil
}

func (w *worker) close() {
	if w.process != nil {
		w.process.stop()
		w.process = nil
	}
}
