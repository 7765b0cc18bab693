package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/keytest"
)

// verifier is what the tests' apps prove by PKCE.
var verifier = strings.Repeat("verifier~", 5)

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// forApps gives a server the keys of apps.
func (s *server) forApps(t *testing.T) *server {
	t.Helper()
	keytest.Insert(t, s.Store, s.master)
	s.readKeys(t)
	must(s.Keys.RotateDue(t.Context()))(t)
	return s.readKeys(t)
}

// readKeys reads them also where no time goes by.
func (s *server) readKeys(t *testing.T) *server {
	t.Helper()
	s.Age(time.Microsecond)
	ok(t, s.ReadKeys(t.Context()))
	return s
}

// eachForApps is each, with the keys of apps.
func eachForApps(t *testing.T, f func(t *testing.T, s *server, c *clock)) {
	t.Helper()
	each(t, func(t *testing.T, s *server, c *clock) { f(t, s.forApps(t), c) })
}

// app makes an app of that id, which hears of logouts, and returns its secret.
func (s *server) app(t *testing.T, id string, change ...func(*store.App)) (store.App, string) {
	t.Helper()
	a := store.App{ID: id, Name: "The " + id, RedirectURIs: []string{"https://" + id + ".example.org/callback"}, BackchannelURL: "https://" + id + ".example.org/logout"}
	for _, c := range change {
		c(&a)
	}
	made, secret, err := s.CreateApp(t.Context(), a, false, "")
	ok(t, err)
	return made, secret
}

// asks is an app's request for a code, with these scopes beside openid.
func (s *server) asks(a store.App, scopes ...string) auth.AuthRequest {
	return auth.AuthRequest{
		App: a, RedirectURI: a.RedirectURIs[0], Scopes: append([]string{"openid"}, scopes...),
		Challenge: challenge(verifier), MaxAge: -1, Begun: s.Store.Now(),
	}
}

// code is one that an app gets for a visitor, who agrees if that must be.
func (s *server) code(t *testing.T, v auth.Visitor, a store.App, scopes ...string) string {
	t.Helper()
	code, needs, err := s.Authorize(t.Context(), auth.Client{}, v, s.asks(a, scopes...), a.Consent)
	ok(t, err)
	if needs != auth.Nothing {
		t.Fatalf("a code needs %v", needs)
	}
	return code
}

func (s *server) tryExchange(t *testing.T, a store.App, code string) (auth.AppTokens, error) {
	t.Helper()
	return s.Exchange(t.Context(), auth.Client{}, a, code, a.RedirectURIs[0], verifier)
}

func (s *server) exchange(t *testing.T, a store.App, code string) auth.AppTokens {
	t.Helper()
	return must(s.tryExchange(t, a, code))(t)
}

func (s *server) tryRenewApp(t *testing.T, a store.App, tokens auth.AppTokens) (auth.AppTokens, error) {
	t.Helper()
	return s.RenewApp(t.Context(), auth.Client{}, a, tokens.Refresh, s.Store.Now())
}

func (s *server) renewApp(t *testing.T, a store.App, tokens auth.AppTokens) auth.AppTokens {
	t.Helper()
	return must(s.tryRenewApp(t, a, tokens))(t)
}

// appDead holds that an app's tokens open nothing.
func (s *server) appDead(t *testing.T, a store.App, all ...auth.AppTokens) {
	t.Helper()
	for _, tokens := range all {
		_, err := s.UserInfo(t.Context(), tokens.Access)
		wantErr(t, "userinfo of an ended session", err, auth.ErrNotLoggedIn)
		_, err = s.tryRenewApp(t, a, tokens)
		wantErr(t, "a refresh of an ended session", err, auth.ErrGrant)
	}
}

// appAlive holds that an app's tokens are those of a session that goes on.
func (s *server) appAlive(t *testing.T, a store.App, all ...auth.AppTokens) {
	t.Helper()
	for _, tokens := range all {
		must(s.UserInfo(t.Context(), s.renewApp(t, a, tokens).Access))(t)
	}
}

// toHear are the logouts that apps are still to hear of, as "app sid".
func (s *server) toHear(t *testing.T) (all []string) {
	t.Helper()
	for l, err := range s.Logouts(t.Context()) {
		ok(t, err)
		all = append(all, l.AppID+" "+l.SID)
	}
	return all
}

