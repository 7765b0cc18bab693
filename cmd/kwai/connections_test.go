package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// hello does one request and leaves the connection open.
func (c *rawConn) hello() {
	c.site.tb.Helper()
	fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if got := c.answer(http.MethodGet); got.Status != http.StatusOK {
		c.site.tb.Fatal(got)
	}
}

// halfAsk sends half of a request, and returns when the server is reading it.
func (c *rawConn) halfAsk() {
	c.site.tb.Helper()
	fmt.Fprint(c, "POST /api/v1/auth/recover HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\n")
	line, err := c.in.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		c.site.tb.Fatal(line, err)
	}
	_, _ = c.in.ReadString('\n')
	fmt.Fprint(c, "email")
}

// ended waits for the server to close the connection.
func (c *rawConn) ended() error {
	if b, err := c.in.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%d, %w", b, err)
	}
	return nil
}

// TestConnectionsAreBounded: of three connections, in a bubble, where it is certain
// who has been idle for how long.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		listener := pipes{make(chan net.Conn)}
		server := newServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
		}), idle, log)
		clients := limitConnections(listener, 3, log)
		server.ConnState = clients.track
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(clients) }()
		dial := func() *rawConn {
			client, conn := net.Pipe()
			listener.conns <- conn
			synctest.Wait()
			return &rawConn{client, &site{tb: t}, bufio.NewReader(client)}
		}
		hello := func(c *rawConn) {
			c.hello()
			synctest.Wait() // until the server counts it as idle
		}
		answered := func(c *rawConn, what string) {
			t.Helper()
			fmt.Fprint(c, "=a@b")
			if got := c.answer(http.MethodPost); got.Status != http.StatusOK {
				t.Errorf("%s got %v", what, got)
			}
			synctest.Wait()
		}
		ends := func(c *rawConn, what string) {
			t.Helper()
			begun := time.Now()
			if err := c.ended(); err != nil || time.Since(begun) > 0 { // not by a time-out
				t.Errorf("%s is still there for %v: %v", what, time.Since(begun), err)
			}
		}
		// Two that are idle, one of which has never said a word, and one at work.
		silent, idle, working := dial(), dial(), dial()
		hello(idle)
		working.halfAsk()

		// Each new one takes the place of the one that has been idle longest…
		fourth := dial()
		hello(fourth)
		ends(silent, "the one that never said a word")
		fifth := dial()
		hello(fifth)
		ends(idle, "the one that was idle longest")
		// …and of none at work.
		answered(working, "the one at work")

		// Where all are at work, it is that of the one at it longest.
		for _, c := range []*rawConn{fourth, working, fifth} {
			c.halfAsk()
		}
		sixth := dial()
		hello(sixth)
		ends(fourth, "the one that was at work longest")
		for _, c := range []*rawConn{working, fifth} {
			answered(c, "one that was at work for less long")
		}
		close(listener.conns)
		<-ended
		server.Close()
	})
}
