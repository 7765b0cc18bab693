package password

import (
	"maps"
	"math"
	"slices"
	"sync"
)

// turn is the network and the account of a waiting job.
type turn struct{ network, account string }

// job is one password to hash.
type job struct {
	turn
	work   func(*worker)
	called chan bool     // true: a worker has it; false: it was dropped
	done   chan struct{} // closed when the work is done
}

// queue holds the jobs that wait for a worker. Networks take turns, so that a flood
// from one of them takes little from the others. Jobs of one network are served in the
// order in which they came.
//
// It is a fair queue by start times (Goyal, Vin and Cheng, 1996), with a clock of its
// own: each job costs its network what cost says, and the network that has used up
// least is next. No worker rests while a job waits.
type queue struct {
	most int // jobs that may wait

	mu      sync.Mutex
	ready   []chan *job // to each worker; there is room for one
	free    []bool      // which workers are
	waiting int
	lines   map[string]*line // by network
	now     float64
	closed  bool
}

// line has a network's waiting jobs, and what the network has used up.
type line struct {
	jobs     []*job
	accounts map[string]int // how many wait for each
	next     float64        // when it has its next turn
}

// crowd is the largest number of a network's accounts that counts.
const crowd = 16

// cost makes a network's share grow with the number of accounts that wait there, up to
// a crowd. If more wait, or several for one account, the share shrinks: a flood has
// many connections, or few accounts.
func (l *line) cost() float64 {
	accounts := float64(min(len(l.accounts), crowd))
	each := float64(len(l.jobs)) / accounts
	return each * each / accounts
}

// maxLines bounds the networks that are kept although nothing of them waits.
const maxLines = 2048

func newQueue(workers, most int) *queue {
	q := &queue{most: most, free: slices.Repeat([]bool{true}, workers), lines: make(map[string]*line)}
	for range workers {
		q.ready = append(q.ready, make(chan *job, 1))
	}
	return q
}

// add gives the job to the first free worker, or queues it. The first worker has the
// highest priority: with a lower one, the machine's other programs would slow down a
// login that comes alone. A full queue drops the latest job of the longest line. add
// returns false if the queue is closed.
func (q *queue) add(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	l := q.lines[j.network]
	if l == nil {
		if len(q.lines) >= maxLines {
			maps.DeleteFunc(q.lines, func(_ string, l *line) bool { return len(l.jobs) == 0 })
		}
		l = &line{accounts: make(map[string]int)}
		q.lines[j.network] = l
	}
	if len(l.jobs) == 0 {
		l.next = max(l.next, q.now)
	}
	l.jobs = append(l.jobs, j)
	l.accounts[j.account]++
	q.waiting++
	if i := slices.Index(q.free, true); i >= 0 {
		q.free[i] = false
		q.ready[i] <- q.pop()
	} else if q.waiting > q.most {
		for _, other := range q.lines {
			if len(other.jobs) > len(l.jobs) {
				l = other
			}
		}
		q.call(l, len(l.jobs)-1, false)
	}
	return true
}

// take returns the next job to a worker; with nil the worker counts as free.
func (q *queue) take(worker int) *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting == 0 || q.closed {
		q.free[worker] = true
		return nil
	}
	return q.pop()
}

func (q *queue) pop() *job {
	var first *line
	least := math.Inf(1)
	for _, l := range q.lines {
		if len(l.jobs) > 0 && l.next < least {
			first, least = l, l.next
		}
	}
	q.now = max(q.now, least)
	first.next += first.cost()
	return q.call(first, 0, true)
}

// call takes a job out of its line and says why.
func (q *queue) call(l *line, i int, served bool) *job {
	j := l.jobs[i]
	l.jobs = slices.Delete(l.jobs, i, i+1)
	if l.accounts[j.account]--; l.accounts[j.account] == 0 {
		delete(l.accounts, j.account)
	}
	q.waiting--
	j.called <- served
	return j
}

// leave takes a job out of the queue; false if it is no longer there.
func (q *queue) leave(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[j.network]
	if l == nil {
		return false
	}
	i := slices.Index(l.jobs, j)
	if i >= 0 {
		q.call(l, i, false)
	}
	return i >= 0
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// close lets the workers end once they have done their jobs.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, ready := range q.ready {
		close(ready)
	}
}
