package web_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"kwai/internal/auth"
)

// markup breaks out of text, of an attribute and of an address, wherever it isn't
// escaped.
const markup = `"'></p><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}&lt;`

// badValues are values that nobody types.
var badValues = map[string]string{
	"markup":               markup,
	"marks of direction":   "\u202egro.elpmaxe@nna\u2066\u2067\u200f\u061c",
	"10,000 characters":    strings.Repeat("ü", 10_000),
	"60 KB":                strings.Repeat("a", 60_000),
	"an address of 60 KB":  strings.Repeat("a", 59_000) + "@example.org",
	"a NUL":                "ann@example.org\x00",
	"NULs":                 "\x00\x00\x00",
	"controls":             "\x01\x02\x7f\u0085\u2028\ufeff\ufffe",
	"line breaks":          "a\r\nSet-Cookie: x=y\r\n\r\n<p>",
	"a surrogate's bytes":  "\xed\xa0\x80",
	"no UTF-8":             "\xff\xfe\xfa",
	"an overlong slash":    "\xc0\xaf",
	"combining characters": "a" + strings.Repeat("\u0301", 5_000),
	"a number":             "-1e309",
	"a path":               "../../../../etc/passwd\x00.html",
	"SQL":                  "' OR 1=1; DROP TABLE users; --",
	"a format":             "%s%n%x%00%0d%0a",
	"spaces":               " \t\u00a0\u3000 ",
}

// pageForms are the forms of the pages, with what an honest browser sends. The last
// ones are of visitors, and sealed.
var pageForms = []struct {
	page, path string
	fields     []string
	visitor    bool
}{
	{"/login", "/login", []string{"username", "bob@example.org", "password", "wrong", "next", "account", "stay", "1"}, false},
	{"/recover", "/recover", []string{"email", "bob@example.org"}, false},
	{"/reset", "/reset", []string{"uuid", "00000000-0000-4000-8000-000000000000", "password", better}, false},
	{"/login", "/login", []string{"prove", "1", "username", "ann@example.org", "password", "wrong", "next", "account"}, true},
	{"/account/password", "/account/password", []string{"form", "", "password", "short"}, true},
	{"/account/sessions", "/account/sessions", []string{"form", "", "id", "00000000-0000-4000-8000-000000000000"}, true},
	{"/login", "/login/code", []string{"login", "x.y", "next", "account", "code", "123456"}, false},
	{"/account/security/app", "/account/security/app", []string{"form", "", "offer", "x", "kept", "1", "code", "123456"}, true},
	{"/account/security/app", "/account/security/codes", []string{"form", "", "offer", "x", "kept", "1"}, true},
	{"/account/security/app", "/account/security/two-steps", []string{"form", "", "two_steps", "off"}, true},
	{"/logout", "/logout", []string{"form", "x"}, true},
}

