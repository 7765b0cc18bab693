package web_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/testing/totp"
)

// app is an authenticator app, by RFC 6238 alone.
type app struct {
	s      *site
	secret string
	codes  []string // the recovery codes that were shown with it
	offer  string
}

var (
	secretOf = regexp.MustCompile(`<span class="code">([A-Z2-7 ]+)</span>`)
	codeOf   = regexp.MustCompile(`<li class="code">([A-Z2-7-]+)</li>`)
	offerOf  = regexp.MustCompile(`name="offer" value="([^"]+)"`)
)

// scan reads the page that sets an app up.
func (s *site) scan(page string) *app {
	s.tb.Helper()
	secret, offer := secretOf.FindStringSubmatch(page), offerOf.FindStringSubmatch(page)
	if offer == nil {
		s.tb.Fatalf("the page offers nothing:\n%s", page)
	}
	a := &app{s: s, offer: offer[1]}
	if secret != nil {
		a.secret = secret[1]
	}
	for _, c := range codeOf.FindAllStringSubmatch(page, -1) {
		a.codes = append(a.codes, c[1])
	}
	return a
}

// code is what the app shows; each is half a minute after the one before, since each is
// good once.
func (a *app) code() string {
	a.s.clock.advance(30 * time.Second)
	return a.at(a.s.clock.now())
}

func (a *app) at(t time.Time) string { return totp.Code(a.secret, t) }

// enrol sets an app up in the account.
func (b *browser) enrol() *app {
	b.t.Helper()
	page := b.shows("/account/security/app")
	a := b.s.scan(page)
	done := "app"
	if strings.Contains(page, "Replace it") {
		done = "app-replaced"
	}
	b.goes("the enrolment", b.do(http.MethodPost, "/account/security/app", "form", sealOf.FindStringSubmatch(page)[1], "offer", a.offer, "kept", "1", "code", a.code()), "../../account/security?done="+done)
	return a
}

// step is the page of a second step that a right password leads to.
type step struct{ path, login, next string }

// password is the first step; it returns the second.
func (b *browser) password(to string, fields ...string) step {
	b.t.Helper()
	a := b.do(http.MethodPost, "/login", append([]string{"username", "ann@example.org", "password", good}, fields...)...)
	at, err := url.Parse(a.Header.Get("Location"))
	if err != nil || a.Status != http.StatusSeeOther || at.Path != to {
		b.t.Fatalf("the password: %d to %q, want %s\n%s", a.Status, a.Header.Get("Location"), to, a.Body)
	}
	for _, c := range (&http.Response{Header: a.Header}).Cookies() {
		if c.Name != "__Host-kwai-browser" {
			b.t.Errorf("the password alone sets %s", c.Name)
		}
	}
	return step{"/" + at.Path, at.Query().Get("login"), at.Query().Get("next")}
}

// url is the page's address.
func (p step) url() string { return p.path + "?" + encodeURL("login", p.login, "next", p.next) }

// takes sends its form.
func (b *browser) takes(p step, fields ...string) answer {
	b.t.Helper()
	return b.do(http.MethodPost, p.path, append([]string{"login", p.login, "next", p.next}, fields...)...)
}

// refused holds that a form comes back with what is wrong, and lets nobody in.
func (b *browser) refused(what string, a answer, status int, words string) {
	b.t.Helper()
	same(b.t, what+": the status", a.Status, status)
	contains(b.t, what, string(a.Body), words)
	same(b.t, what+": what it sets", a.Header.Get("Set-Cookie"), "")
}

const begunAnew = "../login?prompt=select_account&notice=over&next=account"

