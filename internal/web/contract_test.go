package web_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"kwai/internal/web"
)

const (
	userPath     = "/api/v1/auth/user"
	sessionsPath = "/api/v1/auth/sessions"
	keySetPath   = "/.well-known/jwks.json"
)

// endpoints are those that take a form, each with a form that is well-formed and leads
// nowhere, and the answer that it gets.
var endpoints = []struct {
	name   string
	form   []string // name, value, …: all that is required
	status int
}{
	{"login", []string{"username", "nobody@example.org", "password", "not the password"}, 401},
	{"logout", []string{"refresh_token", "unknown"}, 404},
	{"access_token", []string{"refresh_token", "unknown"}, 401},
	{"recover", []string{"email", "nobody@example.org"}, 200},
	{"reset", []string{"uuid", "unknown", "password", "a new password"}, 404},
	{"password", []string{"password", "not the password", "new_password", "password"}, 422},
}

// TestWholeWay goes over a connection, and with both kinds of forms.
func TestWholeWay(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s = s.listen()
		id := s.user("ann@example.org", good)
		for kind, post := range map[string]func(endpoint, bearer string, fields ...string) answer{
			"urlencoded": s.post, "multipart": s.postMultipart,
		} {
			in := post("login", "", "username", "ann@example.org", "password", good)
			if in.Status != 200 {
				t.Fatal(kind, in)
			}
			again := post("access_token", "", "refresh_token", in.field("refresh_token"))
			if again.Status != 200 {
				t.Fatal(kind, again)
			}
			for _, name := range []string{"access_token", "refresh_token"} {
				if again.field(name) == in.field(name) {
					t.Errorf("%s: a renewal yields the same %s: %v", kind, name, again)
				}
			}
			a := s.get(userPath, again.field("access_token"))
			same(t, kind+": the status", a.Status, 200)
			same(t, kind+": the address", a.field("email"), "ann@example.org")
			same(t, kind+": the id", a.field("id"), id)
			same(t, kind+": Cache-Control", a.Header.Get("Cache-Control"), "no-store")
			post("logout", again.field("access_token"), "refresh_token", in.field("refresh_token")).done(t, kind)
			s.get(userPath, in.field("access_token")).problem(t, 401)
		}
	})
}

func TestHealth(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for path, want := range map[string]string{"/healthz": `{"status":"ok"}`, "/readyz": `{"status":"ready"}`} {
			if a := s.get(path, ""); a.Status != 200 || strings.TrimSpace(string(a.Body)) != want {
				t.Errorf("%s: %v", path, a)
			}
		}
		if a := s.get("/openapi.yaml", ""); a.Status != 200 || !strings.HasPrefix(string(a.Body), "openapi: 3.1") {
			t.Error(a)
		}
	})
}

// allowedMethods are those of each path.
func allowedMethods() map[string]string {
	const get, post = "GET, HEAD", "POST"
	allow := map[string]string{
		userPath: get, keySetPath: get, "/openapi.yaml": get, "/healthz": get, "/readyz": get,
		"/style.css": get, "/passkey.js": get, "/logo": get, "/sent": get, "/done": get, "/recover": "GET, HEAD, POST", "/reset": "GET, HEAD, POST",
		"/login": "GET, HEAD, POST", "/logout": "GET, HEAD, POST", "/out": get, "/account": get, "/account/profile": "GET, HEAD, POST", "/account/email": "GET, HEAD, POST", "/account/email/confirm": "GET, HEAD, POST", "/account/password": "GET, HEAD, POST",
		"/account/sessions": "GET, HEAD, POST", "/account/activity": get, "/account/data": get, "/account/delete": "GET, HEAD, POST", "/gone": get, "/account/data.json": get, "/.well-known/change-password": get,
		"/login/code": "GET, HEAD, POST", "/login/enrol": "GET, HEAD, POST", "/account/security": get, "/account/security/app": "GET, HEAD, POST", "/account/security/codes": "GET, HEAD, POST",
		"/account/security/remove": "GET, HEAD, POST", "/account/security/two-steps": "GET, HEAD, POST",
		"/login/passkey": "GET, HEAD, POST", "/login/passkey/options": get, "/account/passkeys": "GET, HEAD, POST", "/account/passkeys/options": post, "/account/passkeys/remove": "GET, HEAD, POST",
		"/account/apps": "GET, HEAD, POST", "/consent": "GET, HEAD, POST", "/oauth2/authorize": "GET, HEAD, POST", "/oauth2/logout": "GET, HEAD, POST", "/oauth2/token": post, "/oauth2/revoke": post, "/oauth2/userinfo": "GET, HEAD, POST",
		"/.well-known/openid-configuration": get, "/.well-known/oauth-authorization-server": get,
	}
	for _, e := range endpoints {
		allow["/api/v1/auth/"+e.name] = post
	}
	allow[sessionsPath], allow[sessionsPath+"/x"] = "DELETE, GET, HEAD", "DELETE"
	return allow
}

