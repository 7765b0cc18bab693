package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
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
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.tb.Fatal(err)
	}
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
