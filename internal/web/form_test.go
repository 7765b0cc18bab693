package web_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const maxBody = 64 << 10

func TestFields(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		access := s.login("ann@example.org").field("access_token")
		for _, e := range endpoints {
			for kind, encode := range encoders {
				path := "/api/v1/auth/" + e.name
				post := func(path string, form ...string) answer { return s.send("POST", path, access, kind, encode(form...)) }
				wellFormed := func(what string, a answer) {
					if a.Status != e.status {
						t.Errorf("%s %s, %s: %v, want %d", e.name, kind, what, a, e.status)
					}
				}
				wellFormed("all fields", post(path, e.form...))
				wellFormed("unknown fields", post(path, append([]string{"other", "x", "other", "y", "", "z"}, e.form...)...))
				wellFormed("fields in the query as well", post(path+"?"+encodeURL(e.form...), e.form...))

				var names []string
				for i := 0; i < len(e.form); i += 2 {
					name := e.form[i]
					names = append(names, name)
					without := append(append([]string{}, e.form[:i]...), e.form[i+2:]...)
					post(path, without...).problem(t, 422, name)
					post(path, append(without, name, "")...).problem(t, 422, name)
					post(path, append(without, strings.ToUpper(name), e.form[i+1])...).problem(t, 422, name)
					post(path, append(e.form, e.form[i:i+2]...)...).problem(t, 422, name)
					post(path, append(e.form, name, "")...).problem(t, 422, name)
					post(path, append(e.form, name, e.form[i+1], name, "")...).problem(t, 422, name)
				}
				post(path, "other", "x").problem(t, 422, names...)
				post(path+"?"+encodeURL(e.form...), "other", "x").problem(t, 422, names...)
			}
			s.send("POST", "/api/v1/auth/"+e.name, access, urlencoded, "").problem(t, 422, fieldNames(e.form)...)
		}
	}, limitsOff)
}

func fieldNames(form []string) (names []string) {
	for i := 0; i < len(form); i += 2 {
		names = append(names, form[i])
	}
	return names
}

// fill adds a field to a form, so that its encoding takes size bytes.
func fill(kind string, form []string, size int) string {
	padded := func(n int) string { return encoders[kind](append(form, "other", strings.Repeat("x", n))...) }
	return padded(size - len(padded(0)))
}

func TestBodiesUpTo64KiBAreRead(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s = s.listen()
		s.user("ann@example.org", good)
		access := s.login("ann@example.org").field("access_token")
		for _, e := range endpoints {
			for kind := range encoders {
				for _, size := range []int{maxBody, maxBody + 1, 3 * maxBody} {
					for _, chunked := range []bool{false, true} {
						var body io.Reader = strings.NewReader(fill(kind, e.form, size))
						if chunked {
							body = struct{ io.Reader }{body} // whose length isn't known
						}
						r := s.request("POST", "/api/v1/auth/"+e.name, body)
						r.Header = http.Header{"Content-Type": {kind}, "Authorization": {"Bearer " + access}}
						if a := s.do(r); size > maxBody {
							a.problem(t, 413)
						} else if a.Status != e.status {
							t.Errorf("%s %s of %d bytes, chunked %t: %v, want %d", e.name, kind, size, chunked, a, e.status)
						}
					}
				}
			}
		}
	})
}

