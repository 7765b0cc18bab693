package web_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// What apps and their users could try at the OpenID provider. docs/attacks.md says which
// published holes the tests stand for.

// attack is a browser at a site with apps, and what one needs to be one of these.
type attack struct {
	*browser
	verifier, challenge string
}

func (s *site) attack(t *testing.T, apps ...store.App) *attack {
	t.Helper()
	s.rules.Keys.Tend(t.Context()) // makes the keys of apps
	s.rules.Keys.Tend(t.Context()) // reads them
	for _, app := range apps {
		_, _, err := s.rules.CreateApp(t.Context(), app, false, appSecret)
		s.ok(err)
	}
	verifier := strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	return &attack{s.browser(t), verifier, base64.RawURLEncoding.EncodeToString(sum[:])}
}

const appSecret = "0123456789abcdef0123456789abcdef"

var (
	clubApp  = store.App{ID: "club", Name: "Club", RedirectURIs: []string{"https://club.example.org/cb"}, PostLogoutURIs: []string{"https://club.example.org/bye"}}
	otherApp = store.App{ID: "other", Name: "Other", RedirectURIs: []string{"https://other.example.org/cb"}, Consent: true}
)

// ask is a request of an app; of the fields later ones win, and "" leaves one out.
func (b *attack) ask(app store.App, fields ...string) string {
	q := url.Values{
		"client_id": {app.ID}, "redirect_uri": {app.RedirectURIs[0]}, "response_type": {"code"}, "scope": {"openid email"}, "state": {"s"},
		"code_challenge": {b.challenge}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(fields); i += 2 {
		if q.Set(fields[i], fields[i+1]); fields[i+1] == "" {
			q.Del(fields[i])
		}
	}
	return "/oauth2/authorize?" + q.Encode()
}

// send sends a request past openapi.yaml, and says where its answer leads.
func (b *attack) send(method, path string, form url.Values) (answer, *url.URL) {
	b.t.Helper()
	r := b.s.request(method, path, strings.NewReader(form.Encode()))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", urlencoded)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	res, err := b.s.via.RoundTrip(r)
	b.s.ok(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	b.s.ok(err)
	for _, c := range res.Cookies() {
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	to, err := r.URL.Parse(res.Header.Get("Location"))
	b.s.ok(err)
	return answer{res.StatusCode, res.Header, body}, to
}

// leads says where a GET leads: to whom, and with which error; "" for a code.
func (b *attack) leads(path string) (to *url.URL, failure string) {
	b.t.Helper()
	a, to := b.send(http.MethodGet, path, nil)
	if a.Status != http.StatusSeeOther {
		b.t.Fatalf("%s: %v", path, a)
	}
	return to, to.Query().Get("error")
}

// code is one for the app.
func (b *attack) code(app store.App, fields ...string) string {
	b.t.Helper()
	to, failure := b.leads(b.ask(app, fields...))
	code := to.Query().Get("code")
	if code == "" || failure != "" {
		b.t.Fatalf("there is no code in %s", to)
	}
	return code
}

func (b *attack) token(app store.App, fields ...string) answer {
	b.t.Helper()
	form := url.Values{"client_id": {app.ID}, "client_secret": {appSecret}}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	a, _ := b.send(http.MethodPost, "/oauth2/token", form)
	return a
}

// exchange exchanges a code of one app at another.
func (b *attack) exchange(of, at store.App, code, verifier string) answer {
	b.t.Helper()
	return b.token(at, "grant_type", "authorization_code", "code", code, "redirect_uri", of.RedirectURIs[0], "code_verifier", verifier)
}

// seesUser says whether an access token shows the user at userinfo.
func (b *attack) seesUser(access string) bool {
	b.t.Helper()
	r := b.s.request(http.MethodGet, "/oauth2/userinfo", http.NoBody)
	r.Header.Set("Authorization", "Bearer "+access)
	res, err := b.s.via.RoundTrip(r)
	b.s.ok(err)
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// says holds that an app is refused, for that reason.
func (a answer) says(t *testing.T, what, reason string) {
	t.Helper()
	if a.Status != http.StatusBadRequest || a.field("error") != reason {
		t.Errorf("%s: %v, want %s", what, a, reason)
	}
}

func TestRedirectsThatNobodyRegistered(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t, clubApp)
		b.login("ann@example.org", good)
		for _, uri := range []string{
			"https://club.example.org/cb/", "https://club.example.org/cb?", "https://club.example.org/CB", "https://CLUB.example.org/cb", "https://club.example.org/cb#x",
			"https://club.example.org@evil.example/cb", "https://club.example.org@club.example.org@evil.example/cb", "https://club.example.org/cb/../x", "https://club.example.org/cb/..;/x",
			"https://club.example.org%2f@evil.example/cb", "//club.example.org/cb", "/cb", " https://club.example.org/cb", "https://club.example.org/cb ", "https://club.example.org/cb%00",
			"https://club.example.org:443/cb", "http://club.example.org/cb", "javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", `https:\\club.example.org\cb`, "https://club.example.org.evil.example/cb",
			"https://evil.example/?https://club.example.org/cb", "http://127.0.0.1/cb", "http://localhost/cb", "*", "https://*.example.org/cb",
		} {
			for _, more := range [][]string{nil, {"prompt", "none"}, {"response_type", "token"}, {"scope", "none"}, {"response_mode", "form_post.jwt"}, {"request_uri", "https://evil.example"}} {
				a, _ := b.send(http.MethodGet, b.ask(clubApp, append([]string{"redirect_uri", uri}, more...)...), nil)
				if a.Status != http.StatusBadRequest || a.Header.Get("Location") != "" || strings.Contains(string(a.Body), "evil.example") {
					t.Errorf("%q with %q: %v", uri, more, a)
				}
			}
		}
		for name, path := range map[string]string{
			"two redirects": b.ask(clubApp) + "&redirect_uri=https%3A%2F%2Fevil.example",
			"two apps":      b.ask(clubApp) + "&client_id=other",
			"no app":        b.ask(clubApp, "client_id", ""),
			"no such app":   b.ask(clubApp, "client_id", "evil"),
			"no redirect":   b.ask(clubApp, "redirect_uri", ""),
		} {
			if a, _ := b.send(http.MethodGet, path, nil); a.Status != http.StatusBadRequest || a.Header.Get("Location") != "" {
				t.Errorf("%s: %v", name, a)
			}
		}
	})
}

func TestCodesOfOthers(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t, clubApp, store.App{ID: "evil", Name: "Evil", RedirectURIs: clubApp.RedirectURIs})
		evil := store.App{ID: "evil", RedirectURIs: clubApp.RedirectURIs}
		b.login("ann@example.org", good)
		code := b.code(clubApp)
		b.exchange(clubApp, evil, code, b.verifier).says(t, "another app", "invalid_grant")
		b.exchange(otherApp, clubApp, code, b.verifier).says(t, "another redirect", "invalid_grant")
		b.exchange(clubApp, clubApp, code, "").says(t, "no verifier", "invalid_grant")
		b.exchange(clubApp, clubApp, code, strings.Repeat("w", 43)).says(t, "another verifier", "invalid_grant")
		b.exchange(clubApp, clubApp, code+"A", b.verifier).says(t, "another code", "invalid_grant")
		first := b.exchange(clubApp, clubApp, code, b.verifier)
		access, refresh := first.field("access_token"), first.field("refresh_token")
		if !b.seesUser(access) {
			t.Fatalf("what others tried has cost the app its code: %v", first)
		}
		b.token(evil, "grant_type", "refresh_token", "refresh_token", refresh).says(t, "a refresh by another app", "invalid_grant")
		b.token(clubApp, "grant_type", "refresh_token", "refresh_token", code).says(t, "a code for a refresh token", "invalid_grant")
		b.exchange(clubApp, clubApp, refresh, b.verifier).says(t, "a refresh token for a code", "invalid_grant")
		if a, _ := b.send(http.MethodPost, "/oauth2/revoke", url.Values{"client_id": {"evil"}, "client_secret": {appSecret}, "token": {refresh}}); a.Status != http.StatusOK || !b.seesUser(access) {
			t.Errorf("a revocation by another app: %v", a)
		}
		b.exchange(clubApp, evil, code, b.verifier).says(t, "once more, by another app", "invalid_grant")
		b.exchange(clubApp, clubApp, code, strings.Repeat("w", 43)).says(t, "once more, with another verifier", "invalid_grant")
		if !b.seesUser(access) {
			t.Error("somebody without the verifier has ended the app's session")
		}
		b.exchange(clubApp, clubApp, code, b.verifier).says(t, "a second time", "invalid_grant")
		if b.seesUser(access) {
			t.Error("a code that came twice has ended nothing")
		}
		b.token(clubApp, "grant_type", "refresh_token", "refresh_token", refresh).says(t, "a refresh after that", "invalid_grant")
		late := b.code(clubApp)
		s.clock.advance(time.Minute)
		b.exchange(clubApp, clubApp, late, b.verifier).says(t, "a minute later", "invalid_grant")
	})
}

