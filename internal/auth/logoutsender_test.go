package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// appServers are the servers of apps, by their hosts, on a network in memory: so their
// time can be a synctest's.
type appServers struct {
	mu  sync.Mutex
	all map[string]*appServer
}

// appServer is one app's.
type appServer struct {
	conns  chan net.Conn
	once   sync.Once
	answer http.HandlerFunc // of now; nil: 204

	mu          sync.Mutex
	down        bool
	at          []time.Time // of requests
	tokens      []string
	now, atOnce int
}

func (n *appServers) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	n.mu.Lock()
	a := n.all[host]
	n.mu.Unlock()
	if a == nil {
		return nil, errors.New("there is no such host")
	}
	a.mu.Lock()
	down := a.down
	if down {
		a.at = append(a.at, time.Now())
	}
	a.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	select {
	case a.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept, Close and Addr make it a net.Listener.
func (a *appServer) Accept() (net.Conn, error) {
	c, is := <-a.conns
	if !is {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (a *appServer) Close() error {
	a.once.Do(func() { close(a.conns) })
	return nil
}

func (a *appServer) Addr() net.Addr { return &net.TCPAddr{} }

func (a *appServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.at, a.tokens = append(a.at, time.Now()), append(a.tokens, r.FormValue("logout_token"))
	a.now++
	a.atOnce = max(a.atOnce, a.now)
	answer := a.answer
	a.mu.Unlock()
	if answer != nil {
		answer(w, r)
	} else {
		w.WriteHeader(http.StatusNoContent)
	}
	a.mu.Lock()
	a.now--
	a.mu.Unlock()
}

func (a *appServer) set(answer http.HandlerFunc, down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer, a.down = answer, down
}

// got is when it was asked since then, and with what.
func (a *appServer) got() ([]time.Time, []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at, a.tokens
}

// serve starts an app's server.
func (n *appServers) serve(t *testing.T, host string) *appServer {
	t.Helper()
	a := &appServer{conns: make(chan net.Conn)}
	n.mu.Lock()
	n.all[host] = a
	n.mu.Unlock()
	server := &http.Server{Handler: a, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(a) }()
	t.Cleanup(func() { server.Close() })
	return a
}

// sending is a server that sends logouts to apps.
type sending struct {
	*server
	net    *appServers
	sender *auth.LogoutSender
}

func (s *server) sending(t *testing.T, n *appServers) *sending {
	t.Helper()
	transport := &http.Transport{DialContext: n.dial, DisableKeepAlives: true}
	return &sending{s, n, &auth.LogoutSender{Rules: s.Service, Keep: 24 * time.Hour, Transport: transport}}
}

// run has it send for a time, looking as often.
func (x *sending) run(t *testing.T, how, every time.Duration) {
	t.Helper()
	for end := time.Now().Add(how); time.Now().Before(end); time.Sleep(every) {
		ok(t, x.sender.Send(t.Context()))
	}
}

// eachSending runs f in a bubble, with a server whose time is that of the bubble.
func eachSending(t *testing.T, f func(t *testing.T, x *sending)) {
	longer(t, func(t *testing.T, url string) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, url, time.Now, nil).forApps(t)
			f(t, s.sending(t, &appServers{all: make(map[string]*appServer)}))
		})
	})
}

// listens makes an app that hears of logouts at a server in memory.
func (x *sending) listens(t *testing.T, id string) (store.App, *appServer) {
	t.Helper()
	a, _ := x.app(t, id, func(a *store.App) { a.BackchannelURL = "http://" + id + ".internal/logout" })
	return a, x.net.serve(t, id+".internal")
}

// waiting makes logouts that an app is to hear of.
func (x *sending) waiting(t *testing.T, a store.App, n int) {
	t.Helper()
	for i := range n {
		x.exec(t, fmt.Sprintf(`INSERT INTO logouts (id, app_id, user_id, sid, created_at, attempts, due_at, last_error)
			VALUES ('%s-%d-%d', '%[1]s', 'user', 'sid%[2]d', %[3]d, 0, %[3]d, '')`, a.ID, i, time.Now().UnixMicro()))
	}
}

