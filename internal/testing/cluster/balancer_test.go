package cluster_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kwai/internal/testing/cluster"
)

// backends are servers to balance between. They note what they get.
type backends struct {
	*cluster.Balancer
	unready [3]atomic.Bool
	broken  [3]atomic.Bool // closes the connection instead of answering
	down    [3]atomic.Bool // refuses connections
	hangs   [3]atomic.Bool // never says whether it is ready

	mu  sync.Mutex
	got []string // per request: the server's number, what it got
}

func startBackends(t *testing.T) *backends {
	t.Helper()
	b := new(backends)
	var addresses []string
	for i := range b.unready {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				if b.hangs[i].Load() {
					<-r.Context().Done()
				}
				if b.unready[i].Load() {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			b.mu.Lock()
			b.got = append(b.got, fmt.Sprintf("%d %s %s %s %q from %q", i, r.Method, r.Host, r.URL, body, r.Header.Values("X-Forwarded-For")))
			b.mu.Unlock()
			if b.broken[i].Load() {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusAccepted)
		}))
		t.Cleanup(s.Close)
		addresses = append(addresses, s.Listener.Addr().String())
	}
	b.Balancer = cluster.NewBalancer(addresses...)
	b.CheckTimeout = time.Hour
	b.DialWith(func(ctx context.Context, network, address string) (net.Conn, error) {
		if b.down[slices.Index(addresses, address)].Load() {
			address = "127.0.0.1:1" // where nobody listens: a port that was given back, others may get
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	})
	return b
}

// send sends a login through the balancer.
func (b *backends) send(t *testing.T) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://club.example/login?q", strings.NewReader("password=x"))
	r.RemoteAddr = "192.0.2.7:1234"
	r.Header.Set("X-Forwarded-For", "203.0.113.9") // a lie
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w.Result()
}

func TestBalancer(t *testing.T) {
	t.Parallel()
	const whole = ` POST club.example /login?q "password=x" from ["192.0.2.7"]`
	for name, c := range map[string]struct {
		before func(*backends) // the first check
		after  func(*backends)
		ready  int
		want   map[int]int    // answers to six requests by status
		got    map[string]int // requests that arrived
	}{
		"takes turns": {
			ready: 3, want: map[int]int{202: 6}, got: map[string]int{"0" + whole: 2, "1" + whole: 2, "2" + whole: 2},
		},
		"leaves out what isn't ready": {
			before: func(b *backends) { b.unready[1].Store(true) },
			ready:  2, want: map[int]int{202: 6}, got: map[string]int{"0" + whole: 3, "2" + whole: 3},
		},
		"tries another where the connection is refused": {
			after: func(b *backends) { b.down[0].Store(true); b.down[2].Store(true) },
			ready: 3, want: map[int]int{202: 6}, got: map[string]int{"1" + whole: 6},
		},
		"sends nothing twice": {
			before: func(b *backends) { b.broken[0].Store(true); b.unready[2].Store(true) },
			ready:  2, want: map[int]int{202: 3, 502: 3}, got: map[string]int{"0" + whole: 3, "1" + whole: 3},
		},
		"refuses where none is ready": {
			after: func(b *backends) {
				for i := range b.down {
					b.down[i].Store(true)
				}
			},
			ready: 3, want: map[int]int{503: 6}, got: map[string]int{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBackends(t)
			if c.before != nil {
				c.before(b)
			}
			if ready := b.Check(t.Context()); ready != c.ready {
				t.Fatalf("%d servers are ready, want %d", ready, c.ready)
			}
			if c.after != nil {
				c.after(b)
			}
			answers, got := map[int]int{}, map[string]int{}
			for range 6 {
				a := b.send(t)
				answers[a.StatusCode]++
				if failed := a.StatusCode >= 500; failed != (a.Header.Get("Content-Type") == "application/problem+json") {
					t.Errorf("%d has the Content-Type %q", a.StatusCode, a.Header.Get("Content-Type"))
				}
				if none := a.StatusCode == http.StatusServiceUnavailable; none != (a.Header.Get("Retry-After") != "") {
					t.Errorf("%d has Retry-After %q", a.StatusCode, a.Header.Get("Retry-After"))
				}
				a.Body.Close()
			}
			b.mu.Lock() // a request that was broken off may have got its answer before its end
			defer b.mu.Unlock()
			for _, r := range b.got {
				got[r]++
			}
			if fmt.Sprint(answers) != fmt.Sprint(c.want) {
				t.Errorf("six requests are answered by %v, want %v", answers, c.want)
			}
			if fmt.Sprint(got) != fmt.Sprint(c.got) {
				t.Errorf("of six requests arrived %v\nwant %v", got, c.got)
			}
		})
	}
}

func TestBalancerTakesServersBack(t *testing.T) {
	t.Parallel()
	b := startBackends(t)
	for i, ready := range []int{0, 3, 1, 2} {
		for k := range b.unready {
			b.unready[k].Store(k >= ready)
		}
		if got := b.Check(t.Context()); got != ready {
			t.Errorf("check %d: %d servers are ready, want %d", i, got, ready)
		}
	}
	b.send(t).Body.Close()
	b.send(t).Body.Close()
	var by []byte
	for _, r := range b.got {
		by = append(by, r[0])
	}
	if slices.Sort(by); string(by) != "01" {
		t.Errorf("servers %q answered, want one request each at 0 and 1", by)
	}
}

func TestBalancerLeavesOutWhatHangs(t *testing.T) {
	t.Parallel()
	b := startBackends(t)
	for i := range b.hangs {
		b.hangs[i].Store(true)
	}
	b.CheckTimeout = 50 * time.Millisecond
	if got := b.Check(t.Context()); got != 0 {
		t.Errorf("%d servers are ready, though none says so", got)
	}
}