func TestOtherContentTypesAreRefused(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		access := s.login("ann@example.org").field("access_token")
		for _, e := range endpoints {
			path := "/api/v1/auth/" + e.name
			for _, kind := range []string{
				"", "application/json", "text/plain", "text/plain; charset=utf-8", "multipart/mixed; boundary=" + boundary, "multipart", ";",
				urlencoded + "; charset=iso-8859-2", urlencoded + "; charset=utf-16", urlencoded + "; charset", urlencoded + "; charset=utf-8; charset=utf-7",
				multipartForm + "; charset=koi8-r", "application/x-www-form-urlencoded, application/json",
			} {
				s.send("POST", path, access, kind, encodeURL(e.form...)).problem(t, 415)
			}
			for _, charset := range []string{"iso-8859-1", "ISO-8859-1", "us-ascii", "latin1"} {
				// What isn't ASCII could be meant in either way.
				for kind, encode := range encoders {
					s.send("POST", path, access, kind+"; charset="+charset, encode(append([]string{"other", "é"}, e.form...)...)).problem(t, 415)
					if a := s.send("POST", path, access, kind+"; charset="+charset, encode(e.form...)); a.Status != e.status {
						t.Errorf("%s %s; charset=%s: %v, want %d", e.name, kind, charset, a, e.status)
					}
				}
				s.send("POST", path, access, urlencoded+"; charset="+charset, encodeURL(e.form...)+"&%C3%A9=x").problem(t, 415)
			}
			if a := s.send("POST", path, access, urlencoded+"; charset=utf8", encodeURL(append([]string{"other", "é"}, e.form...)...)); a.Status != e.status {
				t.Errorf("%s in utf8: %v, want %d", e.name, a, e.status)
			}
			for _, kind := range []string{urlencoded + ";charset=UTF-8", urlencoded + "; charset=UTF8", "Application/X-WWW-Form-Urlencoded; charset=\"utf-8\"", urlencoded + "; other=x"} {
				if a := s.send("POST", path, access, kind, encodeURL(e.form...)); a.Status != e.status {
					t.Errorf("%s %s: %v, want %d", e.name, kind, a, e.status)
				}
			}
			for _, encoding := range []string{"gzip", "br", "identity, gzip"} {
				r := s.request("POST", path, strings.NewReader(encodeURL(e.form...)))
				r.Header = http.Header{"Content-Type": {urlencoded}, "Content-Encoding": {encoding}, "Authorization": {"Bearer " + access}}
				s.do(r).problem(t, 415)
			}
		}
	}, limitsOff)
}

// part is one of a multipart form; header may be empty.
func part(header, value string) string {
	return "--" + boundary + "\r\n" + header + "\r\n\r\n" + value + "\r\n"
}

func disposition(name, more string) string {
	return fmt.Sprintf(`Content-Disposition: form-data; name=%q%s`, name, more)
}

