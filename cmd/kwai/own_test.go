package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"kwai/internal/mail/mailtest"
)

const (
	sessionsPath = "/api/v1/auth/sessions"
	better       = "a tatami by the sea" // another good password
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
	if a.Status != http.StatusOK || a.Header.Get("Cache-Control") != "no-store" || json.Unmarshal(a.Body, &all) != nil {
		s.tb.Fatal(a)
	}
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

func done(t *testing.T, what string, a answer) {
	t.Helper()
	if a.Status != http.StatusOK || string(a.Body) != "{}\n" {
		t.Fatal(what, a)
	}
}

func TestAUserChangesThePassword(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		old := good
		for i, kind := range []string{urlencoded, multipartForm} {
			recovery := s.recovery(m, "ann@example.org")
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
			done(t, kind, change(access, "password", old, "new_password", chosen))
			if !s.alive(in) || s.alive(other) || !s.alive(bob) {
				t.Errorf("alive are: the session itself %t, another one %t, another user's %t", s.alive(in), s.alive(other), s.alive(bob))
			}
			s.post("reset", "", "uuid", recovery, "password", good).problem(t, 404)
			s.post("login", "", "username", "ann@example.org", "password", old).problem(t, 401)
			mails := wait(t, m, 2*i+2)
			notice := strings.Join(strings.Fields(mails[2*i+1].Text), " ")
			for _, want := range []string{
				"in a session, by someone who knew the old password. The request came from the address 127.0.0.1.",
				"All sessions were ended but the one in which it was changed", publicURL + "/recover",
			} {
				if !strings.Contains(notice, want) {
					t.Errorf("the notice lacks %q: %s", want, notice)
				}
			}
			old = chosen
		}
		s.post("logout", s.post("login", "", "username", "ann@example.org", "password", old).field("access_token"), "refresh_token", "x").problem(t, 404)
	}, "--limit-mail-pause=0s")
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
			if a.Header.Get("Retry-After") != "3600" {
				t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
			}
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
	}, "--limit-free=3", "--limit-first-wait=1h")
}

func TestAUserSeesTheOwnSessions(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		s.user("bob@example.org", good)
		login := func(from, email string) answer {
			return s.forClient(from, "POST", "/api/v1/auth/login", "", "username", email, "password", good)
		}
		first, second := login("192.0.2.1", "ann@example.org"), login("2001:db8::1", "ann@example.org")
		bob := login("192.0.2.1", "bob@example.org")
		second = s.post("access_token", "", "refresh_token", second.field("refresh_token"))
		for _, tokens := range []answer{first, second} {
			all := s.sessions(tokens.field("access_token"))
			if len(all) != 2 {
				t.Fatalf("%d sessions, want 2: %+v", len(all), all)
			}
			for i, address := range []string{"2001:db8::1", "192.0.2.1"} { // the newest first
				l := all[i]
				if l.Address == nil || *l.Address != address || l.Agent == nil || *l.Agent != "kwai-test of "+address {
					t.Errorf("session %d is %+v, want from %s", i, l, address)
				}
				if l.Current != (i == 0 == (tokens.field("access_token") == second.field("access_token"))) {
					t.Errorf("session %d is the current one: %t", i, l.Current)
				}
				if l.LastUsed.Before(l.Created) || time.Since(l.Created) > time.Hour {
					t.Errorf("session %d is of %s and was used at %s", i, l.Created, l.LastUsed)
				}
			}
		}
		if all := s.sessions(bob.field("access_token")); len(all) != 1 || !all[0].Current {
			t.Errorf("another user's are %+v", all)
		}
		s.get(sessionsPath, "").notLoggedIn(t, "the list")
		s.get(sessionsPath, bob.field("refresh_token")).notLoggedIn(t, "the list")
	}, "--trusted-proxies=127.0.0.1")
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
			if a.problem(t, 404); string(a.Body) != string(first.Body) {
				t.Errorf("%s: %v", id, a)
			}
		}
		for _, id := range append(others, own, "", "/x") {
			end("", id).notLoggedIn(t, id)
			end(ann[0].field("refresh_token"), id).notLoggedIn(t, id)
		}
		// The newest first; the query and a body are not looked at.
		done(t, "one", s.send("DELETE", sessionsPath+others[0]+"?id=x", access, "application/json", "{"))
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
		done(t, "the others", end(access, ""))
		done(t, "the others again", end(access, ""))
		for i, tokens := range ann {
			if s.alive(tokens) != (i == 0) {
				t.Errorf("session %d is alive: %t", i, i != 0)
			}
		}
		done(t, "the current one", end(access, own))
		if s.alive(ann[0]) || !s.alive(bob) {
			t.Error("the current session goes on, or another user's doesn't")
		}
	})
}

