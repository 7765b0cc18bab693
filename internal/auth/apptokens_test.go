package auth_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/token"
)

func offline(a *store.App) { a.Offline = true }

// A code is good once, for a minute, for its app, its address and its verifier.
func TestACodeIsGoodOnce(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		v := s.visit(t, s.browse(t, s.user(t, ann).Email, true))
		a, _ := s.app(t, "wiki", func(a *store.App) { a.RedirectURIs = append(a.RedirectURIs, "https://wiki.example.org/other") })
		other, _ := s.app(t, "mail", func(o *store.App) { o.RedirectURIs = a.RedirectURIs })
		code := s.code(t, v, a)
		for what, try := range map[string]struct {
			app                  store.App
			code, uri, verifying string
		}{
			"another app":         {other, code, a.RedirectURIs[0], verifier},
			"another address":     {a, code, a.RedirectURIs[1], verifier},
			"no address":          {a, code, "", verifier},
			"another verifier":    {a, code, a.RedirectURIs[0], verifier + "x"},
			"no verifier":         {a, code, a.RedirectURIs[0], ""},
			"the challenge as it": {a, code, a.RedirectURIs[0], challenge(verifier)},
			"a changed code":      {a, code[:len(code)-2] + "AA", a.RedirectURIs[0], verifier},
			"nonsense":            {a, "nonsense", a.RedirectURIs[0], verifier},
			"no code":             {a, "", a.RedirectURIs[0], verifier},
		} {
			_, err := s.Exchange(t.Context(), auth.Client{}, try.app, try.code, try.uri, try.verifying)
			wantErr(t, what, err, auth.ErrGrant)
		}
		c.advance(time.Minute - time.Microsecond)
		tokens := s.exchange(t, a, code)
		s.appAlive(t, a, tokens)
		late := s.code(t, v, a)
		c.advance(time.Minute)
		_, err := s.tryExchange(t, a, late)
		wantErr(t, "a code after a minute", err, auth.ErrGrant)
		s.appAlive(t, a, tokens)
	})
}

// A second use ends what came of the first, if the app itself comes with the verifier.
// Anybody else ends nothing.
func TestASecondUseOfACode(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		v := s.visit(t, s.browse(t, s.user(t, ann).Email, true))
		a, _ := s.app(t, "wiki")
		other, _ := s.app(t, "mail", func(o *store.App) { o.RedirectURIs = a.RedirectURIs })
		code := s.code(t, v, a)
		tokens, beside := s.exchange(t, a, code), s.exchange(t, a, s.code(t, v, a))
		for _, try := range []struct {
			app      store.App
			verifier string
		}{{other, verifier}, {a, ""}, {a, strings.Repeat("x", 43)}} {
			_, err := s.Exchange(t.Context(), auth.Client{}, try.app, code, a.RedirectURIs[0], try.verifier)
			wantErr(t, "a second use by somebody else", err, auth.ErrGrant)
		}
		s.appAlive(t, a, tokens)
		_, err := s.tryExchange(t, a, code)
		wantErr(t, "a second use", err, auth.ErrGrant)
		s.appDead(t, a, tokens)
		s.appAlive(t, a, beside)
		same(t, "logouts to hear of", s.toHear(t), nil)
		s.visit(t, s.browse(t, ann, true))

		// After its minute a code ends nothing.
		code = s.code(t, v, a)
		tokens = s.exchange(t, a, code)
		c.advance(time.Minute)
		_, err = s.tryExchange(t, a, code)
		wantErr(t, "a second use after a minute", err, auth.ErrGrant)
		s.appAlive(t, a, tokens)
	})
}

// What happens between a code and its exchange has the exchange refused.
func TestWhatEndsACode(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		c := newClock()
		s := start(t, url, c.now, nil).forApps(t)
		ok(t, s.CreateGroup(t.Context(), "staff"))
		a, _ := s.app(t, "wiki", func(a *store.App) { a.Groups = []string{"staff"} })
		for i, happens := range []struct {
			what string
			do   func(user store.User, v auth.Visitor) error
		}{
			{"another password", func(u store.User, v auth.Visitor) error {
				_, err := s.ChoosePassword(t.Context(), auth.Client{}, v, newPassword)
				return err
			}},
			{"set password", func(u store.User, _ auth.Visitor) error { return s.SetPassword(t.Context(), u.Email, newPassword) }},
			{"reset", func(u store.User, _ auth.Visitor) error {
				return s.Reset(t.Context(), auth.Client{}, s.recovery(t, u), newPassword)
			}},
			{"logout", func(_ store.User, v auth.Visitor) error { return s.LogoutVisitor(t.Context(), auth.Client{}, v) }},
			{"end by command", func(_ store.User, v auth.Visitor) error { return s.EndUserSession(t.Context(), v.SessionID) }},
			{"revocation", func(u store.User, _ auth.Visitor) error { return s.Revoke(t.Context(), u.Email) }},
			{"revocation, taken back", func(u store.User, _ auth.Visitor) error {
				ok(t, s.Revoke(t.Context(), u.Email))
				return s.Reinstate(t.Context(), u.Email)
			}},
			{"deletion", func(u store.User, _ auth.Visitor) error { return s.DeleteUser(t.Context(), u.Email) }},
			{"group lost", func(u store.User, _ auth.Visitor) error { return s.RemoveMembers(t.Context(), "staff", u.Email) }},
			{"taken back", func(_ store.User, v auth.Visitor) error {
				return s.TakeBack(t.Context(), auth.Client{}, v, a.ID)
			}},
		} {
			user := s.user(t, fmt.Sprintf("user%d@example.org", i))
			ok(t, s.AddMembers(t.Context(), "staff", user.Email))
			v := s.visit(t, s.browse(t, user.Email, true))
			code := s.code(t, v, a)
			ok(t, happens.do(user, v))
			if _, err := s.tryExchange(t, a, code); auth.CodeOf(err) != auth.CodeOf(auth.ErrGrant) {
				t.Errorf("a code after %s: %v", happens.what, err)
			}
		}
		same(t, "sessions of apps", s.count(t, `SELECT COUNT(*) FROM app_sessions`), 0)
	})
}

