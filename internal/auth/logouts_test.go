package auth_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// family is a user with two browser sessions, each with sessions at three apps, of which
// one hears of no logout.
type family struct {
	user     store.User
	visitors [2]auth.Visitor
	tokens   [2]map[string]auth.AppTokens
	logouts  [2][]string // what is to be heard of when a session ends
}

func (s *server) family(t *testing.T, c *clock, email string, apps map[string]store.App) (f family) {
	t.Helper()
	f.user = s.user(t, email)
	for i := range f.visitors {
		c.advance(time.Second) // the first is the older one
		f.visitors[i] = s.visit(t, s.browse(t, email, true))
		f.tokens[i] = make(map[string]auth.AppTokens)
		for id, a := range apps {
			s.exchange(t, a, s.code(t, f.visitors[i], a)) // a second chain
			f.tokens[i][id] = s.exchange(t, a, s.code(t, f.visitors[i], a))
			if a.BackchannelURL != "" {
				sid, _ := s.idClaims(t, "JWT", f.tokens[i][id].ID)["sid"].(string)
				f.logouts[i] = append(f.logouts[i], id+" "+sid)
			}
		}
	}
	if slices.Equal(sorted(f.logouts[0]), sorted(f.logouts[1])) {
		t.Fatal("two browser sessions have the same sids")
	}
	return f
}

// apps are those of a family.
func (s *server) apps(t *testing.T) map[string]store.App {
	t.Helper()
	apps := make(map[string]store.App)
	for _, id := range []string{"wiki", "mail"} {
		apps[id], _ = s.app(t, id)
	}
	apps["quiet"], _ = s.app(t, "quiet", func(a *store.App) { a.BackchannelURL = "" })
	return apps
}

// Each end of a browser session ends its children, and writes down one logout for each
// app that hears of logouts.
func TestEveryEndReachesTheApps(t *testing.T) {
	longer(t, func(t *testing.T, url string) {
		c := newClock()
		s := start(t, url, c.now, nil).forApps(t)
		apps := s.apps(t)
		client := auth.Client{}
		const first, both = 1, 2
		for i, end := range []struct {
			what string
			do   func(f family) error
			ends int // of the two sessions
		}{
			{"logout", func(f family) error { return s.LogoutVisitor(t.Context(), client, f.visitors[0]) }, first},
			{"logout, twice", func(f family) error {
				ok(t, s.LogoutVisitor(t.Context(), client, f.visitors[0]))
				return s.LogoutVisitor(t.Context(), client, f.visitors[0])
			}, first},
			{"another session's doing", func(f family) error {
				return s.EndSession(t.Context(), client, f.visitors[1].Caller, f.visitors[0].SessionID)
			}, first},
			{"end of the others", func(f family) error { return s.EndOtherSessions(t.Context(), client, f.visitors[1].Caller) }, first},
			{"end of the others, from the API", func(f family) error {
				return s.EndOtherSessions(t.Context(), client, s.caller(t, s.login(t, f.user.Email, oldPassword)))
			}, both},
			{"end by command", func(f family) error { return s.EndUserSession(t.Context(), f.visitors[0].SessionID) }, first},
			{"end of all by command", func(f family) error { return s.EndUserSessions(t.Context(), f.user.Email) }, both},
			{"revocation", func(f family) error { return s.Revoke(t.Context(), f.user.Email) }, both},
			{"reset", func(f family) error {
				return s.Reset(t.Context(), client, s.recovery(t, f.user), newPassword)
			}, both},
			{"set password", func(f family) error { return s.SetPassword(t.Context(), f.user.Email, newPassword) }, both},
			{"another password", func(f family) error {
				_, err := s.ChoosePassword(t.Context(), client, f.visitors[1], newPassword)
				return err
			}, first},
			{"another password, from the API", func(f family) error {
				return s.ChangePassword(t.Context(), client, s.caller(t, s.login(t, f.user.Email, oldPassword)), oldPassword, newPassword, "")
			}, both},
			{"deletion", func(f family) error { return s.DeleteUser(t.Context(), f.user.Email) }, both},
			{"deletion by its user", func(f family) error { return s.DeleteVisitor(t.Context(), client, f.visitors[0]) }, both},
			{"too many sessions", func(f family) error {
				c.advance(time.Second)
				s.insert(t, c.now(), f.user.ID, mostSessions-2, insertSessions)
				c.advance(time.Second)
				s.login(t, f.user.Email, oldPassword)
				return nil
			}, first},
		} {
			f := s.family(t, c, fmt.Sprintf("user%d@example.org", i), apps)
			c.advance(time.Minute)
			ok(t, end.do(f))
			var want []string
			for n := range f.visitors {
				for id, tokens := range f.tokens[n] {
					if n < end.ends {
						s.appDead(t, apps[id], tokens)
					} else {
						s.appAlive(t, apps[id], tokens)
					}
				}
				if n < end.ends {
					want = append(want, f.logouts[n]...)
				}
			}
			same(t, "logouts after: "+end.what, sorted(s.toHear(t)), sorted(want))
			s.exec(t, `DELETE FROM logouts`)
			// A second end tells nothing anew.
			ok(t, s.endAll(t, f.user))
			if got := s.toHear(t); len(got) > len(f.logouts[0])*(2-end.ends) {
				t.Errorf("once more after %s: %v", end.what, got)
			}
			s.exec(t, `DELETE FROM logouts`)
		}
	})
}