func TestBrokenFormsAreRefused(t *testing.T) {
	const end = "--" + boundary + "--\r\n"
	type body struct{ kind, text string }
	broken := func(form []string) map[string]body {
		name, value := form[0], form[1]
		url, parts := encodeURL(form...), encodeMultipart(form...)
		many := make([]string, 0, 2*101)
		for i := range 101 {
			many = append(many, fmt.Sprint(i), "x")
		}
		return map[string]body{
			"a percent sign at the end":   {urlencoded, url + "%"},
			"half an escape":              {urlencoded, url + "&other=%f"},
			"an escape that is none":      {urlencoded, url + "&other=%zz"},
			"a name that is none":         {urlencoded, url + "&%zz=x"},
			"a value that isn't UTF-8":    {urlencoded, url + "&other=%ff"},
			"a name that isn't UTF-8":     {urlencoded, url + "&%c3%28=x"},
			"raw bytes that aren't UTF-8": {urlencoded, url + "&other=\xff"},
			"an overlong slash":           {urlencoded, url + "&other=%c0%af"},
			"a surrogate":                 {urlencoded, url + "&other=%ed%a0%80"},
			"the fields, not UTF-8":       {urlencoded, name + "=%ff"},

			"no boundary":                {"multipart/form-data", parts},
			"an empty boundary":          {`multipart/form-data; boundary=""`, parts},
			"another boundary":           {"multipart/form-data; boundary=other", parts},
			"an empty body":              {multipartForm, ""},
			"text":                       {multipartForm, "hello"},
			"a urlencoded body":          {multipartForm, url},
			"cut off in a value":         {multipartForm, strings.TrimSuffix(parts, "\r\n"+end)},
			"no last boundary":           {multipartForm, strings.TrimSuffix(parts, end)},
			"half the last boundary":     {multipartForm, strings.TrimSuffix(parts, "-\r\n")},
			"cut off in a header":        {multipartForm, "--" + boundary + "\r\n" + disposition(name, "")},
			"cut off behind a header":    {multipartForm, "--" + boundary + "\r\n" + disposition(name, "") + "\r\n\r\n"},
			"a header without a colon":   {multipartForm, part("Content-Disposition", value) + end},
			"cut off behind a boundary":  {multipartForm, strings.TrimSuffix(parts, end) + "--" + boundary + "\r\n"},
			"a file":                     {multipartForm, part(disposition(name, `; filename="a.txt"`), value) + end},
			"a file among the fields":    {multipartForm, part(disposition("other", `; filename="a.txt"`), "x") + parts},
			"a part that isn't UTF-8":    {multipartForm, part(disposition("other", ""), "\xff") + parts},
			"a name that's not UTF-8":    {multipartForm, part("Content-Disposition: form-data; name=\"\xff\"", "x") + parts},
			"more than 100 parts":        {multipartForm, encodeMultipart(many...)},
			"a part with many headers":   {multipartForm, part(strings.Repeat("A: b\r\n", 10001)+disposition(name, ""), value) + end},
			"more than 100 parts, a few": {multipartForm, encodeMultipart(append(many, form...)...)},
		}
	}
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		access := s.login("ann@example.org").field("access_token")
		for _, e := range endpoints {
			for what, b := range broken(e.form) {
				if a := s.send("POST", "/api/v1/auth/"+e.name, access, b.kind, b.text); a.Status != 400 {
					t.Errorf("%s, %s: %v", e.name, what, a)
				} else {
					a.problem(t, 400)
				}
			}
			if a := s.send("POST", "/api/v1/auth/"+e.name, access, multipartForm, strings.TrimSuffix(encodeMultipart(e.form...), "\r\n")); a.Status != e.status {
				t.Errorf("%s without the last line break: %v", e.name, a)
			}
			hundred := append([]string{}, e.form...)
			for len(hundred) < 200 {
				hundred = append(hundred, "other", "x")
			}
			if a := s.postMultipart(e.name, access, hundred...); a.Status != e.status {
				t.Errorf("%s with 100 parts: %v", e.name, a)
			}
		}
	})
}

// hostile are values that have broken programs: each must be a value like any
// other.
var hostile = []string{
	"\x00", "ann@example.org\x00", "\x00ann@example.org", "ann\x00@example.org", "ann@exa\x00mple.org", "\n", "\r\n", "ann@example.org\r\nBcc: x@example.org",
	"ann@example.org\n", "\t ann@example.org\v", "\x1b[2J", "\x7f", "\u0080", "\u0085", "\u00a0", "\u200b", "ann\u200d@example.org", "\u202egro.elpmaxe@nna",
	"\u2066ann@example.org\u2069", "\ufeffann@example.org", "\ufffd", "\U0010ffff", "\U000e0041", "аnn@example.org", "ann@ехample.org", "ａｎｎ@example.org",
	"ann@bücher.example", "ann@xn--bcher-kva.example", "ann@xn--a.example", "ann@xn--.example", "ann@-.example", "ann@..", "@", "@@", "ann@", "@example.org",
	"ann@[127.0.0.1]", "ann@example.org@example.org", "\"a b\"@example.org", "<ann@example.org>", "ann@example.org,bob@example.org", "ann@exämple.org\u0301",
	"İ@example.org", "ß@example.org", "ſ@example.org", "e\u0301@example.org", "ﷺ@example.org", "'; DROP TABLE users; --", "' OR 1=1 --", "$1", "%00", "%s%n%x", "{{.}}", "${jndi:ldap://x}",
	"../../etc/passwd", "<script>alert(1)</script>", "\"><b>", "null", "undefined", "true", "0", "-1", "1e400", "NaN", "[]", "{}", "{\"a\":1}", "a=b&c=d", ";", "+", " ",
	strings.Repeat("a", 10<<10), strings.Repeat("ﷺ", 1500), strings.Repeat("a\u0301", 1500), strings.Repeat("a", 64) + "@example.org", strings.Repeat("a", 250) + "@b.c",
	"ann@" + strings.Repeat("a.", 200) + "org", "ann@" + strings.Repeat("a", 64) + ".org", strings.Repeat("(", 4000),
	"00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-00000000000\x00", strings.Repeat("A", 60), strings.Repeat("\x00", 60), "e30.e30.e30", "..", "...",
}

