package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"kwai/internal/store/storetest"
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

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s := start(t, storetest.SQLite(t), "--max-connections=3")
	// Two that are idle, one of which has never said a word, and one at work.
	silent, idle, working := s.dial(), s.dial(), s.dial()
	idle.hello()
	working.halfAsk()

	// Each new one takes the place of the one that has been idle longest…
	fourth := s.dial()
	fourth.hello()
	if err := silent.ended(); err != nil {
		t.Errorf("the one that never said a word is still there: %v", err)
	}
	fifth := s.dial()
	fifth.hello()
	if err := idle.ended(); err != nil {
		t.Errorf("the one that was idle longest is still there: %v", err)
	}
	// …and of none at work.
	fmt.Fprint(working, "=a@b")
	if got := working.answer(http.MethodPost); got.Status != http.StatusOK {
		t.Errorf("the one at work got %v", got)
	}

	// Where all are at work, it is that of the one at it longest.
	for _, c := range []*rawConn{fourth, working, fifth} {
		c.halfAsk()
	}
	sixth := s.dial()
	sixth.hello()
	if err := fourth.ended(); err != nil {
		t.Errorf("the one that was at work longest is still there: %v", err)
	}
	for _, c := range []*rawConn{working, fifth} {
		fmt.Fprint(c, "=a@b")
		if got := c.answer(http.MethodPost); got.Status != http.StatusOK {
			t.Errorf("one that was at work for less long got %v", got)
		}
	}
}