// A browser session has at most 20 sessions at an app. The oldest ends silently.
func TestChainsOfABrowserSession(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		v, elsewhere := s.visit(t, s.browse(t, user.Email, true)), s.visit(t, s.browse(t, user.Email, true))
		a, _ := s.app(t, "wiki")
		b, _ := s.app(t, "mail")
		apart := []auth.AppTokens{s.exchange(t, a, s.code(t, elsewhere, a)), s.exchange(t, b, s.code(t, v, b))}
		var chains []auth.AppTokens
		for range 20 {
			c.advance(time.Microsecond)
			chains = append(chains, s.exchange(t, a, s.code(t, v, a)))
		}
		s.appAlive(t, a, chains...)
		for range 5 { // at once, by the clock
			chains = append(chains, s.exchange(t, a, s.code(t, v, a)))
		}
		s.appDead(t, a, chains[:5]...)
		s.appAlive(t, a, chains[5:]...)
		s.appAlive(t, a, apart[0])
		s.appAlive(t, b, apart[1])
		same(t, "logouts to hear of", s.toHear(t), nil)
		same(t, "logins of events", s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'session.opened'`), 2)
	})
}

// Lost answers, several tabs and tries at once log out no app's user: a replaced token is
// good for the reuse window, and ends the chain after it.
func TestAppRefreshRotation(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		v := s.visit(t, s.browse(t, s.user(t, ann).Email, true))
		a, _ := s.app(t, "wiki")
		other, _ := s.app(t, "mail")
		first, beside := s.exchange(t, a, s.code(t, v, a)), s.exchange(t, a, s.code(t, v, a))
		second := s.renewApp(t, a, first)
		if second.Refresh == first.Refresh {
			t.Fatal("the refresh token stays the same")
		}
		for range 10 { // answers that got lost, and tabs
			c.advance(s.Settings.ReuseWindow / 10 * 9 / 10)
			same(t, "the token for a replaced one", s.renewApp(t, a, first).Refresh, second.Refresh)
		}
		_, err := s.tryRenewApp(t, other, second)
		wantErr(t, "another app's try", err, auth.ErrGrant)
		_, err = s.tryRenewApp(t, other, first)
		wantErr(t, "another app's try with the first", err, auth.ErrGrant)
		third := s.renewApp(t, a, second)
		c.advance(2 * s.Settings.ReuseWindow)
		s.appAlive(t, a, third)
		_, err = s.tryRenewApp(t, a, second)
		wantErr(t, "a replay", err, auth.ErrGrant)
		s.appDead(t, a, third)
		s.appAlive(t, a, beside)
		same(t, "logouts to hear of", s.toHear(t), nil)
		for _, wrong := range []string{"", "nonsense", s.login(t, ann, oldPassword).Refresh, s.browse(t, ann, true).Value} {
			_, err := s.tryRenewApp(t, a, auth.AppTokens{Refresh: wrong})
			wantErr(t, "another token", err, auth.ErrGrant)
		}
		_, err = s.Renew(t.Context(), auth.Client{}, beside.Refresh, c.now())
		wantErr(t, "an app's token at the API", err, auth.ErrRefresh)
		_, err = s.Check(t.Context(), beside.Access)
		wantErr(t, "an app's access token at the API", err, auth.ErrNotLoggedIn)
		_, err = s.UserInfo(t.Context(), s.login(t, ann, oldPassword).Access)
		wantErr(t, "the API's access token at userinfo", err, auth.ErrNotLoggedIn)
	})
}

// A database that lost history takes an app's token from later.
func TestAnAppsTokenFromALostHistory(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		v := s.visit(t, s.browse(t, s.user(t, ann).Email, true))
		a, _ := s.app(t, "wiki")
		tokens := s.exchange(t, a, s.code(t, v, a))
		for range 3 {
			c.advance(time.Hour)
			tokens = s.renewApp(t, a, tokens)
		}
		s.exec(t, `UPDATE app_sessions SET counter = 1, mark = 0, floor = 0, prior = 0`)
		s.appAlive(t, a, s.renewApp(t, a, tokens))
	})
}

// An app's session lives as long as its browser session. With offline_access it outlives
// the expiry of that, by the rules of sessions.
func TestAnAppsSessionAndItsParent(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		short, long := s.visit(t, s.browse(t, user.Email, false)), s.visit(t, s.browse(t, user.Email, true))
		a, _ := s.app(t, "wiki", offline)
		b, _ := s.app(t, "mail")
		open := func(v auth.Visitor, a store.App, scopes ...string) auth.AppTokens {
			return s.exchange(t, a, s.code(t, v, a, scopes...))
		}
		child, longChild := open(short, a), open(long, a)
		going := open(short, a, "offline_access")
		notAllowed := open(short, b, "offline_access")
		idle := open(short, a, "offline_access")
		c.advance(12*time.Hour - time.Second)
		s.appAlive(t, a, child)
		s.appAlive(t, b, notAllowed)
		c.advance(time.Second)
		s.appDead(t, a, child)
		s.appDead(t, b, notAllowed)
		s.appAlive(t, a, longChild)
		for range 5 {
			going = s.renewApp(t, a, going)
			c.advance(s.Settings.RefreshIdle / 2)
		}
		going = s.renewApp(t, a, going)
		must(s.UserInfo(t.Context(), going.Access))(t)
		s.appDead(t, a, idle)
		s.appDead(t, a, longChild) // nobody was there: its own renewals are no use
		c.advance(s.Settings.RefreshIdle / 3)
		going = s.renewApp(t, a, going)
		c.set(newClock().now().Add(s.Settings.SessionLife - time.Second))
		going = s.renewApp(t, a, going)
		c.advance(time.Second)
		s.appDead(t, a, going)
		same(t, "logouts to hear of", s.toHear(t), nil)
	})
}

// What ends an offline session, besides its parent's end, also after the parent's expiry.
func TestWhatEndsAnOfflineSession(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		a, _ := s.app(t, "wiki", offline)
		for i, end := range []struct {
			what string
			do   func(u store.User, now auth.Visitor) error
		}{
			{"reset", func(u store.User, _ auth.Visitor) error {
				return s.Reset(t.Context(), auth.Client{}, s.recovery(t, u), newPassword)
			}},
			{"set password", func(u store.User, _ auth.Visitor) error { return s.SetPassword(t.Context(), u.Email, newPassword) }},
			{"another password", func(_ store.User, v auth.Visitor) error {
				_, err := s.ChoosePassword(t.Context(), auth.Client{}, v, newPassword)
				return err
			}},
			{"revocation", func(u store.User, _ auth.Visitor) error { return s.Revoke(t.Context(), u.Email) }},
			{"deletion", func(u store.User, _ auth.Visitor) error { return s.DeleteUser(t.Context(), u.Email) }},
			{"taken back", func(_ store.User, v auth.Visitor) error { return s.TakeBack(t.Context(), auth.Client{}, v, a.ID) }},
			{"end of the others", func(_ store.User, v auth.Visitor) error {
				return s.EndOtherSessions(t.Context(), auth.Client{}, v.Caller)
			}},
			{"end of all by command", func(u store.User, _ auth.Visitor) error { return s.EndUserSessions(t.Context(), u.Email) }},
		} {
			user := s.user(t, fmt.Sprintf("user%d@example.org", i))
			tokens := s.exchange(t, a, s.code(t, s.visit(t, s.browse(t, user.Email, false)), a, "offline_access"))
			c.advance(13 * time.Hour)
			tokens = s.renewApp(t, a, tokens)
			now := s.visit(t, s.browse(t, user.Email, true))
			before := len(s.toHear(t))
			ok(t, end.do(user, now))
			if _, err := s.UserInfo(t.Context(), tokens.Access); err == nil {
				t.Errorf("it goes on after: %s", end.what)
			}
			if n := len(s.toHear(t)) - before; n != 1 {
				t.Errorf("%d logouts are to be heard of after: %s", n, end.what)
			}
		}
	})
}

// A new password that keeps one's session keeps what came of that, and nothing else.
func TestANewPasswordKeepsItsChildren(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, _ *clock) {
		user := s.user(t, ann)
		kept, ended := s.visit(t, s.browse(t, user.Email, true)), s.visit(t, s.browse(t, user.Email, true))
		a, _ := s.app(t, "wiki", offline)
		stays := []auth.AppTokens{s.exchange(t, a, s.code(t, kept, a)), s.exchange(t, a, s.code(t, kept, a, "offline_access"))}
		goes := []auth.AppTokens{s.exchange(t, a, s.code(t, ended, a)), s.exchange(t, a, s.code(t, ended, a, "offline_access"))}
		must(s.ChoosePassword(t.Context(), auth.Client{}, kept, newPassword))(t)
		s.appAlive(t, a, stays...)
		s.appDead(t, a, goes...)
		same(t, "logouts to hear of", len(s.toHear(t)), 1)
		ok(t, s.ChangePassword(t.Context(), auth.Client{}, s.caller(t, s.login(t, ann, newPassword)), newPassword, oldPassword, ""))
		s.appDead(t, a, stays...)
		same(t, "logouts to hear of", len(s.toHear(t)), 2)
	})
}

// A grant is asked for once, again for more, and can be taken back.
func TestGrants(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		v := s.visit(t, s.browse(t, s.user(t, ann).Email, true))
		other := s.visit(t, s.browse(t, s.user(t, "bob@example.org").Email, true))
		a, _ := s.app(t, "wiki", func(a *store.App) { a.Consent = true })
		own, _ := s.app(t, "mail")
		needs := func(v auth.Visitor, r auth.AuthRequest, chosen bool) auth.Needs {
			t.Helper()
			code, needs, err := s.Authorize(t.Context(), auth.Client{}, v, r, chosen)
			ok(t, err)
			if (code != "") != (needs == auth.Nothing) {
				t.Fatalf("needs %v, and the code %q", needs, code)
			}
			return needs
		}
		same(t, "needs of the operator's own app", needs(v, s.asks(own, "email"), false), auth.Nothing)
		same(t, "needs at first", needs(v, s.asks(a, "email"), false), auth.AChoice)
		same(t, "needs, chosen", needs(v, s.asks(a, "email"), true), auth.Nothing)
		same(t, "needs after that", needs(v, s.asks(a, "email"), false), auth.Nothing)
		same(t, "needs for less", needs(v, s.asks(a), false), auth.Nothing)
		same(t, "needs for more", needs(v, s.asks(a, "email", "groups"), false), auth.AChoice)
		same(t, "needs of another user", needs(other, s.asks(a), false), auth.AChoice)
		same(t, "needs for more, chosen", needs(v, s.asks(a, "groups"), true), auth.Nothing)
		same(t, "needs for both", needs(v, s.asks(a, "groups", "email"), false), auth.Nothing)
		again := s.asks(a)
		again.Prompt = []string{"consent"}
		same(t, "needs where the app asks for it", needs(v, again, false), auth.AChoice)
		again.Prompt = []string{"select_account"}
		same(t, "needs where the account is chosen", needs(v, again, false), auth.AChoice)

		tokens, ownTokens := s.exchange(t, a, s.code(t, v, a)), s.exchange(t, own, s.code(t, v, own))
		ok(t, s.TakeBack(t.Context(), auth.Client{}, v, a.ID))
		s.appDead(t, a, tokens)
		s.appAlive(t, own, ownTokens)
		same(t, "needs after it was taken back", needs(v, s.asks(a), false), auth.AChoice)
		same(t, "logouts to hear of", len(s.toHear(t)), 1)
		ok(t, s.TakeBack(t.Context(), auth.Client{}, v, a.ID)) // nothing is left
		same(t, "ends of grants", s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'app.grant-ended'`), 1)
		ok(t, s.TakeBack(t.Context(), auth.Client{}, v, own.ID))
		s.appDead(t, own, ownTokens)
		// It can come again, by a click.
		s.appAlive(t, own, s.exchange(t, own, s.code(t, v, own)))
		same(t, "needs, chosen once more", needs(v, s.asks(a), true), auth.Nothing)
		s.appAlive(t, a, s.exchange(t, a, s.code(t, v, a)))
		same(t, "needs for what was granted before", needs(v, s.asks(a, "email"), false), auth.AChoice)
		_, err := s.Visitor(t.Context(), s.browse(t, ann, true).Value)
		ok(t, err)
		ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v))
		_, _, err = s.Authorize(t.Context(), auth.Client{}, v, s.asks(a, "groups"), true)
		wantErr(t, "a grant of one who was logged out", err, auth.ErrNotLoggedIn)
		_ = c
	})
}