func TestPKCECantBeLeftOut(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		old := store.App{ID: "old", Name: "Old", RedirectURIs: []string{"https://old.example.org/cb"}, WithoutPKCE: true}
		b := s.attack(t, clubApp, old)
		b.login("ann@example.org", good)
		for what, fields := range map[string][]string{
			"no challenge": {"code_challenge", "", "code_challenge_method", ""}, "plain": {"code_challenge_method", "plain"}, "no method": {"code_challenge_method", ""},
			"a method alone": {"code_challenge", ""}, "a short one": {"code_challenge", "x"},
		} {
			if to, failure := b.leads(b.ask(clubApp, fields...)); failure != "invalid_request" || to.Query().Has("code") {
				t.Errorf("%s: %s", what, to)
			}
		}
		// A verifier that is too short could be guessed (RFC 7636, 4.1).
		short := sha256.Sum256([]byte("x"))
		b.exchange(clubApp, clubApp, b.code(clubApp, "code_challenge", base64.RawURLEncoding.EncodeToString(short[:])), "x").says(t, "a verifier of one character", "invalid_grant")
		// An app that may leave it out: a challenge that was taken out on the way is noticed.
		code := b.code(old, "code_challenge", "", "code_challenge_method", "")
		b.exchange(old, old, code, b.verifier).says(t, "a verifier without a challenge", "invalid_grant")
		b.exchange(old, old, b.code(old), "").says(t, "a challenge without a verifier", "invalid_grant")
	})
}

