package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// listed is a session as its user sees it.
type listed struct {
	ID       string
	Created  time.Time `json:"created_at"`
	LastUsed time.Time `json:"last_used"`
	Current  bool
	Address  *string
	Agent    *string `json:"user_agent"`
}

func (s *site) sessions(access string) (all []listed) {
	s.tb.Helper()
	a := s.get(sessionsPath, access)
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &all) != nil {
		s.tb.Fatal(a)
	}
	same(s.tb, "Cache-Control of the list", a.Header.Get("Cache-Control"), "no-store")
	return all
}

// alive says whether a session's tokens work.
func (s *site) alive(tokens answer) bool {
	s.tb.Helper()
	access := s.get(userPath, tokens.field("access_token")).Status == http.StatusOK
	if refresh := s.post("access_token", "", "refresh_token", tokens.field("refresh_token")).Status == http.StatusOK; access != refresh {
		s.tb.Fatalf("the access token works: %t, the refresh token: %t", access, refresh)
	}
	return access
}

func TestAUserChangesThePassword(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		old := good
		for i, kind := range []string{urlencoded, multipartForm} {
			recovery := s.recovery("ann@example.org")
			in := s.post("login", "", "username", "ann@example.org", "password", old)
			other, bob := s.post("login", "", "username", "ann@example.org", "password", old), s.login("bob@example.org")
			access, chosen := in.field("access_token"), fmt.Sprint(better, i)
			change := func(bearer string, fields ...string) answer {
				return s.send("POST", "/api/v1/auth/password", bearer, kind, encoders[kind](fields...))
			}
			// Who asks is looked at first.
			for _, bearer := range []string{"", "forged", in.field("refresh_token")} {
				change(bearer).notLoggedIn(t, bearer)
				change(bearer, "password", old, "new_password", chosen).notLoggedIn(t, bearer)
			}
			change(access).problem(t, 422, "password", "new_password")
			change(access, "password", old).problem(t, 422, "new_password")
			change(access, "password", old, "new_password", "short").problem(t, 422, "new_password")
			change(access, "password", "wrong", "new_password", "short").problem(t, 422, "new_password")
			change(access, "password", "wrong", "new_password", chosen).problem(t, 422, "password")
			change(bob.field("access_token"), "password", old+"x", "new_password", chosen).problem(t, 422, "password")
			if !s.alive(other) {
				t.Fatal("a refused change ended a session")
			}
			change(access, "password", old, "new_password", chosen).done(t, kind)
			same(t, "that the session itself is alive", s.alive(in), true)
			same(t, "that another session is alive", s.alive(other), false)
			same(t, "that another user's session is alive", s.alive(bob), true)
			s.post("reset", "", "uuid", recovery, "password", good).problem(t, 404)
			s.post("login", "", "username", "ann@example.org", "password", old).problem(t, 401)
			notice := strings.Join(strings.Fields(s.sent(2*i + 2)[2*i+1].Text), " ")
			for _, want := range []string{
				"after the old one was typed. The request came from the address 127.0.0.1.",
				"All sessions were ended but the one in which it was changed", publicURL + "/recover",
			} {
				contains(t, "the notice", notice, want)
			}
			old = chosen
		}
		s.post("logout", s.post("login", "", "username", "ann@example.org", "password", old).field("access_token"), "refresh_token", "x").problem(t, 404)
	}, noMailPause)
}