// A login is asked for by its age and by prompt, and once alone.
func TestLoginsThatAnAppAsksFor(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		cookie := s.browse(t, s.user(t, ann).Email, true)
		a, _ := s.app(t, "wiki")
		needs := func(r auth.AuthRequest) auth.Needs {
			t.Helper()
			_, needs, err := s.Authorize(t.Context(), auth.Client{}, s.visit(t, cookie), r, false)
			ok(t, err)
			return needs
		}
		c.advance(time.Hour)
		old, login := s.asks(a), s.asks(a)
		old.MaxAge, login.Prompt = time.Hour, []string{"login"}
		same(t, "an hour's age", needs(old), auth.Nothing)
		c.advance(time.Microsecond)
		old.Begun = c.now()
		same(t, "more than an hour's", needs(old), auth.ALogin)
		same(t, "prompt=login", needs(login), auth.ALogin)
		c.advance(time.Second)
		cookie = s.prove(t, s.visit(t, cookie))
		same(t, "age, with a proof", needs(old), auth.Nothing)
		same(t, "prompt=login, with a proof", needs(login), auth.Nothing)
		c.advance(9 * time.Minute)
		old.MaxAge = 0
		same(t, "age, some time after the proof", needs(old), auth.Nothing)
		c.advance(time.Minute)
		same(t, "age, once the proof is no longer fresh", needs(old), auth.ALogin)
		login.Begun = c.now()
		same(t, "prompt=login, anew", needs(login), auth.ALogin)

		mark := must(s.BeginAuth(t.Context(), "the request"))(t)
		begun := c.now()
		for _, try := range []struct {
			request, mark string
			after         time.Duration
			known         bool
		}{
			{"the request", mark, time.Minute, true}, {"another", mark, time.Minute, false}, {"the request", "", time.Minute, false},
			{"the request", mark + "x", 0, false}, {"the request", "0" + mark, 0, false}, {"the request", mark, time.Hour + time.Microsecond, false},
		} {
			c.set(begun.Add(try.after))
			at, known, err := s.BegunAuth(t.Context(), try.request, try.mark)
			ok(t, err)
			same(t, "whether the mark is known", known, try.known)
			if want := map[bool]time.Time{true: begun, false: c.now()}[known]; !at.Equal(want) {
				t.Errorf("begun at %v, want %v", at, want)
			}
		}
	})
}