func TestTokensOfOneKindAreNoOther(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t, clubApp)
		b.login("ann@example.org", good)
		tokens := b.exchange(clubApp, clubApp, b.code(clubApp), b.verifier)
		api := s.login("ann@example.org")
		for what, access := range map[string]string{"an ID token": tokens.field("id_token"), "a refresh token": tokens.field("refresh_token"), "a token of the API": api.field("access_token")} {
			if b.seesUser(access) {
				t.Errorf("%s is taken at userinfo", what)
			}
		}
		for what, access := range map[string]string{"an ID token": tokens.field("id_token"), "an app's access token": tokens.field("access_token")} {
			if a := s.get("/api/v1/auth/user", access); a.Status != http.StatusUnauthorized {
				t.Errorf("%s at the API: %v", what, a)
			}
		}
		if a := s.post("access_token", "", "refresh_token", tokens.field("refresh_token")); a.Status != http.StatusUnauthorized {
			t.Errorf("an app's refresh token at the API: %v", a)
		}
		b.token(clubApp, "grant_type", "refresh_token", "refresh_token", api.field("refresh_token")).says(t, "the API's refresh token", "invalid_grant")
		b.token(clubApp, "grant_type", "refresh_token", "refresh_token", tokens.field("access_token")).says(t, "an access token for a refresh token", "invalid_grant")
		if b.cookies["__Host-kwai"] = tokens.field("refresh_token"); b.get("/account").Status != http.StatusSeeOther {
			t.Error("a refresh token is taken as a cookie")
		}
	})
}

var consentField = regexp.MustCompile(`name="(form|request)" value="([^"]*)"`)

// consentForm is the form of the page that a request leads to.
func (b *attack) consentForm(path string) url.Values {
	b.t.Helper()
	to, _ := b.leads(path)
	a, _ := b.send(http.MethodGet, to.RequestURI(), nil)
	form := url.Values{"answer": {"yes"}}
	for _, m := range consentField.FindAllStringSubmatch(string(a.Body), -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	if len(form) != 3 {
		b.t.Fatalf("%s: %v", to, a)
	}
	return form
}

func TestConsentOfOthers(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		b := s.attack(t, otherApp)
		b.login("ann@example.org", good)
		form := b.consentForm(b.ask(otherApp))
		mallory := &attack{s.browser(t), b.verifier, b.challenge}
		mallory.login("bob@example.org", good)
		if _, to := mallory.send(http.MethodPost, "/consent", form); to.Query().Has("code") || to.Path != "/oauth2/authorize" {
			t.Errorf("a page of ann's, sent by bob, leads to %s", to)
		}
		more := url.Values{"form": form["form"], "answer": form["answer"], "request": {strings.Replace(form.Get("request"), "scope=openid", "scope=openid+profile", 1)}}
		if _, to := b.send(http.MethodPost, "/consent", more); to.Query().Has("code") || to.Path != "/oauth2/authorize" {
			t.Errorf("more than the page had leads to %s", to)
		}
		r := s.request(http.MethodPost, "/consent", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", urlencoded)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.AddCookie(&http.Cookie{Name: "__Host-kwai", Value: b.cookies["__Host-kwai"]})
		res, err := s.via.RoundTrip(r)
		s.ok(err)
		res.Body.Close()
		same(t, "the status of a form of another site", res.StatusCode, http.StatusForbidden)
		_, to := b.send(http.MethodPost, "/consent", form)
		code := to.Query().Get("code")
		if code == "" {
			t.Fatalf("the consent leads to %s", to)
		}
		// It is taken back before the app has exchanged its code.
		if a := b.browser.get("/account"); a.Status != http.StatusOK {
			t.Fatal(a)
		}
		visitor, err := s.rules.Visitor(t.Context(), b.cookies["__Host-kwai"])
		s.ok(err)
		s.ok(s.rules.TakeBack(t.Context(), auth.Client{}, visitor, otherApp.ID))
		b.exchange(otherApp, otherApp, code, b.verifier).says(t, "a code whose consent was taken back", "invalid_grant")
	})
}

