package web_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/testing/mailtest"
)

// browser has the cookies of a site and follows no redirects.
type browser struct {
	t       *testing.T
	s       *site
	cookies map[string]string
	from    string // the Sec-Fetch-Site of what is got
}

func (s *site) browser(t *testing.T) *browser {
	return &browser{t: t, s: s, cookies: make(map[string]string)}
}

// do sends a request as a browser does, and takes its cookies.
func (b *browser) do(method, path string, fields ...string) answer {
	b.t.Helper()
	return b.request(method, path, urlencoded, strings.NewReader(encodeURL(fields...)))
}

// post sends a body of a kind.
func (b *browser) post(path, kind, body string) answer {
	b.t.Helper()
	return b.request(http.MethodPost, path, kind, strings.NewReader(body))
}

func (b *browser) request(method, path, kind string, body io.Reader) answer {
	b.t.Helper()
	r := b.s.request(method, path, body)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Origin", b.s.web.PublicURL.Scheme+"://"+b.s.web.PublicURL.Host)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	} else if b.from != "" {
		r.Header.Set("Sec-Fetch-Site", b.from)
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	a := b.s.do(r)
	for _, c := range (&http.Response{Header: a.Header}).Cookies() {
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return a
}

func (b *browser) get(path string) answer { b.t.Helper(); return b.do(http.MethodGet, path) }

// goes says where the answer leads.
func (b *browser) goes(what string, a answer, to string) {
	b.t.Helper()
	if a.Status != http.StatusSeeOther || a.Header.Get("Location") != to {
		b.t.Errorf("%s: %d to %q, want 303 to %q\n%s", what, a.Status, a.Header.Get("Location"), to, a.Body)
	}
}

// login logs in on the page.
func (b *browser) login(email, password string) *browser {
	b.t.Helper()
	b.goes("the login", b.do(http.MethodPost, "/login", "username", email, "password", password, "stay", "1"), "account")
	return b
}

// shows says that a page is answered, with that text.
func (b *browser) shows(path string, words ...string) string {
	b.t.Helper()
	a := b.get(path)
	if a.Status != http.StatusOK {
		b.t.Fatalf("%s: %d to %q", path, a.Status, a.Header.Get("Location"))
	}
	for _, w := range words {
		if !strings.Contains(string(a.Body), w) {
			b.t.Errorf("%s lacks %q:\n%s", path, w, a.Body)
		}
	}
	return string(a.Body)
}

var sealOf = regexp.MustCompile(`name="form" value="([^"]+)"`)

// send sends a page's form.
func (b *browser) send(page, path string, fields ...string) answer {
	b.t.Helper()
	seal := sealOf.FindStringSubmatch(b.shows(page))
	if seal == nil {
		b.t.Fatalf("%s has no sealed form", page)
	}
	return b.do(http.MethodPost, path, append([]string{"form", seal[1]}, fields...)...)
}

func TestALoginInTheBrowser(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t)
		b.goes("/", b.get("/"), "login?next=")
		b.goes("the account", b.get("/account"), "login?next=account")
		b.goes("a page below it", b.get("/account/sessions"), "../login?next=account%2Fsessions")
		b.shows("/login?next=account/sessions", `name="username"`, `name="password"`, `value="account/sessions"`)
		a := b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good, "next", "account/sessions", "stay", "1")
		b.goes("the login", a, "account/sessions")
		c := (&http.Response{Header: a.Header}).Cookies()[0]
		same(t, "the cookie's name", c.Name, "__Host-kwai")
		if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || time.Until(c.Expires) < 0 && !c.Expires.After(s.clock.now()) {
			t.Errorf("the cookie is %v", c)
		}
		same(t, "the cookie of an answer to a visit", b.get("/account").Header.Get("Set-Cookie"), "")
		b.shows("/account", "ann@example.org", `href="logout"`)
		b.shows("/account/sessions", "this one", `href="../logout"`, `href="../style.css`)
		b.shows("/account/activity", "You logged in")
		b.goes("/", b.get("/"), "account")
		b.goes("the login, logged in", b.get("/login?next=account/activity"), "account/activity")
		b.shows("/logout", "ann@example.org")
		b.goes("the logout", b.send("/logout", "/logout"), "out")
		same(t, "its cookie", b.cookies["__Host-kwai"], "")
		b.shows("/out", "You are logged out")
		b.goes("the account", b.get("/account"), "login?next=account")
	})
}