// A thief with an access token guesses no faster than one without, at a login or
// both.
func TestAPasswordChangeIsThrottledLikeALogin(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		access := s.login("ann@example.org").field("access_token")
		refused := func(a answer) {
			t.Helper()
			a.problem(t, 429)
			same(t, "Retry-After", a.Header.Get("Retry-After"), "3600")
		}
		s.post("password", access, "password", "wrong", "new_password", better).problem(t, 422, "password")
		s.post("login", "", "username", "ann@example.org", "password", "wrong").problem(t, 401)
		s.post("password", access, "password", "wrong", "new_password", better).problem(t, 422, "password")
		refused(s.post("password", access, "password", "wrong", "new_password", better))
		refused(s.post("password", access, "password", good, "new_password", better))
		refused(s.post("login", "", "username", "ann@example.org", "password", good))
		// What is wrong otherwise costs no try, and is told.
		s.post("password", access, "password", good, "new_password", "short").problem(t, 422, "new_password")
		if n := len(s.sessions(access)); n != 1 {
			t.Errorf("%d sessions are listed while throttled, want 1", n)
		}
	}, func(o *setup) { o.rules.Limits.Free, o.rules.Limits.FirstWait = 3, time.Hour })
}

func TestAUserSeesTheOwnSessions(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		begun := s.clock.now().Truncate(time.Second)
		s.clock.advance(time.Minute)
		first := s.loginFrom("192.0.2.1", "ann@example.org")
		s.clock.advance(time.Minute)
		second := s.loginFrom("2001:db8::1", "ann@example.org")
		bob := s.loginFrom("192.0.2.1", "bob@example.org")
		s.clock.advance(time.Minute)
		second = s.post("access_token", "", "refresh_token", second.field("refresh_token"))
		for _, tokens := range []answer{first, second} {
			all := s.sessions(tokens.field("access_token"))
			if len(all) != 2 {
				t.Fatalf("%d sessions, want 2: %+v", len(all), all)
			}
			for i, want := range []struct { // the newest first
				address           string
				created, lastUsed time.Duration
			}{{"2001:db8::1", 2 * time.Minute, 3 * time.Minute}, {"192.0.2.1", time.Minute, time.Minute}} {
				l := all[i]
				if l.Address == nil || l.Agent == nil {
					t.Fatalf("session %d is %+v, want from %s", i, l, want.address)
				}
				same(t, "the address", *l.Address, want.address)
				same(t, "the user agent", *l.Agent, "kwai-test of "+want.address)
				same(t, fmt.Sprintf("that session %d is the current one", i), l.Current, i == 0 == (tokens.field("access_token") == second.field("access_token")))
				same(t, fmt.Sprintf("when session %d began", i), l.Created.Sub(begun), want.created)
				same(t, fmt.Sprintf("when session %d was used", i), l.LastUsed.Sub(begun), want.lastUsed)
			}
		}
		if all := s.sessions(bob.field("access_token")); len(all) != 1 || !all[0].Current {
			t.Errorf("another user's are %+v", all)
		}
		s.get(sessionsPath, "").notLoggedIn(t, "the list")
		s.get(sessionsPath, bob.field("refresh_token")).notLoggedIn(t, "the list")
	}, behindProxy)
}

func TestAUserEndsTheOwnSessions(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		end := func(bearer, id string) answer { return s.send("DELETE", sessionsPath+id, bearer, "", "") }
		var ann []answer
		for range 5 {
			ann = append(ann, s.login("ann@example.org"))
		}
		access := ann[0].field("access_token")
		bob := s.login("bob@example.org")
		ids := map[bool][]string{} // by whether they are the current one
		for _, l := range s.sessions(access) {
			ids[l.Current] = append(ids[l.Current], "/"+l.ID)
		}
		others, own := ids[false], ids[true][0]

		first := end(access, "/"+uuid.NewString())
		for _, id := range []string{
			"/" + s.sessions(bob.field("access_token"))[0].ID, "/x", "/" + strings.ToUpper(others[0][1:]), "/%7B" + others[0][1:] + "%7D", "/urn:uuid:" + others[0][1:],
			others[0] + "%00", others[0] + "%20", others[0] + "%2F", "/" + strings.ReplaceAll(others[0][1:], "-", ""), "/%ff", "/..%2fuser", "/" + strings.Repeat("0", 7000),
		} {
			a := end(access, id)
			a.problem(t, 404)
			same(t, "the answer to "+id, string(a.Body), string(first.Body))
		}
		for _, id := range append(others, own, "", "/x") {
			end("", id).notLoggedIn(t, id)
			end(ann[0].field("refresh_token"), id).notLoggedIn(t, id)
		}
		// The newest first; the query and a body are not looked at.
		s.send("DELETE", sessionsPath+others[0]+"?id=x", access, "application/json", "{").done(t, "one")
		end(access, others[0]).problem(t, 404)
		want := []bool{true, true, true, true, false}
		for i, tokens := range ann {
			if s.alive(tokens) != want[i] {
				t.Errorf("session %d is alive: %t", i, !want[i])
			}
		}
		end(ann[4].field("access_token"), others[1]).notLoggedIn(t, "an ended session")
		end(ann[4].field("access_token"), "").notLoggedIn(t, "an ended session")
		if n := len(s.sessions(access)); n != 4 {
			t.Errorf("%d sessions are listed, want 4", n)
		}
		end(access, "").done(t, "the others")
		end(access, "").done(t, "the others again")
		for i, tokens := range ann {
			if s.alive(tokens) != (i == 0) {
				t.Errorf("session %d is alive: %t", i, i != 0)
			}
		}
		end(access, own).done(t, "the current one")
		same(t, "that the current session is alive", s.alive(ann[0]), false)
		same(t, "that another user's is alive", s.alive(bob), true)
	})
}

