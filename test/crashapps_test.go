package test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// appSession is what the app has of a page session.
type appSession struct {
	in                        *pageSession
	code, access, refresh, id string // the tokens are "" if their answer got lost
	authorized                time.Time
	passwords                 int    // that were replaced by then
	replaced                  string // the refresh token before; or ""
	ended                     string // the operation that ended it
	hears                     bool   // the app is to hear of the end: it was the page session's
	deaf                      bool   // it may have been the app's, of which that hears nothing
}

// opHear is what the app does that hears of a logout.
const opHear = "hear of logout"

// logouts are those that an app has heard of by the back channel.
type logouts struct {
	URL  string
	mu   sync.Mutex
	n    int // requests
	sids map[string]bool
}

// hearLogouts starts to listen. Each seventh logout finds the app out of order.
func hearLogouts(t *testing.T) *logouts {
	t.Helper()
	l := &logouts{sids: make(map[string]bool)}
	l.URL = serveApp(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sid := claimOf(t, r.FormValue("logout_token"), "sid")
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.n++; l.n%7 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		l.sids[sid] = true
	}))
	return l
}

func (l *logouts) has(sid string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sids[sid]
}

// claimOf reads a claim of a token.
func claimOf(t testing.TB, token, name string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Errorf("no token: %q", token)
		return ""
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Errorf("%q: %v", token, err)
	}
	return answer{Body: claims}.field(name)
}

// awaitLogouts waits until the app has heard of the end of each page session that it had a
// session of.
func (c *client) awaitLogouts() {
	for _, s := range c.deadApps {
		if !s.hears || s.id == "" {
			continue
		}
		for sid := claimOf(c.operator.tb, s.id, "sid"); !c.heard.has(sid); {
			pass(c.operator.tb.Context(), 10*time.Millisecond)
		}
		c.add(c.answered, opHear)
		c.add(c.checked, opHear)
	}
}

// ageKnown is how old a code may be for which a test on a slow machine still knows that it
// isn't too old for the server.
const ageKnown = 30 * time.Second

// notGranted is what /oauth2/token says of what isn't good (any more).
var notGranted = []int{http.StatusBadRequest}

// grant asks for tokens; what isn't granted no server may grant.
func (c *client) grant(op string, want []int, fields ...string) (a answer, err error) {
	for _, server := range c.serversFor(want) {
		a, err = c.sendWith(server+"/oauth2/token", c.app.header(), form(fields...))
		if a, err = c.judge(server, op, a, err, a.Status, want); err != nil {
			return a, err
		}
	}
	return a, nil
}

const mostApps = 6

// appStep does something of the app at random.
func (c *client) appStep() error {
	r := c.rng.IntN(100)
	if len(c.pages) == 0 {
		return c.browse()
	}
	if len(c.apps) == 0 || len(c.apps) < mostApps && r >= 80 {
		return c.openApp(c.pages[c.rng.IntN(len(c.pages))])
	}
	s := c.apps[c.rng.IntN(len(c.apps))]
	switch {
	case r >= 76:
		return c.exchangeTwice(s)
	case r >= 72:
		return c.takeBack(s)
	case r >= 68:
		return c.appLogout(s)
	case r >= 45:
		return c.userInfo(s)
	default:
		return c.refreshApp(s)
	}
}

// openApp has a visitor go to the app.
func (c *client) openApp(in *pageSession) error {
	s := &appSession{in: in, authorized: time.Now(), passwords: len(c.retired)}
	a, err := c.page(opAuthorize, c.app.authorizeURL(), in.cookie, accepted)
	if err != nil {
		return err
	}
	if c.down.Load() && strings.Contains(a.Header.Get("Location"), "error=temporarily_unavailable") { // the app's 503
		c.add(c.cut, opAuthorize)
		return errCut
	}
	if s.code = a.code(); s.code == "" {
		return fmt.Errorf("authorize led to %q", a.leads())
	}
	a, err = c.exchange(s, answeredGrant)
	switch {
	case err != nil:
		c.settle = func() error { return c.settleExchange(s) }
		return err
	case a.Status == http.StatusOK:
		return nil
	case time.Since(s.authorized) < ageKnown:
		return errors.New("a new code was refused")
	}
	return nil
}

func (c *client) exchange(s *appSession, want []int) (answer, error) {
	a, err := c.grant(opExchange, want, "grant_type", "authorization_code", "code", s.code, "redirect_uri", callback, "code_verifier", verifier)
	if err == nil && a.Status == http.StatusOK {
		s.access, s.refresh, s.id = a.field("access_token"), a.field("refresh_token"), a.field("id_token")
		c.apps = append(c.apps, s)
	}
	return a, err
}

// settleExchange finds out what came of an exchange that was cut off: where it took place,
// this is the second, and ends what the first one opened. A server that stands still may
// have it in its hands yet, and would be the second after this one; so there's a third.
func (c *client) settleExchange(s *appSession) error {
	still := c.still.Load() != nil
	a, err := c.exchange(s, answeredGrant)
	if err == nil && a.Status == http.StatusOK {
		if !still {
			return nil
		}
		_, err = c.exchange(s, notGranted)
	}
	if err != nil {
		c.settle = func() error { return c.settleExchange(s) }
		return err
	}
	c.endApp(s, opExchange)
	return nil
}

