package auth_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// browse logs in on the page.
func (s *server) browse(t *testing.T, email string, stay bool) auth.Cookie {
	t.Helper()
	return must(s.LoginBrowser(t.Context(), auth.Client{}, email, oldPassword, stay, ""))(t)
}

func (s *server) visit(t *testing.T, c auth.Cookie) auth.Visitor {
	t.Helper()
	return must(s.Visitor(t.Context(), c.Value))(t)
}

func (s *server) wantDead(t *testing.T, what string, c auth.Cookie) {
	t.Helper()
	_, err := s.Visitor(t.Context(), c.Value)
	wantErr(t, what, err, auth.ErrNotLoggedIn)
}

func (s *server) prove(t *testing.T, v auth.Visitor) auth.Cookie {
	t.Helper()
	return must(s.Prove(t.Context(), auth.Client{}, v, oldPassword, ""))(t)
}

func TestABrowserSession(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, "ann@example.org")
		cookie := s.browse(t, user.Email, true)
		v := s.visit(t, cookie)
		same(t, "whose it is", v.ID, user.ID)
		same(t, "fresh at once", v.Fresh, true)
		same(t, "when the cookie ends", cookie.Expires, c.now().Add(s.Settings.SessionLife))
		c.advance(10 * time.Minute)
		same(t, "fresh after ten minutes", s.visit(t, cookie).Fresh, false)
		same(t, "sessions listed", len(must(s.Sessions(t.Context(), v.Caller))(t)), 1)
		ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v))
		s.wantDead(t, "after the logout", cookie)
		ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v)) // by another tab
	})
}

// A session that isn't to stay has an end of its own, and its cookie none.
func TestABrowserSessionThatIsNotToStay(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, "ann@example.org")
		cookie := s.browse(t, "ann@example.org", false)
		same(t, "the cookie's end", cookie.Expires, time.Time{})
		c.advance(12*time.Hour - time.Second)
		v := s.visit(t, cookie)
		c.advance(time.Second)
		s.wantDead(t, "after twelve hours", cookie)
		same(t, "live sessions", len(must(s.Sessions(t.Context(), v.Caller))(t)), 0)
		_, err := s.Prove(t.Context(), auth.Client{}, v, oldPassword, "")
		wantErr(t, "a proof in it", err, auth.ErrNotLoggedIn)
	})
}

// A proof raises the number. The cookie before it stays good, and isn't fresh, until
// the new one has come back: the answer with it may have been lost.
func TestAProofReplacesTheCookie(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, "ann@example.org")
		first := s.browse(t, "ann@example.org", true)
		v := s.visit(t, first)
		c.advance(time.Hour)
		lost := s.prove(t, v)
		same(t, "the old cookie's freshness, with the new one lost", s.visit(t, first).Fresh, false)
		for range 3 { // once more, as the answer was lost, and got lost again
			c.advance(time.Minute)
			same(t, "the cookie of the proof, once more", s.prove(t, s.visit(t, first)), lost)
		}
		same(t, "the old cookie's freshness, however often answers got lost", s.visit(t, first).Fresh, false)
		same(t, "the newest one's freshness", s.visit(t, lost).Fresh, true)
		s.wantDead(t, "the one before, once the newest has come back", first)
		second := s.prove(t, s.visit(t, lost))
		same(t, "the freshness of the one before", s.visit(t, lost).Fresh, false)
		same(t, "the newest one's freshness", s.visit(t, second).Fresh, true)
		s.wantDead(t, "the one before, once the newest has come back", lost)
		same(t, "the newest one, still", s.visit(t, second).Fresh, true)
		c.advance(10 * time.Minute)
		same(t, "the newest one, later", s.visit(t, second).Fresh, false)
	})
}

// A thief's copy dies with the owner's next proof and click, and ends nothing.
func TestAStolenCookieDies(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, "ann@example.org")
		stolen := s.browse(t, "ann@example.org", true)
		owners := s.prove(t, s.visit(t, stolen))
		s.visit(t, owners)
		for range 3 {
			s.wantDead(t, "the stolen cookie", stolen)
		}
		same(t, "the owner's, after the thief's tries", s.visit(t, owners).Fresh, true)
	})
}

// A database that lost history knows a lower number: the cookie is good, not fresh.
func TestACookieAboveTheRowIsGood(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, "ann@example.org")
		cookie := s.prove(t, s.visit(t, s.browse(t, "ann@example.org", true)))
		s.exec(t, `UPDATE sessions SET counter = 0, mark = 0`)
		v := s.visit(t, cookie)
		same(t, "its freshness", v.Fresh, false)
		same(t, "after a proof", s.visit(t, s.prove(t, v)).Fresh, true)
		s.wantDead(t, "the one from before", cookie)
	})
}