// An app hears of a logout by a token that says who and which session it is.
func TestLogoutTokens(t *testing.T) {
	eachSending(t, func(t *testing.T, x *sending) {
		a, there := x.listens(t, "wiki")
		user := x.user(t, ann)
		v := x.visit(t, x.browse(t, ann, true))
		tokens := x.exchange(t, a, x.code(t, v, a))
		ok(t, x.LogoutVisitor(t.Context(), auth.Client{}, v))
		there.set(func(w http.ResponseWriter, r *http.Request) {
			same(t, "the method", r.Method, http.MethodPost)
			same(t, "the type", r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
			same(t, "the path", r.URL.String(), "/logout")
			w.WriteHeader(http.StatusOK)
		}, false)
		ok(t, x.sender.Send(t.Context()))
		_, got := there.got()
		same(t, "how often it was sent", len(got), 1)
		claims := x.idClaims(t, "logout+jwt", got[0])
		same(t, "claims", keysOf(claims), []string{"aud", "events", "exp", "iat", "iss", "jti", "sid", "sub"})
		id := x.idClaims(t, "JWT", tokens.ID)
		for _, as := range []string{"iss", "aud", "sub", "sid"} {
			same(t, as, claims[as], id[as])
		}
		same(t, "sub", claims["sub"], any(user.ID))
		same(t, "iat", claims["iat"], any(float64(time.Now().Unix())))
		same(t, "exp", claims["exp"], any(float64(time.Now().Add(2*time.Minute).Unix())))
		same(t, "events", claims["events"], any(map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}))
		_, known, err := x.ReadHint(t.Context(), got[0])
		ok(t, err)
		same(t, "whether it is a hint", known, false)
		same(t, "what is left", x.toHear(t), nil)
	})
}

// A logout is sent until the app has heard of it, however it fails meanwhile. Waits grow
// to ten minutes, and each try has another id.
func TestALogoutReachesAnAppThroughOutages(t *testing.T) {
	eachSending(t, func(t *testing.T, x *sending) {
		a, there := x.listens(t, "wiki")
		elsewhere := x.net.serve(t, "elsewhere.internal")
		x.waiting(t, a, 1)
		began := time.Now()
		status := func(n int) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
		}
		for _, phase := range []struct {
			answer http.HandlerFunc
			down   bool
		}{
			{status(http.StatusBadRequest), false},
			{func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://elsewhere.internal/", http.StatusTemporaryRedirect)
			}, false},
			{func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false}, // it hangs
			{func(w http.ResponseWriter, _ *http.Request) { // what it says is no HTTP, nor UTF-8 where it is cut
				c, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 "+strings.Repeat("ä", 400)+"\xff\x00\r\n\r\n")
					c.Close()
				}
			}, false},
			{status(http.StatusInternalServerError), false},
			{nil, true},
		} {
			there.set(phase.answer, phase.down)
			before, _ := there.got()
			for len(before) > 0 {
				if now, _ := there.got(); len(now) > len(before) {
					break
				}
				x.run(t, time.Second, time.Second)
			}
			x.run(t, time.Second, time.Second)
		}
		x.run(t, time.Hour, time.Second)
		there.set(nil, false)
		x.run(t, 10*time.Minute, time.Second)
		at, tokens := there.got()
		x.run(t, time.Hour, time.Minute)
		if now, _ := there.got(); len(now) != len(at) {
			t.Errorf("sent %d times more", len(now)-len(at))
		}
		same(t, "what is left", x.toHear(t), nil)
		if got, _ := elsewhere.got(); len(got) != 0 {
			t.Errorf("a redirect was followed")
		}
		seen := make(map[any]bool)
		for _, text := range tokens {
			seen[x.idClaims(t, "logout+jwt", text)["jti"]] = true
		}
		same(t, "ids of tokens", len(seen), len(tokens))
		wait := time.Second
		for i := range at[1:] {
			// A look comes up to a second late, and a try lasts five at most.
			if got := at[i+1].Sub(at[i]); got < wait || got > wait+7*time.Second {
				t.Errorf("try %d after %v, want %v", i+2, got, wait)
			}
			wait = min(2*wait, 10*time.Minute)
		}
		t.Logf("%d tries in %v", len(at), time.Since(began))
	})
}

// What couldn't be sent for long is given up and listed, and can be sent again.
func TestALogoutIsGivenUp(t *testing.T) {
	eachSending(t, func(t *testing.T, x *sending) {
		a, there := x.listens(t, "wiki")
		there.set(nil, true)
		x.waiting(t, a, 1)
		x.run(t, 23*time.Hour, time.Minute)
		listed := func() (l store.Logout) {
			t.Helper()
			for found, err := range x.Logouts(t.Context()) {
				ok(t, err)
				l = found
			}
			return l
		}
		same(t, "given up before its time", listed().DeadAt, time.Time{})
		x.run(t, 2*time.Hour, time.Minute)
		dead := listed()
		if dead.DeadAt.IsZero() || dead.DeadAt.After(dead.CreatedAt.Add(x.sender.Keep)) || dead.LastError != "connection refused" {
			t.Errorf("after a day: %+v", dead)
		}
		tries, _ := there.got()
		there.set(nil, false)
		x.run(t, time.Hour, time.Minute)
		if now, _ := there.got(); len(now) != len(tries) {
			t.Error("it is still tried")
		}
		wantCode(t, "what isn't there", x.ResendLogout(t.Context(), "nonsense"), auth.NotFound)
		ok(t, x.ResendLogout(t.Context(), dead.ID))
		ok(t, x.sender.Send(t.Context()))
		same(t, "what is left", x.toHear(t), nil)

		// An app that wants to hear no longer, or is gone, keeps none waiting.
		there.set(nil, true)
		x.waiting(t, a, 1)
		ok(t, x.sender.Send(t.Context()))
		must(x.UpdateApp(t.Context(), a.ID, func(a *store.App) { a.BackchannelURL = "" }))(t)
		x.run(t, time.Minute, time.Second)
		same(t, "what is left", x.toHear(t), nil)
	})
}