// From the app's being set up to a login by it, and by a recovery code: each code is
// good once, and there is no way in without one.
func TestTwoStepsOnThePages(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		b, other := s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good)
		b.shows("/account", `href="account/security"`)
		b.shows("/account/security", "You have none", "Off: the password is enough", `href="../account/security/app"`, `href="../account/passkeys"`)
		a := b.enrol()
		same(t, "recovery codes", len(a.codes), 10)
		b.shows("/account/security?done=app", "The authenticator app is set up", "On: each login by password asks", "Not since it was set up", "<dd>10</dd>", "12:00 UTC on Sunday 1 March 2026")
		other.goes("the other browser", other.get("/account"), "login?next=account")
		b.goes("the logout", b.send("/logout", "/logout"), "out")

		p := b.password("login/code", "next", "account/security")
		page := b.shows(p.url(), `name="code"`, `autocomplete="one-time-code"`, `inputmode="text"`, "ann@example.org", `href="../login?prompt=select_account&amp;next=account%2fsecurity"`)
		same(t, "fields", strings.Count(page, "<input"), 3)
		b.goes("the account, before the code", b.get("/account"), "login?next=account")
		b.refused("no code", b.takes(p), 422, "Type the code.")
		b.refused("a blank", b.takes(p, "code", " "), 422, "Type the code.")
		b.refused("a wrong code", b.takes(p, "code", "000000"), 401, `aria-describedby="code-error code-hint" aria-invalid="true"`)
		b.refused("half a code", b.takes(p, "code", "123"), 401, "This code is wrong")
		code := a.code()
		b.goes("the code", b.takes(p, "code", code[:3]+" "+code[3:]), "../account/security")
		b.shows("/account/security", "Last used", "<dd>10</dd>")
		b.goes("the logout", b.send("/logout", "/logout"), "out")

		p = b.password("login/code")
		b.refused("the code once more", b.takes(p, "code", code), 401, "was used before")
		b.goes("a recovery code", b.takes(p, "code", strings.ToLower(a.codes[3])), "../account")
		b.shows("/account/security", "<dd>9</dd>")
		b.goes("the logout", b.send("/logout", "/logout"), "out")
		p = b.password("login/code")
		b.refused("the recovery code once more", b.takes(p, "code", a.codes[3]), 401, "was used before")
		b.goes("another one", b.takes(p, "code", a.codes[4]), "../account")
	})
}

// A login that waits does so in the browser that has begun it, for what it needs, for ten
// minutes, and while the account stays as it is.
func TestALoginWaitsInItsBrowser(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		a := s.browser(t).login("ann@example.org", good).enrol()
		b := s.browser(t)
		b.shows("/login")
		name := b.cookies["__Host-kwai-browser"]
		p := b.password("login/code")
		same(t, "the browser's cookie, later", b.cookies["__Host-kwai-browser"], name)
		over := func(what string, b *browser, p step) {
			t.Helper()
			for _, path := range []string{"/login/code", "/login/enrol"} {
				p.path = path
				b.goes(what+": "+path, b.get(p.url()), begunAnew)
				got := b.takes(p, "code", a.code(), "kept", "1", "offer", a.offer)
				b.goes(what+": its form", got, begunAnew)
				same(t, what+": what it sets", got.Header.Get("Set-Cookie"), "")
			}
		}
		over("no cookie", s.browser(t), p)
		another := s.browser(t)
		another.shows("/login")
		over("another browser", another, p)
		empty := s.browser(t)
		empty.cookies["__Host-kwai-browser"] = ""
		over("an empty cookie", empty, p)
		for _, forged := range []string{"", "x", p.login[:len(p.login)-1], p.login + "A", "." + p.login, strings.Replace(p.login, ".", "..", 1)} {
			over("the login "+forged, b, step{login: forged, next: "account"})
		}
		b.goes("a login for a code, with an app", b.get("/login/enrol?"+encodeURL("login", p.login)), begunAnew)
		b.shows("/"+begunAnew[3:], "That took too long")
		for from, says := range map[string]bool{"same-origin": true, "cross-site": false, "none": false} {
			b.from = from
			same(t, "the notice, from "+from, strings.Contains(b.shows("/"+begunAnew[3:]), "That took too long"), says)
		}
		b.from = ""
		b.shows(p.url())
		b.do(http.MethodHead, p.url())
		b.goes("the code", b.takes(p, "code", a.code()), "../account")

		b = s.browser(t)
		p = b.password("login/code")
		s.clock.advance(11 * time.Minute)
		over("eleven minutes later", b, p)
		p = b.password("login/code")
		s.setPassword("ann@example.org", good)
		over("after a new password", b, p)
	}, limitsOff)
}

// Two tabs don't disturb each other, whichever ends first; the session of the first ends
// with the login of the second.
func TestTwoTabsLogIn(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		a := s.browser(t).login("ann@example.org", good).enrol()
		b := s.browser(t)
		b.shows("/login")
		older, newer := b.password("login/code"), b.password("login/code", "next", "account/sessions")
		b.goes("the newer tab", b.takes(newer, "code", a.code()), "../account/sessions")
		first := s.browser(t)
		first.cookies["__Host-kwai"] = b.cookies["__Host-kwai"]
		b.goes("the older tab", b.takes(older, "code", a.code()), "../account")
		b.shows("/account")
		first.goes("the session of the first", first.get("/account"), "login?next=account")
	})
}