// idClaims reads a token for an app by the published keys.
func (s *server) idClaims(t *testing.T, kind, text string) (claims map[string]any) {
	t.Helper()
	parsed := must(jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.RS256}))(t)
	same(t, "typ", parsed.Signatures[0].Header.ExtraHeaders["typ"], any(kind))
	keys := s.Keys.JWKS(t.Context())
	found := keys.Key(parsed.Signatures[0].Header.KeyID)
	if len(found) != 1 {
		t.Fatalf("%d keys of the id %q are published", len(found), parsed.Signatures[0].Header.KeyID)
	}
	ok(t, json.Unmarshal(must(parsed.Verify(found[0]))(t), &claims))
	return claims
}

func keysOf(claims map[string]any) []string { return slices.Sorted(maps.Keys(claims)) }

func sorted(all []string) []string {
	slices.Sort(all)
	return all
}

// A deleted app's codes and tokens are worth nothing, also at another app that gets its id.
func TestAnAppIsDeleted(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		v := s.visit(t, s.browse(t, user.Email, true))
		a, _ := s.app(t, "wiki", func(a *store.App) { a.Consent = true })
		code, tokens := s.code(t, v, a), s.exchange(t, a, s.code(t, v, a))
		second := s.exchange(t, a, s.code(t, v, a))
		ok(t, s.TakeBack(t.Context(), auth.Client{}, v, "mail"))
		ok(t, s.DeleteApp(t.Context(), a.ID))
		wantCode(t, "a second deletion", s.DeleteApp(t.Context(), a.ID), auth.NotFound)
		for _, table := range []string{"apps", "app_sessions", "grants", "logouts"} {
			same(t, "rows of "+table, s.count(t, "SELECT COUNT(*) FROM "+table), 0)
		}
		s.appDead(t, a, tokens)
		_, err := s.tryExchange(t, a, code)
		wantErr(t, "a code of a deleted app", err, auth.ErrGrant)
		_, _, err = s.Authorize(t.Context(), auth.Client{}, v, s.asks(a), true)
		wantCode(t, "a grant to a deleted app", err, auth.NotFound)
		ok(t, s.TakeBack(t.Context(), auth.Client{}, v, a.ID))

		// One whose exchange met the deletion left a row.
		c.advance(time.Second)
		again, _ := s.app(t, "wiki")
		id, _, err := s.Ring().ParseAppRefresh(second.Refresh)
		ok(t, err)
		s.exec(t, fmt.Sprintf(`INSERT INTO app_sessions (id, user_id, parent_id, app_id, sid, scopes, amr, auth_time, counter, floor, mark, prior, created_at, renewed_at)
			VALUES ('%s', '%s', '%s', 'wiki', 'sid', 'openid', 'pwd', 0, 1, 0, 0, 0, %d, %[4]d)`, id, user.ID, v.SessionID, c.now().Add(-time.Second).UnixMicro()))
		s.appDead(t, again, second)
		_, err = s.tryExchange(t, again, code)
		wantErr(t, "a code of the app before", err, auth.ErrGrant)
		s.appAlive(t, again, s.exchange(t, again, s.code(t, v, again)))
	})
}

