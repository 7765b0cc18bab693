package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Refusals makes problems of the answers that net/http gives by itself, to requests
// that it can't read (a bad Host, headers that are too large). They are logged and
// counted like others. No handler sees such a request: net/http writes the answer
// to the connection, in one piece. The listener speaks plain TCP: under TLS only
// the answer to plain HTTP is seen. Handler must be called first.
func (s *Server) Refusals(l net.Listener) net.Listener { return refusing{l, s} }

type refusing struct {
	net.Listener
	site *Server
}

func (l refusing) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &refusingConn{conn, l.site}, nil
}

type refusingConn struct {
	net.Conn
	site *Server
}

// net/http's own answers begin like this. Answers of handlers have a Date.
var (
	refusalHeaders = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")
	expectation    = []byte("HTTP/1.1 417 Expectation Failed\r\n")
	notTLS         = []byte("HTTP/1.0 400 Bad Request\r\n\r\n")
)

func (c *refusingConn) Write(b []byte) (int, error) {
	line, _, _ := bytes.Cut(b[:min(len(b), 200)], []byte("\r\n"))
	version, why, _ := strings.Cut(string(line), " ")
	switch {
	case bytes.HasPrefix(b, notTLS):
		why += ": this address speaks HTTPS, begin it with https://"
	case bytes.HasPrefix(b, expectation), version == "HTTP/1.1" && bytes.HasPrefix(b[len(line):], refusalHeaders):
	default:
		return c.Conn.Write(b)
	}
	status, err := strconv.Atoi(why[:min(len(why), 3)])
	if err != nil {
		return c.Conn.Write(b)
	}
	if _, err := c.Conn.Write(c.site.refusal(status, c.RemoteAddr(), why)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// CloseWrite lets a client that is still sending read the answer.
func (c *refusingConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// refusal logs and counts an answer of net/http and writes it as a problem.
func (s *Server) refusal(status int, from net.Addr, why string) []byte {
	s.nothing.count("", status, 0)
	client := from.String()
	if host, _, err := net.SplitHostPort(client); err == nil {
		client = host
	}
	s.Log.Info("request", slog.String("method", ""), slog.String("route", s.nothing.route), slog.Int("status", status),
		slog.String("client", client), slog.String("error", why))
	body, err := json.Marshal(problem{Type: "about:blank", Title: http.StatusText(status), Status: status,
		Detail: "The server can't read this request: " + why + "."})
	if err != nil {
		panic(err) // it holds nothing that JSON can't
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: %d\r\nContent-Type: application/problem+json\r\nX-Content-Type-Options: nosniff\r\n\r\n%s\n",
		status, http.StatusText(status), len(body)+1, body)
}