// What a page of another origin may do with one's own token.
func TestSessionsAcrossOrigins(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		in := s.login("ann@example.org")
		bearer := []string{"Authorization", "Bearer " + in.field("access_token")}
		for _, r := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"DELETE", "/" + s.sessions(in.field("access_token"))[0].ID}} {
			a := s.from(club, "OPTIONS", sessionsPath+r[1], "", "", "Access-Control-Request-Method", r[0], "Access-Control-Request-Headers", "authorization")
			methods := strings.Split(a.Header.Get("Access-Control-Allow-Methods"), ", ")
			if a.Status != 204 || !a.allowed(club) || !slices.Contains(methods, r[0]) || !strings.Contains(a.Header.Get("Access-Control-Allow-Headers"), "Authorization") {
				t.Errorf("preflight of %s %s: %v %v", r[0], r[1], a, a.Header)
			}
			if a := s.from(club, r[0], sessionsPath+r[1], "", "", bearer...); a.Status != 200 || !a.allowed(club) {
				t.Errorf("%s %s: %v %v", r[0], r[1], a, a.Header)
			}
		}
	}, "--cors-origins="+club)
}

func TestALoginFromANewNetworkIsToldByMail(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.user("ann@example.org", good)
		login := func(from string) {
			t.Helper()
			if a := s.forClient(from, "POST", "/api/v1/auth/login", "", "username", "ann@example.org", "password", good); a.Status != http.StatusOK {
				t.Fatal(a)
			}
		}
		login("192.0.2.1")   // the first one: whoever has the account is there
		login("192.0.2.200") // the same network
		login("2001:db8:0:1::1")
		login("2001:db8:0:fe::1") // the same /56
		login("192.0.2.1")
		notice := wait(t, m, 1)[0]
		text := strings.Join(strings.Fields(notice.Text), " ")
		if notice.To != "ann@example.org" || notice.Subject != "Someone logged in to auth.example.org from a new network" || notice.RecoveryID() != "" ||
			!strings.Contains(text, "The request came from the address 2001:db8:0:1::1. ") || !strings.Contains(text, publicURL+"/recover ") || strings.Contains(notice.Text+notice.HTML, "kwai-test") {
			t.Errorf("the notice is %+v", notice)
		}
		for i := range 10 {
			login(fmt.Sprintf("198.51.%d.1", i))
		}
		s.endsWithNothingLeft()
		if n := len(m.Mails()); n != 5 {
			t.Errorf("%d mails came within a day, want 5", n)
		}
	}, "--trusted-proxies=127.0.0.1")
}

func TestNoticesOfLoginsCanBeSwitchedOff(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.user("ann@example.org", good)
		for _, from := range []string{"192.0.2.1", "198.51.100.1", "203.0.113.1"} {
			if a := s.forClient(from, "POST", "/api/v1/auth/login", "", "username", "ann@example.org", "password", good); a.Status != http.StatusOK {
				t.Fatal(a)
			}
		}
		s.endsWithNothingLeft()
		if mails := m.Mails(); len(mails) != 0 {
			t.Errorf("mails came: %+v", mails)
		}
	}, "--trusted-proxies=127.0.0.1", "--login-notices=off")
}