// A session that isn't to stay has a cookie without an end. Over http the cookie has
// another name, which a server with https never reads.
func TestCookies(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t)
		a := b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good)
		if set := a.Header.Get("Set-Cookie"); strings.Contains(set, "Expires") || strings.Contains(set, "Max-Age") {
			t.Errorf("the cookie is %q", set)
		}
		value := b.cookies["__Host-kwai"]
		refresh := s.login("ann@example.org").field("refresh_token")
		for what, cookie := range map[string]string{
			"none": "", "empty": "__Host-kwai=", "another name": "kwai-dev=" + value, "doubled": "__Host-kwai=" + value + "; __Host-kwai=" + value,
			"huge": "__Host-kwai=" + strings.Repeat("A", 12<<10), "a refresh token": "__Host-kwai=" + refresh, "another key": "__Host-kwai=" + value[:3] + "AAAA" + value[7:],
			"a letter more": "__Host-kwai=" + value + "A", "quoted": `__Host-kwai="` + value[:30] + `"`, "half": "__Host-kwai=" + value[:30],
		} {
			r := s.request(http.MethodGet, "/account", nil)
			r.Header.Set("Cookie", cookie)
			a := s.do(r)
			if a.Status != http.StatusSeeOther || a.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s: %d, %q", what, a.Status, a.Header.Get("Set-Cookie"))
			}
		}
		b.shows("/account")
	})
}

func TestCookiesOverHTTP(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t)
		a := b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good)
		if set := a.Header.Get("Set-Cookie"); !strings.HasPrefix(set, "kwai-dev=") || strings.Contains(set, "Secure") {
			t.Errorf("over http the cookie is %q", set)
		}
		b.shows("/account")
	}, func(s *setup) { s.web.PublicURL = &url.URL{Scheme: "http", Host: "127.0.0.1:8080"} })
}

// Wherever a link wants a login to lead to, it leads to one of our own pages.
func TestALoginLeadsToOurOwnPagesAlone(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		for _, next := range []string{
			"", "/", "//", "///", "//evil.example", "/\\evil.example", "\\\\evil.example", "/%2fevil.example", "%2f%2fevil.example", "https://evil.example",
			"https:evil.example", "http:\\\\evil.example", "javascript:alert(1)", "data:text/html,x", "account/../../evil", "account//evil.example", "account@evil.example",
			"account\t", "\taccount", "account\r\nSet-Cookie: a=b", "account\n", "account?next=//evil", "account#x", "ACCOUNT", "account/", "/account", "./account", "../account",
			"／／evil.example", "\u2044\u2044evil.example", "account\u0000", "login", "logout", "api/v1/auth/user", "account/password/../..", strings.Repeat("a", 60000),
			"@evil.example", ".evil.example", "evil.example/account", ":80", "[::1]", "?next=x", "account;x", "account%00", "account%2Fpassword",
		} {
			b := s.browser(t)
			b.goes("after a login with next "+next[:min(len(next), 40)], b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good, "next", next), "account")
			if len(next) < 6000 {
				b.goes("logged in, with next "+next, b.get("/login?next="+url.QueryEscape(next)), "account")
			}
			if a := b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", "wrong", "next", next); !strings.Contains(string(a.Body), `name="next" value="account"`) {
				t.Errorf("after a refusal with next %.40q the form has\n%s", next, a.Body)
			}
		}
		b := s.browser(t)
		b.goes("one of ours", b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good, "next", "account/activity"), "account/activity")
	}, limitsOff)
}