// What ends sessions ends those of browsers.
func TestWhatEndsABrowserSession(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		for name, end := range map[string]func(email string, v auth.Visitor) error{
			"a new password": func(email string, _ auth.Visitor) error { return s.SetPassword(t.Context(), email, newPassword) },
			"a revocation":   func(email string, _ auth.Visitor) error { return s.Revoke(t.Context(), email) },
			"a command":      func(email string, _ auth.Visitor) error { return s.EndUserSessions(t.Context(), email) },
			"its id":         func(_ string, v auth.Visitor) error { return s.EndUserSession(t.Context(), v.SessionID) },
			"a reset": func(email string, _ auth.Visitor) error {
				user := must(s.User(t.Context(), email))(t)
				return s.Reset(t.Context(), auth.Client{}, s.recovery(t, user), newPassword)
			},
		} {
			user := s.user(t, strings.ReplaceAll(name, " ", ".")+"@example.org")
			cookie := s.browse(t, user.Email, true)
			ok(t, end(user.Email, s.visit(t, cookie)))
			s.wantDead(t, name, cookie)
		}
	})
}

// A changed password ends all sessions but the one in which it was changed.
func TestAVisitorsPasswordChange(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, "ann@example.org")
		here, there := s.browse(t, "ann@example.org", true), s.browse(t, "ann@example.org", true)
		api := s.login(t, "ann@example.org", oldPassword)
		ok(t, s.ChangePassword(t.Context(), auth.Client{}, s.visit(t, here).Caller, oldPassword, newPassword, ""))
		s.visit(t, here)
		s.wantDead(t, "the other browser", there)
		_, err := s.Check(t.Context(), api.Access)
		wantErr(t, "the API's session", err, auth.ErrNotLoggedIn)
	})
}

// A token of one kind is worth nothing at the doors of another.
func TestCookiesAndTokensAreDifferentThings(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, "ann@example.org")
		cookie, api := s.browse(t, "ann@example.org", true), s.login(t, "ann@example.org", oldPassword)
		for _, value := range []string{api.Refresh, api.Access, "", "x", cookie.Value + "A", cookie.Value[:58] + "." + cookie.Value[59:], cookie.Value[:59]} {
			s.wantDead(t, "as a cookie", auth.Cookie{Value: value})
		}
		_, err := s.Renew(t.Context(), auth.Client{}, cookie.Value, s.Store.Now())
		wantErr(t, "the cookie as a refresh token", err, auth.ErrRefresh)
		err = s.Logout(t.Context(), auth.Client{}, s.visit(t, cookie).Caller, cookie.Value)
		wantErr(t, "the cookie at the API's logout", err, auth.ErrNoSession)
		s.visit(t, cookie)
	})
}

// Most visits write nothing: the newest number is noted once, the use of the session
// from time to time. So it lives as long as it is used.
func TestAVisitWritesSeldom(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, "ann@example.org")
		cookie := s.browse(t, "ann@example.org", true)
		row := func() store.Session {
			return must(s.Store.Read(t.Context()).SessionByID(s.visit(t, cookie).SessionID))(t)
		}
		begun := row().RenewedAt
		c.advance(time.Hour)
		same(t, "within the hour", row().RenewedAt, begun)
		c.advance(time.Second)
		same(t, "after an hour", row().RenewedAt, c.now())
		for range 89 {
			c.advance(23 * time.Hour) // less than the idle time
			s.visit(t, cookie)
		}
		c.advance(s.Settings.RefreshIdle)
		s.wantDead(t, "after the idle time", cookie)
	})
}

// A form is good for the session and the user that it was made for.
func TestFormsAreBound(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, "ann@example.org")
		s.user(t, "bob@example.org")
		ann, again, bob := s.visit(t, s.browse(t, "ann@example.org", true)), s.visit(t, s.browse(t, "ann@example.org", true)), s.visit(t, s.browse(t, "bob@example.org", true))
		mac := must(s.FormMAC(t.Context(), ann))(t)
		for what, tt := range map[string]struct {
			v    auth.Visitor
			mac  string
			want bool
		}{
			"the same":        {ann, mac, true},
			"another session": {again, mac, false},
			"another user":    {bob, mac, false},
			"none":            {ann, "", false},
			"half of one":     {ann, mac[:len(mac)/3], false},
			"doubled":         {ann, mac + mac, true}, // of which the first part counts
		} {
			v, took, err := s.TakeForm(t.Context(), tt.v, tt.mac)
			ok(t, err)
			same(t, what, took, tt.want)
			same(t, what+": the visitor", v.ID, tt.v.ID)
		}
	})
}

