package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"
)

const (
	checkEvery  = 500 * time.Millisecond
	dialTimeout = time.Second
	// answerTimeout is longer than kwai itself takes for any answer (30 s).
	answerTimeout = 35 * time.Second
)

// Balancer is an HTTP handler that passes requests on to servers of kwai, in turn to all
// that are ready: that answer 200 to /readyz.
//
//   - If a server refuses the connection, it is left out until it is ready again, and
//     the request goes to the next: nothing of it had been sent.
//   - A request whose connection broke later gets 502: it may have been carried out.
//   - If no server is ready, the answer is 503.
//
// X-Forwarded-For has the client's address and nothing else: the client's own header is
// dropped.
type Balancer struct {
	// CheckTimeout is how long a server may take to say that it is ready: a
	// second, unless it is set before the first check.
	CheckTimeout time.Duration

	proxy     *httputil.ReverseProxy
	transport *http.Transport
	targets   []*target
	turn      atomic.Uint64
}

type target struct {
	address string // host:port
	ready   atomic.Bool
}

// NewBalancer returns a balancer over servers at these addresses, host:port. At first
// none counts as ready: see Watch and Check.
func NewBalancer(addresses ...string) *Balancer {
	b := &Balancer{CheckTimeout: time.Second, transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
		// A kept connection may be closing when it is used again; then it is unknown
		// whether the request arrived. A new one is refused.
		DisableKeepAlives:     true,
		ResponseHeaderTimeout: answerTimeout,
		DisableCompression:    true, // the client decides about compression
	}}
	for _, a := range addresses {
		b.targets = append(b.targets, &target{address: a})
	}
	b.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http"
			r.SetXForwarded()
		},
		Transport:    roundTripper(b.send),
		ErrorHandler: refuse,
		ErrorLog:     log.New(io.Discard, "", 0), // about clients that have disconnected
	}
	return b
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// ServeHTTP passes a request on.
func (b *Balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) { b.proxy.ServeHTTP(w, r) }

// Watch checks the servers twice a second until ctx ends.
func (b *Balancer) Watch(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		b.Check(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Check asks all servers whether they are ready, for CheckTimeout at most, and
// returns how many are.
func (b *Balancer) Check(ctx context.Context) (ready int) {
	client := http.Client{Transport: b.transport, Timeout: b.CheckTimeout}
	var all sync.WaitGroup
	for _, t := range b.targets {
		all.Go(func() { t.ready.Store(answers(ctx, &client, "http://"+t.address+"/readyz")) })
	}
	all.Wait()
	return len(b.ready())
}

func (b *Balancer) ready() (ready []*target) {
	for _, t := range b.targets {
		if t.ready.Load() {
			ready = append(ready, t)
		}
	}
	return ready
}

var errNoneReady = errors.New("no server is ready")

// send sends a request to the first server that takes the connection.
func (b *Balancer) send(r *http.Request) (*http.Response, error) {
	ready, turn := b.ready(), b.turn.Add(1)
	for i := range ready {
		t := ready[(turn+uint64(i))%uint64(len(ready))]
		attempt := r.Clone(r.Context())
		attempt.URL.Host = t.address
		if r.Body != nil {
			attempt.Body = io.NopCloser(r.Body) // for the next attempt; the proxy closes it
		}
		answer, err := b.transport.RoundTrip(attempt)
		if err == nil {
			return answer, nil
		}
		failed, ok := errors.AsType[*net.OpError](err)
		if !ok || failed.Op != "dial" || r.Context().Err() != nil {
			return nil, err
		}
		t.ready.Store(false)
	}
	return nil, errNoneReady
}

// refuse answers in place of kwai, in its form.
func refuse(w http.ResponseWriter, _ *http.Request, err error) {
	status, detail := http.StatusBadGateway, "The server did not answer."
	if errors.Is(err, errNoneReady) {
		status, detail = http.StatusServiceUnavailable, "No server is ready. Try again later."
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"type":"about:blank","title":%q,"status":%d,"detail":%q}`+"\n", http.StatusText(status), status, detail)
}