func TestAnOldLoginIsNoNewOne(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t, clubApp)
		ask := b.ask(clubApp, "prompt", "login")
		to, _ := b.leads(ask) // nobody is logged in
		next := "/" + to.Query().Get("next")
		b.login("ann@example.org", good)
		if to, _ := b.leads(ask); to.Path != "/login" {
			t.Errorf("prompt=login without the mark leads to %s", to)
		}
		if to, failure := b.leads(next); failure != "" || !to.Query().Has("code") {
			t.Errorf("the login that was asked for leads to %s", to)
		}
		for what, path := range map[string]string{
			"the mark of another request": strings.Replace(next, "state=s", "state=x", 1),
			"a mark of the app's own":     ask + "&kwai_begun=1.00000000.x",
			"the request, max_age=0":      b.ask(clubApp, "max_age", "0"),
		} {
			s.clock.advance(time.Second)
			if to, _ := b.leads(path); to.Path != "/login" {
				t.Errorf("%s leads to %s", what, to)
			}
		}
		s.clock.advance(10 * time.Minute) // the mark is good for longer, the proof isn't
		if to, _ := b.leads(next); to.Path != "/login" {
			t.Errorf("ten minutes later the request leads to %s", to)
		}
	})
}

func TestPromptNoneKeepsToTheUser(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		s.ok(s.rules.CreateGroup(t.Context(), "staff"))
		staff := store.App{ID: "staff", Name: "Staff", RedirectURIs: []string{"https://staff.example.org/cb?x=1"}, Groups: []string{"staff"}}
		b := s.attack(t, clubApp, otherApp, staff)
		quiet := func(what string, app store.App, want string, fields ...string) {
			t.Helper()
			to, failure := b.leads(b.ask(app, append([]string{"prompt", "none"}, fields...)...))
			if failure != want || !strings.HasPrefix(to.String(), app.RedirectURIs[0]) || to.Query().Get("state") != "s" || to.Query().Get("iss") == "" {
				t.Errorf("%s leads to %s, want %q", what, to, want)
			}
		}
		quiet("a browser without a session", clubApp, "login_required")
		b.login("ann@example.org", good)
		quiet("an app that needs consent", otherApp, "consent_required")
		quiet("an app for others", staff, "access_denied")
		s.clock.advance(time.Hour)
		quiet("an old login", clubApp, "login_required", "max_age", "60")
		hint := b.exchange(clubApp, clubApp, b.code(clubApp), b.verifier).field("id_token")
		quiet("the same user", clubApp, "", "id_token_hint", hint)
		bob := &attack{s.browser(t), b.verifier, b.challenge}
		bob.login("bob@example.org", good)
		b = bob
		quiet("another user than the app knows", clubApp, "login_required", "id_token_hint", hint)
	})
}

