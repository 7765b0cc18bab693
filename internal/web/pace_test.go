package web_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/web"
)

func TestRefusalsArePaced(t *testing.T) {
	t.Parallel()
	perSecond := 1000 * runtime.GOMAXPROCS(0)
	for _, tt := range []struct {
		name    string
		n       int           // refusals asked for at once
		longest time.Duration // that one waits, at least
	}{
		{"a few, at once", perSecond / 10, 0},
		{"more, one after the other", perSecond/10 + perSecond/2, time.Second / 2},
		{"a flood, bounded", 5 * perSecond, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &web.Server{PublicURL: &url.URL{Scheme: "http", Host: "localhost"}, Log: slog.New(slog.DiscardHandler)}
				handler, err := s.Handler()
				if err != nil {
					t.Fatal(err)
				}
				gone, leave := context.WithCancel(t.Context())
				leave()
				begun := time.Now()
				var all sync.WaitGroup
				for range tt.n {
					all.Go(func() {
						w := httptest.NewRecorder()
						// Nobody waits for the answer: that must not help.
						handler.ServeHTTP(w, httptest.NewRequestWithContext(gone, http.MethodGet, "/nowhere", nil))
						if w.Code != http.StatusNotFound {
							t.Error(w.Code)
						}
					})
				}
				all.Wait()
				if took := time.Since(begun).Round(time.Second / 100); took != tt.longest {
					t.Errorf("%d refusals took %v, want %v", tt.n, took, tt.longest)
				}
			})
		})
	}
}

// Each refusal waits for one turn, whoever sends it and whatever answers: a page that shows
// its form again, too. What isn't refused waits for none.
func TestEachRefusalTakesOneTurn(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		a := s.forApps().app(t, "club")
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		b := s.browser(t).login("bob@example.org", good)
		key := b.addPasskey("Key")
		s.twoSteps("ann@example.org")
		half := s.browser(t)
		code := half.password("login/code", "next", "account")
		left := s.web.StopPace(1000)
		takes := func(what string, n int, f func()) {
			t.Helper()
			before := left()
			f()
			same(t, "turns of "+what, before-left(), n)
		}
		page := func(path string, fields ...string) func() {
			return func() { s.browser(t).do(http.MethodPost, path, fields...) }
		}
		api := func(path string, fields ...string) func() { return func() { s.post(path, "", fields...) } }
		for what, f := range map[string]func(){
			"a wrong login": api("login", "username", "ann@example.org", "password", "x"), "a wrong login on the page": page("/login", "username", "ann@example.org", "password", "x"),
			"a forged login that waits": api("login", "auth_session", "x.y", "otp", "000000"), "one on the page": page("/login/code", "login", "x.y", "code", "000000"),
			"a wrong code": func() { half.takes(code, "code", "000000") }, "no code": func() { half.takes(code) },
			"a forged passkey": page("/login/passkey", "passkey", "{}"), "a link that is none": page("/reset", "unique_id", "x", "password", good),
			"a forged refresh token": api("access_token", "refresh_token", "x"), "no such page": func() { b.get("/nowhere") },
			"a page without a cookie": func() { s.browser(t).get("/account") },
			"a forged code of an app": func() { a.exchange("x") }, "no app": func() { a.post("/oauth2/token", url.Values{"grant_type": {"nothing"}}) },
		} {
			takes(what, 1, f)
		}
		takes("a login", 0, api("login", "username", "bob@example.org", "password", good))
		takes("a login by passkey", 0, func() { s.browser(t).byPasskey(key) })
		takes("the question of it", 0, func() { s.browser(t).get("/login/passkey/options") })
		takes("pages", 0, func() { b.shows("/account"); b.shows("/account/security") })
	})
}
