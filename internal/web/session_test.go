package web_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/auth"
	"kwai/internal/testing/storetest"
)

// TestLoginTellsNothing: whatever the reason, a refused login has the same
// bytes, status and headers.
func TestLoginTellsNothing(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s = s.listen()
		s.user("ann@example.org", good)
		s.user("revoked@example.org", good)
		s.revoke("revoked@example.org")
		s.create(auth.NewUser{Email: "invited@example.org"})
		var first answer
		for i, try := range []struct{ why, username, password string }{
			{"a wrong password", "ann@example.org", "not the password"},
			{"the password in another case", "ann@example.org", strings.ToUpper(good)},
			{"the password and a space", "ann@example.org", good + " "},
			{"the password and a NUL", "ann@example.org", good + "\x00"},
			{"a password of 1,025 bytes", "ann@example.org", strings.Repeat("x", 1025)},
			{"a password of one byte", "ann@example.org", "x"},
			{"an unknown address", "nobody@example.org", good},
			{"an unknown address, a long password", "nobody@example.org", strings.Repeat("x", 1025)},
			{"a malformed address", "ann", good},
			{"an address with a NUL", "ann@example.org\x00", good},
			{"an address of 10 KiB", strings.Repeat("a", 10<<10) + "@example.org", good},
			{"a look-alike", "\u0430nn@example.org", good},
			{"full width", "ａnn@example.org", good},
			{"a revoked user", "revoked@example.org", good},
			{"a revoked user, a wrong password", "revoked@example.org", "not the password"},
			{"a user without a password", "invited@example.org", good},
		} {
			a := s.post("login", "", "username", try.username, "password", try.password)
			a.problem(t, 401)
			a.Header.Del("Date")
			if i == 0 {
				first = a
			} else if diff := cmp.Diff(first, a); diff != "" {
				t.Errorf("%s is answered otherwise:\n%s", try.why, diff)
			}
		}
	}, limitsOff)
}

func TestLoginFindsTheAddress(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("Ann@Bücher.example", good)
		for _, username := range []string{
			"Ann@Bücher.example", "ann@bücher.example", "ANN@BÜCHER.EXAMPLE", "ann@bu\u0308cher.example", "ann@xn--bcher-kva.example", " ann@bücher.example\n",
		} {
			in := s.login(username)
			if a := s.get(userPath, in.field("access_token")); a.field("email") != "Ann@Bücher.example" {
				t.Errorf("%q: %v", username, a)
			}
		}
		for _, username := range []string{"ann@bucher.example", "ann+x@bücher.example", "a.nn@bücher.example", "ann@bücher.example."} {
			s.post("login", "", "username", username, "password", good).problem(t, 401)
		}
	})
}

func TestLoginTakesOAuth2PasswordForms(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		for _, more := range [][]string{
			nil, {"grant_type", ""}, {"grant_type", "password"},
			{"grant_type", "password", "scope", "", "client_id", "", "client_secret", ""},
			{"grant_type", "password", "scope", "openid email", "client_id", "web", "client_secret", "x"},
		} {
			a := s.post("login", "", append([]string{"username", "ann@example.org", "password", good}, more...)...)
			if a.Status != 200 {
				t.Fatalf("with %q: %v", more, a)
			}
			var fields map[string]any
			if err := json.Unmarshal(a.Body, &fields); err != nil {
				t.Fatal(err)
			}
			if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, []string{"access_token", "expiration", "expires_in", "refresh_token", "token_type"}) {
				t.Errorf("the members are %q", got)
			}
			same[any](t, "token_type", fields["token_type"], "bearer")
			same[any](t, "expires_in", fields["expires_in"], 3600.0)
			same(t, "Cache-Control", a.Header.Get("Cache-Control"), "no-store")
			same(t, "Content-Type", a.Header.Get("Content-Type"), "application/json")
		}
		for _, grant := range []string{"Password", "Refresh_token", "authorization_code", "client_credentials", " password"} {
			s.post("login", "", "username", "ann@example.org", "password", good, "grant_type", grant).oauthProblem(t, 422, "unsupported_grant_type", "grant_type")
		}
		for _, name := range []string{"scope", "client_id", "client_secret"} {
			s.post("login", "", "username", "ann@example.org", "password", good, name, "password", name, "password").problem(t, 422, name)
		}
		s.post("login", "", "username", "ann@example.org", "password", good, "grant_type", "password", "grant_type", "password").oauthProblem(t, 422, "invalid_request", "grant_type")
		s.post("login", "", "grant_type", "x", "scope", "a", "scope", "b").oauthProblem(t, 422, "unsupported_grant_type", "username", "password", "grant_type", "scope")
		s.post("login", "", "grant_type", "", "username", "x").problem(t, 422, "password")

		// OAuth 2 libraries first try to name their client in a header.
		r := s.request("POST", "/api/v1/auth/login", strings.NewReader(encodeURL("grant_type", "password", "username", "ann@example.org", "password", good)))
		r.Header = http.Header{"Content-Type": {urlencoded}, "Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("web:secret"))}}
		in := s.do(r)
		if in.Status != 200 {
			t.Fatal(in)
		}
		// And they renew so.
		if a := s.post("access_token", "", "grant_type", "refresh_token", "refresh_token", in.field("refresh_token"), "client_id", "web"); a.Status != 200 {
			t.Error(a)
		}
	})
}

