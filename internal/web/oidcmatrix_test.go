package web_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// kind is what a token is.
type kind struct{ what, app, email string }

func (k kind) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s of %s at %s", k.what, k.email, k.app), " at ")
}

// The kinds of tokens that the server gives out.
const (
	anAPIAccess   = "an access token of the API"
	anAPIRefresh  = "a refresh token of the API"
	aCookie       = "a cookie"
	aCode         = "a code"
	anAppAccess   = "an access token"
	anAppRefresh  = "a refresh token"
	anIDToken     = "an ID token"
	aLogoutToken  = "a logout token"
	aLogoutOfLive = "a logout token of a live session"
	aMark         = "the begin of a request"
	aForm         = "the seal of a form"
)

// matrix is a site with two users and two apps, and a token of each kind of each.
type matrix struct {
	t      *testing.T
	s      *site
	apps   map[string]*oidcApp
	tokens map[kind]string
	ended  map[kind]string // logout tokens, which are of sessions that have ended
}

var matrixUsers, matrixApps = []string{"ann@example.org", "bob@example.org"}, []string{"first", "other"}

// make logs all users in anew, everywhere.
func (m *matrix) make() {
	m.t.Helper()
	m.tokens = maps.Clone(m.ended)
	id, key := m.s.idKey()
	for _, email := range matrixUsers {
		in := m.s.login(email)
		m.tokens[kind{anAPIAccess, "", email}], m.tokens[kind{anAPIRefresh, "", email}] = in.field("access_token"), in.field("refresh_token")
		b := m.s.agent(m.t, email)
		b.goOn(b.open(publicURL + "/login"))
		m.tokens[kind{aCookie, "", email}] = b.cookies["__Host-kwai"]
		m.tokens[kind{aForm, "", email}] = sealOf.FindStringSubmatch(string(b.open(publicURL + "/logout").Body))[1]
		for name, a := range m.apps {
			got := a.tokensOf(b)
			m.tokens[kind{anAppAccess, name, email}], m.tokens[kind{anAppRefresh, name, email}], m.tokens[kind{anIDToken, name, email}] = got.AccessToken, got.RefreshToken, got.IDToken
			m.tokens[kind{aCode, name, email}] = a.enter(b, a.request()).Get("code")
			claims := a.verified(got.IDToken)
			claims["events"], claims["jti"] = object{"http://schemas.openid.net/event/backchannel-logout": object{}}, "x"
			m.tokens[kind{aLogoutOfLive, name, email}] = signRS256(m.t, id, key, "logout+jwt", claims)
			p := b.open(a.meta.AuthorizationEndpoint + "?" + a.request("prompt", "login").Encode())
			m.tokens[kind{aMark, name, email}] = p.at.Query().Get("next")[strings.Index(p.at.Query().Get("next"), "kwai_begun=")+len("kwai_begun="):]
		}
	}
}

// caught takes what is sent to apps.
type caught struct{ bodies chan string }

func (c caught) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	c.bodies <- r.URL.Host + " " + string(body)
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: r}, err
}

// logouts are logout tokens as apps get them.
func (m *matrix) logouts() map[kind]string {
	m.t.Helper()
	all := make(map[kind]string)
	sender := &auth.LogoutSender{Rules: m.s.rules, Keep: time.Hour}
	for _, email := range matrixUsers {
		b := m.s.agent(m.t, email)
		for _, a := range m.apps {
			a.tokensOf(b)
		}
		b.goOn(b.open(publicURL + "/logout"))
		sent := caught{make(chan string, 10)}
		sender.Transport = sent
		m.s.ok(sender.Send(m.t.Context()))
		close(sent.bodies)
		for text := range sent.bodies {
			host, body, _ := strings.Cut(text, " ")
			form, err := url.ParseQuery(body)
			m.s.ok(err)
			app, _, _ := strings.Cut(host, ".")
			all[kind{aLogoutToken, app, email}] = form.Get("logout_token")
		}
	}
	if len(all) != len(matrixUsers)*len(m.apps) {
		m.t.Fatalf("there are %d logout tokens", len(all))
	}
	return all
}

// alive are the kinds of sessions that go on, as their tokens show.
func (m *matrix) alive() (alive []string) {
	m.t.Helper()
	for k, text := range m.tokens {
		good := false
		switch k.what {
		case anAPIAccess:
			good = m.s.get(userPath, text).Status == http.StatusOK
		case anAppAccess:
			good = m.s.raw(publicURL+"/oauth2/userinfo", bearer(text), nil).Status == http.StatusOK
		case aCookie:
			good = m.s.raw(publicURL+"/account", cookieOf(text), nil).Status == http.StatusOK
		}
		if good {
			alive = append(alive, k.String())
		}
	}
	slices.Sort(alive)
	return alive
}

