package pgtest

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kwai/internal/testing/need"
)

// Path leads to a PostgreSQL server. It can be cut, so that packets vanish as on a dead
// network, and it can lose answers.
type Path struct {
	tb       testing.TB
	to       string
	listener *net.TCPListener

	mu   sync.Mutex
	near []*net.TCPConn
	cut  bool
	loss atomic.Int64 // one in so many answers is lost; 0: none
	// What was forwarded to the server while answers get lost.
	commits, others atomic.Int64
}

// NewPath makes a path to the server of the URL.
func NewPath(tb testing.TB, serverURL string) *Path {
	tb.Helper()
	u, err := url.Parse(serverURL)
	if err != nil {
		tb.Fatal("pgtest: not a URL")
	}
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // whose sockets take no filter
	l, err := plain.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	listener := l.(*net.TCPListener)
	p := &Path{tb: tb, to: u.Host, listener: listener}
	if err := errors.Join(drop(listener, true), drop(listener, false)); err != nil {
		listener.Close()
		need.Root(tb, "to drop packets here: "+err.Error()) // mostly anybody may
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() { p.accept(&all) })
	tb.Cleanup(func() {
		listener.Close()
		p.each(func(c *net.TCPConn) { c.Close() })
		all.Wait()
	})
	return p
}

// URL is the server's URL over this path.
func (p *Path) URL(serverURL string) string {
	u, err := url.Parse(serverURL)
	if err != nil {
		p.tb.Fatal("pgtest: not a URL")
	}
	u.Host = p.listener.Addr().String()
	return u.String()
}

// Cut drops all packets from the client's side, new connections included, without an
// acknowledgement. Mend ends that.
func (p *Path) Cut() { p.filter(true) }

// Mend lets packets through again.
func (p *Path) Mend() { p.filter(false) }

// LoseAnswers breaks connections after the server has got a message and before
// the client gets the answer: at one commit in n, and at one in n of the other
// messages; 0 ends that.
func (p *Path) LoseAnswers(n int) { p.loss.Store(int64(n)) }

func (p *Path) accept(all *sync.WaitGroup) {
	for {
		near, err := p.listener.AcceptTCP()
		if err != nil {
			return
		}
		far, err := new(net.Dialer).DialContext(p.tb.Context(), "tcp", p.to)
		if err != nil {
			near.Close() // the server is down
			continue
		}
		p.mu.Lock()
		p.near = append(p.near, near)
		if p.cut {
			p.check(drop(near, true))
		}
		p.mu.Unlock()
		lost := new(atomic.Bool)
		all.Go(func() { p.forward(near, far, lost) })
		all.Go(func() { p.answer(far, near, lost) })
	}
}

// forward copies to the server and says when the answer is to be lost.
func (p *Path) forward(near, far net.Conn, lost *atomic.Bool) {
	defer near.Close()
	defer far.Close()
	chunk := make([]byte, 32<<10)
	for {
		n, err := near.Read(chunk)
		if err != nil {
			return
		}
		if every := p.loss.Load(); every > 0 {
			sent := &p.others
			if bytes.Contains(chunk[:n], []byte("commit")) {
				sent = &p.commits
			}
			lost.Store(sent.Add(1)%every == 0)
		}
		if _, err := far.Write(chunk[:n]); err != nil {
			return
		}
	}
}

func (p *Path) answer(far, near net.Conn, lost *atomic.Bool) {
	defer near.Close()
	defer far.Close()
	chunk := make([]byte, 32<<10)
	for {
		n, err := far.Read(chunk)
		if err != nil || lost.Load() {
			return
		}
		if _, err := near.Write(chunk[:n]); err != nil {
			return
		}
	}
}

func (p *Path) each(do func(*net.TCPConn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.near {
		do(c)
	}
}

func (p *Path) filter(cut bool) {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	p.check(drop(p.listener, cut))
	for _, c := range p.near {
		p.check(drop(c, cut))
	}
}

func (p *Path) check(err error) {
	p.tb.Helper()
	if err != nil {
		p.tb.Error("pgtest: ", err)
	}
}

// drop makes the kernel drop every packet to a socket (BPF's "return 0"), or none.
func drop(socket syscall.Conn, all bool) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil //nolint:nilerr // it was closed
	}
	controlled := raw.Control(func(fd uintptr) {
		if all {
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
				&unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}})
		} else if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); errors.Is(err, unix.ENOENT) {
			err = nil // there was none
		}
	})
	if controlled != nil {
		return nil //nolint:nilerr // it was closed
	}
	return err
}
