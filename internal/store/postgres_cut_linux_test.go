package store_test

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kwai/internal/pgcluster"
	"kwai/internal/pgtest"
	"kwai/internal/store"
	"kwai/internal/store/storetest"
)

// path leads to a server until it is cut: then whatever is sent into it, new
// connections included, is dropped by the kernel before it is acknowledged, as
// on a network that is gone.
type path struct {
	t        *testing.T
	listener *net.TCPListener

	mu   sync.Mutex
	open []*net.TCPConn // the near ends

}

func newPath(t *testing.T, to string) *path {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // its sockets take no filter
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	listener := l.(*net.TCPListener)
	p := &path{t: t, listener: listener}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			p.mu.Lock()
			p.open = append(p.open, near)
			p.mu.Unlock()
			for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
				all.Go(func() {
					_, _ = io.Copy(ends[0], ends[1])
					ends[0].Close()
					ends[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for _, c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		all.Wait()
	})
	return p
}

func (p *path) cut()  { p.each(dropAll) }
func (p *path) mend() { p.each(dropNone) }

func (p *path) each(do func(fd int) error) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	sockets := []syscall.Conn{p.listener}
	for _, c := range p.open {
		sockets = append(sockets, c)
	}
	for _, s := range sockets {
		raw, err := s.SyscallConn()
		if err != nil {
			continue // it was closed
		}
		if control := raw.Control(func(fd uintptr) { err = do(int(fd)) }); control == nil && err != nil {
			p.t.Fatal(err)
		}
	}
}

// dropAll has the kernel drop each packet to a socket: BPF's "return 0".
func dropAll(fd int) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}})
}

func dropNone(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) }

func TestACutIsNoticedAndMended(t *testing.T) {
	t.Parallel()
	address := storetest.Postgres(t)
	u, err := url.Parse(address)
	check(t, err)
	p := newPath(t, u.Host)
	u.Host = p.listener.Addr().String()
	s := small(t, u.String(), 4)
	idle(t, s, 4)
	p.cut()
	since := time.Now()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := s.InTx(t.Context(), adding("lost")); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("while it is cut: %v", err)
			}
			if took := time.Since(since); took > 7*time.Second {
				t.Errorf("noticed after %v", took)
			}
		})
	}
	all.Wait()
	t.Logf("noticed after %v", time.Since(since))
	p.mend()
	took := until(t, s, "a")
	t.Logf("back after %v", took)
	if took > 5*time.Second {
		t.Errorf("back after %v", took)
	}
	wantUsers(t, s, "a")
}

// What the database works on longer than a dead path is borne is not cut off.
func TestASlowStatementIsNoCut(t *testing.T) {
	t.Parallel()
	s := small(t, storetest.Postgres(t), 2)
	check(t, s.InTx(t.Context(), func(tx *store.Tx) error { return discard(tx.Exec(`SELECT pg_sleep(4.8)`)) }))
}

func TestAStandbyIsRefusedUntilItIsThePrimary(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	primary, err := pgcluster.Start(pgcluster.Options{Settings: []string{"fsync=off", "shared_buffers=16MB"}})
	check(t, err)
	defer func() { check(t, primary.Stop()) }()
	url := primary.URL("postgres")
	storetest.Open(t, url, nil)
	standby, err := primary.Standby()
	check(t, err)
	defer func() { check(t, standby.Stop()) }()
	theirs := standby.URL("postgres")
	for _, serve := range []bool{true, false} {
		wantRefused(t, store.Options{URL: theirs, Serve: serve}, "standby", "name the primary", "PostgreSQL at 127.0.0.1")
	}

	// The standby first: the order of the hosts says nothing.
	both := edit(t, theirs, both(t, url))
	s := small(t, both, 4)
	check(t, s.InTx(t.Context(), adding("before")))
	db := raw(t, theirs)
	for there := false; !there; {
		check(t, db.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM users WHERE email_key = 'before')`).Scan(&there))
	}
	idle(t, s, 4)
	check(t, primary.Kill())
	for name, err := range map[string]error{"InTx": s.InTx(t.Context(), adding("lost")), "Read": discard(s.Read(t.Context()).UserByEmail("before"))} {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s between the two: %v", name, err)
		}
	}
	check(t, standby.Exec(t.Context(), `SELECT pg_promote()`))
	if took := until(t, s, "after"); took > 5*time.Second {
		t.Errorf("back after %v", took)
	}
	wantUsers(t, s, "after", "before")
	check(t, s.Close())
}

// both adds the host of another URL.
func both(t *testing.T, other string) func(*url.URL) {
	t.Helper()
	o, err := url.Parse(other)
	check(t, err)
	return func(u *url.URL) { u.Host += "," + o.Host }
}
