package web_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// page is what a person gets of an answer.
type page struct {
	title  string
	form   string                       // where it is sent
	inputs map[string]map[string]string // by name
	errors map[string]string            // beside the fields, by name
	links  []string
}

// page holds an answer against what every page has and reads it.
func (a answer) page(tb testing.TB, status int) page {
	tb.Helper()
	if a.Status != status {
		tb.Errorf("got %v, want %d", a, status)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "same-origin", "X-Frame-Options": "DENY",
		"X-Content-Type-Options": "nosniff", "Cross-Origin-Opener-Policy": "same-origin",
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
	} {
		if got := a.Header.Values(name); !slices.Equal(got, []string{want}) {
			tb.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if a.Header.Get("Set-Cookie") != "" {
		tb.Error("a page sets a cookie")
	}
	doc, err := html.Parse(bytes.NewReader(a.Body))
	if err != nil {
		tb.Fatal(err)
	}
	p := page{inputs: map[string]map[string]string{}, errors: map[string]string{}}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		attrs := map[string]string{}
		for _, at := range n.Attr {
			attrs[at.Key] = at.Val
		}
		switch n.Data {
		case "title":
			p.title = text(n)
		case "form":
			p.form = attrs["method"] + " " + attrs["action"]
		case "input":
			p.inputs[attrs["name"]] = attrs
		case "a":
			p.links = append(p.links, attrs["href"])
		case "script":
			tb.Error("a page has a script")
		}
		if name, ok := strings.CutSuffix(attrs["id"], "-error"); ok {
			p.errors[name] = text(n)
		}
	}
	return p
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

// input holds an attribute of the field with that name.
func (p page) input(tb testing.TB, what, name, attribute, want string) {
	tb.Helper()
	if p.inputs[name] == nil {
		tb.Errorf("%s: there is no field %s: %+v", what, name, p)
		return
	}
	same(tb, fmt.Sprintf("%s: the %s of the field %s", what, attribute, name), p.inputs[name][attribute], want)
}

// submit sends a page's form.
func (s *site) submit(path string, fields ...string) answer {
	s.tb.Helper()
	return s.send("POST", path, "", urlencoded, encodeURL(fields...))
}

func TestRecoverPage(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		empty := s.get("/recover?email=x@example.org", "").page(t, 200)
		same(t, "the form", empty.form, "post recover")
		same(t, "how many errors it has", len(empty.errors), 0)
		empty.input(t, "the empty form", "email", "value", "")
		for _, email := range []string{"", "ann", "ann@", "\"><script>alert(1)</script>", "ann@example.org\x00", strings.Repeat("x", 1000)} {
			what := fmt.Sprintf("with %.50q", email)
			p := s.submit("/recover", "email", email).page(t, 422)
			p.input(t, what, "email", "value", strings.ReplaceAll(email, "\x00", "\ufffd")) // as HTML has no NUL
			if p.errors["email"] == "" || !strings.HasPrefix(p.title, "Error:") {
				t.Errorf("%s: the title is %q, the errors are %q", what, p.title, p.errors)
			}
		}
		s.submit("/recover").page(t, 422)
		s.submit("/recover", "email", "a@b.org", "email", "a@b.org").page(t, 422)
		known := s.submit("/recover", "email", " Ann@example.org ")
		unknown := s.submit("/recover", "email", "nobody@example.org")
		same(t, "the title", s.leadsTo("sent", known).title, "Look into your mail")
		same(t, "the answer for an unknown address", fmt.Sprint(unknown), fmt.Sprint(known))
		if m := s.sent(1)[0]; m.To != "ann@example.org" || m.RecoveryID() == "" {
			t.Errorf("got a mail to %s:\n%s", m.To, m.Text)
		}
	})
}

