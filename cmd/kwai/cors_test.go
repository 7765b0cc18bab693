package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

const club = "https://club.example.org"

// from sends a request as a browser does for a page of that origin.
func (s *site) from(origin, method, path, contentType, body string, headers ...string) answer {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return s.do(r)
}

// allowed says whether a browser would show the answer to a page of origin.
func (a answer) allowed(origin string) bool {
	return slices.Equal(a.Header.Values("Access-Control-Allow-Origin"), []string{origin}) &&
		slices.Equal(a.Header.Values("Access-Control-Allow-Credentials"), []string{"true"})
}

// crossOrigin are the answer's headers of CORS.
func (a answer) crossOrigin() (names []string) {
	for name := range a.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			names = append(names, name)
		}
	}
	return names
}

var corsRequests = []struct {
	method, path, contentType, body string
	status                          int
}{
	{"POST", "/api/v1/auth/recover", urlencoded, "email=x", 200},
	{"GET", "/.well-known/jwks.json", "", "", 200},
	{"GET", "/openapi.yaml", "", "", 200},
	{"POST", "/api/v1/auth/login", urlencoded, "%", 400},
	{"POST", "/api/v1/auth/login", urlencoded, "username=x&password=x", 401},
	{"POST", "/api/v1/auth/logout", urlencoded, "", 401},
	{"GET", "/api/v1/auth/user", "", "", 401},
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
				a := s.from(origin, r.method, r.path, r.contentType, r.body)
				if names := a.crossOrigin(); len(names) > 0 || a.Status != r.status || a.Header.Get("Vary") != "" {
					t.Errorf("%s %s from %q: %d with %q", r.method, r.path, origin, a.Status, names)
				}
			}
		}
		a := s.from(club, "OPTIONS", "/api/v1/auth/login", "", "", "Access-Control-Request-Method", "POST")
		if names := a.crossOrigin(); len(names) > 0 {
			t.Errorf("a preflight is answered with %q", names)
		}
	})
}

func TestCORS(t *testing.T) {
	const local = "http://localhost:5173"
	each(t, func(t *testing.T, s *site) {
		for _, r := range corsRequests {
			for _, origin := range []string{club, local} {
				a := s.from(origin, r.method, r.path, r.contentType, r.body)
				if !a.allowed(origin) || a.Status != r.status || !slices.Contains(a.Header.Values("Vary"), "Origin") {
					t.Errorf("%s %s from %s: %d with %v, want %d", r.method, r.path, origin, a.Status, a.Header, r.status)
				}
				if got := a.Header.Get("Access-Control-Expose-Headers"); got != "Retry-After, WWW-Authenticate" {
					t.Errorf("%s %s exposes %q", r.method, r.path, got)
				}
			}
			for _, origin := range []string{
				"", "null", "*", "https://evil.example", club + ".evil.example", "http://club.example.org", club + ":443", club + "/", strings.ToUpper(club),
				"https://clubxexample.org", "https://a.club.example.org", club + " " + local, club + "," + local, publicURL,
			} {
				a := s.from(origin, r.method, r.path, r.contentType, r.body)
				if names := a.crossOrigin(); len(names) > 0 || a.Status != r.status || !slices.Contains(a.Header.Values("Vary"), "Origin") {
					t.Errorf("%s %s from %q: %d with %q, Vary %q", r.method, r.path, origin, a.Status, names, a.Header.Values("Vary"))
				}
			}
		}
		// Pages and probes are no business of other origins.
		for _, path := range []string{"/recover", "/reset", "/style.css", "/healthz"} {
			if names := s.from(club, "GET", path, "", "").crossOrigin(); len(names) > 0 {
				t.Errorf("%s: %q", path, names)
			}
		}
	}, "--cors-origins="+club+","+local, "--limits=off")
}

func TestPreflight(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		methods := map[string]string{
			userPath: "GET, HEAD", "/.well-known/jwks.json": "GET, HEAD",
			sessionsPath: "DELETE, GET, HEAD", sessionsPath + "/x": "DELETE",
		}
		for _, e := range endpoints {
			methods["/api/v1/auth/"+e.name] = "POST"
		}
		for path, want := range methods {
			ask := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type"}
			a := s.from(club, "OPTIONS", path, "", "", ask...)
			if a.Status != 204 || len(a.Body) > 0 || !a.allowed(club) || a.Header.Get("Access-Control-Allow-Methods") != want ||
				a.Header.Get("Access-Control-Allow-Headers") != "Authorization, Content-Type" || a.Header.Get("Access-Control-Max-Age") != "600" {
				t.Errorf("%s: %v %v", path, a, a.Header)
			}
			for _, origin := range []string{"null", "https://evil.example"} {
				a := s.from(origin, "OPTIONS", path, "", "", ask...)
				if names := a.crossOrigin(); len(names) > 0 || len(a.Body) > 0 || !slices.Contains(a.Header.Values("Vary"), "Origin") {
					t.Errorf("%s from %s: %v with %q", path, origin, a, names)
				}
			}
			s.from(club, "OPTIONS", path, "", "").problem(t, 405) // asks for nothing
			s.from("", "OPTIONS", path, "", "", ask...).problem(t, 405)
		}
		a := s.from(club, "OPTIONS", "/api/v1/auth/none", "", "", "Access-Control-Request-Method", "POST")
		a.problem(t, 404)
	}, "--cors-origins="+club)
}
