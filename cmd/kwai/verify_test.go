package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/storetest"
	"kwai/verify"
)

// exampleProgram runs examples/verify, as built at that path, until the end of the
// test. It returns where it serves.
func exampleProgram(t *testing.T, path, issuer string) string {
	t.Helper()
	cmd := exec.Command(path, "-issuer", issuer, "-listen", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "serving ")
	if err != nil || !ok {
		t.Fatalf("it printed %q: %v", line, err)
	}
	return address
}

// show sends a token to a program and returns its answer.
func asked(t *testing.T, client *http.Client, url, token string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, body}
}

func TestAnotherProgramChecksTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "verify")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, "../../examples/verify").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	storetest.Each(t, func(t *testing.T, database string) {
		listen, err := cluster.FreeAddress(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, database, "--listen="+listen, "--public-url=http://"+listen)
		id := s.user("ann@example.org", "a long password")
		example := exampleProgram(t, path, s.URL)
		login := s.post("login", "", "username", "ann@example.org", "password", "a long password")
		token := login.field("access_token")

		wants := func(when, path, token string, status int) {
			t.Helper()
			a := asked(t, http.DefaultClient, example+path, token)
			if a.Status != status || status == http.StatusOK && a.field("user") != id {
				t.Errorf("%s: %s answers %v, want %d", when, path, a, status)
			}
			if status != http.StatusOK {
				a.problem(t, status)
			}
		}
		for _, path := range []string{"/hello", "/secret"} {
			wants("without a token", path, "", http.StatusUnauthorized)
			wants("with a refresh token", path, login.field("refresh_token"), http.StatusUnauthorized)
			wants("logged in", path, token, http.StatusOK)
		}
		s.post("logout", token, "refresh_token", login.field("refresh_token"))
		wants("logged out", "/hello", token, http.StatusOK) // its signature is good still
		wants("logged out", "/secret", token, http.StatusUnauthorized)

		s.close()
		wants("kwai is away", "/hello", token, http.StatusOK)
		wants("kwai is away", "/secret", token, http.StatusServiceUnavailable)
		if a := asked(t, http.DefaultClient, example+"/readyz", ""); a.Status != http.StatusOK {
			t.Errorf("with known keys /readyz answers %v", a)
		}
	})
}

// TestAnotherProgramChecksTokensThroughAProxy that serves kwai over TLS under a
// path of its own.
func TestAnotherProgramChecksTokensThroughAProxy(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		var behind atomic.Pointer[url.URL]
		proxy := httptest.NewTLSServer(http.StripPrefix("/a/login", &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(behind.Load()) },
		}))
		t.Cleanup(proxy.Close)
		public := proxy.URL + "/a/login"
		s := start(t, database, "--public-url="+public)
		target, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		behind.Store(target)
		id := s.user("ann@example.org", "a long password")
		login := s.post("login", "", "username", "ann@example.org", "password", "a long password")

		v := &verify.Verifier{Issuer: public, Audience: "kwai", Live: true, Transport: proxy.Client().Transport}
		program := httptest.NewServer(v.Protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, verify.FromContext(r.Context()).Subject)
		})))
		t.Cleanup(program.Close)
		if a := asked(t, http.DefaultClient, program.URL, login.field("access_token")); a.Status != http.StatusOK || string(a.Body) != id {
			t.Errorf("logged in: got %v, want the user %s", a, id)
		}
		s.mustCommand("", "user", "revoke", "ann@example.org")
		asked(t, http.DefaultClient, program.URL, login.field("access_token")).problem(t, http.StatusUnauthorized)
	})
}
