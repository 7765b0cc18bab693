package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"kwai/internal/mail"
	"kwai/internal/web"
)

// Kinds of routes, by the headers of their answers.
const (
	plainPage  = "a page"
	leadingOut = "a page from which an app is reached"
	forProgram = "for programs"
	pageFile   = "a part of pages"
	redirect   = "a redirect"
)

// routeKinds has every route.
var routeKinds = map[string]string{
	"/login": leadingOut, "/login/passkey": leadingOut, "/login/passkey/options": forProgram, "/logout": leadingOut, "/consent": leadingOut, "/oauth2/authorize": leadingOut, "/oauth2/logout": leadingOut,
	"/oauth2/token": forProgram, "/oauth2/revoke": forProgram, "/oauth2/userinfo": forProgram, "/.well-known/openid-configuration": forProgram, "/.well-known/oauth-authorization-server": forProgram,
	"/login/code": leadingOut, "/login/enrol": leadingOut,
	"/account/security": plainPage, "/account/security/app": plainPage, "/account/security/codes": plainPage, "/account/security/remove": plainPage, "/account/security/two-steps": plainPage,
	"/account/apps": plainPage, "/account/passkeys": plainPage, "/account/passkeys/options": plainPage, "/account/passkeys/remove": plainPage,
	"/": redirect, "/.well-known/change-password": redirect,
	"/recover": plainPage, "/sent": plainPage, "/reset": plainPage, "/done": plainPage, "/out": plainPage,
	"/account": plainPage, "/account/password": plainPage, "/account/profile": plainPage, "/account/data": plainPage, "/account/data.json": plainPage, "/account/delete": plainPage, "/account/email": plainPage, "/account/email/confirm": plainPage, "/gone": plainPage, "/account/sessions": plainPage, "/account/activity": plainPage,
	"/dev/mail": plainPage, "/dev/mail/x": plainPage, "/dev/uuid": forProgram,
	"/style.css": pageFile, "/passkey.js": pageFile, "/logo": pageFile,
	"/api/v1/auth/login": forProgram, "/api/v1/auth/logout": forProgram, "/api/v1/auth/access_token": forProgram, "/api/v1/auth/recover": forProgram,
	"/api/v1/auth/reset": forProgram, "/api/v1/auth/user": forProgram, "/api/v1/auth/password": forProgram,
	"/api/v1/auth/sessions": forProgram, "/api/v1/auth/sessions/x": forProgram,
	"/.well-known/jwks.json": forProgram, "/openapi.yaml": forProgram, "/healthz": forProgram, "/readyz": forProgram,
}

// checkHeaders holds an answer that is no login, proof or logout against its kind.
func checkHeaders(t *testing.T, what, kind, images string, a answer) {
	t.Helper()
	is := func(name, want string) {
		t.Helper()
		same(t, what+": "+name, strings.Join(a.Header.Values(name), " and "), want)
	}
	if set := a.Header.Values("Set-Cookie"); len(set) == 1 && strings.HasPrefix(what, "GET /login of") {
		// A browser that has none gets its own cookie.
		contains(t, what+": Set-Cookie", set[0], "__Host-kwai-browser=")
	} else {
		is("Set-Cookie", "")
	}
	html := strings.HasPrefix(a.Header.Get("Content-Type"), "text/html")
	if html && (kind == forProgram || kind == pageFile) || a.Header.Get("Referrer-Policy") == "no-referrer" {
		t.Errorf("%s: %v", what, a)
	}
	if !html {
		is("Cross-Origin-Opener-Policy", "")
		is("Referrer-Policy", "")
		if a.Status == http.StatusSeeOther {
			is("Cache-Control", "no-store")
			is("Content-Security-Policy", "")
		}
		return
	}
	opener, forms, scripts := "same-origin", "form-action 'self'; ", ""
	if kind == leadingOut {
		opener, forms = "", ""
	}
	if strings.Contains(string(a.Body), "<script src=") {
		scripts = "script-src 'self'; connect-src 'self'; "
	}
	is("Cross-Origin-Opener-Policy", opener)
	is("Content-Security-Policy", "default-src 'none'; style-src 'self'; "+scripts+"img-src "+images+"; "+forms+"frame-ancestors 'none'; base-uri 'none'")
	is("Referrer-Policy", "same-origin")
	is("X-Content-Type-Options", "nosniff")
	is("X-Frame-Options", "DENY")
	is("Cache-Control", "no-store")
}