func TestResetPage(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		in := s.login("ann@example.org")
		id := s.recovery("ann@example.org")
		link := "/reset?uuid=" + id
		const chosen = "quite another one"

		// Opening, by scanners too, changes nothing.
		for range 3 {
			p := s.get(link, "").page(t, 200)
			same(t, "the form", p.form, "post reset")
			p.input(t, "by link", "uuid", "type", "hidden")
			p.input(t, "by link", "uuid", "value", id)
			p.input(t, "by link", "password", "type", "password")
			if head := s.send("HEAD", link, "", "", ""); head.Status != 200 || len(head.Body) > 0 {
				t.Error(head)
			}
		}
		p := s.get("/reset", "").page(t, 200)
		p.input(t, "without an id", "uuid", "type", "text")
		same(t, "how many errors it has", len(p.errors), 0)
		for _, wrong := range []string{"x", strings.ToUpper(id[1:]), `"><script>`, id + "x"} {
			what := fmt.Sprintf("with %q", wrong)
			p := s.get("/reset?"+encodeURL("uuid", wrong), "").page(t, 404)
			p.input(t, what, "uuid", "value", wrong)
			p.input(t, what, "uuid", "type", "text")
			if p.errors["uuid"] == "" {
				t.Errorf("%s: no error beside it", what)
			}
		}
		const unknown = "00000000-0000-4000-8000-000000000000"
		for _, a := range []answer{s.get("/reset?uuid="+unknown, ""), s.submit("/reset", "uuid", unknown, "password", chosen)} {
			p := a.page(t, 404)
			same(t, "the title", p.title, "This link is no longer valid")
			if !slices.Contains(p.links, "recover") {
				t.Errorf("the links are %q", p.links)
			}
		}

		// A wrong password's error is beside its field and never sent back.
		for password, why := range map[string]string{"": "Type the new password", "hj5!kQ": "too short", "password123": "most used", "hj5!kQ\nhj5!kQ": "can't be typed"} {
			what := fmt.Sprintf("the password %q", password)
			a := s.submit("/reset", "uuid", id, "password", password)
			p := a.page(t, 422)
			contains(t, what+": its error", p.errors["password"], why)
			p.input(t, what, "uuid", "value", id)
			p.input(t, what, "uuid", "type", "hidden") // it was good: it isn't typed again
			p.input(t, what, "password", "value", "")
			if password != "" && bytes.Contains(a.Body, []byte(password)) {
				t.Errorf("the page has the password:\n%s", a.Body)
			}
		}
		s.submit("/reset", "uuid", id, "password", chosen, "password", chosen).page(t, 422)
		s.submit("/reset?uuid="+id+"&password="+encodeURL(chosen, "")).page(t, 404) // of the query nothing is read
		s.send("POST", "/reset", "", "application/json", "{}").page(t, 415)
		s.send("POST", "/reset", "", urlencoded, "%").page(t, 400)
		s.send("POST", "/reset", "", urlencoded, strings.Repeat("x", maxBody+1)).page(t, 413)

		s.revoke("ann@example.org")
		for _, a := range []answer{s.get(link, ""), s.submit("/reset", "uuid", id, "password", chosen)} {
			same(t, "the title", a.page(t, 403).title, "This account is blocked")
		}
		s.reinstate("ann@example.org")

		same(t, "the title", s.leadsTo("done", s.submit("/reset", "uuid", " "+id+"\n", "password", chosen)).title, "Your password is saved")
		// A second click, a link opened again: no page says that it failed.
		for _, a := range []answer{s.get(link, ""), s.submit("/reset", "uuid", id, "password", chosen), s.submit("/reset", "uuid", id, "password", "x")} {
			p := a.page(t, 404)
			same(t, "the title", p.title, "This link has done its work")
			contains(t, "the page", string(a.Body), "If that was you, all is well")
			if !slices.Contains(p.links, "recover") {
				t.Errorf("the links are %q", p.links)
			}
		}
		contains(t, "the API", s.post("reset", "", "uuid", id, "password", chosen).problem(t, 404), "If it was you, all is well")
		s.get(userPath, in.field("access_token")).notLoggedIn(t, "a session before the reset")
		if a := s.post("login", "", "username", "ann@example.org", "password", chosen); a.Status != 200 {
			t.Error(a)
		}
	})
}

// leadsTo holds that a form was accepted and reads the page that it led to.
func (s *site) leadsTo(page string, a answer) page {
	s.tb.Helper()
	same(s.tb, "the status", a.Status, http.StatusSeeOther)
	same(s.tb, "where it leads", a.Header.Get("Location"), page) // relative: a proxy's prefix stays
	same(s.tb, "Cache-Control", a.Header.Get("Cache-Control"), "no-store")
	return s.get("/"+a.Header.Get("Location"), "").page(s.tb, 200)
}

// A link that no password change ended isn't called used.
func TestALinkThatWasReplacedIsNotUsed(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		first := s.recovery("ann@example.org")
		s.clock.advance(time.Hour)
		second := s.recovery("ann@example.org")
		replaced := func() {
			t.Helper()
			same(t, "the title", s.get("/reset?uuid="+first, "").page(t, 404).title, "This link is no longer valid")
			same(t, "the title", s.submit("/reset", "uuid", first, "password", better).page(t, 404).title, "This link is no longer valid")
		}
		replaced()
		s.leadsTo("done", s.submit("/reset", "uuid", second, "password", better))
		replaced()
		s.clock.advance(24 * time.Hour)
		same(t, "the title", s.get("/reset?uuid="+second, "").page(t, 404).title, "This link has done its work")
	}, noMailPause)
}