func TestOtherMethodsAreRefused(t *testing.T) {
	t.Parallel()
	s := bare(t).listen() // no method leads to the rules
	for path, want := range allowedMethods() {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "post"} {
			if slices.Contains(strings.Split(want, ", "), method) {
				continue
			}
			// What it bears must not be looked at.
			a := s.send(method, path+"?username=a&password=b", "", urlencoded, "username=a")
			same(t, method+" "+path+": Allow", a.Header.Get("Allow"), want)
			if method != "HEAD" {
				a.problem(t, 405)
				continue
			}
			same(t, "HEAD "+path+": the status", a.Status, 405)
			same(t, "HEAD "+path+": the body", string(a.Body), "")
		}
	}
}

// gets are the paths that TestHeadIsGetWithoutBody tries.
var gets = []string{userPath, sessionsPath, keySetPath, "/openapi.yaml", "/healthz", "/readyz", "/recover", "/sent", "/reset", "/reset?uuid=none", "/done", "/style.css", "/logo",
	"/login", "/logout", "/out", "/account", "/account/profile", "/account/email", "/account/email/confirm", "/account/password", "/account/sessions", "/account/activity", "/account/data", "/account/data.json", "/account/delete", "/gone", "/.well-known/change-password",
	"/login/code", "/login/enrol", "/account/security", "/account/security/app", "/account/security/codes", "/account/security/remove", "/account/security/two-steps",
	"/passkey.js", "/login/passkey", "/login/passkey/options", "/account/passkeys", "/account/passkeys/remove",
	"/account/apps", "/consent", "/oauth2/authorize", "/oauth2/logout", "/oauth2/userinfo", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"}

func TestHeadIsGetWithoutBody(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s = s.listen()
		for _, path := range gets {
			get, head := s.get(path, ""), s.send("HEAD", path, "", "", "")
			same(t, "HEAD "+path+": the status", head.Status, get.Status)
			same(t, "HEAD "+path+": the body", string(head.Body), "")
			same(t, "HEAD "+path+": the Content-Type", head.Header.Get("Content-Type"), get.Header.Get("Content-Type"))
		}
	})
}

func TestUnknownPathsAreProblems(t *testing.T) {
	t.Parallel()
	s := bare(t).listen()
	for _, path := range []string{
		"/api", "/api/v1/auth", "/api/v1/auth/", "/api/v1/auth/login/", "/api/v1/auth/Login", "/api/v1/auth/login%00",
		"/api/v1/auth/login%2f", "/api/v1/auth/users", "/dev/mail", "/dev/uuid", "/.env", "/pages/layout.html", "/favicon.ico",
		"/%ff%fe", "/" + strings.Repeat("x", 8000),
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			a := s.send(method, path, "", "", "")
			if detail := a.problem(t, 404); strings.Contains(detail, path) {
				t.Errorf("%s echoes the path: %s", path, detail)
			}
		}
	}
}

