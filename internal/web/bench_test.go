package web_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"kwai/internal/testing/storetest"
)

// exchange has the handler answer a request. The request and the recorder are
// part of the figures: some 20 allocations.
func exchange(tb testing.TB, h http.Handler, method, path, bearer, form string) []byte {
	r := httptest.NewRequest(method, "/api/v1/auth/"+path, strings.NewReader(form))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		tb.Errorf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.Bytes()
}

type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func read(tb testing.TB, answer []byte) (t tokens) {
	if err := json.Unmarshal(answer, &t); err != nil {
		tb.Fatal(err)
	}
	return t
}

var login = encodeURL("username", "ann@example.org", "password", good)

// benchmark has many clients at once, as group commit wants: each logs in, and
// then does step again and again.
func benchmark(b *testing.B, step func(h http.Handler, t tokens) tokens) {
	b.Helper()
	s := start(b, storetest.SQLite(b), limitsOff, func(o *setup) { // so many clients log in to the one account at once
		o.level = slog.LevelError + 1
	})
	s.user("ann@example.org", good)
	h := s.handler
	clients := sync.Pool{New: func() any { return read(b, exchange(b, h, "POST", "login", "", login)) }}
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		t := clients.Get().(tokens)
		for pb.Next() {
			t = step(h, t)
		}
	})
}

func BenchmarkRenew(b *testing.B) {
	benchmark(b, func(h http.Handler, t tokens) tokens {
		return read(b, exchange(b, h, "POST", "access_token", "", "refresh_token="+t.Refresh))
	})
}

func BenchmarkCheck(b *testing.B) {
	benchmark(b, func(h http.Handler, t tokens) tokens {
		exchange(b, h, "GET", "user", t.Access, "")
		return t
	})
}

func BenchmarkRecover(b *testing.B) {
	benchmark(b, func(h http.Handler, t tokens) tokens {
		exchange(b, h, "POST", "recover", "", "email=nobody%40example.org")
		return t
	})
}

// BenchmarkBare is what the request, the recorder and reading tokens cost.
func BenchmarkBare(b *testing.B) {
	answer, err := json.Marshal(tokens{strings.Repeat("x", 600), strings.Repeat("x", 60)})
	if err != nil {
		b.Fatal(err)
	}
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) })
	b.ReportAllocs()
	for b.Loop() {
		read(b, exchange(b, bare, "POST", "access_token", "", "refresh_token="+strings.Repeat("x", 60)))
	}
}

// visit has the handler answer a request for a page, as a browser sends it.
func visit(tb testing.TB, h http.Handler, path, cookie string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	r.Header.Set("Accept-Language", "nl-BE,nl;q=0.9,en-US;q=0.8,en;q=0.7")
	if cookie != "" {
		r.Header.Set("Cookie", "__Host-kwai="+cookie)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		tb.Errorf("%s: %d to %q", path, w.Code, w.Header().Get("Location"))
	}
	return w
}

// benchmarkPage is of a page beside BenchmarkBarePage, whose figures are the request's
// and the recorder's.
func benchmarkPage(b *testing.B, path string, loggedIn bool) {
	b.Helper()
	s := start(b, storetest.SQLite(b), func(o *setup) { o.level = slog.LevelError + 1 })
	s.user("ann@example.org", good)
	cookie := ""
	if loggedIn {
		cookie = s.pageCookie("ann@example.org")
	}
	b.ReportAllocs()
	b.SetBytes(int64(visit(b, s.handler, path, cookie).Body.Len()))
	for b.Loop() {
		visit(b, s.handler, path, cookie)
	}
}

func BenchmarkLoginPage(b *testing.B)    { benchmarkPage(b, "/login", false) }
func BenchmarkAccountPage(b *testing.B)  { benchmarkPage(b, "/account", true) }
func BenchmarkSessionsPage(b *testing.B) { benchmarkPage(b, "/account/sessions", true) }

func BenchmarkBarePage(b *testing.B) {
	answer := make([]byte, 1500)
	bare := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) })
	b.ReportAllocs()
	for b.Loop() {
		visit(b, bare, "/account", strings.Repeat("x", 60))
	}
}