// The page says no more than the API: whether an account exists, is revoked or has no
// password.
func TestTheLoginPageRevealsNothing(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("known@example.org", good)
		s.user("revoked@example.org", good)
		s.revoke("revoked@example.org")
		s.user("invited@example.org", "")
		var first string
		for _, email := range []string{"unknown@example.org", "known@example.org", "revoked@example.org", "invited@example.org", "not an address"} {
			a := s.browser(t).do(http.MethodPost, "/login", "username", email, "password", better)
			same(t, email+": the status", a.Status, http.StatusUnauthorized)
			body := strings.ReplaceAll(string(a.Body), email, "X")
			if first == "" {
				first = body
			}
			same(t, email+": the page", body, first)
			if strings.Contains(body, better) {
				t.Errorf("%s: the page has the password", email)
			}
		}
	})
}

// Who changes what could lock the owner out shows the password again first. The old
// cookie is worth nothing once the new one has been used.
func TestAFreshProofAndANewPassword(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b, other := s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good)
		seal := sealOf.FindStringSubmatch(b.shows("/account/password", `autocomplete="new-password"`))[1]
		s.clock.advance(10 * time.Minute)
		b.goes("ten minutes later", b.get("/account/password"), "../login?prompt=login&next=account%2Fpassword")
		same(t, "the form that was shown before", b.do(http.MethodPost, "/account/password", "form", seal, "password", "short").Status, http.StatusUnprocessableEntity)
		// The seal of a page that asks for no proof is no way round it.
		late := sealOf.FindStringSubmatch(b.shows("/account/profile"))[1]
		for _, page := range []string{"password", "email", "delete"} {
			b.goes("the profile's form, sent to "+page, b.do(http.MethodPost, "/account/"+page, "form", late, "password", better, "email", "eve@example.org"), "../login?prompt=login&next=account%2F"+page)
		}
		s.clock.advance(15 * time.Minute)
		b.goes("the form, later", b.do(http.MethodPost, "/account/password", "form", seal, "password", better), "../login?prompt=login&next=account%2Fpassword")
		b.shows("/login?prompt=login&next=account/password", `name="prove"`, "ann@example.org")
		stolen := s.browser(t)
		stolen.cookies["__Host-kwai"] = b.cookies["__Host-kwai"]
		a := b.do(http.MethodPost, "/login", "prove", "1", "password", "wrong", "next", "account/password")
		same(t, "a wrong password", a.Status, http.StatusUnauthorized)
		b.goes("the proof", b.do(http.MethodPost, "/login", "prove", "1", "password", good, "next", "account/password"), "account/password")
		b.shows("/account/password")
		stolen.goes("the old cookie", stolen.get("/account"), "login?next=account")
		same(t, "what the answer to it sets", stolen.get("/account").Header.Get("Set-Cookie"), "")

		a = b.send("/account/password", "/account/password", "password", "short")
		if a.Status != http.StatusUnprocessableEntity || !strings.Contains(string(a.Body), "too short") {
			t.Errorf("a short password: %d\n%s", a.Status, a.Body)
		}
		copied := s.browser(t)
		copied.cookies["__Host-kwai"] = b.cookies["__Host-kwai"]
		b.goes("the new password", b.send("/account/password", "/account/password", "password", better), "../account?done=password")
		b.shows("/account")
		copied.goes("a copy of the cookie, from before", copied.get("/account"), "login?next=account")
		other.goes("the other browser", other.get("/account"), "login?next=account")
		same(t, "the old password", s.browser(t).do(http.MethodPost, "/login", "username", "ann@example.org", "password", good).Status, http.StatusUnauthorized)
		s.browser(t).login("ann@example.org", better)
	})
}

// A form is good for the session and the user that it was made for.
func TestFormsOfOthersChangeNothing(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		ann, bob := s.browser(t).login("ann@example.org", good), s.browser(t).login("bob@example.org", good)
		anns := sealOf.FindStringSubmatch(ann.shows("/account/password"))[1]
		for what, seal := range map[string]string{"none": "", "another user's": anns, "garbage": "x.y", "half": anns[:10]} {
			bob.goes(what, bob.do(http.MethodPost, "/account/password", "form", seal, "password", better), "../account/password")
			bob.goes(what+", at the logout", bob.do(http.MethodPost, "/logout", "form", seal), "logout")
		}
		bob.shows("/account")
		s.browser(t).login("bob@example.org", good)
		// Another user in the same browser: the page of the one before changes nothing.
		page := ann.shows("/account/password")
		before := ann.cookies["__Host-kwai"]
		ann.login("bob@example.org", good)
		ann.goes("the page of before", ann.do(http.MethodPost, "/account/password", "form", sealOf.FindStringSubmatch(page)[1], "password", better), "../account/password")
		s.browser(t).login("bob@example.org", good)
		left := s.browser(t)
		left.cookies["__Host-kwai"] = before
		left.goes("the session of before", left.get("/account"), "login?next=account")
	})
}