func TestLogoutsOfOthers(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		b := s.attack(t, clubApp)
		b.login("ann@example.org", good)
		hint := b.exchange(clubApp, clubApp, b.code(clubApp), b.verifier).field("id_token")
		bob := &attack{s.browser(t), b.verifier, b.challenge}
		bob.login("bob@example.org", good)
		const evil = "&post_logout_redirect_uri=https%3A%2F%2Fevil.example"
		for what, path := range map[string]string{
			"no hint": "/oauth2/logout?client_id=club" + evil, "a hint of another browser": "/oauth2/logout?id_token_hint=" + hint + evil, "a forged hint": "/oauth2/logout?id_token_hint=" + hint + "A" + evil,
		} {
			if to, _ := bob.leads(path); to.Path != "/logout" || bob.get("/account").Status != http.StatusOK {
				t.Errorf("%s leads to %s", what, to)
			}
		}
		for what, after := range map[string]string{
			"another address": evil[1:], "none": "", "a longer one": "post_logout_redirect_uri=https%3A%2F%2Fclub.example.org%2Fbye%2F", "one with a backslash": `post_logout_redirect_uri=%2F%5Cevil.example`,
			"that of the login": "post_logout_redirect_uri=https%3A%2F%2Fclub.example.org%2Fcb",
		} {
			a := &attack{s.browser(t), b.verifier, b.challenge}
			a.login("ann@example.org", good)
			hint := a.exchange(clubApp, clubApp, a.code(clubApp), a.verifier).field("id_token")
			if to, _ := a.leads("/oauth2/logout?id_token_hint=" + hint + "&" + after); to.Path != "/out" || to.Host != "auth.example.org" && to.Host != strings.TrimPrefix(host, "http://") {
				t.Errorf("%s: the logout leads to %s", what, to)
			}
		}
		if to, _ := b.leads("/oauth2/logout?id_token_hint=" + hint + "&state=q&post_logout_redirect_uri=" + url.QueryEscape(clubApp.PostLogoutURIs[0])); to.String() != clubApp.PostLogoutURIs[0]+"?state=q" || b.get("/account").Status != http.StatusSeeOther {
			t.Errorf("the app's own logout leads to %s", to)
		}
	})
}

func TestAnAppWithTheAudienceOfTheAPIIsNone(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t, clubApp)
		b.login("ann@example.org", good)
		code := b.code(clubApp)
		s.rules.Settings.Audience = clubApp.ID // as after a restart with another --audience
		if a, _ := b.send(http.MethodGet, b.ask(clubApp), nil); a.Status != http.StatusBadRequest {
			t.Errorf("authorize: %v", a)
		}
		if a := b.exchange(clubApp, clubApp, code, b.verifier); a.Status != http.StatusUnauthorized {
			t.Errorf("the exchange: %v", a)
		}
	})
}

func TestLoopbackRedirects(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t)
		desk := store.App{ID: "desk", Name: "Desk", RedirectURIs: []string{"http://127.0.0.1/cb", "http://[::1]:80/cb?a=1", "http://LOCALHOST:4000/cb", "org.example.desk:/cb"}}
		_, _, err := s.rules.CreateApp(t.Context(), desk, true, "")
		s.ok(err)
		b.login("ann@example.org", good)
		for _, uri := range []string{"http://127.0.0.1/cb", "http://127.0.0.1:9/cb", "http://[::1]:65535/cb?a=1", "http://LOCALHOST:4000/cb", "org.example.desk:/cb"} {
			if to, _ := b.leads(b.ask(desk, "redirect_uri", uri)); to.Path != "/consent" {
				t.Errorf("%s: nobody was asked, and it leads to %s", uri, to)
			}
			if _, failure := b.leads(b.ask(desk, "redirect_uri", uri, "prompt", "none")); failure != "consent_required" {
				t.Errorf("%s, without a page: %q", uri, failure)
			}
		}
		for _, uri := range []string{
			"http://127.0.0.1:80@evil.example/cb", "http://127.0.0.1:9/cb?bar=foo", "http://127.0.0.1:9/CB", "http://127.0.0.1.evil.example/cb", "http://127.0.0.2:9/cb", "http://localhost:9/cb", "http://[::1]:9/cb",
			"http://127.0.0.1:/cb", "http://127.0.0.1:999999/cb", "https://127.0.0.1:9/cb", "http://2130706433:9/cb", "http://127.1:9/cb", "http://[::ffff:127.0.0.1]:9/cb", "http://LOCALHOST:4001/cb", "http://localhost:4000/cb",
			"ORG.example.desk:/cb", "org.example.desk:/cb/", "org.example.desk://evil/cb", `http://127.0.0.1:9\@evil.example/cb`,
		} {
			if a, _ := b.send(http.MethodGet, b.ask(desk, "redirect_uri", uri), nil); a.Status != http.StatusBadRequest || a.Header.Get("Location") != "" {
				t.Errorf("%s: %v", uri, a)
			}
		}
	})
}