// What net/http and its mux answer by themselves would be no problem, stand in no
// log and be counted nowhere; a redirect would lose a proxy's prefix, too.
func TestNothingIsAnsweredByTheLibrary(t *testing.T) {
	t.Parallel()
	s := bare(t, corsOf(club)).listen()
	raw := func(request string) answer {
		t.Helper()
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
		s.ok(err)
		defer conn.Close()
		_, err = io.WriteString(conn, request)
		s.ok(err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		s.ok(err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		s.ok(err)
		return answer{res.StatusCode, res.Header, body}
	}
	const rest = " HTTP/1.1\r\nHost: kwai\r\nOrigin: " + club + "\r\nConnection: close\r\n\r\n"
	lines := 0
	logged := func(status int) {
		t.Helper()
		lines++
		s.log.wait(t, lines, `"msg":"request"`)
		if status != 0 {
			contains(t, "the log", s.log.String(), fmt.Sprintf(`"route":"none","status":%d`, status))
		}
	}
	for _, path := range []string{
		"//api/v1/auth/login", "/api//v1/auth/login", "/api/v1/auth//login", "/api/v1/./auth/login", "/api/v1/auth/../auth/login", "/x/..", "/..", "//", "/./",
		"/api/v1/auth/login/..", "//recover", "/./reset?uuid=x", "/api/v1/auth/sessions/..", "//evil.example/", "http://kwai", "*",
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS", "CONNECT"} {
			if method == "CONNECT" && !strings.HasPrefix(path, "/") || path == "*" && method != "OPTIONS" {
				continue // that is no path of theirs
			}
			a := raw(method + " " + path + rest)
			a.problem(t, 404)
			a.allows(t, method+" "+path, club)
			same(t, "Location", a.Header.Get("Location"), "")
			logged(404)
		}
	}
	for request, status := range map[string]int{
		"GET / HTTP/1.1\r\n\r\n":                                        400,
		"GET / HTTP/1.1\r\nHost: a b\r\n\r\n":                           400,
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n":                  400,
		"GET / HTTP/1.1\r\nHost: a\r\nA B: c\r\n\r\n":                   400,
		"hello\r\n\r\n":                                                 400,
		"GET x HTTP/1.1\r\nHost: a\r\n\r\n":                             400,
		"CONNECT * HTTP/1.1\r\nHost: a\r\n\r\n":                         400,
		"GET * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":        400,
		"GET / HTTP/3.0\r\nHost: a\r\n\r\n":                             505,
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n":    501,
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n":               417,
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 2<<20): 431,
	} {
		a := raw(request)
		if a.problem(t, status); t.Failed() {
			t.Fatalf("%.60q", request)
		}
		logged(status)
	}
}

// A fault of ours is answered and logged; behind half an answer the connection
// is cut, so that it doesn't look whole.
func TestAFaultIsNoAnswer(t *testing.T) {
	t.Parallel()
	s := bare(t) // whose rules are missing
	s.get(userPath, "some token").problem(t, 500)
	contains(t, "the log", s.log.String(), `"level":"ERROR","msg":"a request panicked","route":"`+userPath+`"`)
	contains(t, "the log", s.log.String(), `"route":"`+userPath+`","status":500`)

	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("half an answer ends with %v", err)
		}
	}()
	s.handler.ServeHTTP(torn{httptest.NewRecorder()}, httptest.NewRequest(http.MethodGet, "/healthz", nil))
}

// torn is an answer that can't be written.
type torn struct{ http.ResponseWriter }

func (torn) Write([]byte) (int, error) { panic("it is torn") }

// A new route is described in openapi.yaml, and in the lists of the tests that go
// through all of them; what is described is there.
func TestEveryRouteIsDescribedAndTested(t *testing.T) {
	t.Parallel()
	described := make(map[[2]string]bool)
	for path, item := range loadDescription(t, publicURL).Paths.Map() {
		for method := range item.Operations() {
			described[[2]string{method, path}] = true
		}
	}
	allow, cors := allowedMethods(), make(map[[2]string]bool)
	for _, r := range corsRequests {
		cors[[2]string{r.method, r.path}] = true
	}
	for _, r := range web.Routes() {
		method, path := r[0], r[1]
		if path == "/{$}" { // there only with --site-url, which has a test of its own
			delete(described, [2]string{"GET", "/"})
			continue
		}
		isAPI := strings.HasPrefix(path, "/api/")
		if isAPI && !described[r] {
			t.Errorf("openapi.yaml doesn't have %s %s", method, path)
		}
		delete(described, r)
		if isAPI && !strings.Contains(path, "{") && !cors[r] {
			t.Errorf("corsRequests doesn't have %s %s", method, path)
		}
		path = strings.Replace(path, "{id}", "x", 1)
		if !slices.Contains(strings.Split(allow[path], ", "), method) {
			t.Errorf("allowedMethods doesn't have %s %s", method, path)
		}
		if method == "GET" && !slices.Contains(gets, path) {
			t.Errorf("gets doesn't have %s", path)
		}
	}
	for r := range described {
		t.Errorf("openapi.yaml describes %s %s, which isn't there", r[0], r[1])
	}
}
