package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
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

const good = "a long enough one" // a password

// login is a successful one, with good.
func (s *site) login(email string) answer {
	s.tb.Helper()
	a := s.post("login", "", "username", email, "password", good)
	if a.Status != http.StatusOK {
		s.tb.Fatalf("login: %v\n%s", a, s.log)
	}
	return a
}

func TestWholeWay(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		id := s.user("ann@example.org", good)
		for kind, post := range map[string]func(endpoint, bearer string, fields ...string) answer{
			"urlencoded": s.post, "multipart": s.postMultipart,
		} {
			in := post("login", "", "username", "ann@example.org", "password", good)
			if in.Status != 200 {
				t.Fatal(kind, in)
			}
			again := post("access_token", "", "refresh_token", in.field("refresh_token"))
			if again.Status != 200 || again.field("refresh_token") == in.field("refresh_token") || again.field("access_token") == in.field("access_token") {
				t.Fatal(kind, again)
			}
			a := s.get("/api/v1/auth/user", again.field("access_token"))
			if a.Status != 200 || a.field("email") != "ann@example.org" || a.field("id") != id || a.Header.Get("Cache-Control") != "no-store" {
				t.Fatal(kind, a)
			}
			if a := post("logout", again.field("access_token"), "refresh_token", in.field("refresh_token")); a.Status != 200 || string(a.Body) != "{}\n" {
				t.Fatal(kind, a)
			}
			s.get("/api/v1/auth/user", in.field("access_token")).problem(t, 401)
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

func TestOtherMethodsAreRefused(t *testing.T) {
	const get, post = "GET, HEAD", "POST"
	allow := map[string]string{
		"/api/v1/auth/user": get, "/.well-known/jwks.json": get, "/openapi.yaml": get, "/healthz": get, "/readyz": get,
		"/style.css": get, "/recover": "GET, HEAD, POST", "/reset": "GET, HEAD, POST",
	}
	for _, e := range endpoints {
		allow["/api/v1/auth/"+e.name] = post
	}
	allow[sessionsPath], allow[sessionsPath+"/x"] = "DELETE, GET, HEAD", "DELETE"
	each(t, func(t *testing.T, s *site) {
		for path, want := range allow {
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "post"} {
				if slices.Contains(strings.Split(want, ", "), method) {
					continue
				}
				// What it bears must not be looked at.
				a := s.send(method, path+"?username=a&password=b", "", urlencoded, "username=a")
				if got := a.Header.Get("Allow"); got != want {
					t.Errorf("%s %s: Allow is %q, want %q", method, path, got, want)
				}
				if method != "HEAD" {
					a.problem(t, 405)
				} else if a.Status != 405 || len(a.Body) > 0 {
					t.Errorf("HEAD %s: %v", path, a)
				}
			}
		}
	})
}

func TestHeadIsGetWithoutBody(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for _, path := range []string{"/api/v1/auth/user", sessionsPath, "/.well-known/jwks.json", "/healthz", "/recover", "/reset", "/reset?uuid=none", "/style.css"} {
			get, head := s.get(path, ""), s.send("HEAD", path, "", "", "")
			if head.Status != get.Status || len(head.Body) > 0 || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
				t.Errorf("HEAD %s: %v, GET: %v", path, head, get)
			}
		}
	})
}

func TestUnknownPathsAreProblems(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for _, path := range []string{
			"/", "/api", "/api/v1/auth", "/api/v1/auth/", "/api/v1/auth/login/", "/api/v1/auth/Login", "/api/v1/auth/login%00",
			"/api/v1/auth/login%2f", "/api/v1/auth/users", "/dev/mail", "/dev/uuid", "/.env", "/pages/layout.html", "/favicon.ico",
			"/%ff%fe", "/" + strings.Repeat("x", 8000),
		} {
			for _, method := range []string{"GET", "POST"} {
				a := s.send(method, path, "", "", "")
				if detail := a.problem(t, 404); strings.Contains(detail, path) && path != "/" {
					t.Errorf("%s echoes the path: %s", path, detail)
				}
			}
		}
	})
}

func TestShutdownAnswersWhatIsUnderWay(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		body := encodeURL("username", "ann@example.org", "password", good)
		conn := s.dial()
		fmt.Fprintf(conn, "POST /api/v1/auth/login HTTP/1.1\r\nHost: kwai\r\nContent-Type: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", urlencoded, len(body))
		if a := conn.answer("POST"); a.Status != 100 { // now the handler waits for the form
			t.Fatal(a)
		}
		s.stop()
		s.log.wait(t, 1, `"msg":"stopping`)
		fmt.Fprint(conn, body)
		if a := conn.answer("POST"); a.Status != 200 || a.field("access_token") == "" {
			t.Errorf("the login under way: %v", a)
		}
		if code := s.close(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}