// exchangeTwice is a code's second use, which ends what came of it unless the code is
// worth nothing any more: it is too old, or from before a new password.
func (c *client) exchangeTwice(s *appSession) error {
	if _, err := c.exchange(s, notGranted); err != nil {
		c.settle = func() error { return c.takeBack(s) }
		return err
	}
	if time.Since(s.authorized) > ageKnown || s.passwords != len(c.retired) {
		return c.takeBack(s)
	}
	c.endApp(s, opExchange)
	return nil
}

func (c *client) refreshApp(s *appSession) error {
	a, err := c.grant(opRefresh, accepted, "grant_type", "refresh_token", "refresh_token", s.refresh)
	if err != nil {
		c.settle = func() error { return c.refreshApp(s) }
		return err
	}
	s.replaced, s.access, s.refresh = s.refresh, a.field("access_token"), a.field("refresh_token")
	return nil
}

func (c *client) userInfo(s *appSession) error { return c.looksAt(s, accepted) }

func (c *client) looksAt(s *appSession, want []int) error {
	for _, server := range c.serversFor(want) {
		a, err := c.send(server+"/oauth2/userinfo", s.access, "")
		if _, err = c.judge(server, opUserInfo, a, err, a.Status, want); err != nil {
			return err
		}
	}
	return nil
}

// takeBack has the app revoke its token.
func (c *client) takeBack(s *appSession) error {
	server := c.serversFor(accepted)[0]
	a, err := c.sendWith(server+"/oauth2/revoke", c.app.header(), form("token", s.refresh))
	if _, err = c.judge(server, opTakeBack, a, err, a.Status, accepted); err != nil {
		c.settle = func() error { return c.takeBack(s) }
		return err
	}
	c.endApp(s, opTakeBack)
	return nil
}

// appLogout ends all that the app has of a page session. A server that stands still could
// do it at any time, also to what is opened after it.
func (c *client) appLogout(s *appSession) error {
	still := c.still.Load() != nil
	if _, err := c.page(opAppLogout, "/oauth2/logout?id_token_hint="+s.id, "", accepted); err != nil {
		c.settle = func() error { return c.appLogout(s) }
		if still && slices.Contains(c.pages, s.in) {
			for _, a := range c.apps {
				a.deaf = a.deaf || a.in == s.in
			}
			c.settle = func() error { return c.leave(s.in, false) }
		}
		return err
	}
	c.endApps(s.in, opAppLogout)
	return nil
}

func (c *client) endApps(in *pageSession, op string) {
	for _, s := range slices.Clone(c.apps) {
		if s.in == in {
			c.endApp(s, op)
		}
	}
}

func (c *client) endApp(s *appSession, op string) {
	c.apps = slices.DeleteFunc(c.apps, func(a *appSession) bool { return a == s })
	s.ended = op
	c.deadApps = append(c.deadApps, s)
}

// verifyApps holds what the app was answered against what the servers say now.
func (c *client) verifyApps() error {
	for _, s := range c.apps {
		if err := c.userInfo(s); err != nil {
			return fmt.Errorf("the newest access token of a live app session: %w", err)
		}
		c.add(c.checked, opExchange)
		if c.heard.has(claimOf(c.operator.tb, s.id, "sid")) {
			return errors.New("the app heard of the end of a session that is live")
		}
		if s.replaced != "" {
			a, err := c.grant(opRefresh, accepted, "grant_type", "refresh_token", "refresh_token", s.replaced)
			if err != nil {
				return fmt.Errorf("the app's refresh token replaced last: %w", err)
			}
			if a.field("refresh_token") != s.refresh {
				return errors.New("the app's refresh token replaced last got another one than the current")
			}
			c.add(c.checked, opRefresh)
		}
		if err := c.refreshApp(s); err != nil {
			return fmt.Errorf("the newest refresh token of a live app session: %w", err)
		}
	}
	for i, s := range c.deadApps {
		if i < c.settledApps && c.rng.IntN(len(c.deadApps)) > 10 {
			continue
		}
		if _, err := c.exchange(s, notGranted); err != nil {
			return fmt.Errorf("the code of an app session that was ended by %s: %w", s.ended, err)
		}
		if s.access != "" {
			if err := c.looksAt(s, refused); err != nil {
				return fmt.Errorf("the access token of an app session that was ended by %s: %w", s.ended, err)
			}
			if _, err := c.grant(opRefresh, notGranted, "grant_type", "refresh_token", "refresh_token", s.refresh); err != nil {
				return fmt.Errorf("the refresh token of an app session that was ended by %s: %w", s.ended, err)
			}
		}
		c.add(c.checked, s.ended)
	}
	c.settledApps = len(c.deadApps)
	return nil
}