// OAuth 2's clients renew at the URL where they logged in, and look for OAuth
// 2's members in refusals.
func TestLoginTakesOAuth2RefreshForms(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		in := s.login("ann@example.org")
		refresh := func(fields ...string) answer {
			t.Helper()
			return s.post("login", "", append([]string{"grant_type", "refresh_token"}, fields...)...)
		}
		again := refresh("refresh_token", in.field("refresh_token"), "client_id", "web", "scope", "x")
		if again.Status != 200 || again.field("refresh_token") == in.field("refresh_token") || !s.alive(again) {
			t.Fatal(again)
		}
		// A lost answer, and then a replay: as at access_token.
		if a := refresh("refresh_token", in.field("refresh_token")); a.Status != 200 {
			t.Error(a)
		}
		s.clock.advance(3 * s.rules.Settings.ReuseWindow)
		refresh("refresh_token", in.field("refresh_token")).oauthProblem(t, 401, "invalid_grant")
		same(t, "that the session is alive", s.alive(again), false)

		refresh().oauthProblem(t, 422, "invalid_request", "refresh_token")
		refresh("refresh_token", "x", "refresh_token", "x").oauthProblem(t, 422, "invalid_request", "refresh_token")
		refresh("username", "ann@example.org", "password", good).oauthProblem(t, 422, "invalid_request", "refresh_token")
		s.post("access_token", "", "grant_type", "refresh_token", "refresh_token", "x").oauthProblem(t, 401, "invalid_grant")
		login := func(fields ...string) answer {
			t.Helper()
			return s.post("login", "", append([]string{"grant_type", "password", "username", "ann@example.org"}, fields...)...)
		}
		login().oauthProblem(t, 422, "invalid_request", "password")
		for range s.rules.Settings.Limits.Free {
			login("password", "wrong").oauthProblem(t, 401, "invalid_grant")
		}
		login("password", "wrong").oauthProblem(t, 429, "temporarily_unavailable")
		login("password", "wrong").oauthProblem(t, 429, "temporarily_unavailable")
	})
}

// forgedRefresh are texts that come close to a refresh token.
func forgedRefresh(refresh string) map[string]string {
	forged := map[string]string{
		"garbage": "garbage", "10 KiB": strings.Repeat("x", 10<<10), "longer": refresh + "A", "shorter": refresh[1:], "a space": refresh + " ",
		"a line break": refresh[:59] + "\n", "padding": refresh + "==", "zeros": strings.Repeat("A", 60), "the other case": strings.ToLower(refresh),
	}
	raw, err := base64.RawURLEncoding.DecodeString(refresh)
	if err != nil {
		panic(err)
	}
	for what, at := range map[string]int{"version": 0, "key": 2, "session": 10, "counter": 28, "MAC": 44} {
		changed := slices.Clone(raw)
		changed[at] ^= 1
		forged["another "+what] = base64.RawURLEncoding.EncodeToString(changed)
	}
	return forged
}