// Whatever is typed or sent into the forms of the pages comes to a refusal that a person
// can read, shows none of it unescaped, and changes nothing.
func TestBadInputInTheFormsOfPages(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		ann, other := s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good)
		for _, f := range pageForms {
			fields := append([]string{}, f.fields...)
			if f.visitor && fields[0] == "form" && f.page != "/logout" {
				seal := sealOf.FindStringSubmatch(ann.shows(f.page))
				if seal == nil {
					t.Fatalf("%s has no form: %s", f.page, ann.get(f.page).Body)
				}
				fields[1] = seal[1]
			}
			post := func(what, kind, body string) {
				t.Helper()
				b := s.browser(t)
				if f.visitor {
					b = ann
				}
				a := b.post(f.path, kind, body)
				if what = f.path + ", " + what + " as " + kind[:12]; a.Status >= http.StatusInternalServerError || a.Status < 300 {
					t.Errorf("%s: %.300v", what, a)
				}
				harmless(t, what, a)
			}
			for at := 0; at < len(fields); at += 2 {
				for what, value := range badValues {
					switch {
					case len(value) > 30_000 && fields[at] == "next":
						continue // which is in the list of its own test
					case fields[at] == "password" && f.path == "/account/password":
						continue // what works there is a new password
					}
					bad := append([]string{}, fields...)
					bad[at+1] = value
					for kind, encode := range encoders {
						post(fields[at]+" with "+what, kind, encode(bad...))
						post("a name with "+what, kind, encode(append([]string{value, "x"}, fields...)...))
					}
				}
				for kind, encode := range encoders {
					post(fields[at]+" doubled", kind, encode(append([]string{fields[at], "x"}, fields...)...))
					post(fields[at]+" doubled with nothing", kind, encode(append([]string{fields[at], ""}, fields...)...))
					post("all doubled", kind, encode(append(append([]string{}, fields...), fields...)...))
					if fields[at] == "id" {
						continue // without it all other sessions end
					}
					post(fields[at]+" is missing", kind, encode(append(append([]string{}, fields[:at]...), fields[at+2:]...)...))
				}
			}
			post("a file", multipartForm, "--"+boundary+"\r\nContent-Disposition: form-data; name=\"password\"; filename=\"x\"\r\n\r\nx\r\n--"+boundary+"--\r\n")
			post("half a form", multipartForm, encodeMultipart(fields...)[:40])
			post("JSON", "application/json", `{"username": "ann@example.org"}`)
			post("more than 64 KiB", urlencoded, encodeURL(append([]string{"x", strings.Repeat("y", 70_000)}, fields...)...))
		}
		ann.shows("/account", "ann@example.org")
		other.shows("/account")
		s.browser(t).login("ann@example.org", good)
		s.browser(t).login("bob@example.org", good)
	}, limitsOff)
}

// Whatever somebody chooses as a password is refused, or is the password.
func TestBadInputAsANewPassword(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		seal := sealOf.FindStringSubmatch(b.shows("/account/password"))[1]
		chosen := good
		for what, value := range badValues {
			for kind, encode := range encoders {
				a := b.post("/account/password", kind, encode("form", seal, "password", value))
				set := a.Status == http.StatusSeeOther && a.Header.Get("Location") == "../account?done=password"
				if set { // with a cookie that replaces the one before
					a.Header.Del("Set-Cookie")
				}
				harmless(t, what, a)
				switch {
				case set:
					chosen = value
					seal = sealOf.FindStringSubmatch(b.shows("/account/password"))[1]
				case a.Status != http.StatusUnprocessableEntity && a.Status != http.StatusBadRequest:
					t.Errorf("%s as %s: %.300v", what, kind, a)
				}
				s.browser(t).login("ann@example.org", chosen)
			}
		}
	}, limitsOff)
}

// Forms of pages are multipart as well, as some programs send them.
func TestFormsOfPagesAsMultipart(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t)
		b.goes("a login", b.post("/login", multipartForm, encodeMultipart("username", "ann@example.org", "password", good, "next", "account/sessions")), "account/sessions")
		seal := sealOf.FindStringSubmatch(b.shows("/account/password"))[1]
		b.goes("a new password", b.post("/account/password", multipartForm, encodeMultipart("form", seal, "password", better)), "../account?done=password")
		b.goes("a logout", b.post("/logout", multipartForm, encodeMultipart("form", sealOf.FindStringSubmatch(b.shows("/logout"))[1])), "out")
	})
}

// Two ids, or an empty one, are no wish to end all sessions.
func TestABadIDEndsNoSessions(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b, other := s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good)
		seal := sealOf.FindStringSubmatch(b.shows("/account/sessions"))[1]
		for _, body := range []string{"&id=", "&id=x&id=y", "&id&id", "&id=%00", "&id=" + strings.Repeat("0", 60_000)} {
			b.goes(body[:min(len(body), 20)], b.post("/account/sessions", urlencoded, "form="+seal+body), "../account/sessions")
			other.shows("/account")
		}
	})
}