// A browser without a cookie gets one with the password, which is enough.
func TestTheBrowserCookie(t *testing.T) {
	for scheme, name := range map[string]string{"https": "__Host-kwai-browser", "http": "kwai-dev-browser"} {
		t.Run(scheme, func(t *testing.T) {
			each(t, func(t *testing.T, s *site) {
				s.forApps()
				s.user("ann@example.org", good)
				b := s.browser(t).login("ann@example.org", good)
				same(t, "the cookie of a login by one step", b.cookies[name], "")
				b.enrol()
				b = s.browser(t)
				a := b.do(http.MethodHead, "/login")
				same(t, "what HEAD sets", a.Header.Get("Set-Cookie"), "")
				for what, answer := range map[string]answer{
					"the page":     s.browser(t).get("/login"),
					"the password": b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good),
				} {
					cookies := (&http.Response{Header: answer.Header}).Cookies()
					if len(cookies) != 1 {
						t.Fatalf("%s sets %v", what, cookies)
					}
					c := cookies[0]
					if c.Name != name || len(c.Value) < 26 || c.Secure != (scheme == "https") || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || !c.Expires.IsZero() || c.MaxAge != 0 {
						t.Errorf("%s sets %s", what, c.Raw)
					}
				}
				same(t, "what the page sets later", b.get("/login").Header.Get("Set-Cookie"), "")
			}, func(o *setup) {
				if scheme == "http" {
					o.web.PublicURL = &url.URL{Scheme: "http", Host: "127.0.0.1:8080"}
				}
			})
		})
	}
}

// The language that the link to a login asks for goes along through all its steps, if it is
// one that there is.
func TestTheLanguageOfALoginGoesAlong(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		app := s.browser(t).login("ann@example.org", good).enrol()
		b := s.browser(t)
		const german = "?ui_locales=de"
		b.shows("/login?ui_locales=xx%20de-AT", `<html lang="de">`, `action="login`+german+`"`, `action="login/passkey`+german+`"`, `href="recover`+german+`"`)
		a := b.do(http.MethodPost, "/login"+german, "username", "ann@example.org", "password", better)
		b.refused("a wrong password", a, 401, `action="login`+german+`"`)
		a = b.do(http.MethodPost, "/login"+german, "username", "ann@example.org", "password", good)
		to := a.Header.Get("Location")
		if !strings.HasSuffix(to, "&ui_locales=de") {
			t.Fatalf("the password leads to %q", to)
		}
		b.shows("/"+to, `<html lang="de">`, `action="../login/code`+german+`"`, "&amp;ui_locales=de")
		at, err := url.Parse(to)
		s.ok(err)
		fields := []string{"login", at.Query().Get("login"), "next", "account"}
		b.refused("a wrong code", b.do(http.MethodPost, "/login/code"+german, append(fields, "code", "000000")...), 401, `action="../login/code`+german+`"`)
		b.goes("a login that is over", b.do(http.MethodPost, "/login/code"+german, "login", "x", "next", "account"), begunAnew+"&ui_locales=de")
		b.goes("the code", b.do(http.MethodPost, "/login/code"+german, append(fields, "code", app.code())...), "../account")

		for _, none := range []string{"", "?ui_locales=xx", "?ui_locales=%22%3E", "?ui_locales="} {
			if page := s.browser(t).shows("/login" + none); strings.Contains(page, "ui_locales") {
				t.Errorf("/login%s carries it along", none)
			}
		}
		// A login that sets an app up, too.
		s.user("bob@example.org", good)
		s.required("bob@example.org")
		b = s.browser(t)
		to = b.do(http.MethodPost, "/login"+german, "username", "bob@example.org", "password", good).Header.Get("Location")
		b.shows("/"+to, `<html lang="de">`, `action="../login/enrol`+german+`"`)
	})
}