func TestAddressesThatNoAppMayHave(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for _, uri := range []string{
			"javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "blob:https://a.example/x", "file:///etc/passwd", "about:blank", "app:/cb", "http://a.example/cb", "https:///cb", "https://:443/cb", "https:a.example/cb",
			"https://a.example/cb#x", "https://a.example/cb#", "https://user@a.example/cb", `https://a.example\@b.example/cb`, "https://a.example/ cb", "https://a.example/\ncb", "https://ä.example/cb", "//a.example/cb", "/cb", "", "https://a.example/\"onload=x",
		} {
			for _, public := range []bool{false, true} {
				if _, _, err := s.rules.CreateApp(t.Context(), store.App{Name: "A", RedirectURIs: []string{uri}}, public, ""); auth.CodeOf(err) != auth.Invalid {
					t.Errorf("an app with %q (public: %t): %v", uri, public, err)
				}
			}
			for what, app := range map[string]store.App{"home": {HomeURL: uri}, "post-logout": {PostLogoutURIs: []string{uri}}, "back-channel": {BackchannelURL: uri}} {
				if uri == "" || what == "back-channel" && (strings.HasPrefix(uri, "http://") || strings.HasSuffix(uri, "#")) {
					continue
				}
				app.Name, app.RedirectURIs = "A", clubApp.RedirectURIs
				if _, _, err := s.rules.CreateApp(t.Context(), app, false, ""); auth.CodeOf(err) != auth.Invalid {
					t.Errorf("%q as a %s address: %v", uri, what, err)
				}
			}
		}
	})
}

func TestRefreshOfWhoMayNoLonger(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.ok(s.rules.CreateGroup(t.Context(), "staff"))
		staff := store.App{ID: "staff", Name: "Staff", RedirectURIs: []string{"https://staff.example.org/cb"}, Groups: []string{"staff"}, Offline: true}
		first := s.attack(t, staff)
		for what, end := range map[string]func(b *attack, email string){
			"out-of-the-group": func(_ *attack, email string) { s.ok(s.rules.RemoveMembers(t.Context(), "staff", email)) },
			"revoked":          func(_ *attack, email string) { s.revoke(email) },
			"deleted":          func(_ *attack, email string) { s.ok(s.rules.DeleteUser(t.Context(), email)) },
			"another-password": func(_ *attack, email string) { s.setPassword(email, "another good password") },
			"taken-back": func(b *attack, _ string) {
				v, err := s.rules.Visitor(t.Context(), b.cookies["__Host-kwai"])
				s.ok(err)
				s.ok(s.rules.TakeBack(t.Context(), auth.Client{}, v, staff.ID))
			},
			"logged-out": func(b *attack, _ string) {
				v, err := s.rules.Visitor(t.Context(), b.cookies["__Host-kwai"])
				s.ok(err)
				s.ok(s.rules.LogoutVisitor(t.Context(), auth.Client{}, v))
			},
		} {
			email := what + "@example.org"
			s.user(email, good)
			s.ok(s.rules.AddMembers(t.Context(), "staff", email))
			b := &attack{s.browser(t), first.verifier, first.challenge}
			b.login(email, good)
			tokens := b.exchange(staff, staff, b.code(staff, "scope", "openid offline_access"), b.verifier)
			code := b.code(staff)
			end(b, email)
			if b.seesUser(tokens.field("access_token")) {
				t.Errorf("%s: the access token still shows the user", what)
			}
			b.token(staff, "grant_type", "refresh_token", "refresh_token", tokens.field("refresh_token")).says(t, what+": a refresh", "invalid_grant")
			if what != "taken-back" { // the app needs no consent: it may come back at once
				b.exchange(staff, staff, code, b.verifier).says(t, what+": a code from before", "invalid_grant")
			}
		}
	})
}

func TestReplacedRefreshTokensOfApps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t, clubApp)
		b.login("ann@example.org", good)
		tokens := b.exchange(clubApp, clubApp, b.code(clubApp), b.verifier)
		renew := func(refresh string) answer {
			return b.token(clubApp, "grant_type", "refresh_token", "refresh_token", refresh)
		}
		second := renew(tokens.field("refresh_token"))
		if again := renew(tokens.field("refresh_token")); again.field("refresh_token") != second.field("refresh_token") {
			t.Errorf("two refreshes at once forked the chain: %v", again)
		}
		s.clock.advance(3 * time.Minute) // the reuse window is over
		third := renew(second.field("refresh_token"))
		if !b.seesUser(third.field("access_token")) {
			t.Fatalf("a refresh: %v", third)
		}
		renew(tokens.field("refresh_token")).says(t, "a replay", "invalid_grant")
		renew(third.field("refresh_token")).says(t, "the newest after a replay", "invalid_grant")
		if b.seesUser(third.field("access_token")) {
			t.Error("a replay has left the access token good")
		}
	})
}

// noRedirects answers each back-channel logout with a redirect, and keeps what was sent.
type noRedirects struct {
	asked []string
	token string // of the last one
}

