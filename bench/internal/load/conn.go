package load

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Conn is one keep-alive connection of an HTTP/1.1 client that knows no more of
// HTTP than the servers measured here send. It connects at the first request,
// and again after an error. It is for one goroutine.
type Conn struct {
	// From is the address that Post and Get say they come from, as a proxy would
	// (X-Forwarded-For); "": they say nothing. A server believes it that was
	// started with [TrustClients].
	From string
	// Cookie is what it sends as one, NAME=VALUE, and what an answer sets; "": none.
	Cookie string

	address  string
	ctx      context.Context // ends it: see NewConnContext
	c        net.Conn        // nil before the first request and after an error
	r        *bufio.Reader
	request  []byte // of the last exchange
	body     []byte // of the last answer; valid until the next exchange
	location string // where that leads to
}

// NewConn returns a connection to host:port. The caller closes it.
func NewConn(address string) *Conn { return NewConnContext(context.Background(), address) }

// Body is that of the last answer; valid until the next exchange.
func (c *Conn) Body() []byte { return c.body }

// exchangeTimeout bounds one exchange.
const exchangeTimeout = 30 * time.Second

// Close closes it; the next request would open it anew.
func (c *Conn) Close() {
	if c.c != nil {
		c.c.Close()
		c.c = nil
	}
}

// Post sends a form, with an access token unless it is "", and returns the
// answer's status. Nothing is sent twice.
func (c *Conn) Post(path, bearer, form string) (int, error) {
	c.head("POST", path, bearer)
	c.request = append(c.request, "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "...)
	c.request = strconv.AppendInt(c.request, int64(len(form)), 10)
	c.request = append(c.request, "\r\n\r\n"...)
	c.request = append(c.request, form...)
	return c.Send(c.request)
}

// Get asks for a path, with an access token unless it is "", and returns the
// answer's status.
func (c *Conn) Get(path, bearer string) (int, error) {
	c.head("GET", path, bearer)
	c.request = append(c.request, "\r\n"...)
	return c.Send(c.request)
}

func (c *Conn) head(method, path, bearer string) {
	c.request = append(c.request[:0], method...)
	c.request = append(append(c.request, ' '), path...)
	c.request = append(append(c.request, " HTTP/1.1\r\nHost: "...), c.address...)
	c.request = append(c.request, "\r\n"...)
	if c.From != "" {
		c.request = append(append(c.request, "X-Forwarded-For: "...), c.From...)
		c.request = append(c.request, "\r\n"...)
	}
	if c.Cookie != "" {
		c.request = append(append(c.request, "Cookie: "...), c.Cookie...)
		c.request = append(c.request, "\r\n"...)
	}
	if bearer != "" {
		c.request = append(append(c.request, "Authorization: Bearer "...), bearer...)
		c.request = append(c.request, "\r\n"...)
	}
}

// Send sends a request as it is and returns the answer's status.
func (c *Conn) Send(request []byte) (status int, err error) {
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.c == nil {
		fresh, err := Dial(c.ctx, c.address)
		if err != nil {
			return 0, err
		}
		c.c, c.r = fresh, bufio.NewReader(fresh)
	}
	if err := c.c.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return 0, err
	}
	if _, err := c.c.Write(request); err != nil {
		return 0, err
	}
	return c.answer()
}

func (c *Conn) answer() (status int, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	// HTTP/1.1 200 OK
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, fmt.Errorf("no HTTP: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length, last := -1, false
	c.location = ""
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		name, value, ok := bytes.Cut(line, []byte(": "))
		if !ok {
			break // the empty line
		}
		switch string(name) { // net/http writes them in this form
		case "Content-Length":
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		case "Set-Cookie":
			cookie, _, _ := bytes.Cut(value, []byte(";"))
			c.Cookie = string(cookie)
		case "Location":
			c.location = string(bytes.TrimSpace(value))
		case "Connection":
			last = string(bytes.TrimSpace(value)) == "close"
		}
	}
	if length < 0 || length > 1<<20 {
		return 0, fmt.Errorf("an answer %d without a length, or too long: %d bytes", status, length)
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	if _, err := io.ReadFull(c.r, c.body); err != nil {
		return 0, err
	}
	if last {
		c.Close()
	}
	return status, nil
}

// accepted makes an error of any status but 200: a [StatusError].
func (c *Conn) accepted(status int, err error) error {
	if err == nil && status != http.StatusOK {
		err = &StatusError{status, string(bytes.TrimSpace(c.body))}
	}
	return err
}