func TestLogout(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		in, second, bob := s.login("ann@example.org"), s.login("ann@example.org"), s.login("bob@example.org")
		access := in.field("access_token")
		logout := func(bearer, contentType, body string) answer {
			return s.send("POST", "/api/v1/auth/logout", bearer, contentType, body)
		}

		// Who asks is looked at first.
		for what, body := range map[string][2]string{
			"no form": {"", ""}, "JSON": {"application/json", "{}"}, "a missing field": {urlencoded, ""}, "a broken form": {urlencoded, "%"},
			"a long form": {urlencoded, strings.Repeat("x", maxBody+1)}, "an unknown token": {urlencoded, "refresh_token=x"},
			"a good token": {urlencoded, encodeURL("refresh_token", in.field("refresh_token"))},
		} {
			logout("", body[0], body[1]).notLoggedIn(t, what)
			logout("forged", body[0], body[1]).notLoggedIn(t, what)
		}
		logout(access, "application/json", "{}").problem(t, 415)
		logout(access, urlencoded, "").problem(t, 422, "refresh_token")

		first := s.post("logout", access, "refresh_token", "unknown")
		unknown := forgedRefresh(in.field("refresh_token"))
		unknown["another user's"] = bob.field("refresh_token")
		unknown["an access token"] = access
		for what, refresh := range unknown {
			a := s.post("logout", access, "refresh_token", refresh)
			a.problem(t, 404)
			same(t, what+": the body", string(a.Body), string(first.Body))
		}

		// A token that was replaced, twice, ends its session all the same, and
		// another session's access token will do to ask.
		latest := in
		for range 2 {
			latest = s.post("access_token", "", "refresh_token", latest.field("refresh_token"))
		}
		s.post("logout", second.field("access_token"), "refresh_token", in.field("refresh_token")).done(t, "a logout")
		for what, dead := range map[string]answer{"first": in, "latest": latest} {
			s.get(userPath, dead.field("access_token")).notLoggedIn(t, what)
			s.post("logout", dead.field("access_token"), "refresh_token", second.field("refresh_token")).notLoggedIn(t, what)
			s.post("access_token", "", "refresh_token", dead.field("refresh_token")).problem(t, 401)
			s.post("logout", second.field("access_token"), "refresh_token", dead.field("refresh_token")).problem(t, 404)
		}
		for what, live := range map[string]answer{"second": second, "bob": bob} {
			if a := s.get(userPath, live.field("access_token")); a.Status != 200 {
				t.Errorf("the session %s: %v", what, a)
			}
			if a := s.post("access_token", "", "refresh_token", live.field("refresh_token")); a.Status != 200 {
				t.Errorf("the session %s: %v", what, a)
			}
		}
	})
}

func TestRenewal(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		renew := func(refresh string) answer { return s.post("access_token", "", "refresh_token", refresh) }
		in := s.login("ann@example.org")
		chain := []answer{in}
		for i := range 4 {
			next := renew(chain[i].field("refresh_token"))
			if next.Status != 200 {
				t.Fatal(next)
			}
			same(t, "Cache-Control", next.Header.Get("Cache-Control"), "no-store")
			for _, earlier := range chain {
				for _, name := range []string{"access_token", "refresh_token"} {
					if earlier.field(name) == next.field(name) {
						t.Errorf("renewal %d yields an old %s", i, name)
					}
				}
			}
			chain = append(chain, next)
		}
		// Within the reuse window a replaced token yields the current one, and
		// none of the access tokens dies of it.
		current := chain[4].field("refresh_token")
		for i, earlier := range chain[:4] {
			if a := renew(earlier.field("refresh_token")); a.Status != 200 || a.field("refresh_token") != current {
				t.Errorf("token %d again: %v, want the current refresh token", i, a)
			}
		}
		for i, each := range chain {
			if a := s.get(userPath, each.field("access_token")); a.Status != 200 {
				t.Errorf("access token %d: %v", i, a)
			}
		}
		first := renew("unknown")
		forged := forgedRefresh(current)
		forged["an access token"] = in.field("access_token")
		for what, refresh := range forged {
			a := renew(refresh)
			a.problem(t, 401)
			same(t, what+": the body", string(a.Body), string(first.Body))
		}
		if a := renew(current); a.Status != 200 {
			t.Errorf("the true token after the forged ones: %v", a)
		}

		// What ends sessions.
		s.revoke("ann@example.org")
		renew(current).problem(t, 401)
		s.get(userPath, in.field("access_token")).notLoggedIn(t, "revoked")
		s.reinstate("ann@example.org")
		renew(current).problem(t, 401)
		again := s.login("ann@example.org")
		s.setPassword("ann@example.org", "quite another one")
		renew(again.field("refresh_token")).problem(t, 401)
		s.get(userPath, again.field("access_token")).notLoggedIn(t, "a new password")
	})
}

func TestTokensOfAnotherServer(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		in := s.login("ann@example.org")
		other := start(t, storetest.SQLite(t))
		other.user("ann@example.org", good)
		theirs := other.login("ann@example.org")
		var asking sync.WaitGroup // at once, as each waits a second for another look at the keys
		asking.Go(func() { s.get(userPath, theirs.field("access_token")).notLoggedIn(t, "another server's") })
		asking.Go(func() { s.post("access_token", "", "refresh_token", theirs.field("refresh_token")).problem(t, 401) })
		asking.Go(func() {
			s.post("logout", in.field("access_token"), "refresh_token", theirs.field("refresh_token")).problem(t, 404)
		})
		asking.Wait()
	})
}