func (n *noRedirects) RoundTrip(r *http.Request) (*http.Response, error) {
	n.asked = append(n.asked, r.URL.String())
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	n.token = form.Get("logout_token")
	return &http.Response{StatusCode: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"http://169.254.169.254/"}}, Body: http.NoBody, Request: r}, nil
}

func TestBackchannelLogoutsFollowNoRedirect(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		app := clubApp
		app.BackchannelURL = "https://club.example.org/logout"
		b := s.attack(t, app)
		b.login("ann@example.org", good)
		b.exchange(app, app, b.code(app), b.verifier)
		v, err := s.rules.Visitor(t.Context(), b.cookies["__Host-kwai"])
		s.ok(err)
		s.ok(s.rules.LogoutVisitor(t.Context(), auth.Client{}, v))
		net := new(noRedirects)
		s.ok((&auth.LogoutSender{Rules: s.rules, Keep: time.Hour, Transport: net}).Send(t.Context()))
		if len(net.asked) != 1 || net.asked[0] != app.BackchannelURL {
			t.Errorf("asked were %q", net.asked)
		}
		// A logout token is good for nothing here.
		if net.token == "" || b.seesUser(net.token) {
			t.Error("a logout token is taken at userinfo")
		}
		b.token(app, "grant_type", "refresh_token", "refresh_token", net.token).says(t, "a logout token for a refresh token", "invalid_grant")
		b.login("ann@example.org", good)
		if to, _ := b.leads("/oauth2/logout?post_logout_redirect_uri=https%3A%2F%2Fclub.example.org%2Fbye&id_token_hint=" + net.token); to.Path != "/logout" {
			t.Errorf("a logout token as a hint leads to %s", to)
		}
	})
}

func TestPagesOfAppsShowTheirNamesAsText(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.ok(s.rules.CreateGroup(t.Context(), "staff"))
		const name = `<script>alert(1)</script>"'&`
		asks := store.App{ID: "asks", Name: name, RedirectURIs: []string{"https://asks.example.org/cb"}, Consent: true, HomeURL: "https://asks.example.org/"}
		closed := store.App{ID: "closed", Name: name, RedirectURIs: []string{"https://closed.example.org/cb?a='b"}, Groups: []string{"staff"}}
		b := s.attack(t, asks, closed)
		b.login("ann@example.org", good)
		to, _ := b.leads(b.ask(asks, "nonce", name, "state", name))
		consent, _ := b.send(http.MethodGet, to.RequestURI(), nil)
		refused, _ := b.send(http.MethodGet, b.ask(closed, "state", name), nil)
		s.ok(s.rules.RefreshTiles(t.Context()))
		account, _ := b.send(http.MethodGet, "/account", nil)
		apps, _ := b.send(http.MethodGet, "/account/apps", nil)
		same(t, "the status of a refusal", refused.Status, http.StatusForbidden)
		for what, a := range map[string]answer{"the consent": consent, "a refusal": refused, "the account": account, "the apps": apps} {
			if body := string(a.Body); strings.Contains(body, "<script") || !strings.Contains(body, "&lt;script&gt;") {
				t.Errorf("%s: %v", what, a)
			}
		}
		// Neither may be framed, nor is a button to be reached by the address's fragment
		// (cross-window forgery: a visitor who holds Enter would press it).
		same(t, "the consent's X-Frame-Options", consent.Header.Get("X-Frame-Options"), "DENY")
		contains(t, "the consent's policy", consent.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'")
		if regexp.MustCompile(`<button[^>]*(id|autofocus)[ =>]`).Match(consent.Body) {
			t.Errorf("a button of the consent can be focused from elsewhere: %s", consent.Body)
		}
	})
}

func TestAppsProveWhoTheyAre(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t, clubApp)
		desk := store.App{ID: "desk", Name: "Desk", RedirectURIs: []string{"https://desk.example.org/cb"}}
		_, _, err := s.rules.CreateApp(t.Context(), desk, true, "")
		s.ok(err)
		b.login("ann@example.org", good)
		code := b.code(clubApp)
		for what, more := range map[string]url.Values{
			"no secret": {"client_secret": {""}}, "another secret": {"client_secret": {appSecret + "0"}}, "no id": {"client_id": {""}}, "no such app": {"client_id": {"nobody"}}, "a secret of a public app": {"client_id": {"desk"}},
		} {
			form := url.Values{"client_id": {"club"}, "client_secret": {appSecret}, "grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": clubApp.RedirectURIs, "code_verifier": {b.verifier}, "token": {code}}
			for name, values := range more {
				form[name] = values
			}
			for _, endpoint := range []string{"/oauth2/token", "/oauth2/revoke"} {
				if a, _ := b.send(http.MethodPost, endpoint, form); a.Status != http.StatusUnauthorized || a.field("error") != "invalid_client" || a.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s at %s: %v", what, endpoint, a)
				}
			}
		}
		// A public app revokes its tokens by its id alone (RFC 7009, 2.1).
		form := url.Values{"client_id": {"desk"}, "grant_type": {"authorization_code"}, "code": {b.code(desk)}, "redirect_uri": desk.RedirectURIs, "code_verifier": {b.verifier}}
		tokens, _ := b.send(http.MethodPost, "/oauth2/token", form)
		if !b.seesUser(tokens.field("access_token")) {
			t.Fatalf("a public app: %v", tokens)
		}
		if a, _ := b.send(http.MethodPost, "/oauth2/revoke", url.Values{"client_id": {"desk"}, "token": {tokens.field("refresh_token")}}); a.Status != http.StatusOK || b.seesUser(tokens.field("access_token")) {
			t.Errorf("a public app's revocation: %v", a)
		}
	})
}