// endAll is EndUserSessions of a user who may have been deleted.
func (s *server) endAll(t *testing.T, user store.User) error {
	t.Helper()
	if err := s.EndUserSessions(t.Context(), user.Email); auth.CodeOf(err) != auth.NotFound {
		return err
	}
	return nil
}

// What is no logout tells nothing: expiry, an app's own ends, and the end of one chain.
func TestWhatTellsNoApp(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		apps := s.apps(t)
		f := s.family(t, c, ann, apps)
		wiki := apps["wiki"]
		ok(t, s.RevokeApp(t.Context(), auth.Client{}, wiki, f.tokens[0]["wiki"].Refresh))
		hint, _, err := s.ReadHint(t.Context(), f.tokens[0]["mail"].ID)
		ok(t, err)
		ok(t, s.LogoutApp(t.Context(), auth.Client{}, hint))
		code := s.code(t, f.visitors[0], wiki)
		s.exchange(t, wiki, code)
		_, err = s.tryExchange(t, wiki, code)
		wantErr(t, "a code twice", err, auth.ErrGrant)
		s.code(t, f.visitors[0], apps["mail"]) // never exchanged
		ok(t, s.EndSession(t.Context(), auth.Client{}, s.caller(t, s.login(t, ann, oldPassword)), s.session(t, s.login(t, ann, oldPassword)).ID))
		same(t, "logouts", s.toHear(t), nil)

		// The browser session goes on, and each app hears of its end: also one all of whose
		// chains ended long ago, by itself, by a code that came twice or by a leaked ID token.
		purger := s.NewPurger(func() {})
		c.advance(auth.PurgeMargin + time.Hour)
		must(purger.Sweep(t.Context()))(t)
		ended := fmt.Sprintf(`SELECT COUNT(*) FROM app_sessions WHERE ended_at IS NOT NULL AND parent_id = '%s'`, f.visitors[0].SessionID)
		same(t, "ended chains that are kept", s.count(t, ended+` AND app_id = 'mail'`), 1)
		same(t, "all of them", s.count(t, ended), 2)
		ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, f.visitors[0]))
		same(t, "logouts after that of the browser session", sorted(s.toHear(t)), sorted(f.logouts[0]))
		s.exec(t, `DELETE FROM logouts`)
		ok(t, s.EndOtherSessions(t.Context(), auth.Client{}, f.visitors[1].Caller))
		same(t, "logouts after a second end", s.toHear(t), nil)
		must(purger.Sweep(t.Context()))(t)
		c.advance(auth.PurgeMargin + time.Hour)
		must(purger.Sweep(t.Context()))(t)
		same(t, "ended chains, when that is long ago", s.count(t, ended), 0)
		s.exec(t, `DELETE FROM logouts`)
		c.advance(s.Settings.SessionLife)
		wantErr(t, "the logout of an expired session", s.EndSession(t.Context(), auth.Client{}, f.visitors[1].Caller, f.visitors[1].SessionID), auth.ErrNotOwn)
		c.advance(auth.PurgeMargin)
		must(purger.Sweep(t.Context()))(t)
		same(t, "logouts after the expiry", s.toHear(t), nil)
		same(t, "sessions of apps", s.count(t, `SELECT COUNT(*) FROM app_sessions`), 0)
	})
}