func TestUser(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		id := s.create(auth.NewUser{Email: "Ann@Example.org", FirstName: "Ann <b>\"&", LastName: "Ó Brádaigh\u2028", Password: good})
		s.clock.advance(30 * time.Minute)
		a := s.get(userPath, s.login("ann@example.org").field("access_token"))
		for name, want := range map[string]string{
			"id": id, "email": "Ann@Example.org", "first_name": "Ann <b>\"&", "last_name": "Ó Brádaigh",
			"created_at": "2026-03-01T12:00:00Z", "last_login": "2026-03-01T12:30:00Z",
		} {
			same(t, name, a.field(name), want)
		}
	})
}

// A client that sends its form late doesn't decide how old its request is: a
// replaced token that comes back so is a replay like any other.
func TestALateBodyIsAReplay(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		for _, endpoint := range []string{"access_token", "login"} {
			in := s.login("ann@example.org")
			stolen := in.field("refresh_token")
			next := s.post("access_token", "", "refresh_token", stolen)
			next = s.post("access_token", "", "refresh_token", next.field("refresh_token"))
			body := slow{strings.NewReader(encodeURL("refresh_token", stolen, "grant_type", "refresh_token")), func() { s.clock.advance(3 * s.rules.Settings.ReuseWindow) }}
			r := s.request("POST", "/api/v1/auth/"+endpoint, body)
			r.Header.Set("Content-Type", urlencoded)
			same(t, "the status", s.do(r).Status, 401)
			same(t, "that the session is alive", s.alive(next), false)
		}
	})
}

// slow is a body before whose first bytes time passes.
type slow struct {
	io.Reader
	wait func()
}

func (s slow) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if n > 0 {
		s.wait()
	}
	return n, err
}

// Who comes back after the access token's end logs out all the same, and for
// nothing else is such a token good.
func TestLogoutWithAnExpiredAccessToken(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		in, second, bob := s.login("ann@example.org"), s.login("ann@example.org"), s.login("bob@example.org")
		dead := s.login("ann@example.org")
		s.post("logout", dead.field("access_token"), "refresh_token", dead.field("refresh_token")).done(t, "in time")
		s.clock.advance(s.rules.Settings.AccessTTL + time.Minute)
		access := in.field("access_token")
		newer := s.post("access_token", "", "refresh_token", in.field("refresh_token"))
		for what, refresh := range map[string]string{
			"another session's": second.field("refresh_token"), "another user's": bob.field("refresh_token"), "an ended session's": dead.field("refresh_token"),
			"none": "", "the access token": access, "a forged one": in.field("refresh_token") + "A",
		} {
			s.post("logout", access, "refresh_token", refresh).notLoggedIn(t, what)
			s.postMultipart("logout", access, "refresh_token", refresh).notLoggedIn(t, what)
		}
		refresh := encodeURL("refresh_token", in.field("refresh_token"))
		s.send("POST", "/api/v1/auth/logout", access, "application/json", "{}").notLoggedIn(t, "JSON")
		s.send("POST", "/api/v1/auth/logout", access, urlencoded, refresh+"&"+refresh).notLoggedIn(t, "it twice")
		s.send("POST", "/api/v1/auth/logout", access, urlencoded, refresh+strings.Repeat("x", maxBody)).notLoggedIn(t, "a large form")
		s.send("POST", "/api/v1/auth/logout", access[:len(access)-4]+"AAAA", urlencoded, refresh).notLoggedIn(t, "a forged access token")
		s.post("logout", dead.field("access_token"), "refresh_token", dead.field("refresh_token")).notLoggedIn(t, "a session that has ended")
		s.get(userPath, access).notLoggedIn(t, "the user")
		s.get(sessionsPath, access).notLoggedIn(t, "the sessions")
		s.send("DELETE", sessionsPath, access, "", "").notLoggedIn(t, "the other sessions")
		s.post("password", access, "password", good, "new_password", better).notLoggedIn(t, "a new password")

		same(t, "that the session is alive", s.alive(newer), true)
		s.post("logout", access, "refresh_token", in.field("refresh_token")).done(t, "with a replaced refresh token")
		same(t, "that the session is alive", s.alive(newer), false)
		s.post("logout", access, "refresh_token", in.field("refresh_token")).notLoggedIn(t, "again")
		s.post("logout", second.field("access_token"), "refresh_token", second.field("refresh_token")).done(t, "the other session")

		s.revoke("bob@example.org")
		s.post("logout", bob.field("access_token"), "refresh_token", bob.field("refresh_token")).notLoggedIn(t, "a revoked user")
	})
}
