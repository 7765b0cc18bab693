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

// refusedTo is the status of a request from an origin that isn't listed: only our
// own pages, and what is no page, may do more than read.
func refusedTo(origin, own, method string, status int) int {
	if origin == "" || origin == own || method == http.MethodGet || status == http.StatusMethodNotAllowed {
		return status
	}
	return http.StatusForbidden
}

func TestCORSOffByDefault(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for _, r := range corsRequests {
			for _, origin := range []string{"", club, "null", s.URL} {
				what := fmt.Sprintf("%s %s from %q", r.method, r.path, origin)
				a := s.from(origin, r.method, r.path, r.contentType, r.body)
				a.allowsNobody(t, what)
				same(t, what+": the status", a.Status, refusedTo(origin, s.URL, r.method, r.status))
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
				same(t, what+": the status", a.Status, refusedTo(origin, publicURL, r.method, r.status))
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
		userPath:     "GET, HEAD",
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
		same(t, path+": the headers", a.Header.Get("Access-Control-Allow-Headers"), "authorization,content-type")
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

// Pages send headers of libraries that kwai never heard of: Swagger UI's,
// Sentry's, OpenTelemetry's.
func TestPreflightAllowsWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	s := bare(t, corsOf(club))
	for _, asked := range []string{"x-requested-with", "baggage,content-type,sentry-trace", "authorization, traceparent, tracestate", "x-" + strings.Repeat("y", 1000)} {
		ask := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", asked}
		a := s.from(club, http.MethodOptions, "/api/v1/auth/login", "", "", ask...)
		a.allows(t, asked, club)
		same(t, "what is allowed", a.Header.Get("Access-Control-Allow-Headers"), asked)
		s.from("https://evil.example", http.MethodOptions, "/api/v1/auth/login", "", "", ask...).allowsNobody(t, asked)
	}
	a := s.from(club, http.MethodOptions, "/api/v1/auth/login", "", "", "Access-Control-Request-Method", "POST")
	a.allows(t, "without headers", club)
	same(t, "what is allowed", len(a.Header.Values("Access-Control-Allow-Headers")), 0)
}

// A page of another site can have its visitor's browser send forms. It must
// neither use up what the visitor's account and network may get wrong, nor have
// anything written.
func TestPagesOfOtherSitesChangeNothing(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		access := s.loginFrom("192.0.2.7", "ann@example.org").field("access_token")
		const path = "/api/v1/auth/"
		for range 30 {
			body := encodeURL("username", "ann@example.org", "password", "wrong")
			s.from("https://evil.example", "POST", path+"login", urlencoded, body, "X-Forwarded-For", "192.0.2.7").problem(t, 403)
		}
		s.loginFrom("192.0.2.7", "ann@example.org")

		for _, foreign := range [][]string{
			{"Origin", "https://evil.example"},
			{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
			{"Sec-Fetch-Site", "cross-site"}, // the Origin got lost
			{"Origin", "null", "Sec-Fetch-Site", "cross-site"},
			{"Origin", "null"}, // of a sandboxed frame, say
			{"Origin", "https://app.example.org", "Sec-Fetch-Site", "same-site"},
			{"Origin", "http://auth.example.org"},
			{"Origin", publicURL + ":8443"},
			{"Origin", publicURL + ".evil.example"},
			{"Origin", "http://localhost:5173"},
			{"Origin", "capacitor://localhost"},
		} {
			foreign = append(foreign, "Authorization", "Bearer "+access)
			for _, e := range endpoints {
				s.from("", "POST", path+e.name, urlencoded, encodeURL(e.form...), foreign...).problem(t, 403)
				s.from("", "POST", path+e.name, multipartForm, encodeMultipart(e.form...), foreign...).problem(t, 403)
			}
			s.from("", "POST", path+"recover", urlencoded, "email=ann@example.org", foreign...).problem(t, 403)
			s.from("", "DELETE", sessionsPath, "", "", foreign...).problem(t, 403)
			s.from("", "DELETE", sessionsPath+"/x", "", "", foreign...).problem(t, 403)
			s.from("", "GET", userPath, "", "", foreign...) // changes nothing: read it may, if the browser lets it
		}
		s.sent(0)

		for _, own := range [][]string{
			nil, // a program, an app
			{"Origin", club, "Sec-Fetch-Site", "cross-site"},
			{"Origin", "https://listed.example.org", "Sec-Fetch-Site", "same-site"},
			{"Origin", "ionic://localhost"},
			{"Origin", publicURL, "Sec-Fetch-Site", "same-origin"}, // though the Host is another one
			{"Origin", publicURL},
			{"Origin", s.URL},
			{"Origin", "null", "Sec-Fetch-Site", "same-origin"}, // with a page's Referrer-Policy: no-referrer
			{"Sec-Fetch-Site", "none"},
		} {
			for _, e := range endpoints {
				headers := append([]string{"Authorization", "Bearer " + access}, own...)
				if a := s.from("", "POST", path+e.name, urlencoded, encodeURL(e.form...), headers...); a.Status != e.status {
					t.Errorf("%s with %q: %v, want %d", e.name, own, a, e.status)
				}
			}
		}
	}, behindProxy, corsOf(club, "https://listed.example.org", "ionic://localhost"), func(s *setup) { s.rules.Limits.Free = 20 })
}

// With Loopback every page of this machine may use the API, and no other.
func TestLoopbackOrigins(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for origin, allowed := range map[string]bool{
			"http://localhost:5173": true, "https://localhost": true, "http://127.0.0.1:3000": true, "http://127.1.2.3": true, "http://[::1]:8000": true, club: true,
			"http://localhost.evil.example": false, "http://127.0.0.1.evil.example": false, "http://localhost:5173/": false, "http://192.168.1.5": false,
			"http://x@localhost": false, "localhost": false, "null": false, "https://evil.example": false, "http://[::2]": false,
		} {
			s.URL = "http://localhost:8080"
			a := s.from(origin, "POST", "/api/v1/auth/access_token", urlencoded, "refresh_token=x")
			if a.varies(t, origin); allowed {
				a.allows(t, origin, origin)
				a.problem(t, 401)
			} else {
				a.allowsNobody(t, origin)
				a.problem(t, 403)
			}
		}
	}, corsOf(club), func(s *setup) { s.web.Loopback = true })
}

