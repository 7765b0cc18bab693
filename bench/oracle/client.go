package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"html"
	"io"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"kwai/bench/internal/load"
)

// client is one keep-alive connection that keeps each answer as it came, which
// load.Conn doesn't.
type client struct {
	host   string
	c      net.Conn
	r      *bufio.Reader
	answer []byte  // the last answer, but for its Date and the number of its Retry-After; valid until the next
	status int     // of the last answer
	cookie string  // of a visitor; "": none
	seal   string  // of the visitor's form
	retry  float64 // what its Retry-After says, in seconds; 0: there is none
}

func dial(ctx context.Context, host string) (*client, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return &client{host: host, c: c, r: bufio.NewReader(c)}, nil
}

func (c *client) close() { _ = c.c.Close() }

// post is a request with one form that a proxy got from that address.
func (c *client) post(path, from string, form url.Values) []byte {
	body := form.Encode()
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: %s\r\nCookie: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		path, c.host, from, c.cookie, len(body), body)
}

var sealIn = regexp.MustCompile(`name="form" value="([^"]+)"`)

// logIn makes it a visitor's, and takes the seal of a form that is shown after a login.
func (c *client) logIn(email, page string) error {
	browser := load.NewConn(c.host)
	defer browser.Close()
	if err := browser.LogInBrowser(email); err != nil {
		return err
	}
	if _, err := c.exchange(fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\n\r\n", page, c.host, browser.Cookie)); err != nil {
		return err
	}
	seal := sealIn.FindSubmatch(c.answer)
	if seal == nil {
		return fmt.Errorf("%s has no form: %s", page, c.answer)
	}
	c.cookie, c.seal = browser.Cookie, html.UnescapeString(string(seal[1]))
	return nil
}

// sealed is a form, with the visitor's seal.
func (c *client) sealed(form url.Values) url.Values {
	if c.seal != "" {
		form.Set("form", c.seal)
	}
	return form
}

// get is a request with an access token.
func (c *client) get(path, bearer string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", path, c.host, bearer)
}

// exchangeTimeout bounds one exchange.
const exchangeTimeout = time.Minute

// exchange sends a request and reads the answer. The time is that from the first
// byte sent to the last byte read: what comes late in an answer counts too.
func (c *client) exchange(request []byte) (took time.Duration, err error) {
	if err := c.c.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return 0, err
	}
	begin := time.Now()
	if _, err := c.c.Write(request); err != nil {
		return 0, err
	}
	err = c.read()
	return time.Since(begin), err
}

// read reads an answer in the form in which net/http writes it when it knows
// the length.
func (c *client) read() error {
	c.answer, c.retry = c.answer[:0], 0
	length := -1
	for first := true; ; first = false {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		name, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(": "))
		switch {
		case first:
			if len(line) < 12 {
				return fmt.Errorf("no HTTP: %q", line)
			}
			if c.status, err = strconv.Atoi(string(line[9:12])); err != nil { // HTTP/1.1 200 OK
				return err
			}
		case string(name) == "Date":
			continue
		case string(name) == "Retry-After":
			if c.retry, err = strconv.ParseFloat(string(value), 64); err != nil {
				return err
			}
			line = []byte("Retry-After: *\r\n") // that it is there is one thing, what it says another
		case string(name) == "Content-Length":
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
		c.answer = append(c.answer, line...)
		if len(name) == 0 {
			break
		}
	}
	if length < 0 || length > 1<<20 {
		return fmt.Errorf("an answer without a length, or too long: %q", c.answer)
	}
	head := len(c.answer)
	c.answer = append(c.answer, make([]byte, length)...)
	_, err := io.ReadFull(c.r, c.answer[head:])
	return err
}