// A fresh proof is all that the account demands.
func TestAFreshProofAsksForACode(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		a := b.enrol()
		s.clock.advance(11 * time.Minute)
		const prove = "../login?prompt=login&next=account%2Fpassword"
		b.goes("not fresh", b.get("/account/password"), prove)
		p := b.password("login/code", "prove", "1", "next", "account/password")
		b.shows(p.url(), `href="../login?prompt=login&amp;next=account%2fpassword"`)
		b.goes("the password alone", b.get("/account/password"), prove)
		b.refused("a wrong code", b.takes(p, "code", "000000"), 401, "This code is wrong")
		b.goes("the code", b.takes(p, "code", a.code()), "../account/password")
		b.shows("/account/password")

		s.clock.advance(11 * time.Minute)
		p = b.password("login/code", "prove", "1", "next", "account/password")
		s.clock.advance(11 * time.Minute)
		b.goes("eleven minutes later", b.takes(p, "code", a.code()), "../login?prompt=login&notice=over&next=account%2Fpassword")
		b.shows("/login?prompt=login&notice=over&next=account/password", "That took too long", `name="prove"`)
		p = b.password("login/code", "prove", "1", "next", "account/password")
		b.goes("the logout, in another tab", b.send("/logout", "/logout"), "out")
		b.goes("a proof of nobody", b.takes(p, "code", a.code()), "../login?next=account%2Fpassword")
		b.goes("the account", b.get("/account"), "login?next=account")
	})
}

// Wrong codes are held back, in words that fit, and not where the owner logs in.
func TestManyWrongCodes(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		a := s.browser(t).login("ann@example.org", good).enrol()
		b := s.browser(t)
		p := b.password("login/code")
		for range 100 {
			got := b.takes(p, "code", "000000")
			if got.Status == http.StatusUnauthorized {
				continue
			}
			b.refused("one too many", got, 429, "Too many wrong codes. Try again in")
			if got.Header.Get("Retry-After") == "" {
				t.Error("it lacks Retry-After")
			}
			b.refused("a right one", b.takes(p, "code", a.at(s.clock.now().Add(30*time.Second))), 429, "Too many wrong codes")
			return
		}
		t.Error("a hundred wrong codes are taken")
	})
}

// A group that requires two steps has its members set an app up at the login.
func TestAGroupRequiresTwoSteps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		before := s.browser(t).login("ann@example.org", good)
		s.required("ann@example.org")
		before.shows("/account/security", "Set up an authenticator app.")
		b := s.browser(t)
		p := b.password("login/enrol", "next", "account/security")
		older := s.scan(b.shows(p.url(), "A group of yours requires two steps", "Once it is set up, you are logged in here", "Switch it on", `action="../login/enrol"`, `role="img"`, "otpauth://totp/auth.example.org:ann@example.org?"))
		b.do(http.MethodHead, p.url())
		same(t, "what another tab offers", s.scan(b.shows(p.url())).offer, older.offer)
		next := s.browser(t)
		next.cookies = maps.Clone(b.cookies)
		if s.scan(next.shows(next.password("login/enrol").url())).secret == older.secret {
			t.Error("the next login in the same browser is offered the same secret")
		}
		b.goes("the account, before", b.get("/account"), "login?next=account")
		at := step{"/login/code", p.login, "account"}
		b.goes("at the code's page", b.takes(at, "code", older.code()), begunAnew)

		b.refused("not kept", b.takes(p, "offer", older.offer, "code", older.code()), 422, `id="kept-error"`)
		b.refused("no code", b.takes(p, "offer", older.offer, "kept", "1"), 422, "Type the code.")
		got := b.takes(p, "offer", older.offer, "kept", "1", "code", "000000")
		b.refused("a wrong code", got, 401, "to the QR code on this page")
		again := s.scan(string(got.Body))
		same(t, "the offer that comes back", again.offer, older.offer)
		if again.secret != older.secret || !slices.Equal(again.codes, older.codes) {
			t.Error("the page comes back with another secret")
		}
		got = b.takes(p, "offer", "x", "kept", "1", "code", older.code())
		b.refused("a forged offer", got, 409, "Go on with what is shown now: it alone counts.")
		if s.scan(string(got.Body)).offer != older.offer || strings.Contains(string(got.Body), "checked") {
			t.Errorf("it isn't what this browser was shown:\n%s", got.Body)
		}
		b.goes("the form of the older tab", b.takes(p, "offer", older.offer, "kept", "1", "code", older.code()), "../account/security")
		b.shows("/account/security", "A group of yours requires them", "<dd>10</dd>")
		before.goes("the session of one step", before.get("/account"), "login?next=account")
		b.goes("the enrolment once more", b.takes(p, "offer", older.offer, "kept", "1", "code", older.code()), "../login?prompt=select_account&notice=over&next=account%2Fsecurity")
		for _, path := range []string{"/account/security/remove", "/account/security/two-steps"} {
			if page := b.shows(path, "neither remove it nor switch two steps off"); strings.Contains(page, "<form") {
				t.Errorf("%s has a form", path)
			}
			seal := sealOf.FindStringSubmatch(b.shows("/account/password"))[1]
			b.goes(path+", all the same", b.do(http.MethodPost, path, "form", seal, "two_steps", "off"), "../.."+path)
		}
		s.browser(t).password("login/code")
	})
}