// What browsers and links say of languages is read as far as it is short, and shown
// nowhere.
func TestLongLanguages(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		for what, long := range map[string]string{
			"one word": strings.Repeat("a", 8<<10), "many": strings.Repeat("xx,", 3000)[:8<<10], "weights": strings.Repeat("fr;q=0.000,", 800),
			"markup": strings.Repeat(markup+",", 200)[:8<<10], "dashes": "x" + strings.Repeat("-a", 4<<10), "commas": strings.Repeat(",", 8<<10), "semicolons": strings.Repeat(";q=", 2800),
		} {
			for _, path := range []string{"/login", "/recover", "/out", "/reset?uuid=x", "/account", "/account/sessions"} {
				for first, title := range map[string]string{"": "en", "de,": "de"} {
					for _, link := range []bool{false, true} {
						r := s.request(http.MethodGet, path, nil)
						r.AddCookie(&http.Cookie{Name: "__Host-kwai", Value: b.cookies["__Host-kwai"]})
						if path == "/login" {
							r.Header.Del("Cookie")
						}
						if r.Header.Set("Accept-Language", first+long); link {
							r.Header.Set("Accept-Language", "de")
							q := r.URL.Query()
							q.Set("ui_locales", strings.ReplaceAll(first+long, ",", " "))
							r.URL.RawQuery, title = q.Encode(), "de"
						}
						a := s.do(r)
						if a.Header.Get("Content-Language") != title || a.Status >= http.StatusInternalServerError {
							t.Errorf("%s with %s, in a link: %t: %d in %q, want %q", path, what, link, a.Status, a.Header.Get("Content-Language"), title)
						}
						harmless(t, path+" with "+what, a)
					}
				}
			}
		}
	})
}

// harmless holds that nothing of what was typed works on a page, or in a header.
func harmless(t *testing.T, what string, a answer) {
	t.Helper()
	set := a.Header.Values("Set-Cookie")
	set = slices.DeleteFunc(slices.Clone(set), func(c string) bool {
		// A login gives a browser its name, and an offer is shown again.
		return a.Status == http.StatusOK && strings.HasPrefix(c, "__Host-kwai-browser=") || regexp.MustCompile(`^__Host-kwai-(app|codes)=[\w.-]+;`).MatchString(c)
	})
	if len(set) > 0 || strings.Contains(a.Header.Get("Location"), "<") {
		t.Errorf("%s: the headers are %v", what, a.Header)
	}
	if a.Status < 400 && a.Status != http.StatusOK {
		return
	}
	if !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
		t.Errorf("%s: a person gets %q", what, a.Header.Get("Content-Type"))
	}
	doc, err := html.Parse(bytes.NewReader(a.Body))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		ours := n.Data == "script" && len(n.Attr) > 0 && n.Attr[0].Key == "src" && strings.Contains(n.Attr[0].Val, "passkey.js?v=") && n.FirstChild == nil
		if n.Data == "script" && !ours || n.Data == "img" {
			t.Errorf("%s: the page has a %s", what, n.Data)
		}
		for _, at := range n.Attr {
			if strings.HasPrefix(at.Key, "on") || at.Key == "name" && strings.ContainsAny(at.Val, "<\x00") {
				t.Errorf("%s: the page has an attribute %s=%q", what, at.Key, at.Val)
			}
			if at.Key == "name" && at.Val == "password" {
				for _, other := range n.Attr {
					if other.Key == "value" {
						t.Errorf("%s: the page has a password", what)
					}
				}
			}
		}
	}
}

// A name is shown as text in whatever an operator called the user, and marks in it turn
// nothing around it.
func TestNamesOnPages(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for i, name := range []string{`<script>alert(1)</script>`, `"'><img src=x onerror=alert(1)>`, "{{.Form}}", "שלום", "عليكم السلام", "&amp;&lt;b&gt;", strings.Repeat("W", 100)} {
			email := fmt.Sprintf("user%d@example.org", i)
			s.create(auth.NewUser{Email: email, FirstName: name, LastName: name, Password: good})
			b := s.browser(t).login(email, good)
			a := b.get("/account")
			harmless(t, name, a)
			doc, err := html.Parse(bytes.NewReader(a.Body))
			s.ok(err)
			isolated := false
			for n := range doc.Descendants() {
				isolated = isolated || n.Type == html.ElementNode && n.Data == "bdi" && text(n) == name+" "+name
			}
			if !isolated {
				t.Errorf("the name %q isn't on the page, isolated:\n%s", name, a.Body)
			}
		}
		for _, name := range []string{"\u202eevil", "a\x00b", strings.Repeat("x", 10_000), "a\nb", "\u2066x"} {
			if _, err := s.command.CreateUser(t.Context(), auth.NewUser{Email: "x@example.org", FirstName: name, LastName: "x", Password: good}); auth.CodeOf(err) != auth.Invalid {
				t.Errorf("the name %.20q: %v", name, err)
			}
		}
	})
}