// Whatever a route answers, it has the headers of its kind. Only a login, a proof and
// a logout set a cookie.
func TestHeadersOfEveryRoute(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		images, seen := "'self' data:", 0
		if s.web.Brand.Logo == nil {
			images = "data:"
		}
		ann, fresh := s.browser(t).login("ann@example.org", good), s.browser(t)
		dead := s.browser(t).login("ann@example.org", good)
		cookie := dead.cookies["__Host-kwai"]
		dead.goes("the logout", dead.send("/logout", "/logout"), "out")
		dead.cookies["__Host-kwai"] = cookie
		s.clock.advance(11 * time.Minute) // nobody is fresh
		fresh.login("ann@example.org", good)
		for _, route := range web.RoutesOf(s.web) {
			method, path := route[0], strings.NewReplacer("{$}", "", "{id}", "x", "{name}", "x").Replace(route[1])
			kind := routeKinds[path]
			if kind == "" {
				t.Errorf("routeKinds lacks %s", path)
				continue
			}
			for who, b := range map[string]*browser{"nobody": s.browser(t), "a visitor": ann, "a fresh visitor": fresh, "a dead cookie": dead} {
				what := method + " " + path + " of " + who
				a := b.do(method, path)
				checkHeaders(t, what, kind, images, a)
				seen++
				if method == http.MethodGet {
					head := b.do(http.MethodHead, path)
					head.Body = a.Body // of which its headers are
					checkHeaders(t, "HEAD "+path+" of "+who, kind, images, head)
					checkHeaders(t, what+" that asks for a proof", kind, images, b.do(method, path+"?prompt=login&next=account&uuid=x"))
					if kind == redirect && a.Status != http.StatusSeeOther {
						t.Errorf("%s: %v", what, a)
					}
					continue
				}
				checkHeaders(t, what+", with wrong fields", kind, images, b.do(method, path,
					"username", "nobody@example.org", "email", "x", "password", "x", "uuid", "x", "form", "x", "everywhere", "1"))
				checkHeaders(t, what+", with too much", kind, images, b.do(method, path, "password", strings.Repeat("x", 1<<20)))
				r := s.request(method, path, strings.NewReader("username=x&password=x"))
				r.Header.Set("Content-Type", urlencoded)
				r.Header.Set("Origin", "https://evil.example")
				for name, value := range b.cookies {
					r.AddCookie(&http.Cookie{Name: name, Value: value})
				}
				a = s.do(r)
				checkHeaders(t, what+", of another site", kind, images, a)
				if strings.HasPrefix(path, "/oauth2/") { // for all sites: it reads no cookie, or leads on
					continue
				}
				same(t, what+", of another site: the status", a.Status, http.StatusForbidden)
			}
		}
		if seen < 100 {
			t.Errorf("only %d answers were seen", seen)
		}
		ann.shows("/account")
		fresh.shows("/account/password")

		// What sets a cookie.
		b := s.browser(t)
		set := func(what string, a answer, gone bool) {
			t.Helper()
			cookies := (&http.Response{Header: a.Header}).Cookies()
			if len(cookies) != 1 || a.Status != http.StatusSeeOther {
				t.Fatalf("%s: %v", what, a)
			}
			c := cookies[0]
			if c.Name != "__Host-kwai" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || (c.MaxAge < 0) != gone || (c.Value == "") != gone {
				t.Errorf("%s sets %s", what, c.Raw)
			}
			same(t, what+": Cache-Control", a.Header.Get("Cache-Control"), "no-store")
		}
		set("a login", b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good), false)
		set("a proof", b.do(http.MethodPost, "/login", "prove", "1", "password", good), false)
		set("a logout", b.send("/logout", "/logout"), true)
		b.login("ann@example.org", good)
		set("a logout everywhere", b.send("/logout", "/logout", "everywhere", "1"), true)
	}, limitsOff, func(o *setup) {
		logo, err := web.NewLogo([]byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`), "")
		if err != nil {
			t.Fatal(err)
		}
		files, err := mail.NewFiles(t.TempDir(), mail.Options{From: "noreply@example.org"})
		if err != nil {
			t.Fatal(err)
		}
		o.web.Brand.Logo, o.web.DevMail = logo, files
	})
}

// Without a logo pages load no picture; a public URL with a path changes no header.
func TestHeadersWithoutALogo(t *testing.T) {
	t.Parallel()
	s := bare(t, func(o *setup) { o.web.PublicURL = &url.URL{Scheme: "https", Host: "example.org", Path: "/auth"} })
	for _, path := range []string{"/recover", "/sent", "/done", "/out", "/login"} {
		a := s.get(path, "")
		same(t, path+": the status", a.Status, http.StatusOK)
		checkHeaders(t, "GET "+path+" of nobody", routeKinds[path], "data:", a)
	}
}