// A page that is loaded again offers the same app and the same recovery codes, to the same
// account in the same browser, for a quarter of an hour, until they are taken.
func TestAnOfferIsShownAgain(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		const path = "/account/security/app"
		b := s.browser(t).login("ann@example.org", good)
		first := s.scan(b.shows(path))
		kept := b.cookies["__Host-kwai-app"]
		same(t, "loaded again", fmt.Sprint(*s.scan(b.shows(path))), fmt.Sprint(*first))
		others := func(what string, b *browser) {
			t.Helper()
			if got := s.scan(b.shows(path)); got.secret == first.secret || slices.Equal(got.codes, first.codes) {
				t.Errorf("%s sees the same offer", what)
			}
		}
		others("another browser", s.browser(t).login("ann@example.org", good))
		next := s.browser(t).login("ann@example.org", good)
		next.cookies["__Host-kwai-app"] = kept
		others("another session in the same browser", next)
		bob := s.browser(t).login("bob@example.org", good)
		bob.cookies["__Host-kwai-app"] = kept
		others("another account", bob)
		b.cookies["__Host-kwai-app"] = "x"
		others("a browser with a forged cookie", b)
		b.cookies["__Host-kwai-app"] = kept
		same(t, "with its own again", s.scan(b.shows(path)).offer, first.offer)
		s.clock.advance(16 * time.Minute)
		b.goes("the proof", b.do(http.MethodPost, "/login", "prove", "1", "password", good), "account")
		others("a browser, later", b)

		a := b.enrol()
		if left := b.cookies["__Host-kwai-app"]; left != "" {
			t.Error("the cookie is left behind:", left)
		}
		b.cookies["__Host-kwai-app"] = kept
		b.goes("the proof", b.takes(b.password("login/code", "prove", "1"), "code", a.code()), "../account")
		others("a browser with a cookie from before", b)
		codes := func() []string { return s.scan(b.shows("/account/security/codes")).codes }
		if !slices.Equal(codes(), codes()) {
			t.Error("recovery codes are others when they are shown again")
		}
	})
}

// Who is logged in when a group begins to require two steps can prove it by setting an app
// up, and goes on in the same session.
func TestAProofThatSetsAnAppUp(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		b, other := s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good)
		s.required("ann@example.org")
		s.clock.advance(11 * time.Minute)
		p := b.password("login/enrol", "prove", "1", "next", "account/password")
		a := s.scan(b.shows(p.url(), "You stay logged in here", `href="../login?prompt=login&amp;next=account%2fpassword"`))
		b.goes("the app", b.takes(p, "offer", a.offer, "kept", "1", "code", a.code()), "../account/password")
		b.shows("/account/password")
		other.goes("another session", other.get("/account"), "login?next=account")
	})
}

// required has a group require two steps, which the user is in.
func (s *site) required(email string) {
	s.tb.Helper()
	s.ok(s.command.CreateGroup(s.tb.Context(), "board"))
	s.ok(s.command.AddMembers(s.tb.Context(), "board", email))
	s.ok(s.command.RequireTwoSteps(s.tb.Context(), "board", true))
}

