package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"kwai/internal/testing/cluster"
)

// App is a program that lets people in by kwai. Its redirect address is one at which
// nobody needs to listen.
type App struct {
	ID        string `json:"client_id"`
	Secret    string `json:"client_secret"`
	authorize string // the path of its request for a code
	exchange  string // the form of its request for tokens, but for the code
}

const (
	callback      = "https://app.example.org/callback"
	authorizePath = "/oauth2/authorize?"
	exchangePath  = "/oauth2/token"
)

// MakeApp makes an app. The database must be there.
func MakeApp(ctx context.Context, kwai cluster.Kwai) (a App, err error) {
	out, err := kwai.Command(ctx, "app", "create", "Bench", "--redirect-uri="+callback)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		return a, fmt.Errorf("kwai app create printed %q: %w", out, err)
	}
	verifier := oauth2.GenerateVerifier() // one for all: what it hides nobody looks for here
	a.authorize = authorizePath + url.Values{
		"response_type": {"code"}, "client_id": {a.ID}, "redirect_uri": {callback}, "scope": {"openid profile email"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}.Encode()
	a.exchange = a.form(url.Values{"grant_type": {"authorization_code"}, "redirect_uri": {callback}, "code_verifier": {verifier}}) + "&code="
	return a, nil
}

// form is one of the app's, with its secret.
func (a App) form(fields url.Values) string {
	fields.Set("client_id", a.ID)
	fields.Set("client_secret", a.Secret)
	return fields.Encode()
}

// AwaitAppKeys waits until a server has the keys of apps, which are made just after the
// first start.
func AwaitAppKeys(ctx context.Context, address string) error {
	c := NewConnContext(ctx, address)
	defer c.Close()
	for {
		err := c.accepted(c.Get("/.well-known/jwks.json", ""))
		if err != nil || bytes.Contains(c.body, []byte(`"RSA"`)) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Code gets a code for an app from the user of a browser session.
func (c *Conn) Code(a App, cookie string) (string, error) {
	c.Cookie = cookie
	status, err := c.Get(a.authorize, "")
	c.Cookie = "" // the rest comes from the app
	if err != nil {
		return "", err
	}
	code, ok := strings.CutPrefix(c.location, callback+"?code=")
	if !ok || status != http.StatusSeeOther {
		return "", fmt.Errorf("authorize answered %d and leads to %q", status, c.location)
	}
	code, _, _ = strings.Cut(code, "&")
	return code, nil
}

// OpenApp lets the user of a browser session into an app.
func (c *Conn) OpenApp(a App, cookie string) (Session, error) {
	code, err := c.Code(a, cookie)
	if err != nil {
		return Session{}, err
	}
	return c.tokens(c.Post(exchangePath, "", a.exchange+code))
}

// OpenAppSessions opens one in each of the browser sessions.
func OpenAppSessions(ctx context.Context, address string, a App, cookies []string) ([]Session, error) {
	const connections = 16
	sessions := make([]Session, len(cookies))
	err := InParallel(ctx, connections, func(i int) (err error) {
		c := NewConnContext(ctx, address)
		defer c.Close()
		for k := i; k < len(cookies) && ctx.Err() == nil; k += connections {
			if sessions[k], err = c.OpenApp(a, cookies[k]); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	return sessions, err
}

// SignIn is a whole sign-in at an app by somebody who is logged in: the browser gets a
// code, the app exchanges it and asks who it is. Each client goes round its own cookies, as
// in [Renew].
func SignIn(connections int, a App, cookies []string) Operation {
	next := rounds(connections, len(cookies))
	return Operation{"sign in at an app", connections, func(c *Conn, i int) error {
		s, err := c.OpenApp(a, cookies[next(i)])
		if err == nil {
			err = c.accepted(c.Get("/oauth2/userinfo", s.Access))
		}
		return err
	}}
}

// RefreshApp is Renew for an app's sessions.
func RefreshApp(connections int, a App, sessions []Session) Operation {
	next := rounds(connections, len(sessions))
	form := a.form(url.Values{"grant_type": {"refresh_token"}}) + "&refresh_token="
	return Operation{"refresh at an app", connections, func(c *Conn, i int) error {
		own := &sessions[next(i)]
		s, err := c.tokens(c.Post(exchangePath, "", form+own.Refresh))
		if err == nil {
			*own = s
		}
		return err
	}}
}

// Anonymous has an app's request for a code come from a browser in which nobody is logged
// in: 303 to the login.
func Anonymous(c *Conn, a App) (int, error) {
	c.Cookie = ""
	status, err := c.Get(a.authorize, "")
	if err == nil && status == http.StatusSeeOther && !strings.HasPrefix(c.location, "../login?") {
		err = errors.New("authorize leads to " + c.location)
	}
	return status, err
}

// WrongSecret exchanges a code in the app's name without its secret.
func WrongSecret(c *Conn, a App, code string) (int, error) {
	a.Secret = "x" + a.Secret[1:]
	return c.Post(exchangePath, "", a.form(url.Values{"grant_type": {"authorization_code"}, "redirect_uri": {callback}, "code": {code}}))
}

// ForgedCode exchanges a code that kwai hasn't made.
func ForgedCode(c *Conn, a App, code string) (int, error) {
	return c.Post(exchangePath, "", a.exchange+code)
}