// A post from another site is refused, whatever cookie comes along.
func TestPostsOfOtherSites(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		for _, origin := range []string{"https://evil.example", "null", "http://auth.example.org"} {
			r := s.request(http.MethodPost, "/logout", strings.NewReader("form="+sealOf.FindStringSubmatch(b.shows("/logout"))[1]))
			r.Header.Set("Content-Type", urlencoded)
			r.Header.Set("Origin", origin)
			r.AddCookie(&http.Cookie{Name: "__Host-kwai", Value: b.cookies["__Host-kwai"]})
			same(t, "a post from "+origin, s.do(r).Status, http.StatusForbidden)
		}
		b.shows("/account")
	})
}

func TestSessionsOnThePage(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		b, other, third := s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good)
		api := s.login("ann@example.org")
		bob := s.browser(t).login("bob@example.org", good)
		ids := regexp.MustCompile(`name="id" value="([^"]+)"`).FindAllStringSubmatch(b.shows("/account/sessions"), -1)
		same(t, "other sessions", len(ids), 3)
		bobs := regexp.MustCompile(`name="id" value="([^"]+)"`).FindAllStringSubmatch(s.browser(t).login("bob@example.org", good).shows("/account/sessions"), -1)
		b.goes("somebody else's", b.send("/account/sessions", "/account/sessions", "id", bobs[0][1]), "../account/sessions")
		bob.shows("/account")
		b.goes("one of them", b.send("/account/sessions", "/account/sessions", "id", ids[len(ids)-1][1]), "../account/sessions")
		other.goes("the oldest other one", other.get("/account"), "login?next=account")
		third.shows("/account")
		b.goes("all others", b.send("/account/sessions", "/account/sessions"), "../account/sessions")
		third.goes("the third", third.get("/account"), "login?next=account")
		same(t, "the API's", s.alive(api), false)
		b.shows("/account")
		again := s.browser(t).login("ann@example.org", good)
		b.goes("everywhere", b.send("/logout", "/logout", "everywhere", "1"), "out")
		again.goes("the other browser", again.get("/account"), "login?next=account")
	})
}

// before calls a function before it is read for the first time.
type before struct {
	io.Reader
	call func()
}

func (r *before) Read(p []byte) (int, error) {
	if r.call != nil {
		r.call()
		r.call = nil
	}
	return r.Reader.Read(p)
}

// A session that is ended while its form is being read leads to the login: nothing is
// changed, nothing says so, and no page of errors is shown.
func TestASessionThatEndsUnderItsForm(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		other := s.browser(t).login("ann@example.org", good)
		for path, fields := range map[string][]string{
			"/account/profile":  {"first_name", "Eve", "last_name", "Other", "language", ""},
			"/account/email":    {"email", "eve@example.org"},
			"/account/sessions": {},
			"/account/delete":   {},
			"/logout":           {"everywhere", "1"},
		} {
			b, twin := s.browser(t).login("ann@example.org", good), s.browser(t)
			maps.Copy(twin.cookies, b.cookies)
			seal := sealOf.FindStringSubmatch(b.shows(path))[1]
			body := strings.NewReader(encodeURL(append(fields, "form", seal)...))
			a := b.request(http.MethodPost, path, urlencoded, &before{body, func() { twin.send("/logout", "/logout") }})
			up := strings.Repeat("../", strings.Count(path, "/")-1)
			b.goes(path, a, up+"login?next="+url.QueryEscape(path[1:]))
			same(t, path+": what it sets", a.Header.Get("Set-Cookie"), "")
		}
		if body := other.shows("/account/profile"); strings.Contains(body, "Eve") {
			t.Errorf("the profile is changed:\n%s", body)
		}
	}, limitsOff)
}