// Who may use an app is looked at everywhere.
func TestGroupsOfAnApp(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		for _, g := range []string{"staff", "board"} {
			ok(t, s.CreateGroup(t.Context(), g))
		}
		wantCode(t, "a group twice", s.CreateGroup(t.Context(), "staff"), auth.Conflict)
		wantCode(t, "a bad name", s.CreateGroup(t.Context(), "a group"), auth.Invalid)
		_, _, err := s.CreateApp(t.Context(), store.App{ID: "x", Name: "X", RedirectURIs: []string{"https://x.example.org/"}, Groups: []string{"nobody"}}, false, "")
		wantCode(t, "an app of a group that isn't there", err, auth.Invalid)
		a, _ := s.app(t, "wiki", func(a *store.App) { a.Groups = []string{"board", "staff"} })
		open, _ := s.app(t, "mail")
		v := s.visit(t, s.browse(t, user.Email, true))
		_, _, err = s.Authorize(t.Context(), auth.Client{}, v, s.asks(a), false)
		wantErr(t, "a code of one who is in no group", err, auth.ErrNotAllowed)
		ok(t, s.AddMembers(t.Context(), "staff", user.Email, user.ID))
		ok(t, s.AddMembers(t.Context(), "staff", user.Email))
		wantErr(t, "an unknown member", s.AddMembers(t.Context(), "staff", "nobody@example.org"), auth.ErrNoUser)
		wantCode(t, "a member of an unknown group", s.AddMembers(t.Context(), "nobody", ann), auth.NotFound)
		same(t, "members", len(must(s.Members(t.Context(), "staff"))(t)), 1)
		tokens, openTokens := s.exchange(t, a, s.code(t, v, a, "groups")), s.exchange(t, open, s.code(t, v, open, "groups"))
		same(t, "the claim", must(s.UserInfo(t.Context(), tokens.Access))(t)["groups"], any([]string{"staff"}))
		for round := range 3 { // an app tries again and again, and nothing ends by that
			ok(t, s.RemoveMembers(t.Context(), "staff", user.Email))
			for range 3 {
				_, err = s.UserInfo(t.Context(), tokens.Access)
				wantErr(t, "userinfo without the group", err, auth.ErrNotLoggedIn)
				_, err = s.tryRenewApp(t, a, tokens)
				wantErr(t, "a refresh without the group", err, auth.ErrGrant)
				c.advance(2 * s.Settings.ReuseWindow)
			}
			ok(t, s.AddMembers(t.Context(), []string{"board", "staff", "board"}[round], user.Email))
			tokens = s.renewApp(t, a, tokens)
			must(s.UserInfo(t.Context(), tokens.Access))(t)
			ok(t, s.RemoveMembers(t.Context(), "board", user.Email))
			ok(t, s.AddMembers(t.Context(), "staff", user.Email))
		}
		wantCode(t, "the deletion of a group that an app asks for", s.DeleteGroup(t.Context(), "board"), auth.Conflict)
		must(s.UpdateApp(t.Context(), a.ID, func(a *store.App) { a.Groups = []string{"board"} }))(t)
		a = must(s.App(t.Context(), a.ID))(t)
		_, err = s.tryRenewApp(t, a, tokens)
		wantErr(t, "a refresh after the app asks for another group", err, auth.ErrGrant)
		ok(t, s.DeleteGroup(t.Context(), "staff"))
		same(t, "the claim of one in no group", must(s.UserInfo(t.Context(), openTokens.Access))(t)["groups"], any([]string{}))
	})
}

