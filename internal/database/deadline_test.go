package database_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// A line that goes dead without a word holds no read up for good.
func TestReadOverADeadLineEnds(t *testing.T) {
	t.Parallel()
	address := storetest.Postgres(t)
	u, err := url.Parse(address)
	check(t, err)
	line := serveLine(t, u.Host)
	u.Host = line.address
	s := storetest.Open(t, u.String(), nil)
	if was := s.WaitAtMost(100 * time.Millisecond); was <= 0 || was > time.Minute {
		t.Errorf("a read is bounded by %v", was)
	}
	line.freeze()
	// The line acknowledges what it gets: no other limit than this ends them.
	for name, err := range map[string]error{
		"a read":    discard(s.Read(t.Context()).UserByEmail("ann")),
		"readiness": s.Ready(t.Context()),
	} {
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s over a dead line: %v", name, err)
		}
	}
}

// deadLine passes bytes on to a server until it is frozen: then it takes them,
// and connections, and passes nothing on.
type deadLine struct {
	address string
	frozen  chan struct{}
	once    sync.Once
}

func (l *deadLine) freeze() { l.once.Do(func() { close(l.frozen) }) }

func serveLine(t *testing.T, to string) *deadLine {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	l := &deadLine{address: listener.Addr().String(), frozen: make(chan struct{})}
	var conns sync.WaitGroup
	var mu sync.Mutex
	open := []net.Conn{}
	pass := func(from, to net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			select {
			case <-l.frozen:
				continue
			default:
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	conns.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			mu.Lock()
			open = append(open, near, far)
			mu.Unlock()
			conns.Go(func() { pass(near, far) })
			conns.Go(func() { pass(far, near) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return l
}
