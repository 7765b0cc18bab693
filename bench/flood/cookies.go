package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"

	"kwai/bench/internal/load"
)

// cookies are what a flood of pages sends. Each names a session that exists.
type cookies struct {
	live  string // forged ones are made of it
	old   string // of a session in which the password was shown twice since
	ended string // of a session that has ended
}

// browserCookie is the cookie's name over http.
const browserCookie = "kwai-dev"

// makeCookies logs in on the login page.
func makeCookies(ctx context.Context, address string, emails []string) (c cookies, err error) {
	var b browser
	if b, err = newBrowser(address); err != nil {
		return c, err
	}
	if c.old, err = b.login(ctx, url.Values{"username": {emails[0]}}); err != nil {
		return c, err
	}
	for range 2 {
		if c.ended, err = b.login(ctx, url.Values{"prove": {"1"}}); err != nil {
			return c, err
		}
	}
	// The login of another user ends the session before.
	c.live, err = b.login(ctx, url.Values{"username": {emails[1]}})
	return c, err
}

// browser is a client that keeps cookies.
type browser struct {
	http.Client
	site *url.URL
}

func newBrowser(address string) (b browser, err error) {
	b.site = &url.URL{Scheme: "http", Host: address, Path: "/login"}
	b.Jar, err = cookiejar.New(nil)
	return b, err
}

// login posts the login page's form, visits the account, and gives the cookie.
func (b *browser) login(ctx context.Context, form url.Values) (string, error) {
	form.Set("password", load.Password)
	form.Set("stay", "1")
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.site.String(), bytes.NewBufferString(form.Encode()))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := b.Do(request) // and goes on to the account
	if err != nil {
		return "", err
	}
	if err := answer.Body.Close(); err != nil {
		return "", err
	}
	for _, c := range b.Jar.Cookies(b.site) {
		if c.Name == browserCookie && answer.StatusCode == http.StatusOK && answer.Request.URL.Path == "/account" {
			return c.Value, nil
		}
	}
	return "", fmt.Errorf("a login on the page led to %s: %s", answer.Request.URL, answer.Status)
}

// dead makes the i-th cookie that is worth nothing, of each sort in turn.
func (c cookies) dead(i int) string {
	switch i % 4 {
	case 0:
		return c.old
	case 1:
		return c.ended
	case 2:
		return forge(c.live, i/4)
	default:
		return c.live[:len(c.live)/2]
	}
}

// visitAccount asks for the account with a cookie that is worth nothing.
func (c cookies) visitAccount(conn *load.Conn, address string, i int) (int, error) {
	status, err := conn.Send(fmt.Appendf(nil, "GET /account HTTP/1.1\r\nHost: %s\r\nCookie: %s=%s\r\n\r\n", address, browserCookie, c.dead(i)))
	if err == nil && status == http.StatusOK {
		err = errors.New("a dead cookie is taken")
	}
	return status, err
}