// Behind a proxy that serves kwai below a path, and under a name in another script, a
// browser gets along: it follows what pages and redirects say, from where it sees them.
func TestPublicURLs(t *testing.T) {
	for _, public := range []string{"https://club.example.org/judo/auth", "https://xn--bcher-kva.example", "https://xn--bcher-kva.example:8443/a", "http://127.0.0.1:8080"} {
		base, err := url.Parse(public)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(base.Host+base.Path, func(t *testing.T) {
			each(t, func(t *testing.T, s *site) { s.user("ann@example.org", good); walk(t, s, base) }, func(s *setup) { s.web.PublicURL = base })
		})
	}
}

// walk goes through the pages as a browser does that sees the site at a public URL.
func walk(t *testing.T, s *site, base *url.URL) {
	below := func(path string) *url.URL {
		u := *base
		u.Path += path
		return &u
	}
	b, at := s.browser(t), below("/account/sessions")
	get := func() answer { // by the path that the proxy leaves
		t.Helper()
		return b.get(strings.TrimPrefix(at.RequestURI(), base.Path))
	}
	follow := func(what string, a answer, want string) {
		t.Helper()
		to, err := at.Parse(a.Header.Get("Location"))
		s.ok(err)
		if at = to; a.Status != http.StatusSeeOther || at.String() != base.String()+want {
			t.Fatalf("%s leads to %s: %d", what, at, a.Status)
		}
	}
	follow("the sessions, without a login,", get(), "/login?next=account%2Fsessions")
	linksHold(t, b, at, base)
	a := b.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good, "next", "account/sessions")
	set := a.Header.Get("Set-Cookie")
	if https := base.Scheme == "https"; strings.HasPrefix(set, "__Host-kwai=") != https || !strings.Contains(set, "; Path=/;") || strings.Contains(set, "Domain") || strings.Contains(set, "; Secure") != https {
		t.Errorf("the cookie is %q", set)
	}
	follow("the login", a, "/account/sessions")
	linksHold(t, b, at, base)
	at = below("/.well-known/change-password")
	follow("a password manager's address", get(), "/account/password")
	linksHold(t, b, at, base)
	at = below("/logout")
	follow("the logout", b.send("/logout", "/logout"), "/out")

	// An older browser says no more than the origin.
	old := s.request(http.MethodPost, "/login", strings.NewReader(encodeURL("username", "ann@example.org", "password", good)))
	old.Header.Set("Content-Type", urlencoded)
	old.Header.Set("Origin", base.Scheme+"://"+base.Host)
	same(t, "a post of an older browser", s.do(old).Status, http.StatusSeeOther)
}

// linksHold holds that all that a page leads to lies below the public URL, and is there.
func linksHold(t *testing.T, b *browser, at, base *url.URL) {
	t.Helper()
	for _, link := range b.get(strings.TrimPrefix(at.RequestURI(), base.Path)).links(t) {
		to, err := at.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		if to.Scheme != "data" && (!strings.HasPrefix(to.String(), base.String()+"/") || b.get(strings.TrimPrefix(to.RequestURI(), base.Path)).Status >= 400) {
			t.Errorf("%s leads to %s", at, to)
		}
	}
}

// links are all that a page leads to.
func (a answer) links(t *testing.T) (all []string) {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(a.Body))
	if err != nil || a.Status != http.StatusOK {
		t.Fatal(a, err)
	}
	for n := range doc.Descendants() {
		for _, at := range n.Attr {
			if at.Key == "href" || at.Key == "action" || at.Key == "src" {
				all = append(all, at.Val)
			}
		}
	}
	return all
}