// TestHostileText sends them in every field of every endpoint: the answer is
// the same whatever they are, and so on both databases.
func TestHostileText(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		in := s.login("ann@example.org")
		fields := []struct {
			endpoint, field string
			others          []string
			status          int
			invalid         string // the field that a 422 names
		}{
			{"login", "username", []string{"password", "not the password"}, 401, ""},
			{"login", "password", []string{"username", "ann@example.org"}, 401, ""},
			{"login", "password", []string{"username", "nobody@example.org"}, 401, ""},
			{"login", "grant_type", []string{"username", "ann@example.org", "password", good}, 422, "grant_type"},
			{"login", "scope", []string{"username", "ann@example.org", "password", good}, 200, ""},
			{"logout", "refresh_token", nil, 404, ""},
			{"access_token", "refresh_token", nil, 401, ""},
			{"recover", "email", nil, 200, ""},
			{"reset", "uuid", []string{"password", "a new password"}, 404, ""},
			{"reset", "password", []string{"uuid", "00000000-0000-4000-8000-000000000000"}, 404, ""},
		}
		kinds := []string{urlencoded, multipartForm}
		for i, value := range hostile {
			for j, f := range fields {
				kind := kinds[(i+j)%2]
				form := append(slices.Clone(f.others), f.field, value)
				if f.field == "scope" { // one of those that aren't needed
					form = append(form, "client_id", value, "client_secret", value, "other", value)
				}
				a := s.send("POST", "/api/v1/auth/"+f.endpoint, in.field("access_token"), kind, encoders[kind](form...))
				switch {
				case a.Status != f.status:
					t.Errorf("%s with %s=%.99q: %v, want %d", f.endpoint, f.field, value, a, f.status)
				case f.status == 422:
					a.oauthProblem(t, 422, "unsupported_grant_type", f.invalid)
				case f.status >= 400:
					a.problem(t, f.status)
				}
			}
			for _, p := range []string{"/recover", "/reset"} {
				a := s.send("POST", p, "", urlencoded, encodeURL("email", value, "uuid", value, "password", value))
				if a.Status >= 500 {
					t.Errorf("%s with %.99q: %v", p, value, a)
				}
				if a.Status == http.StatusSeeOther {
					s.leadsTo("sent", a)
					continue
				}
				same(t, p+"'s Content-Type", a.Header.Get("Content-Type"), "text/html; charset=utf-8")
			}
			if len(value) < 4<<10 {
				if a := s.get("/reset?"+encodeURL("uuid", value), ""); a.Status != 404 {
					t.Errorf("/reset?uuid=%q: %v", value, a)
				}
			}
		}
		if strings.Contains(s.log.String(), `"level":"ERROR"`) {
			t.Errorf("an error was logged:\n%s", s.log)
		}
	}, limitsOff)
}

// A semicolon is part of a value, as browsers and curl send it.
func TestSemicolonIsACharacter(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", "one; two; three")
		a := s.send("POST", "/api/v1/auth/login", "", urlencoded, "username=ann@example.org&password=one;+two;+three")
		if a.Status != 200 {
			t.Error(a)
		}
	})
}
