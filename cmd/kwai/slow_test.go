package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/web"
)

// rawConn is a connection of a client that keeps to no rules.
type rawConn struct {
	net.Conn
	site *site
	in   *bufio.Reader
}

func (s *site) dial() *rawConn {
	s.tb.Helper()
	c, err := (&net.Dialer{}).DialContext(s.tb.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { c.Close() }) // before the server ends, which would wait for it
	return &rawConn{c, s, bufio.NewReader(c)}
}

// answer reads the answer to a request of that method.
func (c *rawConn) answer(method string) answer {
	c.site.tb.Helper()
	res, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.site.tb.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.site.tb.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, body}
}

// pipes is a listener whose connections are in memory, so that a synctest
// bubble's clock rules over their time-outs.
type pipes struct{ conns chan net.Conn }

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }
func (p pipes) Close() error   { return nil }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// idle is the time-out of connections without a request here.
const idle = 3 * time.Minute

// TestStalledClientsAreCutOff: at the very moment that the settings name.
func TestStalledClientsAreCutOff(t *testing.T) {
	t.Parallel()
	const login = "POST /api/v1/auth/login HTTP/1.1\r\nHost: kwai\r\nContent-Type: " + urlencoded + "\r\n"
	const page = "GET /openapi.yaml HTTP/1.1\r\nHost: kwai\r\n\r\n"
	for what, test := range map[string]struct {
		sent   string
		cut    time.Duration
		status int // answered before the end, or 0
	}{
		"nothing":                    {"", readHeaders, 0},
		"a byte":                     {"P", readHeaders, 0},
		"half a header":              {login + "Content-Le", readHeaders, 0},
		"no body":                    {login + "Content-Length: 100\r\n\r\n", readBody, 400},
		"half a body":                {login + "Content-Length: 100\r\n\r\nusername=ann", readBody, 400},
		"half a chunk":               {login + "Transfer-Encoding: chunked\r\n\r\n10\r\nuser", readBody, 400},
		"a request and then nothing": {page, idle, 200},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := serveOne(t)
				begun := time.Now()
				go func() { _, _ = io.WriteString(client, test.sent) }()
				in := bufio.NewReader(client)
				if test.status != 0 {
					res, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadAll(res.Body); err != nil || res.StatusCode != test.status {
						t.Errorf("answered %d, %v, want %d", res.StatusCode, err, test.status)
					}
				}
				// A half header may be answered with an error.
				_, err := io.Copy(io.Discard, in)
				// Behind its last answer a server waits half a second for the client.
				if took := time.Since(begun); err != nil || took < test.cut || took > test.cut+time.Second {
					t.Errorf("cut off with %v after %v, want %v", err, took, test.cut)
				}
			})
		})
	}
	t.Run("an answer that isn't read", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			client := serveOne(t)
			if _, err := io.WriteString(client, page); err != nil {
				t.Fatal(err)
			}
			time.Sleep(writeAnswer) // the bubble's time
			synctest.Wait()
			if answer, err := io.ReadAll(client); err != nil || len(answer) > 8<<10 {
				t.Errorf("%d bytes came after all, %v", len(answer), err)
			}
		})
	})
}

// serveOne is a connection to a server without rules or a database.
func serveOne(t *testing.T) net.Conn {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	handler, err := (&web.Server{PublicURL: &url.URL{Scheme: "http", Host: "kwai"}, Log: log}).Handler()
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(handler, idle, log)
	listener := pipes{make(chan net.Conn, 1)}
	client, conn := net.Pipe()
	listener.conns <- conn
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		client.Close()
		close(listener.conns)
		<-ended
		server.Close()
	})
	return client
}

// TestStalledClientsHoldNobodyUp: others are answered beside hundreds of them.
func TestStalledClientsHoldNobodyUp(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		for i := range 200 {
			conn := s.dial()
			switch i % 4 {
			case 1:
				fmt.Fprint(conn, "P")
			case 2:
				fmt.Fprint(conn, "POST /api/v1/auth/login HTTP/1.1\r\nHost: kwai\r\nContent-Ty")
			case 3:
				fmt.Fprintf(conn, "POST /api/v1/auth/login HTTP/1.1\r\nHost: kwai\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\nusername", urlencoded)
			}
		}
		in := s.login("ann@example.org")
		if a := s.post("access_token", "", "refresh_token", in.field("refresh_token")); a.Status != 200 {
			t.Error(a)
		}
		if a := s.post("logout", in.field("access_token"), "refresh_token", in.field("refresh_token")); a.Status != 200 {
			t.Error(a)
		}
	})
}