func TestNoTokenInAnAddress(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t, clubApp)
		b.login("ann@example.org", good)
		for _, kind := range []string{"token", "id_token", "id_token token", "code id_token", "code token", "code id_token token", "none", ""} {
			if to, failure := b.leads(b.ask(clubApp, "response_type", kind)); failure == "" || to.Fragment != "" || to.Query().Has("code") || strings.Contains(to.String(), "token=") {
				t.Errorf("the response type %q leads to %s", kind, to)
			}
		}
		for name, value := range map[string]string{"response_mode": "fragment", "request": "eyJhbGciOiJub25lIn0.e30.", "request_uri": "https://evil.example/", "registration": "{}"} {
			if to, failure := b.leads(b.ask(clubApp, name, value)); failure == "" || to.Fragment != "" || to.Query().Has("code") {
				t.Errorf("%s=%s leads to %s", name, value, to)
			}
		}
		if a, _ := b.send(http.MethodGet, "/oauth2/userinfo?access_token=x", nil); a.Status != http.StatusUnauthorized {
			t.Errorf("a token in the address of userinfo: %v", a)
		}
		a, _ := b.send(http.MethodGet, b.ask(clubApp), nil)
		same(t, "the Referrer-Policy of an answer with a code", a.Header.Get("Referrer-Policy"), "") // that of the page before stays: same-origin
		same(t, "its Cache-Control", a.Header.Get("Cache-Control"), "no-store")
		if strings.Contains(s.log.String(), "code=") || strings.Contains(s.log.String(), "code_challenge") {
			t.Error("the log has a request's query")
		}
	})
}

func TestAnAppIsOfflineNoLonger(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		app := clubApp
		app.Offline = true
		b := s.attack(t, app)
		b.goes("the login", b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good), "account")
		tokens := b.exchange(app, app, b.code(app, "scope", "openid offline_access"), b.verifier)
		s.clock.advance(13 * time.Hour) // the browser session, which wasn't to stay, is over
		next := b.token(app, "grant_type", "refresh_token", "refresh_token", tokens.field("refresh_token"))
		if !b.seesUser(next.field("access_token")) {
			t.Fatalf("an offline session ended with its browser session: %v", next)
		}
		_, err := s.rules.UpdateApp(t.Context(), app.ID, func(a *store.App) { a.Offline = false })
		s.ok(err)
		if b.seesUser(next.field("access_token")) {
			t.Error("the access token is still good")
		}
		b.token(app, "grant_type", "refresh_token", "refresh_token", next.field("refresh_token")).says(t, "a refresh", "invalid_grant")
	})
}

func TestClaimsFollowTheScopes(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.attack(t, clubApp)
		b.login("ann@example.org", good)
		for scope, want := range map[string]string{
			"openid": "sub", "openid email": "email email_verified preferred_username sub", "openid profile": "family_name given_name name preferred_username sub", "openid groups": "groups sub",
			"openid offline_access": "sub", "openid admin phone": "sub", // which the app may not ask for, or nobody may
		} {
			tokens := b.exchange(clubApp, clubApp, b.code(clubApp, "scope", scope), b.verifier)
			r := s.request(http.MethodGet, "/oauth2/userinfo", http.NoBody)
			r.Header.Set("Authorization", "Bearer "+tokens.field("access_token"))
			res, err := s.via.RoundTrip(r)
			s.ok(err)
			var claims map[string]any
			s.ok(json.NewDecoder(res.Body).Decode(&claims))
			res.Body.Close()
			same(t, "what userinfo shows of "+scope, strings.Join(slices.Sorted(maps.Keys(claims)), " "), want)
		}
	})
}