func wantCode(t *testing.T, what string, err error, want auth.Code) {
	t.Helper()
	if err == nil || auth.CodeOf(err) != want {
		t.Errorf("%s: %v, want the code %v", what, err, want)
	}
}

// An app sees what its scopes let it see, in the ID token and at userinfo.
func TestClaimsByScope(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		v := s.visit(t, s.browse(t, user.Email, true))
		a, _ := s.app(t, "wiki")
		c.advance(time.Hour)
		always := []string{"at_hash", "amr", "aud", "auth_time", "exp", "iat", "iss", "sid", "sub"}
		for _, try := range []struct {
			scopes, claims []string
		}{
			{nil, nil},
			{[]string{"profile"}, []string{"family_name", "given_name", "name", "preferred_username"}},
			{[]string{"email"}, []string{"email", "email_verified", "preferred_username"}},
			{[]string{"groups"}, []string{"groups"}},
			{[]string{"profile", "email"}, []string{"email", "email_verified", "family_name", "given_name", "name", "preferred_username"}},
		} {
			r := s.asks(a, try.scopes...)
			r.Nonce = "the nonce"
			code, _, err := s.Authorize(t.Context(), auth.Client{}, v, r, false)
			ok(t, err)
			tokens := s.exchange(t, a, code)
			same(t, "the scopes", tokens.Scopes, r.Scopes)
			claims := s.idClaims(t, "JWT", tokens.ID)
			same(t, "claims of the ID token", keysOf(claims), sorted(slices.Concat(always, []string{"nonce"}, try.claims)))
			same(t, "claims at userinfo", keysOf(must(s.UserInfo(t.Context(), tokens.Access))(t)), sorted(append([]string{"sub"}, try.claims...)))
			same(t, "nonce", claims["nonce"], any("the nonce"))
			same(t, "aud", claims["aud"], any(a.ID))
			same(t, "sub", claims["sub"], any(user.ID))
			same(t, "auth_time", claims["auth_time"], any(float64(c.now().Add(-time.Hour).Unix())))
			later := s.idClaims(t, "JWT", s.renewApp(t, a, tokens).ID)
			same(t, "claims of the next ID token", keysOf(later), sorted(slices.Concat(always, try.claims)))
			for _, stays := range []string{"auth_time", "sid", "sub", "aud"} {
				same(t, stays+" of the next ID token", later[stays], claims[stays])
			}
		}
		_, err := s.UserInfo(t.Context(), "nonsense")
		wantErr(t, "nonsense at userinfo", err, auth.ErrNotLoggedIn)
		_, err = s.UserInfo(t.Context(), s.exchange(t, a, s.code(t, v, a)).ID)
		wantErr(t, "an ID token at userinfo", err, auth.ErrNotLoggedIn)
		tokens := s.exchange(t, a, s.code(t, v, a))
		c.advance(s.Settings.AccessTTL + time.Minute)
		_, err = s.UserInfo(t.Context(), tokens.Access)
		wantErr(t, "an expired token at userinfo", err, auth.ErrNotLoggedIn)
	})
}