// What a page of another origin may do with one's own token.
func TestSessionsAcrossOrigins(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		in := s.login("ann@example.org")
		bearer := []string{"Authorization", "Bearer " + in.field("access_token")}
		for _, r := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"DELETE", "/" + s.sessions(in.field("access_token"))[0].ID}} {
			what := r[0] + " " + sessionsPath + r[1]
			a := s.from(club, "OPTIONS", sessionsPath+r[1], "", "", "Access-Control-Request-Method", r[0], "Access-Control-Request-Headers", "authorization")
			a.allows(t, "preflight of "+what, club)
			same(t, "preflight of "+what+": the status", a.Status, 204)
			if methods := strings.Split(a.Header.Get("Access-Control-Allow-Methods"), ", "); !slices.Contains(methods, r[0]) {
				t.Errorf("preflight of %s: the methods are %q", what, methods)
			}
			contains(t, "preflight of "+what+": the headers", a.Header.Get("Access-Control-Allow-Headers"), "authorization")
			a = s.from(club, r[0], sessionsPath+r[1], "", "", bearer...)
			a.allows(t, what, club)
			same(t, what+": the status", a.Status, 200)
		}
	}, corsOf(club))
}

func TestALoginFromANewNetworkIsToldByMail(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		login := func(from string) {
			t.Helper()
			s.loginFrom(from, "ann@example.org")
		}
		login("192.0.2.1")   // the first one: whoever has the account is there
		login("192.0.2.200") // the same network
		s.sent(0)
		login("2001:db8:0:1::1")
		login("2001:db8:0:fe::1") // the same /56
		login("192.0.2.1")
		notice := s.sent(1)[0]
		text := strings.Join(strings.Fields(notice.Text), " ")
		same(t, "to whom the notice goes", notice.To, "ann@example.org")
		same(t, "its subject", notice.Subject, "Someone logged in to auth.example.org from a new network")
		same(t, "the recovery's id in it", notice.RecoveryID(), "")
		contains(t, "it", text, "The request came from the address 2001:db8:0:1::1. ")
		contains(t, "it", text, publicURL+"/recover ")
		if strings.Contains(notice.Text+notice.HTML, "kwai-test") {
			t.Errorf("it tells what the client calls itself: %+v", notice)
		}
		for i := range 10 {
			login(fmt.Sprintf("198.51.%d.1", i))
		}
		s.sent(5) // within a day
	}, behindProxy)
}

func TestNoticesOfLoginsCanBeSwitchedOff(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		for _, from := range []string{"192.0.2.1", "198.51.100.1", "203.0.113.1"} {
			s.loginFrom(from, "ann@example.org")
		}
		s.sent(0)
	}, behindProxy, func(o *setup) { o.rules.LoginNotices = false })
}