// An app has two secrets for the time of a change.
func TestSecretsOfAnApp(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, _ *clock) {
		a, first := s.app(t, "wiki")
		public, none, err := s.CreateApp(t.Context(), store.App{ID: "desk", Name: "Desk", RedirectURIs: []string{"http://127.0.0.1/callback"}}, true, "")
		ok(t, err)
		same(t, "a public app's secret", none, "")
		good := func(secrets ...string) {
			t.Helper()
			for _, secret := range []string{first, "nonsense", strings.Repeat("second", 6), strings.Repeat("third!", 6), strings.Repeat("fourth", 6), ""} {
				_, err := s.Authenticate(t.Context(), a.ID, secret)
				if slices.Contains(secrets, secret) {
					ok(t, err)
				} else {
					wantErr(t, "the secret "+secret, err, auth.ErrClient)
				}
			}
		}
		second, third, fourth := strings.Repeat("second", 6), strings.Repeat("third!", 6), strings.Repeat("fourth", 6)
		good(first)
		same(t, "the one given", must(s.NewAppSecret(t.Context(), a.ID, second, false))(t), second)
		good(first, second)
		must(s.NewAppSecret(t.Context(), a.ID, third, false))(t)
		good(second, third)
		must(s.NewAppSecret(t.Context(), a.ID, fourth, true))(t)
		good(fourth)
		must(s.UpdateApp(t.Context(), a.ID, func(a *store.App) { a.Name = "Another" }))(t)
		good(fourth)
		made := must(s.NewAppSecret(t.Context(), a.ID, "", true))(t)
		must(s.Authenticate(t.Context(), a.ID, made))(t)
		if made == first || len(made) < auth.MinSecret {
			t.Errorf("the secret %q was made", made)
		}
		for _, bad := range []string{"short", strings.Repeat("x", 201), strings.Repeat("with spaces ", 4), strings.Repeat("ü", 40)} {
			_, err := s.NewAppSecret(t.Context(), a.ID, bad, false)
			wantCode(t, "the secret "+bad, err, auth.Invalid)
		}
		_, err = s.NewAppSecret(t.Context(), public.ID, "", false)
		wantCode(t, "a secret for a public app", err, auth.Conflict)
		must(s.Authenticate(t.Context(), public.ID, ""))(t)
		for id, secret := range map[string]string{public.ID: first, "nobody": first, "": ""} {
			_, err := s.Authenticate(t.Context(), id, secret)
			wantErr(t, "the app "+id, err, auth.ErrClient)
		}
		same(t, "secrets in the database", s.count(t, fmt.Sprintf(`SELECT COUNT(*) FROM apps WHERE CAST(secret_hash AS TEXT) LIKE '%%%s%%'`, made)), 0)
	})
}