// An app ends its own sessions alone, by either token, and by a hint.
func TestAnAppsOwnEnds(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		v := s.visit(t, s.browse(t, user.Email, true))
		a, _ := s.app(t, "wiki")
		b, _ := s.app(t, "mail")
		open := func(a store.App) auth.AppTokens { return s.exchange(t, a, s.code(t, v, a)) }
		one, two, stays, bs := open(a), open(a), open(a), open(b)
		replaced := open(a)
		s.renewApp(t, a, replaced)
		for _, text := range []string{one.Refresh, two.Access, bs.Access, "", "nonsense", stays.ID, s.login(t, ann, oldPassword).Refresh} {
			ok(t, s.RevokeApp(t.Context(), auth.Client{}, b, text))
		}
		s.appDead(t, b, bs)
		s.appAlive(t, a, one, two, stays)
		ok(t, s.RevokeApp(t.Context(), auth.Client{}, a, one.Refresh))
		ok(t, s.RevokeApp(t.Context(), auth.Client{}, a, two.Access))
		ok(t, s.RevokeApp(t.Context(), auth.Client{}, a, replaced.Refresh))
		s.appDead(t, a, one, two, replaced)
		s.appAlive(t, a, stays)
		same(t, "logouts to hear of", s.toHear(t), nil)
		hint, known, err := s.ReadHint(t.Context(), stays.ID)
		ok(t, err)
		same(t, "whether the hint is ours", known, true)
		same(t, "whether it is this visitor's", hint.IsOf(v), true)
		same(t, "whether it is another's", hint.IsOf(s.visit(t, s.browse(t, ann, true))), false)
		ok(t, s.LogoutApp(t.Context(), auth.Client{}, hint))
		s.appDead(t, a, stays)
		same(t, "logouts to hear of", s.toHear(t), nil)
		ok(t, s.LogoutApp(t.Context(), auth.Client{}, hint))
		same(t, "ends recorded", s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'app.ended'`), 5)
		for _, wrong := range []string{"", stays.Access, stays.Refresh, strings.TrimSuffix(stays.ID, stays.ID[len(stays.ID)-4:])} {
			if _, known, err := s.ReadHint(t.Context(), wrong); known || err != nil {
				t.Errorf("the hint %q: %v %v", wrong, known, err)
			}
		}
	})
}

// openApp opens a session at the wiki.
func (s *server) openApp(t *testing.T, v auth.Visitor, scopes ...string) (store.App, auth.AppTokens) {
	t.Helper()
	a := must(s.App(t.Context(), "wiki"))(t)
	return a, s.exchange(t, a, s.code(t, v, a, scopes...))
}

// An app that has people authorized each few minutes leaves rows of some days alone.
func TestRowsOfAnAppThatAuthorizesOften(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		cookie := s.browse(t, s.user(t, ann).Email, true)
		s.app(t, "wiki")
		perDay := need.Rounds(30, 300)
		kept := int(auth.PurgeMargin/day) + 1
		for d := range kept + 2 {
			for range perDay {
				s.openApp(t, s.visit(t, cookie))
				c.advance(day / time.Duration(perDay))
			}
			s.sweep(t)
			if n := s.count(t, `SELECT COUNT(*) FROM app_sessions`); n > kept*perDay+20 {
				t.Errorf("%d rows after %d days", n, d+1)
			}
		}
		same(t, "live ones", s.count(t, `SELECT COUNT(*) FROM app_sessions WHERE ended_at IS NULL`), 20)
		same(t, "logouts", s.toHear(t), nil)
	})
}

// A reset ends however many sessions of apps there are, at once.
func TestAResetEndsTenThousandSessionsOfApps(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		s.app(t, "wiki")
		const all, chains = 10_000, 20
		s.insert(t, c.now(), user.ID, all, fmt.Sprintf(`INSERT INTO app_sessions (id, user_id, parent_id, app_id, sid, scopes, offline, amr, auth_time, counter, floor, mark, prior, created_at, renewed_at)
			SELECT id, user_id, 'parent' || (number / %d), 'wiki', 'sid' || (number / %[1]d), 'openid', at, 'pwd', at, 0, 0, 0, 0, at, at FROM made`, chains))
		same(t, "sessions", s.count(t, `SELECT COUNT(*) FROM app_sessions WHERE ended_at IS NULL`), all)
		ok(t, s.Reset(t.Context(), auth.Client{}, s.recovery(t, user), newPassword))
		same(t, "sessions afterwards", s.count(t, `SELECT COUNT(*) FROM app_sessions WHERE ended_at IS NULL`), 0)
		same(t, "logouts", len(s.toHear(t)), all/chains+1)
		ok(t, s.DeleteUser(t.Context(), user.Email))
		same(t, "rows after the deletion", s.count(t, `SELECT COUNT(*) FROM app_sessions`), 0)
		same(t, "logouts, which the app is still to hear of", len(s.toHear(t)), all/chains+1)
	})
}

// A deletion leaves nothing that an app could see, but who is to be logged out there.
func TestADeletionAndApps(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, _ *clock) {
		ok(t, s.CreateGroup(t.Context(), "staff"))
		a, _ := s.app(t, "wiki", func(a *store.App) { a.Consent, a.Groups = true, []string{"staff"} })
		for _, email := range []string{ann, "bob@example.org"} {
			s.user(t, email)
			ok(t, s.AddMembers(t.Context(), "staff", email))
			s.exchange(t, a, s.code(t, s.visit(t, s.browse(t, email, true)), a))
		}
		rows := func() (n []int) {
			for _, table := range []string{"app_sessions", "grants", "group_members"} {
				n = append(n, s.count(t, "SELECT COUNT(*) FROM "+table))
			}
			return n
		}
		same(t, "rows", rows(), []int{2, 2, 2})
		ok(t, s.DeleteUser(t.Context(), ann))
		same(t, "rows without one user", rows(), []int{1, 1, 1})
		same(t, "logouts", len(s.toHear(t)), 1)
	})
}

// Logouts are in the order of their sessions, not of their ends: those that are over go
// all the same.
func TestOldLogoutsGo(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		s.app(t, "wiki")
		const table = `INSERT INTO logouts (id, app_id, user_id, sid, created_at, attempts, due_at, dead_at, last_error) SELECT id, 'wiki', user_id, id, `
		now := c.now()
		s.insert(t, now, "user", 300, table+fmt.Sprintf(`%d, 0, at, at, '' FROM made`, now.Add(80*day).UnixMicro()))
		s.insert(t, now.Add(time.Hour), "user", 300, table+`at, 0, at, at, '' FROM made`)
		c.advance(s.Settings.AuditKeep + auth.PurgeMargin + day)
		s.sweep(t)
		same(t, "logouts", s.count(t, `SELECT COUNT(*) FROM logouts`), 300)
	})
}

// A server that hasn't read the key of a code yet asks the database before it refuses.
func TestServersThatLagRefuseNoCode(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		synctest.Test(t, func(t *testing.T) {
			all := replicas(t, url, newClock().now, 2, func(*server) {})
			one, other := all[0].forApps(t), all[1].readKeys(t)
			v := one.visit(t, one.browse(t, one.user(t, ann).Email, true))
			a, _ := one.app(t, "wiki")
			must(one.Keys.Revoke(t.Context(), one.keys(t, token.Seal)[0].ID))(t)
			code := one.readKeys(t).code(t, v, a)
			time.Sleep(time.Millisecond) // else the other has read them now
			other.exchange(t, a, code)
			_, err := other.tryExchange(t, a, "01020304.nonsense")
			wantErr(t, "a forged key", err, auth.ErrGrant)
		})
	})
}

// An app that does without PKCE gets a code without a challenge, and may not show a
// verifier then.
func TestAnAppWithoutPKCE(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, _ *clock) {
		v := s.visit(t, s.browse(t, s.user(t, ann).Email, true))
		a, _ := s.app(t, "wiki", func(a *store.App) { a.WithoutPKCE = true })
		r := s.asks(a)
		r.Challenge = ""
		code, _, err := s.Authorize(t.Context(), auth.Client{}, v, r, false)
		ok(t, err)
		_, err = s.tryExchange(t, a, code)
		wantErr(t, "a verifier for a code without a challenge", err, auth.ErrGrant)
		must(s.Exchange(t.Context(), auth.Client{}, a, code, a.RedirectURIs[0], ""))(t)
		_, err = s.Exchange(t.Context(), auth.Client{}, a, s.code(t, v, a), a.RedirectURIs[0], "")
		wantErr(t, "no verifier for a code with a challenge", err, auth.ErrGrant)
	})
}

// Users see which apps they may use, what those may see by any session, and where they are
// logged in.
func TestAppsOfAUser(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		v := s.visit(t, s.browse(t, user.Email, true))
		ok(t, s.CreateGroup(t.Context(), "staff"))
		open, _ := s.app(t, "a-open")
		consent, _ := s.app(t, "b-consent", func(a *store.App) { a.Consent = true })
		intern, _ := s.app(t, "c-intern", func(a *store.App) { a.Groups = []string{"staff"} })
		list := func() (all []string) {
			t.Helper()
			for _, u := range must(s.AppsOf(t.Context(), v))(t) {
				all = append(all, fmt.Sprintf("%s %v %v", u.ID, u.Scopes, u.In))
			}
			return all
		}
		same(t, "at first", list(), []string{"a-open [] false", "b-consent [] false"})
		ok(t, s.AddMembers(t.Context(), "staff", ann))
		for _, scope := range []string{"email", "profile", "email"} {
			s.exchange(t, open, s.code(t, v, open, scope))
		}
		s.exchange(t, intern, s.code(t, v, intern))
		s.code(t, v, consent, "groups")
		ok(t, s.RemoveMembers(t.Context(), "staff", ann)) // what is there can be ended
		same(t, "then", list(), []string{"a-open [openid profile email] true", "b-consent [openid groups] false", "c-intern [openid] true"})
		for _, a := range []store.App{open, consent, intern} {
			ok(t, s.TakeBack(t.Context(), auth.Client{}, v, a.ID))
		}
		same(t, "in the end", list(), []string{"a-open [] false", "b-consent [] false"})
		same(t, "ends recorded", s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'app.grant-ended'`), 3)
	})
}

