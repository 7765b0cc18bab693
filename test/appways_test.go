package test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/testing/need"
)

// A browser goes from each page of kwai's to where the app wants it: also on from the
// callback to a third site, and to a program on the machine. A policy of the page would
// hold for all of that (form-action), and the browser would stay without a word.
func TestWaysFromKwaiToAnApp(t *testing.T) {
	t.Parallel()
	need.Time(t)
	browser := startBrowser(t)
	s := provider(t, install(t, ""))

	t.Run("to a third site", func(t *testing.T) {
		third := serveApp(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { htmlPage(w, "you came by "+r.URL.Path) }))
		for _, flags := range [][]string{{}, {"--consent"}, {"--public"}} {
			onward := func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, third+r.URL.Path+"?"+r.URL.RawQuery, http.StatusFound)
			}
			home := serveApp(t, http.HandlerFunc(onward))
			made := s.app(append(flags, "Far "+strings.Join(flags, ""), "--redirect-uri="+home+"/callback", "--post-logout-uri="+home+"/bye")...)
			b := openTab(t, browser, s.URL)
			b.allow(home, third)
			b.open(200, s.URL+made.authorizeURLTo(home+"/callback"))
			b.logIn("ann@example.org")
			if len(flags) > 0 {
				b.at(s.URL + "/consent")
				b.click(200, "button[value=yes]")
			}
			b.at(third + "/callback")
			b.shows("you came by /callback")
			if q, err := url.Parse(eval[string](b, "location.href")); err != nil || q.Query().Get("code") == "" {
				t.Errorf("there is no code at the third site: %v", q)
			}
			b.logOutAtKwai()
		}
	})

	t.Run("to a program", func(t *testing.T) {
		const scheme = "com.example.app:"
		made := s.app("A program", "--public", "--redirect-uri="+scheme+"/callback")
		b := openTab(t, browser, s.URL)
		b.allow(scheme)
		b.open(200, s.URL+made.authorizeURLTo(scheme+"/callback"))
		b.logIn("ann@example.org")
		b.shows("Go on to A program?")
		b.clickHere("button[value=yes]")
		for {
			b.mu.Lock()
			i := slices.IndexFunc(b.requests, func(r string) bool { return strings.HasPrefix(r, scheme+"/callback?code=") })
			b.mu.Unlock()
			if i >= 0 {
				break
			}
			if b.ctx.Err() != nil {
				t.Fatal(b.ctx.Err())
			}
			pass(t.Context(), 10*time.Millisecond)
		}
	})
}

// allow says where the pages may ask for something.
func (b *tab) allow(origins ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.origins = append(b.origins, origins...)
}
