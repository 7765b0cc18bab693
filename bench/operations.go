package main

import (
	"bytes"
	"errors"
	"net/url"
	"sync/atomic"
)

// operation is one that is measured.
type operation struct {
	name        string
	connections int
	// step does it once, as the client numbered i.
	step func(c *conn, i int) error
}

// errNoMore says that there is nothing left that the operation could be done to.
var errNoMore = errors.New("no more")

// session is what a client knows of its session.
type session struct{ access, refresh string }

// login logs in to each of the accounts in turn.
func login(emails []string) func(*conn, int) error {
	var turn atomic.Int64
	return func(c *conn, _ int) error {
		_, err := logIn(c, emails[int(turn.Add(1))%len(emails)])
		return err
	}
}

func logIn(c *conn, email string) (session, error) {
	form := url.Values{"username": {email}, "password": {password}}.Encode()
	return c.tokens(c.post("/api/v1/auth/login", "", form))
}

// renew has each client renew a session of its own.
func renew(sessions []session) func(*conn, int) error {
	return func(c *conn, i int) error {
		s, err := c.tokens(c.post("/api/v1/auth/access_token", "", "refresh_token="+sessions[i].refresh))
		if err == nil {
			sessions[i] = s
		}
		return err
	}
}

// check has each client ask for its user.
func check(sessions []session) func(*conn, int) error {
	return func(c *conn, i int) error {
		return c.accepted(c.get("/api/v1/auth/user", sessions[i].access))
	}
}

// logout ends one session after the other.
func logout(sessions []session) func(*conn, int) error {
	var turn atomic.Int64
	return func(c *conn, _ int) error {
		i := int(turn.Add(1)) - 1
		if i >= len(sessions) {
			return errNoMore
		}
		return c.accepted(c.post("/api/v1/auth/logout", sessions[i].access, "refresh_token="+sessions[i].refresh))
	}
}

// again sends the same request again and again.
func again(request []byte) func(*conn, int) error {
	return func(c *conn, _ int) error { return c.accepted(c.exchange(request)) }
}

// tokens reads a session from an answer. A JSON decoder would cost the client
// more than all the rest.
func (c *conn) tokens(status int, err error) (s session, _ error) {
	if err := c.accepted(status, err); err != nil {
		return s, err
	}
	s.access, s.refresh = member(c.body, "access_token"), member(c.body, "refresh_token")
	if s.access == "" || s.refresh == "" {
		return s, errors.New("an answer without tokens")
	}
	return s, nil
}

// member is the text of an object's member in the form in which Go writes JSON,
// without escapes; or "".
func member(object []byte, name string) string {
	_, rest, _ := bytes.Cut(object, []byte(`"`+name+`":"`))
	value, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return ""
	}
	return string(value)
}
