package main

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"kwai/internal/mail/mailtest"
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
func (a answer) page(t testing.TB, status int) page {
	t.Helper()
	if a.Status != status {
		t.Errorf("got %v, want %d", a, status)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "same-origin", "X-Frame-Options": "DENY",
		"X-Content-Type-Options": "nosniff", "Cross-Origin-Opener-Policy": "same-origin",
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
	} {
		if got := a.Header.Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if a.Header.Get("Set-Cookie") != "" {
		t.Error("a page sets a cookie")
	}
	doc, err := html.Parse(bytes.NewReader(a.Body))
	if err != nil {
		t.Fatal(err)
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
			t.Error("a page has a script")
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

// submit sends a page's form.
func (s *site) submit(path string, fields ...string) answer {
	s.tb.Helper()
	return s.send("POST", path, "", urlencoded, encodeURL(fields...))
}

func TestRecoverPage(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		s.user("ann@example.org", good)
		empty := s.get("/recover?email=x@example.org", "").page(t, 200)
		if in := empty.inputs["email"]; empty.form != "post recover" || in == nil || in["value"] != "" || len(empty.errors) > 0 {
			t.Errorf("got %+v", empty)
		}
		for _, email := range []string{"", "ann", "ann@", "\"><script>alert(1)</script>", "ann@example.org\x00", strings.Repeat("x", 1000)} {
			p := s.submit("/recover", "email", email).page(t, 422)
			want := strings.ReplaceAll(email, "\x00", "\ufffd") // which HTML doesn't have
			if p.inputs["email"]["value"] != want || p.errors["email"] == "" || !strings.HasPrefix(p.title, "Error:") {
				t.Errorf("with %.50q: %+v", email, p)
			}
		}
		s.submit("/recover").page(t, 422)
		s.submit("/recover", "email", "a@b.org", "email", "a@b.org").page(t, 422)
		known := s.submit("/recover", "email", " Ann@example.org ")
		unknown := s.submit("/recover", "email", "nobody@example.org")
		if known.page(t, 200).title != "Look into your mail" || !bytes.Equal(known.Body, unknown.Body) {
			t.Errorf("known: %v, unknown: %v", known, unknown)
		}
		if m := wait(t, mails, 1)[0]; m.To != "ann@example.org" || m.RecoveryID() == "" {
			t.Errorf("got a mail to %s:\n%s", m.To, m.Text)
		}
	})
}

func TestResetPage(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		s.user("ann@example.org", good)
		in := s.login("ann@example.org")
		id := s.recovery(mails, "ann@example.org")
		link := "/reset?uuid=" + id
		const chosen = "quite another one"

		// Opening, by scanners too, changes nothing.
		for range 3 {
			p := s.get(link, "").page(t, 200)
			if uuid := p.inputs["uuid"]; p.form != "post reset" || uuid["type"] != "hidden" || uuid["value"] != id || p.inputs["password"]["type"] != "password" {
				t.Errorf("got %+v", p)
			}
			if head := s.send("HEAD", link, "", "", ""); head.Status != 200 || len(head.Body) > 0 {
				t.Error(head)
			}
		}
		if p := s.get("/reset", "").page(t, 200); p.inputs["uuid"]["type"] != "text" || len(p.errors) > 0 {
			t.Errorf("without an id: %+v", p)
		}
		for _, wrong := range []string{"x", strings.ToUpper(id), `"><script>`, id + "x"} {
			p := s.get("/reset?"+encodeURL("uuid", wrong), "").page(t, 404)
			if uuid := p.inputs["uuid"]; p.errors["uuid"] == "" || uuid["value"] != wrong || uuid["type"] != "text" {
				t.Errorf("with %q: %+v", wrong, p)
			}
		}
		const unknown = "00000000-0000-4000-8000-000000000000"
		for _, a := range []answer{s.get("/reset?uuid="+unknown, ""), s.submit("/reset", "uuid", unknown, "password", chosen)} {
			if p := a.page(t, 404); p.title != "This link is no longer valid" || !slices.Contains(p.links, "recover") {
				t.Errorf("unknown: %+v", p)
			}
		}

		// A wrong password is told beside its field and never sent back.
		for password, why := range map[string]string{"": "Type the new password", "hj5!kQ": "too short", "password123": "most used", "hj5!kQ\nhj5!kQ": "can't be typed"} {
			a := s.submit("/reset", "uuid", id, "password", password)
			p := a.page(t, 422)
			if !strings.Contains(p.errors["password"], why) || p.inputs["uuid"]["value"] != id || p.inputs["password"]["value"] != "" {
				t.Errorf("%q: %+v", password, p)
			}
			if password != "" && bytes.Contains(a.Body, []byte(password)) {
				t.Errorf("the page has the password:\n%s", a.Body)
			}
		}
		s.submit("/reset", "uuid", id, "password", chosen, "password", chosen).page(t, 422)
		s.submit("/reset?uuid="+id+"&password="+encodeURL(chosen, "")).page(t, 404) // of the query nothing is read
		s.send("POST", "/reset", "", "application/json", "{}").page(t, 415)
		s.send("POST", "/reset", "", urlencoded, "%").page(t, 400)
		s.send("POST", "/reset", "", urlencoded, strings.Repeat("x", maxBody+1)).page(t, 413)

		s.mustCommand("", "user", "revoke", "ann@example.org")
		for _, a := range []answer{s.get(link, ""), s.submit("/reset", "uuid", id, "password", chosen)} {
			if p := a.page(t, 403); p.title != "This account is blocked" {
				t.Errorf("revoked: %+v", p)
			}
		}
		s.mustCommand("", "user", "enact", "ann@example.org")

		if p := s.submit("/reset", "uuid", " "+id+"\n", "password", chosen).page(t, 200); p.title != "Your password is changed" {
			t.Errorf("got %+v", p)
		}
		s.get(link, "").page(t, 404)
		s.submit("/reset", "uuid", id, "password", chosen).page(t, 404)
		s.get(userPath, in.field("access_token")).notLoggedIn(t, "a session before the reset")
		if a := s.post("login", "", "username", "ann@example.org", "password", chosen); a.Status != 200 {
			t.Error(a)
		}
	})
}

// TestFormsOfOtherSitesAreRefused: of the pages; the API takes no cookies.
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
			for path, accepted := range map[string]int{"/recover": 200, "/reset": 404} {
				body := encodeURL("email", "nobody@example.org", "uuid", "00000000-0000-4000-8000-000000000000", "password", good)
				want := accepted
				if test.refused {
					want = http.StatusForbidden
				}
				s.from("", "POST", path, urlencoded, body, test.headers...).page(t, want)
				s.from("", "GET", path, "", "", test.headers...).page(t, 200) // a link on another site
			}
		}
		if a := s.from("https://evil.example", "POST", "/api/v1/auth/recover", urlencoded, "email=x", site, "cross-site"); a.Status != 200 {
			t.Errorf("the API: %v", a)
		}
	}, "--public-url="+publicURL, "--cors-origins="+club)
}