func cookieOf(value string) http.Header { return http.Header{"Cookie": {"__Host-kwai=" + value}} }

// matrixDoors are all places that a token can be shown at, and what each takes. The app
// there is the first, the user Ann.
var matrixDoors = []struct {
	name  string
	try   func(m *matrix, text string) (taken bool)
	takes func(k kind) bool
	ends  func(k kind) []string // which sessions end, as alive says; nil: none
}{
	{"the API", func(m *matrix, text string) bool { return m.s.get(userPath, text).Status == http.StatusOK }, isA(anAPIAccess), nil},
	{"the API's sessions", func(m *matrix, text string) bool { return m.s.get(sessionsPath, text).Status == http.StatusOK }, isA(anAPIAccess), nil},
	{"the API, as a cookie", func(m *matrix, text string) bool {
		return m.s.raw(publicURL+userPath, cookieOf(text), nil).Status == http.StatusOK
	}, isA(), nil},
	{"access_token", func(m *matrix, text string) bool {
		return m.s.post("access_token", "", "refresh_token", text).Status == http.StatusOK
	}, isA(anAPIRefresh), nil},
	{"login, with a refresh token", func(m *matrix, text string) bool {
		return m.s.post("login", "", "grant_type", "refresh_token", "refresh_token", text).Status == http.StatusOK
	}, isA(anAPIRefresh), nil},
	{"the API's logout, by the access token", func(m *matrix, text string) bool {
		return m.s.post("logout", text, "refresh_token", m.tokens[kind{anAPIRefresh, "", "ann@example.org"}]).Status == http.StatusOK
	}, func(k kind) bool { return k == kind{anAPIAccess, "", "ann@example.org"} }, same1(anAPIAccess)},
	{"the API's logout, by the refresh token", func(m *matrix, text string) bool {
		return m.s.post("logout", m.tokens[kind{anAPIAccess, "", "ann@example.org"}], "refresh_token", text).Status == http.StatusOK
	}, func(k kind) bool { return k == kind{anAPIRefresh, "", "ann@example.org"} }, same1(anAPIAccess)},
	{"the account", func(m *matrix, text string) bool {
		return m.s.raw(publicURL+"/account", cookieOf(text), nil).Status == http.StatusOK
	}, isA(aCookie), nil},
	{"the account, by a header", func(m *matrix, text string) bool {
		return m.s.raw(publicURL+"/account", bearer(text), nil).Status == http.StatusOK
	}, isA(), nil},
	{"authorize", func(m *matrix, text string) bool {
		a := m.s.raw(publicURL+"/oauth2/authorize?"+m.apps["first"].request("prompt", "none").Encode(), cookieOf(text), nil)
		return strings.Contains(a.Header.Get("Location"), "code=")
	}, isA(aCookie), nil},
	{"authorize, by a header", func(m *matrix, text string) bool {
		a := m.s.raw(publicURL+"/oauth2/authorize?"+m.apps["first"].request("prompt", "none").Encode(), bearer(text), nil)
		return strings.Contains(a.Header.Get("Location"), "code=")
	}, isA(), nil},
	{"the token endpoint, as a code", func(m *matrix, text string) bool {
		return m.apps["first"].exchange(text).Status == http.StatusOK
	}, func(k kind) bool { return k.what == aCode && k.app == "first" }, nil},
	{"the token endpoint, as a refresh token", func(m *matrix, text string) bool {
		return m.apps["first"].refresh(text).Status == http.StatusOK
	}, func(k kind) bool { return k.what == anAppRefresh && k.app == "first" }, nil},
	{"the token endpoint, as a secret", func(m *matrix, text string) bool {
		return m.s.raw(publicURL+"/oauth2/revoke", basic("first", text), url.Values{"token": {"x"}}).Status == http.StatusOK
	}, isA(), nil},
	{"userinfo", func(m *matrix, text string) bool {
		return m.s.raw(publicURL+"/oauth2/userinfo", bearer(text), nil).Status == http.StatusOK
	}, isA(anAppAccess), nil},
	{"userinfo, by a form", func(m *matrix, text string) bool {
		return m.s.raw(publicURL+"/oauth2/userinfo", nil, url.Values{"access_token": {text}}).Status == http.StatusOK
	}, isA(anAppAccess), nil},
	{"userinfo, as a cookie", func(m *matrix, text string) bool {
		return m.s.raw(publicURL+"/oauth2/userinfo", cookieOf(text), nil).Status == http.StatusOK
	}, isA(), nil},
	{"revoke", func(m *matrix, text string) bool {
		before := len(m.alive())
		same(m.t, "revoke", m.apps["first"].post(publicURL+"/oauth2/revoke", url.Values{"token": {text}}).Status, http.StatusOK)
		return len(m.alive()) != before
	}, func(k kind) bool { return (k.what == anAppAccess || k.what == anAppRefresh) && k.app == "first" }, same1(anAppAccess)},
	{"a logout, as a hint without a cookie", func(m *matrix, text string) bool {
		before := len(m.alive())
		m.s.raw(publicURL+"/oauth2/logout?"+url.Values{"id_token_hint": {text}}.Encode(), nil, nil)
		return len(m.alive()) != before
	}, isA(anIDToken), same1(anAppAccess)},
	{"a logout, as a hint", func(m *matrix, text string) bool {
		before := len(m.alive())
		m.s.raw(publicURL+"/oauth2/logout?"+url.Values{"id_token_hint": {text}}.Encode(), cookieOf(m.tokens[kind{aCookie, "", "ann@example.org"}]), nil)
		return len(m.alive()) != before
	}, func(k kind) bool { return k.what == anIDToken && k.email == "ann@example.org" }, func(k kind) []string {
		ended := []string{kind{aCookie, "", k.email}.String()}
		for _, app := range matrixApps {
			ended = append(ended, kind{anAppAccess, app, k.email}.String())
		}
		return ended
	}},
	{"authorize, as a hint", func(m *matrix, text string) bool { // taken: it names somebody else than Ann
		q := m.apps["first"].request("prompt", "none", "id_token_hint", text)
		a := m.s.raw(publicURL+"/oauth2/authorize?"+q.Encode(), cookieOf(m.tokens[kind{aCookie, "", "ann@example.org"}]), nil)
		return strings.Contains(a.Header.Get("Location"), "error=login_required")
	}, func(k kind) bool { return k == kind{anIDToken, "first", "bob@example.org"} }, nil},
	{"authorize, as the begin of a request", func(m *matrix, text string) bool {
		a := m.apps["first"]
		address := publicURL + "/oauth2/authorize?" + a.request("prompt", "login").Encode() + "&kwai_begun=" + url.QueryEscape(text)
		return strings.Contains(m.s.raw(address, cookieOf(m.tokens[kind{aCookie, "", "ann@example.org"}]), nil).Header.Get("Location"), "code=")
	}, isA(), nil},
	{"a form of the account", func(m *matrix, text string) bool {
		a := m.s.raw(publicURL+"/account/profile", cookieOf(m.tokens[kind{aCookie, "", "ann@example.org"}]), url.Values{"form": {text}, "first_name": {"Ann"}, "last_name": {"Other"}})
		return strings.Contains(a.Header.Get("Location"), "done=profile")
	}, func(k kind) bool { return k == kind{aForm, "", "ann@example.org"} }, nil},
}

