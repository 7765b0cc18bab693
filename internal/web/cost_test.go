package web_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/testing/totp"
	"kwai/internal/web"
)

// cost is what a site has done so far: reads outside of transactions, transactions that
// were committed, the statements in those and in others, and hashes.
type cost struct{ reads, commits, statements, hashes float64 }

func (c cost) less(before cost) cost {
	return cost{c.reads - before.reads, c.commits - before.commits, c.statements - before.statements, c.hashes - before.hashes}
}

// cost reads it from the metrics.
func (s *site) cost() (c cost) {
	s.tb.Helper()
	for name, into := range map[string]*float64{
		"kwai_database_reads_total": &c.reads, "kwai_database_transactions_total": &c.commits,
		"kwai_database_statements_total": &c.statements, "kwai_hashing_seconds": &c.hashes,
	} {
		registry := prometheus.NewRegistry()
		for _, m := range append(s.rules.Store.Metrics(), s.rules.Passwords.Metrics()...) {
			described := make(chan *prometheus.Desc, 9)
			m.Describe(described)
			if strings.Contains((<-described).String(), `"`+name+`"`) {
				registry.MustRegister(m)
			}
		}
		families, err := registry.Gather()
		s.ok(err)
		if len(families) == 0 && name != "kwai_hashing_seconds" { // which is there once something was hashed
			s.tb.Fatalf("there is no metric %s", name)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				*into += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return c
}

// costs is what f costs.
func (s *site) costs(f func()) cost {
	s.tb.Helper()
	before := s.cost()
	f()
	return s.cost().less(before)
}

// wantCost holds what f costs, but for a reading of the keys, which are read anew when
// three seconds have gone by since: so it is tried again.
func (s *site) wantCost(what string, want cost, f func()) {
	s.tb.Helper()
	var got cost
	for range 3 {
		got = s.costs(f)
		if got == want || got.commits != want.commits || got.hashes != want.hashes {
			break
		}
	}
	same(s.tb, "the cost of "+what, got, want)
}

// A usual visit reads the database once and writes nothing: its session and its user
// are one query.
func TestAVisitIsOneRead(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		for _, path := range []string{"/account", "/account/password", "/logout"} {
			s.wantCost(path, cost{reads: 1}, func() { b.shows(path) })
		}
		s.wantCost("the login, logged in", cost{reads: 1}, func() { b.get("/login") })
		s.wantCost("the home page", cost{reads: 1}, func() { b.get("/") })
		for _, path := range []string{"/account/sessions", "/account/activity"} { // and their lists
			s.wantCost(path, cost{reads: 2}, func() { b.shows(path) })
		}
		none := s.browser(t)
		for _, path := range []string{"/login", "/account", "/", "/recover", "/out"} {
			s.wantCost(path+" without a cookie", cost{}, func() { none.get(path) })
		}
	})
}

// A dead cookie costs a read at most, and a forged one nothing: no write, no hash. So a
// flood of them is one of reads.
func TestADeadCookieWritesNothing(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		old := b.cookies["__Host-kwai"]
		for range 2 {
			s.clock.advance(11 * time.Minute)
			b.goes("the proof", b.do(http.MethodPost, "/login", "prove", "1", "password", good), "account")
		}
		b.shows("/account")
		ended := s.browser(t).login("ann@example.org", good)
		left := ended.cookies["__Host-kwai"]
		ended.goes("the logout", ended.send("/logout", "/logout"), "out")
		short := s.browser(t)
		short.goes("the login", short.do(http.MethodPost, "/login", "username", "ann@example.org", "password", good), "account")
		late := short.cookies["__Host-kwai"]
		s.clock.advance(13 * time.Hour)
		raw, err := base64.RawURLEncoding.DecodeString(late)
		s.ok(err)
		raw[len(raw)-1] ^= 1
		raw[20] ^= 0x80
		for what, tt := range map[string]struct {
			cookie string
			reads  float64
		}{
			"an old number": {old, 1}, "an ended session's": {left, 1}, "one after its end": {late, 1},
			"a forged one": {base64.RawURLEncoding.EncodeToString(raw), 0}, "a long one": {strings.Repeat(late, 100), 0}, "half of one": {late[:30], 0}, "an empty one": {"", 0},
		} {
			thief := s.browser(t)
			for _, path := range []string{"/account", "/account/password", "/account/sessions", "/account/activity", "/logout", "/"} {
				s.wantCost(what+" at "+path, cost{reads: tt.reads}, func() {
					thief.cookies = map[string]string{"__Host-kwai": tt.cookie}
					if a := thief.get(path); a.Status != http.StatusSeeOther || !strings.Contains(a.Header.Get("Location"), "login?next=") || a.Header.Get("Set-Cookie") != "" {
						t.Errorf("%s at %s: %v %v", what, path, a, a.Header)
					}
				})
			}
			for _, path := range []string{"/account/password", "/account/sessions", "/logout"} {
				s.wantCost("a post with "+what+" to "+path, cost{reads: tt.reads}, func() {
					thief.cookies = map[string]string{"__Host-kwai": tt.cookie}
					thief.do(http.MethodPost, path, "form", "x", "password", better)
				})
			}
			s.wantCost("the login with "+what, cost{reads: tt.reads}, func() {
				thief.cookies = map[string]string{"__Host-kwai": tt.cookie}
				thief.shows("/login")
			})
		}
		b.shows("/account")
	})
}