// What the visitor can change, and what comes of a form that is too old.
func TestFactorsAreChanged(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		for _, path := range []string{"/account/security/codes", "/account/security/remove", "/account/security/two-steps"} {
			b.goes(path+" without an app", b.get(path), "../../account/security")
		}
		first := b.enrol()
		fresh := func(page string) {
			t.Helper()
			s.clock.advance(11 * time.Minute)
			b.goes(page+", not fresh", b.get(page), "../../login?prompt=login&next="+url.QueryEscape(page[1:]))
		}
		for _, page := range []string{"/account/security/app", "/account/security/codes", "/account/security/remove", "/account/security/two-steps"} {
			fresh(page)
			p := b.password("login/code", "prove", "1", "next", page[1:])
			b.goes("the proof", b.takes(p, "code", first.code()), ".."+page)
			b.shows(page)
		}

		page := b.shows("/account/security/codes")
		offer := s.scan(page)
		same(t, "new codes", len(offer.codes), 10)
		send := func(fields ...string) answer {
			return b.do(http.MethodPost, "/account/security/codes", append(fields, "form", sealOf.FindStringSubmatch(page)[1])...)
		}
		got := send("offer", offer.offer)
		b.refused("not kept", got, 422, "then tick this box")
		same(t, "the codes that come back", fmt.Sprint(s.scan(string(got.Body)).codes), fmt.Sprint(offer.codes))
		b.refused("the offer of an app", send("offer", "x", "kept", "1"), 409, "Go on with what is shown now")
		b.goes("kept", send("offer", offer.offer, "kept", "1"), "../../account/security?done=codes")
		b.goes("kept twice", send("offer", offer.offer, "kept", "1"), "../../account/security?done=codes")
		login := func(code string, status int) {
			t.Helper()
			b := s.browser(t)
			same(t, "a login with "+code, b.takes(b.password("login/code"), "code", code).Status, status)
		}
		login(first.codes[0], 401)
		login(offer.codes[0], 303)

		b.goes("off", b.send("/account/security/two-steps", "/account/security/two-steps", "two_steps", "off"), "../../account/security?done=two-steps-off")
		b.shows("/account/security?done=two-steps-off", "Two steps are off", "Off: the password", "<dd>9</dd>")
		other := s.browser(t).login("ann@example.org", good)
		same(t, "neither on nor off", b.send("/account/security/two-steps", "/account/security/two-steps").Status, http.StatusBadRequest)
		copied := b.cookies["__Host-kwai"]
		b.goes("on", b.send("/account/security/two-steps", "/account/security/two-steps", "two_steps", "on"), "../../account/security?done=two-steps-on")
		b.shows("/account")
		if copied == b.cookies["__Host-kwai"] {
			t.Error("the cookie isn't replaced")
		}
		other.goes("the session of one step", other.get("/account"), "login?next=account")

		b.shows("/account/security/app", `<button type="submit">Replace it</button>`)
		second := b.enrol()
		b.shows("/account/security?done=app-replaced", "The new app is set up. Codes of the app before no longer work", `href="../account/sessions">See where you are logged in, and log out elsewhere`)
		login(first.code(), 401)
		login(second.code(), 303)
		b.goes("the removal", b.send("/account/security/remove", "/account/security/remove"), "../../account/security?done=app-removed")
		b.shows("/account/security?done=app-removed", "The authenticator app is removed", "You have none")
		s.browser(t).login("ann@example.org", good)
	}, limitsOff)
}

// The pages of one user can't be sent by another, and an offer is good for one account.
func TestAnOfferOfAnotherUser(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		ann, bob := s.browser(t).login("ann@example.org", good), s.browser(t).login("bob@example.org", good)
		page := bob.shows("/account/security/app")
		bobs := s.scan(page)
		seal := sealOf.FindStringSubmatch(page)[1]
		ann.goes("Bob's page", ann.do(http.MethodPost, "/account/security/app", "form", seal, "offer", bobs.offer, "kept", "1", "code", bobs.code()), "../../account/security/app")
		a := ann.send("/account/security/app", "/account/security/app", "offer", bobs.offer, "kept", "1", "code", bobs.code())
		ann.refused("Bob's offer", a, 409, "Go on with what is shown now")
		codes := s.scan(ann.shows("/account/security/app"))
		a = ann.send("/account/security/app", "/account/security/app", "offer", codes.offer, "kept", "1", "code", bobs.code())
		ann.refused("a code of Bob's", a, 401, "to the QR code on this page")
		ann.shows("/account/security", "You have none")
		s.clock.advance(20 * time.Minute)
		ann.goes("a page that is too old", ann.send("/account/profile", "/account/security/app", "offer", codes.offer, "kept", "1", "code", codes.code()), "../../login?prompt=login&next=account%2Fsecurity%2Fapp")
	})
}