// Pages read no bearer token, and the API no cookie.
func TestPagesAndTheAPIAreApart(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		access := s.login("ann@example.org").field("access_token")
		same(t, "a page with a bearer token", s.get("/account", access).Status, http.StatusSeeOther)
		b := s.browser(t).login("ann@example.org", good)
		same(t, "the API with a cookie", b.get(userPath).Status, http.StatusUnauthorized)
	})
}

// The visitor's choice of a language comes before what the browser asks for, on all
// pages of the visitor and in mails.
func TestNamesAndLanguageOnThePage(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		s.clock.advance(time.Hour) // no fresh proof is asked for
		b.shows("/account", `href="account/profile"`)
		b.shows("/account/profile", `value="Ann"`, `value="Other"`, `<option value="nl" lang="nl">Nederlands</option>`)
		a := b.send("/account/profile", "/account/profile", "first_name", strings.Repeat("x", 101), "last_name", "O\u202ether", "language", "nl")
		same(t, "wrong names", a.Status, http.StatusUnprocessableEntity)
		for _, want := range []string{"at most 100 characters", "can&#39;t be seen", `id="first_name-error"`, `id="last_name-error"`, strings.Repeat("x", 101), `<option value="nl" lang="nl" selected>`} {
			contains(t, "the page", string(a.Body), want)
		}
		same(t, "a language that there isn't", b.send("/account/profile", "/account/profile", "language", "xx").Status, http.StatusUnprocessableEntity)
		b.shows("/account", "Ann Other")

		b.goes("what fits", b.send("/account/profile", "/account/profile", "first_name", " Anna ", "last_name", "", "language", "nl"), "../account?done=profile")
		b.shows("/account?done=profile", "Anna", "Naam en taal zijn opgeslagen", `lang="nl"`)
		b.shows("/login?prompt=login", "Ben jij het?")
		b.shows("/account/activity", "Naam, taal of adres zijn gewijzigd")
		s.browser(t).shows("/login", "Log in") // of others
		s.setPassword("ann@example.org", better)
		contains(t, "the mail", s.sent(1)[0].Text, "Hallo Anna,")

		b = s.browser(t)
		b.goes("the login", b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", better), "account")
		b.goes("no language", b.send("/account/profile", "/account/profile", "first_name", "Anna"), "../account?done=profile")
		b.shows("/account?done=nonsense", "Your account")
	})
}

// All that is kept about a visitor can be downloaded, after a fresh proof, without
// anything of others and without secrets.
func TestDataIsDownloaded(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		id := s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		s.browser(t).login("bob@example.org", good)
		ended := s.loginFrom("192.0.2.7", "ann@example.org")
		s.post("logout", ended.field("access_token"), "refresh_token", ended.field("refresh_token")).done(t, "the logout")
		b := s.browser(t).login("ann@example.org", good)
		b.shows("/account", `href="account/data"`)
		s.clock.advance(time.Hour)
		for _, path := range []string{"/account/data", "/account/data.json"} {
			b.goes(path+" without a fresh proof", b.get(path), "../login?prompt=login&next=account%2Fdata")
		}
		b.goes("the proof", b.do(http.MethodPost, "/login", "prove", "1", "password", good, "next", "account/data"), "account/data")
		b.shows("/account/data", `href="../account/data.json"`)
		head := b.do(http.MethodHead, "/account/data.json")
		a := b.get("/account/data.json")
		for name, want := range map[string]string{"Content-Type": "application/json", "Content-Disposition": `attachment; filename="account.json"`, "Cache-Control": "no-store"} {
			same(t, name, a.Header.Get(name), want)
			same(t, name+" of HEAD", head.Header.Get(name), want)
		}
		var data struct {
			Account  map[string]any
			Networks []map[string]any
			Sessions []map[string]any
			AuditLog []map[string]any `json:"audit_log"`
		}
		if err := json.Unmarshal(a.Body, &data); err != nil {
			t.Fatalf("%v: %s", err, a.Body)
		}
		same[any](t, "the id", data.Account["id"], id)
		same[any](t, "the address", data.Account["email"], "ann@example.org")
		if len(data.Sessions) != 2 || data.Sessions[0]["ended_at"] == nil || data.Sessions[1]["kind"] != "browser" {
			t.Errorf("the sessions are %v", data.Sessions)
		}
		same[any](t, "the network", data.Networks[0]["network"], "192.0.2.0/24")
		var kinds []string
		for _, e := range data.AuditLog {
			kinds = append(kinds, e["kind"].(string))
		}
		want := []string{"user.created", "session.opened", "session.ended", "session.opened", "session.proved", "user.exported"} // once: HEAD has no effect
		if !slices.Equal(kinds, want) {
			t.Errorf("the audit log has %q, want %q", kinds, want)
		}
		for _, secret := range []string{"argon2", "bob@", b.cookies["__Host-kwai"], ended.field("refresh_token")} {
			if strings.Contains(string(a.Body), secret) {
				t.Errorf("it has %q: %s", secret, a.Body)
			}
		}
		b.shows("/account/activity", "You downloaded your data")
	}, behindProxy)
}

