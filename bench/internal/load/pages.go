package load

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// BrowserCookie is the name of the pages' cookie over http.
const BrowserCookie = "kwai-dev"

// LogInBrowser logs in on the login page, for a session that stays, and visits the
// account.
func (c *Conn) LogInBrowser(email string) error {
	return c.postLogin(url.Values{"username": {email}, "password": {Password}, "stay": {"1"}})
}

// ProveBrowser shows the password again, and visits the account.
func (c *Conn) ProveBrowser() error {
	return c.postLogin(url.Values{"prove": {"1"}, "password": {Password}})
}

func (c *Conn) postLogin(form url.Values) error {
	before := c.Cookie
	status, err := c.Post("/login", "", form.Encode())
	if err == nil && (status != http.StatusSeeOther || c.Cookie == before || !strings.HasPrefix(c.Cookie, BrowserCookie+"=")) {
		err = fmt.Errorf("a login on the page: status %d, the cookie is %q", status, c.Cookie)
	}
	if err != nil {
		return err
	}
	return c.accepted(c.Get("/account", ""))
}

// OpenBrowserSessions logs in n times on the login page, to each of the accounts in
// turn, and returns the cookies.
func OpenBrowserSessions(ctx context.Context, address string, emails []string, n int) ([]string, error) {
	const connections = 16
	opened := make([][]string, connections)
	err := InParallel(ctx, connections, func(i int) error {
		for k := i; k < n && ctx.Err() == nil; k += connections {
			c := NewConnContext(ctx, address)
			err := c.LogInBrowser(emails[k%len(emails)])
			c.Close()
			if err != nil {
				return err
			}
			opened[i] = append(opened[i], c.Cookie)
		}
		return ctx.Err()
	})
	return slices.Concat(opened...), err
}

// LoginPage asks for the login page, as a browser that isn't logged in.
func LoginPage(connections int) Operation {
	return Operation{"login page", connections, func(c *Conn, _ int) error {
		return c.accepted(c.Get("/login", ""))
	}}
}

// AccountPage asks for the account page: each client goes round its own cookies, as in
// [Renew].
func AccountPage(connections int, cookies []string) Operation {
	next := rounds(connections, len(cookies))
	return Operation{"account page", connections, func(c *Conn, i int) error {
		c.Cookie = cookies[next(i)]
		return c.accepted(c.Get("/account", ""))
	}}
}