// TestFormsOfOtherSitesAreRefused: of the pages, which other origins that may call
// the API may not post either.
func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		const site, origin = "Sec-Fetch-Site", "Origin"
		for _, test := range []struct {
			headers []string
			refused bool
		}{
			{nil, false}, // no browser
			{[]string{site, "same-origin"}, false},
			{[]string{site, "none"}, false},
			{[]string{origin, publicURL}, false}, // though the Host is another one
			{[]string{origin, publicURL, site, "same-origin"}, false},
			{[]string{origin, s.URL}, false},
			{[]string{site, "cross-site"}, true},
			{[]string{site, "same-site"}, true},
			{[]string{site, "other"}, true},
			{[]string{origin, "https://evil.example"}, true},
			{[]string{origin, "https://evil.example", site, "cross-site"}, true},
			{[]string{origin, "http://auth.example.org"}, true},
			{[]string{origin, publicURL + ":8443"}, true},
			{[]string{origin, publicURL + ".evil.example"}, true},
			{[]string{origin, "null"}, true},
			{[]string{origin, club}, true}, // CORS is the API's
		} {
			for path, accepted := range map[string]int{"/recover": 303, "/reset": 404} {
				body := encodeURL("email", "nobody@example.org", "uuid", "00000000-0000-4000-8000-000000000000", "password", good)
				want := accepted
				if test.refused {
					want = http.StatusForbidden
				}
				if a := s.from("", "POST", path, urlencoded, body, test.headers...); a.Status != want {
					t.Errorf("%s with %q: %d, want %d", path, test.headers, a.Status, want)
				} else if want != http.StatusSeeOther {
					a.page(t, want)
				}
				s.from("", "GET", path, "", "", test.headers...).page(t, 200) // a link on another site
			}
		}
		s.from("https://evil.example", "POST", "/api/v1/auth/recover", urlencoded, "email=x", site, "cross-site").problem(t, 403)
	}, corsOf(club))
}

// A person's unique id is understood however it was copied from the mail; a
// program's is what it is.
func TestATypedIDIsUnderstood(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		id := s.recovery("ann@example.org")
		head, tail := id[:20], id[20:]
		for _, typed := range []string{
			id, strings.ToUpper(id), " " + id + " ", id + ".", "\u00a0" + id + "\t.", "3D" + id, "=3D" + id, "<" + id + ">", "\u201c" + id + "\u201d,",
			head + " " + tail, head + "=\r\n" + tail, head + "=" + tail, head + "\n" + tail, strings.ReplaceAll(id, "-", " - "),
			strings.ReplaceAll(id, "-", "\u2011"), strings.ReplaceAll(id, "-", "\u2013"), "\u200b" + id + "\ufeff",
			publicURL + "/reset?uuid=" + id, publicURL + "/reset?uuid=3D" + strings.ToUpper(id) + ">",
		} {
			p := s.get("/reset?"+encodeURL("uuid", typed), "").page(t, 200)
			same(t, fmt.Sprintf("the page's id for %q", typed), p.inputs["uuid"]["value"], id)
			p = s.submit("/reset", "uuid", typed, "password", "short").page(t, 422)
			same(t, fmt.Sprintf("the form's id for %q", typed), p.inputs["uuid"]["value"], id)
			if typed != id {
				s.post("reset", "", "uuid", typed, "password", better).problem(t, 404)
			}
		}
		for _, typed := range []string{id[1:], id[:35], strings.Replace(id, "-", "_", 1)} {
			s.get("/reset?"+encodeURL("uuid", typed), "").page(t, 404)
		}
		s.leadsTo("done", s.submit("/reset", "uuid", " "+strings.ToUpper(id)+".", "password", better))
	})
}

// Who has done what the pages are for goes on to the site, if there is one; so
// does who opens the server itself.
func TestPagesLeadToTheSite(t *testing.T) {
	const club = "https://club.example.org/login?from=kwai&x=y"
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		id := s.recovery("ann@example.org")
		s.user("bob@example.org", good)
		bobs := s.recovery("bob@example.org")
		s.revoke("bob@example.org")
		for what, p := range map[string]page{
			"recover": s.get("/recover", "").page(t, 200),
			"sent":    s.leadsTo("sent", s.submit("/recover", "email", "ann@example.org")),
			"done":    s.leadsTo("done", s.submit("/reset", "uuid", id, "password", better)),
			"revoked": s.get("/reset?uuid="+bobs, "").page(t, 403),
			"invalid": s.get("/reset?uuid=00000000-0000-4000-8000-000000000000", "").page(t, 404),
		} {
			if !slices.Contains(p.links, club) {
				t.Errorf("%s: the links are %q", what, p.links)
			}
		}
		for _, method := range []string{"GET", "HEAD"} {
			response := s.send(method, "/", "", "", "")
			same(t, method+" /: the status", response.Status, http.StatusFound)
			same(t, method+" /: where it leads", response.Header.Get("Location"), club)
		}
		s.post("", "").problem(t, 404)
		s.get("/other", "").problem(t, 404)
		s.send("POST", "/", "", urlencoded, "").problem(t, 405)
	}, func(s *setup) { s.web.SiteURL = club })
}
