package web_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const club = "https://club.example.org"

// allows holds that a browser would show the answer to a page of origin.
func (a answer) allows(tb testing.TB, what, origin string) {
	tb.Helper()
	for name, want := range map[string]string{"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"} {
		if got := a.Header.Values(name); !slices.Equal(got, []string{want}) {
			tb.Errorf("%s: %s is %q, want %q", what, name, got, want)
		}
	}
}

// allowsNobody holds that it has no header of CORS.
func (a answer) allowsNobody(tb testing.TB, what string) {
	tb.Helper()
	for name, values := range a.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			tb.Errorf("%s: %s is %q, want none", what, name, values)
		}
	}
}

// varies holds that caches keep what other origins get apart.
func (a answer) varies(tb testing.TB, what string) {
	tb.Helper()
	if got := a.Header.Values("Vary"); !slices.Contains(got, "Origin") {
		tb.Errorf("%s: Vary is %q, want Origin", what, got)
	}
}

var corsRequests = []struct {
	method, path, contentType, body string
	status                          int
}{
	{"POST", "/api/v1/auth/recover", urlencoded, "email=x", 200},
	{"GET", keySetPath, "", "", 200},
	{"GET", "/openapi.yaml", "", "", 200},
	{"POST", "/api/v1/auth/login", urlencoded, "%", 400},
	{"POST", "/api/v1/auth/login", urlencoded, "username=x&password=x", 401},
	{"POST", "/api/v1/auth/logout", urlencoded, "", 401},
	{"GET", userPath, "", "", 401},
	{"POST", "/api/v1/auth/password", urlencoded, "", 401},
	{"GET", sessionsPath, "", "", 401},
	{"DELETE", sessionsPath, "", "", 401},
	{"DELETE", sessionsPath + "/x", "", "", 401},
	{"GET", "/api/v1/auth/none", "", "", 404},
	{"POST", "/api/v1/auth/reset", urlencoded, "uuid=x&password=x", 404},
	{"DELETE", "/api/v1/auth/login", "", "", 405},
	{"POST", "/api/v1/auth/login", urlencoded, strings.Repeat("x", maxBody+1), 413},
	{"POST", "/api/v1/auth/login", "application/json", "{}", 415},
	{"POST", "/api/v1/auth/access_token", urlencoded, "", 422},
}

func TestCORSOffByDefault(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for _, r := range corsRequests {
			for _, origin := range []string{"", club, "null", s.URL} {
				what := fmt.Sprintf("%s %s from %q", r.method, r.path, origin)
				a := s.from(origin, r.method, r.path, r.contentType, r.body)
				a.allowsNobody(t, what)
				same(t, what+": the status", a.Status, r.status)
				same(t, what+": Vary", a.Header.Get("Vary"), "")
			}
		}
		s.from(club, "OPTIONS", "/api/v1/auth/login", "", "", "Access-Control-Request-Method", "POST").allowsNobody(t, "a preflight")
	})
}

func TestCORS(t *testing.T) {
	const local = "http://localhost:5173"
	each(t, func(t *testing.T, s *site) {
		for _, r := range corsRequests {
			for _, origin := range []string{club, local} {
				what := fmt.Sprintf("%s %s from %s", r.method, r.path, origin)
				a := s.from(origin, r.method, r.path, r.contentType, r.body)
				a.allows(t, what, origin)
				a.varies(t, what)
				same(t, what+": the status", a.Status, r.status)
				same(t, what+": what is exposed", a.Header.Get("Access-Control-Expose-Headers"), "Retry-After, WWW-Authenticate")
			}
			for _, origin := range []string{
				"", "null", "*", "https://evil.example", club + ".evil.example", "http://club.example.org", club + ":443", club + "/", strings.ToUpper(club),
				"https://clubxexample.org", "https://a.club.example.org", club + " " + local, club + "," + local, publicURL,
			} {
				what := fmt.Sprintf("%s %s from %q", r.method, r.path, origin)
				a := s.from(origin, r.method, r.path, r.contentType, r.body)
				a.allowsNobody(t, what)
				a.varies(t, what)
				same(t, what+": the status", a.Status, r.status)
			}
		}
		// Pages and probes are no business of other origins.
		for _, path := range []string{"/recover", "/reset", "/style.css", "/healthz"} {
			s.from(club, "GET", path, "", "").allowsNobody(t, path)
		}
	}, corsOf(club, local), limitsOff)
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	methods := map[string]string{
		userPath: "GET, HEAD", keySetPath: "GET, HEAD",
		sessionsPath: "DELETE, GET, HEAD", sessionsPath + "/x": "DELETE",
	}
	for _, e := range endpoints {
		methods["/api/v1/auth/"+e.name] = "POST"
	}
	s := bare(t, corsOf(club)) // none leads to the rules
	for path, want := range methods {
		ask := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type"}
		a := s.from(club, http.MethodOptions, path, "", "", ask...)
		a.allows(t, path, club)
		same(t, path+": the status", a.Status, 204)
		same(t, path+": the body", string(a.Body), "")
		same(t, path+": the methods", a.Header.Get("Access-Control-Allow-Methods"), want)
		same(t, path+": the headers", a.Header.Get("Access-Control-Allow-Headers"), "Authorization, Content-Type")
		same(t, path+": the max-age", a.Header.Get("Access-Control-Max-Age"), "600")
		for _, origin := range []string{"null", "https://evil.example"} {
			a := s.from(origin, http.MethodOptions, path, "", "", ask...)
			a.allowsNobody(t, path+" from "+origin)
			a.varies(t, path+" from "+origin)
			same(t, path+" from "+origin+": the body", string(a.Body), "")
		}
		s.from(club, http.MethodOptions, path, "", "").problem(t, 405) // asks for nothing
		s.from("", http.MethodOptions, path, "", "", ask...).problem(t, 405)
	}
	a := s.from(club, http.MethodOptions, "/api/v1/auth/none", "", "", "Access-Control-Request-Method", "POST")
	a.problem(t, 404)
}
