package auth_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// interrupt has the server do one operation, and all of another before the step
// of it with that number, from 1 on. False if it has fewer: then the other comes
// behind it.
//
// On PostgreSQL a step is a message to the database. The other one may be another
// server's only, as it may have to wait for rows that the first has locked; then
// that goes on. On SQLite, where a transaction is a step, one ends before whatever
// waits: there a step is a look whether the client has gone, and such looks come
// before and after all that takes time.
func (s *server) interrupt(t *testing.T, step int, operation, other operation) (interrupted bool, err, otherErr error) {
	t.Helper()
	ended := make(chan struct{})
	run := func() {
		otherErr = other(t.Context())
		close(ended)
	}
	if s.gate == nil {
		looks := &looks{Context: t.Context(), at: int64(step), do: run}
		err = operation(looks)
		interrupted = looks.n.Load() >= looks.at
	} else {
		s.gate.arm(step, func() {
			go run()
			s.gate.untilHeldUp(ended)
		})
		err = operation(t.Context())
		interrupted = s.gate.disarm()
	}
	if !interrupted {
		run()
	}
	<-ended
	return interrupted, err, otherErr
}

// looks is a context that does something when it is looked at for the nth time.
type looks struct {
	context.Context //nolint:containedctx // it is one
	n               atomic.Int64
	at              int64
	do              func()
}

func (l *looks) look() {
	if l.n.Add(1) == l.at {
		l.do()
	}
}

func (l *looks) Done() <-chan struct{} {
	l.look()
	return l.Context.Done()
}

func (l *looks) Err() error {
	l.look()
	return l.Context.Err()
}

// AfterFunc is for contexts that are made of this one, which would look at it in
// goroutines of their own.
func (l *looks) AfterFunc(f func()) func() bool { return context.AfterFunc(l.Context, f) }

// gate is a server's way to its database, which it stops at one of its messages.
type gate struct {
	t      *testing.T
	beside *pgx.Conn

	mu   sync.Mutex
	left int // messages until it is stopped; 0: it isn't
	do   func()
}

// startGated is start for a server on PostgreSQL behind a gate.
func startGated(t *testing.T, serverURL string, now func() time.Time, join *server) *server {
	t.Helper()
	g := &gate{t: t, beside: must(pgx.Connect(t.Context(), serverURL))(t)}
	t.Cleanup(func() { g.beside.Close(context.Background()) })
	u := must(url.Parse(serverURL))(t)
	l := must(new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { l.Close() })
	go g.accept(l, u.Host)
	u.Host = l.Addr().String()
	s := start(t, u.String(), now, join)
	s.gate = g
	return s
}

func (g *gate) accept(l net.Listener, to string) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
		if err != nil {
			near.Close()
			continue
		}
		go func() {
			defer far.Close()
			_, _ = io.Copy(passing{far, g}, near)
		}()
		go func() {
			defer near.Close()
			_, _ = io.Copy(near, far)
		}()
	}
}

// passing is what a server writes to, by way of its gate.
type passing struct {
	net.Conn
	g *gate
}

func (p passing) Write(message []byte) (int, error) {
	p.g.pass()
	return p.Conn.Write(message)
}

func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left == 0 {
		return
	}
	if g.left--; g.left == 0 {
		g.do()
	}
}

func (g *gate) arm(step int, do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.do = step, do
}

// disarm says whether it was stopped since it was armed.
func (g *gate) disarm() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	stopped := g.left == 0
	g.left = 0
	return stopped
}

// untilHeldUp waits until something has ended, or somebody waits for a lock in the
// database, which can be only that.
func (g *gate) untilHeldUp(ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-time.After(time.Millisecond):
		}
		var waits bool
		err := g.beside.QueryRow(g.t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_get_activity(NULL)
			WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND wait_event_type = 'Lock')`).Scan(&waits)
		if err != nil {
			g.t.Error(err)
		}
		if err != nil || waits {
			return
		}
	}
}