// A visitor deletes the account: after a fresh proof, by a form of that very session.
func TestAVisitorDeletesTheAccount(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		b, other := s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good)
		bob := s.browser(t).login("bob@example.org", good)
		api := s.login("ann@example.org")
		b.shows("/account", `href="account/delete"`)
		bobs := sealOf.FindStringSubmatch(bob.shows("/account/delete"))[1]
		b.goes("another user's form", b.do(http.MethodPost, "/account/delete", "form", bobs), "../account/delete")
		seal := sealOf.FindStringSubmatch(b.shows("/account/delete", "ann@example.org", `href="../account/data"`))[1]
		b.do(http.MethodHead, "/account/delete")
		s.clock.advance(25 * time.Minute)
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			b.goes(method+" without a fresh proof", b.do(method, "/account/delete", "form", seal), "../login?prompt=login&next=account%2Fdelete")
		}
		b.goes("the proof", b.do(http.MethodPost, "/login", "prove", "1", "password", good, "next", "account/delete"), "account/delete")
		other.shows("/account")
		b.goes("the deletion", b.send("/account/delete", "/account/delete"), "../gone")
		same(t, "cookies", len(b.cookies), 0)
		b.shows("/gone", "Your account is deleted")
		other.goes("the other browser", other.get("/account"), "login?next=account")
		same(t, "the API's session", s.alive(api), false)
		same(t, "a login", s.browser(t).do(http.MethodPost, "/login", "username", "ann@example.org", "password", good).Status, http.StatusUnauthorized)
		bob.shows("/account")
		m := s.sent(1)[0]
		if m.To != "ann@example.org" || !strings.Contains(m.Subject, "was deleted") {
			t.Errorf("the mail is %+v", m)
		}
	}, limitsOff)
}

// Where users may not, neither the page nor the way to it is there.
func TestWithoutSelfDelete(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		if body := b.shows("/account"); strings.Contains(body, "delete") {
			t.Errorf("it leads to the page:\n%s", body)
		}
		for _, path := range []string{"/account/delete", "/gone"} {
			same(t, path, b.get(path).Status, http.StatusNotFound)
		}
		seal := sealOf.FindStringSubmatch(b.shows("/logout"))[1]
		same(t, "the form", b.do(http.MethodPost, "/account/delete", "form", seal).Status, http.StatusNotFound)
		b.shows("/account")
	}, func(s *setup) { s.web.SelfDelete = false })
}

// The page of a fresh proof, sent by another user who has logged in in between, is shown
// anew: the password that was typed isn't tried as the other's.
func TestAProofOfAnotherUserIsShownAnew(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		b := s.browser(t).login("bob@example.org", good)
		s.clock.advance(11 * time.Minute)
		for _, password := range []string{good, "wrong"} {
			a := b.do(http.MethodPost, "/login", "prove", "1", "username", "ann@example.org", "password", password, "next", "account/password")
			b.goes("Ann's page, sent by Bob", a, "login?prompt=login&next=account%2Fpassword")
			same(t, "its cookie", a.Header.Get("Set-Cookie"), "")
		}
		b.shows("/login?prompt=login&next=account%2Fpassword", `name="prove"`, "bob@example.org")
		if activity := b.shows("/account/activity"); strings.Contains(activity, "A login failed") || strings.Contains(activity, "once more") {
			t.Errorf("something was tried: %s", activity)
		}
		b.goes("the proof", b.do(http.MethodPost, "/login", "prove", "1", "username", "bob@example.org", "password", good, "next", "account/password"), "account/password")
	})
}