// TestStrangeRequests: what HTTP leaves to doubt is refused or taken in one way,
// and never a fault.
func TestStrangeRequests(t *testing.T) {
	const login = "POST /api/v1/auth/login HTTP/1.1\r\nHost: kwai\r\nContent-Type: " + urlencoded + "\r\n"
	requests := map[string]struct {
		raw    string
		status int
	}{
		"two lengths":                {login + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nab=cde", 400},
		"a negative length":          {login + "Content-Length: -1\r\n\r\n", 400},
		"a length with a sign":       {login + "Content-Length: +5\r\n\r\nab=cd", 400},
		"an endless length":          {login + "Content-Length: 99999999999999999999\r\n\r\n", 400},
		"a huge length":              {login + "Content-Length: 9223372036854775807\r\n\r\n", 413},
		"an unknown encoding":        {login + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
		"chunked with a space":       {login + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		"chunked twice":              {login + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
		"a chunk that is no number":  {login + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		"a chunk that is endless":    {login + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400},
		"no Host":                    {"GET /healthz HTTP/1.1\r\n\r\n", 400},
		"two Hosts":                  {"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		"a Host with a space":        {"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		"a Host with a slash":        {"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		"another Host":               {"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200},
		"a full URL":                 {"GET http://evil.example/healthz HTTP/1.1\r\nHost: kwai\r\n\r\n", 200},
		"a full URL, nothing there":  {"GET http://evil.example/nothing HTTP/1.1\r\nHost: kwai\r\n\r\n", 404},
		"another scheme":             {"GET file:///etc/passwd HTTP/1.1\r\nHost: kwai\r\n\r\n", 404},
		"no slash":                   {"GET healthz HTTP/1.1\r\nHost: kwai\r\n\r\n", 400},
		"a star":                     {"GET * HTTP/1.1\r\nHost: kwai\r\n\r\n", 400},
		"a tunnel":                   {"CONNECT kwai:80 HTTP/1.1\r\nHost: kwai:80\r\n\r\n", 404},
		"a bad escape in the path":   {"GET /%zz HTTP/1.1\r\nHost: kwai\r\n\r\n", 400},
		"a NUL in the path":          {"GET /\x00 HTTP/1.1\r\nHost: kwai\r\n\r\n", 400},
		"a header with a NUL":        {"GET /healthz HTTP/1.1\r\nHost: kwai\r\nX: \x00\r\n\r\n", 400},
		"a header without a colon":   {"GET /healthz HTTP/1.1\r\nHost: kwai\r\nX\r\n\r\n", 400},
		"a space before a colon":     {"GET /healthz HTTP/1.1\r\nHost: kwai\r\nX : y\r\n\r\n", 400},
		"long headers":               {"GET /healthz HTTP/1.1\r\nHost: kwai\r\nX: " + strings.Repeat("x", 24<<10) + "\r\n\r\n", 431},
		"a long line":                {"GET /" + strings.Repeat("x", 24<<10) + " HTTP/1.1\r\nHost: kwai\r\n\r\n", 431},
		"HTTP/0.9":                   {"GET /healthz\r\n\r\n", 400},
		"HTTP/1.0":                   {"GET /healthz HTTP/1.0\r\n\r\n", 200},
		"HTTP/3.0":                   {"GET /healthz HTTP/3.0\r\nHost: kwai\r\n\r\n", 505},
		"HTTP/2's first words":       {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		"TLS":                        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		"a change of protocol":       {"GET /healthz HTTP/1.1\r\nHost: kwai\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 200},
		"an expectation":             {login + "Content-Length: 5\r\nExpect: the worst\r\n\r\nab=cd", 417},
		"a body that is a request":   {"GET /healthz HTTP/1.1\r\nHost: kwai\r\nContent-Length: 5\r\n\r\nab=cd", 200},
		"a method that is a header":  {"X-Y: z HTTP/1.1\r\nHost: kwai\r\n\r\n", 400},
		"a body on a GET, half sent": {"GET /healthz HTTP/1.1\r\nHost: kwai\r\nContent-Length: 50\r\nConnection: close\r\n\r\nab", 200},
	}
	each(t, func(t *testing.T, s *site) {
		// At once: before net/http closes a connection it waits, and for what it refuses
		// it says in no other way where the answer ends.
		var wg sync.WaitGroup
		for what, r := range requests {
			conn := s.dial()
			wg.Go(func() {
				defer conn.Close()
				fmt.Fprint(conn, r.raw)
				if res, err := http.ReadResponse(conn.in, nil); err != nil {
					t.Errorf("%s: %v", what, err)
				} else if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != r.status {
					t.Errorf("%s: %s, %v; want %d", what, res.Status, err, r.status)
				}
			})
		}
		wg.Wait()
		// With both lengths the chunks count (RFC 9112, 6.1).
		conn := s.dial()
		fmt.Fprint(conn, strings.Replace(login, "login", "recover", 1)+"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nemail=x\r\n0\r\n\r\n")
		if a := conn.answer("POST"); a.Status != 200 {
			t.Errorf("both lengths: %v", a)
		}
		if strings.Contains(s.log.String(), `"level":"ERROR"`) {
			t.Errorf("an error was logged:\n%s", s.log)
		}
	})
}