// Eight apps that hang, with much to hear of, delay no ninth. Each is sent two logouts at
// a time.
func TestDeadAppsDelayNoOther(t *testing.T) {
	eachSending(t, func(t *testing.T, x *sending) {
		var dead []*appServer
		for i := range 8 {
			a, there := x.listens(t, fmt.Sprintf("dead%d", i))
			there.set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false)
			x.waiting(t, a, 20)
			dead = append(dead, there)
		}
		fine, there := x.listens(t, "fine")
		there.set(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(10 * time.Millisecond)
			w.WriteHeader(http.StatusOK)
		}, false)
		x.waiting(t, fine, 100)
		began := time.Now()
		ctx, stop := context.WithCancel(t.Context())
		sent := make(chan error)
		go func() { sent <- x.sender.Send(ctx) }()
		time.Sleep(4 * time.Second)
		at, _ := there.got()
		if len(at) != 100 {
			stop()
			t.Fatalf("the ninth heard of %d; %v", len(at), <-sent)
		}
		if last := at[len(at)-1].Sub(began); last > 2*time.Second {
			t.Errorf("the last after %v", last)
		}
		same(t, "at once", there.atOnce, 2)
		for range 3 { // what comes later waits for a look
			x.waiting(t, fine, 10)
			time.Sleep(3 * time.Second)
		}
		at, _ = there.got()
		same(t, "what the ninth heard of then", len(at), 130)
		stop()
		ok(t, <-sent)
		for _, d := range dead {
			if tries, _ := d.got(); len(tries) > 2*3 { // in 13 seconds
				t.Errorf("%d tries at one that hangs", len(tries))
			}
		}
	})
}

// Of two servers one tells. When it has died the other one does, once its lease is over:
// an app hears of all at least once.
func TestTwoServersTellApps(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		synctest.Test(t, func(t *testing.T) {
			n := &appServers{all: make(map[string]*appServer)}
			all := replicas(t, url, time.Now, 2, func(*server) {})
			one := all[0].forApps(t).sending(t, n)
			other := all[1].readKeys(t).sending(t, n)
			a, there := one.listens(t, "wiki")
			one.waiting(t, a, 20)
			there.set(func(w http.ResponseWriter, _ *http.Request) { time.Sleep(time.Second) }, false)
			var both sync.WaitGroup
			for _, x := range []*sending{one, other} {
				both.Go(func() {
					if err := x.sender.Send(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			both.Wait()
			at, _ := there.got()
			same(t, "how often it was sent", len(at), 20)

			// The first dies in the midst.
			time.Sleep(15 * time.Second) // until nobody has the lease
			one.waiting(t, a, 10)
			ctx, die := context.WithCancel(t.Context())
			both.Go(func() { _ = one.sender.Send(ctx) })
			time.Sleep(1500 * time.Millisecond)
			die()
			both.Wait()
			ok(t, other.sender.Send(t.Context()))
			left := len(one.toHear(t))
			if left == 0 || left == 10 {
				t.Fatalf("%d of 10 are left", left)
			}
			other.run(t, 20*time.Second, time.Second)
			same(t, "what is left", one.toHear(t), nil)
		})
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What somebody else has chosen of an error is written down without what a database refuses
// or a terminal acts on.
func TestTheErrorOfALogoutIsPlain(t *testing.T) {
	eachSending(t, func(t *testing.T, x *sending) {
		a, _ := x.listens(t, "wiki")
		x.sender.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("valid for a\x00b, \x1b[31mnot\nc\u202ed\xff")
		})
		x.waiting(t, a, 1)
		ok(t, x.sender.Send(t.Context()))
		for l, err := range x.Logouts(t.Context()) {
			ok(t, err)
			same(t, "the error", fmt.Sprint(l.Attempts, " ", l.LastError), "1 valid for a?b, ?[31mnot?c?d")
		}
	})
}