func isA(what ...string) func(kind) bool {
	return func(k kind) bool { return slices.Contains(what, k.what) }
}

// same1 is the one session of that kind, of the token's user and app.
func same1(what string) func(kind) []string {
	return func(k kind) []string { return []string{kind{what, k.app, k.email}.String()} }
}

// Every kind of token, of this app and user and of others, is shown at every door: none
// takes what isn't listed, and a refusal ends nothing.
func TestEveryTokenAtEveryDoor(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		m := &matrix{t: t, s: s, apps: make(map[string]*oidcApp)}
		for _, email := range matrixUsers {
			s.user(email, good)
		}
		for _, name := range matrixApps {
			m.apps[name] = s.app(t, name, func(a *store.App) { a.BackchannelURL = "https://" + name + ".example.com/logout" })
		}
		m.ended = m.logouts()
		m.make()
		kinds := slices.SortedFunc(maps.Keys(m.tokens), func(a, b kind) int { return strings.Compare(a.String(), b.String()) })
		same(t, "kinds", len(kinds), 2*4+4*7)
		for _, door := range matrixDoors {
			before, taken := m.alive(), 0
			for _, k := range kinds {
				takes := door.takes(k)
				if got := door.try(m, m.tokens[k]); got != takes {
					t.Errorf("%s, at %s: taken: %t, want %t", k, door.name, got, takes)
				}
				if !takes {
					continue
				}
				taken++
				if door.ends != nil {
					want := slices.DeleteFunc(slices.Clone(before), func(session string) bool { return slices.Contains(door.ends(k), session) })
					if after := m.alive(); !slices.Equal(after, want) {
						t.Errorf("%s, at %s: alive are %q, want %q", k, door.name, after, want)
					}
					m.make()
				}
			}
			if after := m.alive(); !slices.Equal(after, before) {
				t.Errorf("at %s: alive are %q, want %q", door.name, after, before)
				m.make()
			}
			same(t, "something is taken at "+door.name, taken > 0, slices.ContainsFunc(kinds, door.takes))
		}
	}, limitsOff)
}