// HEAD has no effect on any page: a number isn't seen by it, and a session not used.
func TestHEADHasNoEffect(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		before := b.cookies["__Host-kwai"]
		b.shows("/account")
		b.goes("the proof", b.do(http.MethodPost, "/login", "prove", "1", "password", good), "account")
		s.clock.advance(2 * time.Hour) // the session's use would be noted, too
		for _, r := range web.Routes() {
			if r[0] != http.MethodGet {
				continue
			}
			path := strings.TrimSuffix(r[1], "{$}")
			c := s.costs(func() {
				a := b.do(http.MethodHead, path)
				if a.Status >= http.StatusInternalServerError || len(a.Body) > 0 || a.Header.Get("Set-Cookie") != "" {
					t.Errorf("HEAD %s: %v %v", path, a, a.Header)
				}
			})
			if c.commits != 0 || c.hashes != 0 {
				t.Errorf("HEAD %s costs %+v", path, c)
			}
		}
		same(t, "the status of HEAD /account", b.do(http.MethodHead, "/account").Status, http.StatusOK)
		old := s.browser(t)
		old.cookies["__Host-kwai"] = before
		old.shows("/account") // the newest number hasn't been seen
		b.shows("/account")
		old.goes("the old cookie, once it has", old.get("/account"), "login?next=account")
	})
}

// What an app and the browsers that it sends cost. Nothing is written for a request for a
// code, whoever is logged in, nor for what a flood can send: wrong secrets, forged codes.
func TestASignInsCost(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		a := s.app(t, "wiki")
		b := s.browser(t).login("ann@example.org", good)
		request := "/oauth2/authorize?" + a.request("scope", "openid profile email").Encode()
		s.wantCost("a request without a cookie", cost{reads: 1}, func() {
			if to := s.browser(t).get(request).Header.Get("Location"); !strings.HasPrefix(to, "../login?") {
				t.Errorf("it leads to %q", to)
			}
		})
		var code string
		ask := func() {
			to, err := url.Parse(b.get(request).Header.Get("Location"))
			s.ok(err)
			code = to.Query().Get("code")
		}
		s.wantCost("a request", cost{reads: 3}, ask)
		s.wantCost("a forged code", cost{reads: 1}, func() { a.exchange("x"+code[1:]).oauthRefusal(t, "a forged code", "invalid_grant") })
		wrong := *a
		wrong.secret = "x" + a.secret[1:]
		s.wantCost("a wrong secret", cost{reads: 1}, func() { wrong.exchange(code).oauthRefusal(t, "a wrong secret", "invalid_client") })
		var got appTokens
		s.wantCost("a request and the exchange of its code", cost{reads: 4, commits: 1, statements: 5}, func() {
			ask()
			got = a.got(a.exchange(code))
		})
		s.wantCost("userinfo", cost{reads: 1}, func() { a.userinfo(got.AccessToken) })
		s.wantCost("a refresh", cost{reads: 1, commits: 1, statements: 1}, func() { got = a.got(a.refresh(got.RefreshToken)) })
	})
}

// In a network that the account knows, a code that comes with the password costs two
// statements more than a login by one step: one counts it, before it is looked at, and one
// uses it up. What is demanded is read by the statement that lets in. In two requests there
// is the first one's count to give back, too, and the user to read anew; nothing is hashed.
func TestASecondStepsCost(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		phone := s.forApps().twoSteps("bob@example.org")
		login := func(fields ...string) answer {
			s.clock.advance(30 * time.Second) // a code is good once
			return s.post("login", "", fields...)
		}
		oneStep := func() {
			login("username", "ann@example.org", "password", good).tokens(t, "one step")
		}
		both := func() {
			login("username", "bob@example.org", "password", good, "otp", totp.Code(phone.Secret, s.clock.now().Add(30*time.Second))).tokens(t, "both")
		}
		oneStep()
		both()
		s.wantCost("a login by one step", cost{reads: 2, commits: 2, statements: 6, hashes: 1}, oneStep)
		s.wantCost("both at once", cost{reads: 2, commits: 3, statements: 8, hashes: 1}, both)
		waiting := ""
		s.wantCost("the first of two", cost{reads: 2, commits: 2, statements: 3, hashes: 1}, func() {
			waiting = login("username", "bob@example.org", "password", good).field("auth_session")
		})
		s.wantCost("the second", cost{reads: 2, commits: 2, statements: 7}, func() {
			login("auth_session", waiting, "otp", totp.Code(phone.Secret, s.clock.now().Add(30*time.Second))).tokens(t, "the second step")
		})
	})
}