// What an app may be sent people to, and what not.
func TestAddressesOfAnApp(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		for uri, want := range map[string]string{ // who may have it
			"https://a.example.org/cb":             "both",
			"https://a.example.org":                "both",
			"https://a.example.org:8443/cb?x=1&y=": "both",
			"https://[2001:db8::1]/cb":             "both",
			"http://localhost/cb":                  "both",
			"http://localhost:8080/cb":             "both",
			"http://127.0.0.1:8080/cb":             "both",
			"http://[::1]/cb":                      "both",
			"org.example.app:/cb":                  "public",
			"org.example.app://cb":                 "public",
			"org.example.app:cb":                   "public",
			"http://a.example.org/cb":              "",
			"http://127.0.0.1.example.org/cb":      "",
			"http://localhost.example.org/cb":      "",
			"https://a.example.org/cb#":            "",
			"https://a.example.org/#x":             "",
			"https://ann@a.example.org/":           "",
			"https://a.example.org@b.org/":         "",
			"https://:443/cb":                      "",
			"https://":                             "",
			"https:///cb":                          "",
			"https:a.example.org":                  "",
			"http://:8080/":                        "",
			"//a.example.org/cb":                   "",
			"/cb":                                  "",
			"":                                     "",
			"app:/cb":                              "",
			"javascript:alert(1)":                  "",
			"data:text/html,x":                     "",
			"https://a.example.org\\@b.org/":       "",
			"https://a.example.org/ cb":            "",
			"https://a.example.org/\ncb":           "",
			"https://a.example.org/\x00":           "",
			"https://ä.example.org/":               "",
			"https://a.example.org/<script>":       "",
			"https://a.example.org/" + strings.Repeat("x", 2000): "",
			"https://a.example.org/%zz":                          "",
			"https://a.example.org:x/":                           "",
			"https://*.example.org/":                             "",
			"https://a.example.org/*":                            "",
			"https://a.example.org/,https://b.example.org/":      "",
		} {
			for _, public := range []bool{false, true} {
				may := want == "both" || want == "public" && public
				for field, set := range map[string]func(*store.App){
					"redirect":    func(a *store.App) { a.RedirectURIs = []string{uri} },
					"post-logout": func(a *store.App) { a.PostLogoutURIs = []string{uri} },
				} {
					a := store.App{Name: "App", RedirectURIs: []string{"https://ok.example.org/"}}
					set(&a)
					if _, _, err := s.CreateApp(t.Context(), a, public, ""); (err == nil) != may || err != nil && auth.CodeOf(err) != auth.Invalid {
						t.Errorf("%s %q, public %v: %v", field, uri, public, err)
					}
				}
			}
			if uri == "" {
				continue // none
			}
			home := store.App{Name: "App", RedirectURIs: []string{"https://ok.example.org/"}, HomeURL: uri}
			if _, _, err := s.CreateApp(t.Context(), home, true, ""); (err == nil) != (want == "both") {
				t.Errorf("home %q: %v", uri, err)
			}
			// Where kwai itself goes, a private network is enough.
			home.HomeURL, home.BackchannelURL = "", uri
			may := want == "both" || strings.HasPrefix(uri, "http://") && strings.HasSuffix(uri, ".example.org/cb")
			if _, _, err := s.CreateApp(t.Context(), home, true, ""); (err == nil) != may {
				t.Errorf("back-channel %q: %v", uri, err)
			}
		}
		fine := store.App{ID: "fine", Name: "Fine", RedirectURIs: []string{"https://ok.example.org/"}}
		for what, change := range map[string]func(*store.App){
			"no address":        func(a *store.App) { a.RedirectURIs = nil },
			"21 addresses":      func(a *store.App) { a.RedirectURIs = slices.Repeat(a.RedirectURIs, 21) },
			"no name":           func(a *store.App) { a.Name = "" },
			"a long name":       func(a *store.App) { a.Name = strings.Repeat("x", 101) },
			"a blank name":      func(a *store.App) { a.Name = "\u00a0 " },
			"an unseen name":    func(a *store.App) { a.Name = "x\u202ex" },
			"the API's id":      func(a *store.App) { a.ID = s.Settings.Audience },
			"an id with spaces": func(a *store.App) { a.ID = "an app" },
			"a long id":         func(a *store.App) { a.ID = strings.Repeat("x", 101) },
		} {
			a := fine
			change(&a)
			_, _, err := s.CreateApp(t.Context(), a, false, "")
			wantCode(t, what, err, auth.Invalid)
		}
		_, _, err := s.CreateApp(t.Context(), fine, false, "")
		ok(t, err)
		_, _, err = s.CreateApp(t.Context(), fine, false, "")
		wantCode(t, "an id twice", err, auth.Conflict)
		_, err = s.UpdateApp(t.Context(), "fine", func(a *store.App) { a.RedirectURIs = []string{"http://x.example.org/"} })
		wantCode(t, "a change to a bad address", err, auth.Invalid)
		same(t, "the address after that", must(s.App(t.Context(), "fine"))(t).RedirectURIs, fine.RedirectURIs)
		nopkce := fine
		nopkce.ID, nopkce.WithoutPKCE = "nopkce", true
		_, _, err = s.CreateApp(t.Context(), nopkce, true, "")
		wantCode(t, "a public app without PKCE", err, auth.Invalid)
	})
}

// Addresses match letter by letter; those at an IP of this machine with any port.
func TestAddressesMatch(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		a := store.App{RedirectURIs: []string{"https://a.example.org/cb", "http://127.0.0.1/cb", "http://[::1]:1/cb?x=1", "http://localhost/cb", "org.example.app:/cb"}}
		for uri, want := range map[string]bool{
			"https://a.example.org/cb": true, "http://127.0.0.1/cb": true, "http://127.0.0.1:8080/cb": true, "http://[::1]:2/cb?x=1": true, "http://localhost/cb": true, "org.example.app:/cb": true,
			"https://a.example.org/cb/": false, "https://a.example.org/CB": false, "https://A.example.org/cb": false, "https://a.example.org/cb?x": false, "https://a.example.org:443/cb": false,
			"https://a.example.org/cb#": false, "https://a.example.org/./cb": false, "https://a.example.org/%63b": false, "http://a.example.org/cb": false, "": false,
			"http://127.0.0.1:8080/cb2": false, "http://127.0.0.1:8080/cb?x": false, "http://127.0.0.1:8080/cb#x": false, "http://127.0.0.1:80@b.org/cb": false, "http://127.0.0.1:123456/cb": false,
			"http://127.0.0.2/cb": false, "http://[::1]:2/cb": false, "http://localhost:8080/cb": false, "https://127.0.0.1/cb": false, "http://127.0.0.1:8080/\\cb": false, "http://127.0.0.1:/cb": false,
		} {
			if got := s.Redirects(a, uri); got != want {
				t.Errorf("%q: %v", uri, got)
			}
		}
	})
}
