package main

import (
	"context"
	"errors"
	"net/http"

	"kwai/bench/internal/load"
)

// cookies are what a flood of pages is made of.
type cookies struct {
	live  string // forged ones are made of it
	old   string // of the same session: the password was shown twice since
	ended string // of a session that has ended
}

// makeCookies logs in on the login page.
func makeCookies(ctx context.Context, address string, emails []string) (c cookies, err error) {
	conn, other := load.NewConnContext(ctx, address), load.NewConnContext(ctx, address)
	defer conn.Close()
	defer other.Close()
	for _, step := range []func() error{
		func() error { return conn.LogInBrowser(emails[0]) },
		func() error { c.old = conn.Cookie; return conn.ProveBrowser() },
		conn.ProveBrowser,
		func() error { c.live = conn.Cookie; return other.LogInBrowser(emails[0]) },
		func() error { c.ended = other.Cookie; return other.LogInBrowser(emails[1]) }, // which ends the one before
	} {
		if err := step(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// dead makes the i-th cookie that is worth nothing, of each sort in turn.
func (c cookies) dead(i int) string {
	if i%4 < 2 {
		return []string{c.old, c.ended}[i%4]
	}
	name := len(load.BrowserCookie) + 1
	if i%4 == 2 {
		return c.live[:name] + forge(c.live[name:], i/4)
	}
	return c.live[:len(c.live)/2]
}

// visit asks for the account with a cookie that is worth nothing.
func (c cookies) visit(conn *load.Conn, i int) (int, error) {
	conn.Cookie = c.dead(i)
	status, err := conn.Get("/account", "")
	if err == nil && status == http.StatusOK {
		err = errors.New("a dead cookie is taken")
	}
	return status, err
}