// The list of apps that a user is logged in at has all of them, however many sessions there
// are at one.
func TestAppsInUseHoweverManySessions(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		quiet, _ := s.app(t, "quiet")
		noisy, _ := s.app(t, "noisy")
		user := s.user(t, ann)
		v := s.visit(t, s.browse(t, ann, true))
		s.exchange(t, quiet, s.code(t, v, quiet, "email"))
		s.exchange(t, noisy, s.code(t, v, noisy, "email"))
		s.exchange(t, noisy, s.code(t, v, noisy, "profile"))
		c.advance(time.Minute)
		s.insert(t, c.now(), user.ID, 300, fmt.Sprintf(`INSERT INTO app_sessions (id, user_id, parent_id, app_id, sid, scopes, amr, auth_time, counter, floor, mark, prior, created_at, renewed_at)
			SELECT id, user_id, '%s', 'noisy', 'sid', 'openid', 'pwd', at, 0, 0, 0, 0, at, at FROM made`, v.SessionID))
		var got []string
		for _, u := range must(s.AppsOf(t.Context(), v))(t) {
			got = append(got, fmt.Sprint(u.ID, " ", u.In, " ", u.Scopes))
		}
		same(t, "the apps", got, []string{"noisy true [openid profile email]", "quiet true [openid email]"})
	})
}