var confirmLink = regexp.MustCompile(`/account/email/confirm\?code=\S+`)

// The link to a new address is finished by a form, in a browser that is logged in to the
// account; a login comes first and leads back.
func TestANewAddressOnThePage(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		b.shows("/account", `href="account/email"`)
		for typed, want := range map[string]string{"": "Type an e-mail address", "nonsense": "Type an e-mail address", "Ann@example.org": "your address already"} {
			a := b.send("/account/email", "/account/email", "email", typed)
			same(t, typed+": the status", a.Status, http.StatusUnprocessableEntity)
			contains(t, "the page", string(a.Body), want)
		}
		var answers []answer
		for _, email := range []string{"bob@example.org", "anna@example.org"} {
			answers = append(answers, b.send("/account/email", "/account/email", "email", email))
			b.goes(email, answers[len(answers)-1], "../account?done=email-sent")
		}
		same(t, "the answer for a taken address", fmt.Sprint(answers[0]), fmt.Sprint(answers[1]))
		b.shows("/account?done=email-sent", "If the address can be used")
		var m mailtest.Mail
		for _, sent := range s.sent(3) {
			if confirmLink.MatchString(sent.Text) {
				m = sent
			} else {
				same(t, "to whom a notice goes", sent.To, "ann@example.org")
				contains(t, "the notice", sent.Text, "another e-mail")
			}
		}
		same(t, "to whom", m.To, "anna@example.org")
		link := confirmLink.FindString(m.Text)
		code := link[strings.Index(link, "=")+1:]

		bob := s.browser(t).login("bob@example.org", good)
		a := bob.get(link)
		same(t, "another user's look", a.Status, http.StatusNotFound)
		contains(t, "the page", string(a.Body), "another account than bob@example.org")
		same(t, "another user's form", bob.send("/logout", "/account/email/confirm", "code", code).Status, http.StatusNotFound)

		b = s.browser(t)
		next := "account/email/confirm?code=" + code
		b.goes("without a login", b.get(link), "../../login?next="+url.QueryEscape(next))
		contains(t, "the form", string(b.get("/login?next="+url.QueryEscape(next)).Body), `value="`+next+`"`)
		b.goes("the login", b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good, "next", next), next)
		b.shows(link, "ann@example.org", "anna@example.org")
		b.do(http.MethodHead, link)
		b.goes("a form from before another login", b.do(http.MethodPost, "/account/email/confirm", "form", "x", "code", code), "../../"+next)
		b.goes("one with a code of another form", b.do(http.MethodPost, "/account/email/confirm", "code", code+"&x"), "../../account/email/confirm")
		b.goes("the form", b.send(link, "/account/email/confirm", "code", code), "../../account?done=email")
		b.shows("/account?done=email", "anna@example.org", "The address is changed")
		same(t, "once more", b.send("/logout", "/account/email/confirm", "code", code).Status, http.StatusNotFound)
		same(t, "the link once more", b.get(link).Status, http.StatusNotFound)
		same(t, "the notice", s.sent(4)[3].To, "ann@example.org")
		b.shows("/account/activity", "Another address was asked for", "The account got another address")
		for _, other := range []string{next + "x", next[:len(next)-1], next + "&x=y", "account/email/confirm", "/" + next, next + "#x", "account/email/confirm?code=//evil.example"} {
			b.goes("a login that leads to "+other, b.get("/login?next="+url.QueryEscape(other)), "account")
		}
	})
}

func TestManyNewAddresses(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		for range 5 {
			b.goes("a request", b.send("/account/email", "/account/email", "email", "anna@example.org"), "../account?done=email-sent")
		}
		a := b.send("/account/email", "/account/email", "email", "anna@example.org")
		same(t, "one too many", a.Status, http.StatusTooManyRequests)
		contains(t, "the page", string(a.Body), "Try again in 1 hour")
	})
}