// The log names an origin that isn't listed, once: a browser says little.
func TestRefusedOriginsAreLoggedOnce(t *testing.T) {
	t.Parallel()
	s := bare(t, corsOf(club))
	const path = "/api/v1/auth/login"
	for range 2 {
		s.from("https://app.example.org", http.MethodOptions, path, "", "", "Access-Control-Request-Method", "POST")
		s.from("https://app.example.org", "POST", path, urlencoded, "")
		s.from("https://other.example.org", "GET", "/openapi.yaml", "", "")
		s.from(club, http.MethodOptions, path, "", "", "Access-Control-Request-Method", "POST")
		for _, own := range []string{"", publicURL, s.URL} {
			s.from(own, "GET", "/openapi.yaml", "", "")
		}
	}
	const line = "isn't among --cors-origins"
	same(t, "how many lines there are", strings.Count(s.log.String(), line), 2)
	contains(t, "the log", s.log.String(), line+`","origin":"https://app.example.org"`)
	contains(t, "the log", s.log.String(), line+`","origin":"https://other.example.org"`)
	for i := range 200 {
		s.from(fmt.Sprintf("https://%d.example.org", i), http.MethodHead, "/openapi.yaml", "", "")
	}
	if n := strings.Count(s.log.String(), line); n < 10 || n > 60 {
		t.Errorf("made up origins got %d lines", n)
	}
}

// What reads no cookie may be read by pages of all sites, which send none along.
func TestProvidersAnswersAreForEverybody(t *testing.T) {
	t.Parallel()
	s := bare(t, corsOf(club))
	paths := map[string]string{
		keySetPath: "GET, HEAD", "/.well-known/openid-configuration": "GET, HEAD", "/.well-known/oauth-authorization-server": "GET, HEAD",
		"/oauth2/token": "POST", "/oauth2/revoke": "POST", "/oauth2/userinfo": "GET, HEAD, POST",
	}
	for path, methods := range paths {
		for _, origin := range []string{"https://app.example", "null"} {
			a := s.from(origin, http.MethodOptions, path, "", "", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization")
			same(t, path+": the preflight", a.Status, 204)
			same(t, path+": who may", a.Header.Get("Access-Control-Allow-Origin"), "*")
			same(t, path+": the methods", a.Header.Get("Access-Control-Allow-Methods"), methods)
			same(t, path+": cookies", a.Header.Get("Access-Control-Allow-Credentials"), "")
		}
		a := s.from(club, http.MethodOptions, path, "", "", "Access-Control-Request-Method", "POST")
		same(t, path+": an origin of --cors-origins", a.Header.Get("Access-Control-Allow-Origin"), club)
	}
	for _, path := range []string{"/oauth2/authorize", "/oauth2/logout", "/consent", "/account/apps"} {
		s.from("https://app.example", http.MethodOptions, path, "", "", "Access-Control-Request-Method", "POST").allowsNobody(t, path)
	}
}
