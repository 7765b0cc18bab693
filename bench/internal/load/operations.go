package load

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"sync/atomic"
)

// Operation is what is done again and again to be measured.
type Operation struct {
	Name        string
	Connections int
	// Step does it once, as the client numbered i, from 0 to Connections-1. Each
	// client has a connection of its own, and one step at a time. [ErrNoMore]
	// ends the client.
	Step func(c *Conn, i int) error
}

// ErrNoMore says that there is nothing left that the operation could be done to.
var ErrNoMore = errors.New("no more")

// Session is what a client knows of its session.
type Session struct{ Access, Refresh string }

// Login logs in to each of the accounts in turn, from so many connections.
func Login(connections int, emails []string) Operation {
	var turn atomic.Int64
	return Operation{"login", connections, func(c *Conn, _ int) error {
		_, err := c.LogIn(emails[int(turn.Add(1))%len(emails)], Password)
		return err
	}}
}

// WrongLogin tries a wrong password on each of the accounts in turn: 401 is as
// good an answer as 503, which says that too many others wait.
func WrongLogin(connections int, emails []string) Operation {
	var turn atomic.Int64
	return Operation{"wrong login", connections, func(c *Conn, _ int) error {
		form := loginForm(emails[int(turn.Add(1))%len(emails)], "wrong "+Password)
		status, err := c.Post(loginPath, "", form)
		if err == nil && (status == http.StatusUnauthorized || status == http.StatusServiceUnavailable) {
			return nil
		}
		return c.accepted(status, err)
	}}
}

// Renew renews sessions: each client goes round those that are its own, one
// after the other. There must be at least one for each connection. Their tokens
// are replaced as they are renewed.
func Renew(connections int, sessions []Session) Operation {
	next := rounds(connections, len(sessions))
	return Operation{"renew", connections, func(c *Conn, i int) error {
		own := &sessions[next(i)]
		s, err := c.tokens(c.Post("/api/v1/auth/access_token", "", "refresh_token="+own.Refresh))
		if err == nil {
			*own = s
		}
		return err
	}}
}

// Check asks for the user whose the session is: each client goes round its own
// sessions, as in [Renew].
func Check(connections int, sessions []Session) Operation {
	next := rounds(connections, len(sessions))
	return Operation{"check", connections, func(c *Conn, i int) error {
		return c.accepted(c.Get("/api/v1/auth/user", sessions[next(i)].Access))
	}}
}

// Logout ends one session after the other, while there are any.
func Logout(connections int, sessions []Session) Operation {
	var turn atomic.Int64
	return Operation{"logout", connections, func(c *Conn, _ int) error {
		i := int(turn.Add(1)) - 1
		if i >= len(sessions) {
			return ErrNoMore
		}
		return c.accepted(c.Post("/api/v1/auth/logout", sessions[i].Access, "refresh_token="+sessions[i].Refresh))
	}}
}

// Again sends the same request again and again, from as many connections as the
// operation has.
func Again(op Operation, request []byte) Operation {
	op.Step = func(c *Conn, _ int) error { return c.accepted(c.Send(request)) }
	return op
}

// rounds tells each client the next of n things: client i goes round i,
// i+connections, i+2*connections and so on.
func rounds(connections, n int) (next func(i int) int) {
	type cursor struct {
		at int
		_  [56]byte // a cache line for each client
	}
	cursors := make([]cursor, connections)
	for i := range cursors {
		cursors[i].at = i
	}
	return func(i int) int {
		at := cursors[i].at
		if cursors[i].at += connections; cursors[i].at >= n {
			cursors[i].at = i
		}
		return at
	}
}

const loginPath = "/api/v1/auth/login"

func loginForm(email, password string) string {
	return url.Values{"username": {email}, "password": {password}}.Encode()
}

// LogIn opens a session.
func (c *Conn) LogIn(email, password string) (Session, error) {
	return c.tokens(c.Post(loginPath, "", loginForm(email, password)))
}

// tokens reads a session from an answer. A JSON decoder would cost the client
// more than all the rest.
func (c *Conn) tokens(status int, err error) (s Session, _ error) {
	if err := c.accepted(status, err); err != nil {
		return s, err
	}
	s.Access, s.Refresh = member(c.body, "access_token"), member(c.body, "refresh_token")
	if s.Access == "" || s.Refresh == "" {
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