// A session that an exchange made offline, beside the command that has the app have no such
// sessions any more, is worth nothing. The command, given again, has it end with its
// browser session, as all others of the app.
func TestAnOfflineSessionOfAnAppThatHasNone(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, _ *clock) {
		s.app(t, "wiki", offline)
		a, tokens := s.openApp(t, s.visit(t, s.browse(t, s.user(t, ann).Email, true)), "offline_access")
		none := func(a *store.App) { a.Offline = false }
		a = must(s.UpdateApp(t.Context(), a.ID, none))(t)
		tokens = s.renewApp(t, a, tokens)
		s.exec(t, `UPDATE app_sessions SET offline = created_at`) // what the exchange wrote after it
		s.appDead(t, a, tokens)
		a = must(s.UpdateApp(t.Context(), a.ID, none))(t)
		s.appAlive(t, a, tokens)
		same(t, "the scopes", s.renewApp(t, a, tokens).Scopes, []string{"openid"})
	})
}

// Who chooses an account has agreed to nothing for good: an app that must ask from then on
// does.
func TestAChoiceOfAccountIsNoConsent(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, _ *clock) {
		a, _ := s.app(t, "wiki")
		v := s.visit(t, s.browse(t, s.user(t, ann).Email, true))
		r := s.asks(a, "email")
		r.Prompt = []string{"select_account"}
		if code, needs, err := s.Authorize(t.Context(), auth.Client{}, v, r, true); code == "" || needs != auth.Nothing || err != nil {
			t.Fatalf("the choice comes to %q, %v, %v", code, needs, err)
		}
		a = must(s.UpdateApp(t.Context(), a.ID, func(a *store.App) { a.Consent = true }))(t)
		if _, needs, err := s.Authorize(t.Context(), auth.Client{}, v, s.asks(a, "email"), false); needs != auth.AChoice || err != nil {
			t.Errorf("an app that asks comes to %v, %v", needs, err)
		}
	})
}