// A form counts as fresh for 25 minutes if it was shown within ten minutes of the proof.
// One that was shown later doesn't, nor does one of a proof before.
func TestFormsAreFreshAsTheyWereShown(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, "ann@example.org")
		cookie := s.browse(t, "ann@example.org", true)
		seal := func() string { return must(s.FormMAC(t.Context(), s.visit(t, cookie)))(t) }
		fresh := func(what, seal string, want bool) {
			t.Helper()
			v, took, err := s.TakeForm(t.Context(), s.visit(t, cookie), seal)
			ok(t, err)
			same(t, what+": it was made for the visitor", took, true)
			same(t, what, v.FreshForm, want)
		}
		early := seal()
		fresh("at once", early, true)
		c.advance(10 * time.Minute)
		late := seal()
		same(t, "the visitor", s.visit(t, cookie).FreshForm, false)
		fresh("shown early", early, true)
		fresh("shown late", late, false)
		bound, _, _ := strings.Cut(early, " ")
		fresh("the half that says nothing of it", bound, false)
		fresh("a part of another kind in its place", bound+" "+bound, false)
		c.advance(15 * time.Minute)
		fresh("after 25 minutes", early, false)

		before := s.visit(t, cookie)
		cookie = s.prove(t, before)
		fresh("a fresh proof, so any form", late, true)
		c.advance(10 * time.Minute)
		fresh("a form of the proof before", early, false)
	})
}

// A proof that a clock which was ahead has noted isn't fresh until then.
func TestAProofInTheFutureIsNotFresh(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, "ann@example.org")
		c.advance(24 * time.Hour)
		cookie := s.browse(t, "ann@example.org", true)
		seal := must(s.FormMAC(t.Context(), s.visit(t, cookie)))(t)
		c.set(c.now().Add(-24 * time.Hour))
		v, _, err := s.TakeForm(t.Context(), s.visit(t, cookie), seal)
		ok(t, err)
		if v.Fresh || v.FreshForm {
			t.Errorf("a day ahead it is fresh: %v, a form: %v", v.Fresh, v.FreshForm)
		}
		c.advance(24*time.Hour - time.Minute) // so much may clocks differ
		same(t, "a minute ahead", s.visit(t, cookie).Fresh, true)
	})
}

// A proof from a new network is told as a login from there is: the network is known
// from then on.
func TestAProofFromANewNetworkIsMailed(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off = false
		s.user(t, ann)
		cookie := must(s.LoginBrowser(t.Context(), from("192.0.2.1"), ann, oldPassword, true, ""))(t)
		c.advance(time.Hour)
		cookie = must(s.Prove(t.Context(), from("192.0.2.1"), s.visit(t, cookie), oldPassword, ""))(t)
		if mails := s.deliver(t); len(mails) > 0 {
			t.Errorf("a proof from a known network is mailed: %+v", mails)
		}
		c.advance(time.Hour)
		must(s.Prove(t.Context(), from("198.51.100.1"), s.visit(t, cookie), oldPassword, ""))(t)
		if mails := s.deliver(t); len(mails) != 1 || !strings.Contains(mails[0].Subject, "from a new network") {
			t.Errorf("the mails are %+v", mails)
		}
	})
}

// One user's changes of a password don't fill the outbox, at neither door.
func TestPasswordChangesAreBounded(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off = false
		s.user(t, ann)
		v := s.visit(t, s.browse(t, ann, true))
		chosen := oldPassword
		choose := func(page bool, i int) error {
			next := "a long password numbered " + strconv.Itoa(i)
			var err error
			if page {
				_, err = s.ChoosePassword(t.Context(), from("192.0.2.1"), v, next)
				v = s.visit(t, must(s.LoginBrowser(t.Context(), from("192.0.2.1"), ann, map[bool]string{true: next, false: chosen}[err == nil], true, ""))(t))
			} else {
				err = s.ChangePassword(t.Context(), from("192.0.2.1"), v.Caller, chosen, next, "")
			}
			if err == nil {
				chosen = next
			}
			return err
		}
		for i := range 10 {
			v = s.visit(t, must(s.LoginBrowser(t.Context(), from("192.0.2.1"), ann, chosen, true, ""))(t))
			ok(t, choose(i%2 == 0, i))
		}
		v = s.visit(t, must(s.LoginBrowser(t.Context(), from("192.0.2.1"), ann, chosen, true, ""))(t))
		for _, page := range []bool{true, false} {
			if err := choose(page, 10); auth.CodeOf(err) != auth.Throttled {
				t.Errorf("one too many, on the page %v: error %v", page, err)
			}
		}
		ok(t, s.Reset(t.Context(), from("192.0.2.1"), s.recover(t, ann), newPassword)) // the owner's way out
		c.advance(time.Hour + time.Minute)
		v = s.visit(t, must(s.LoginBrowser(t.Context(), from("192.0.2.1"), ann, newPassword, true, ""))(t))
		ok(t, choose(true, 11))
	})
}
