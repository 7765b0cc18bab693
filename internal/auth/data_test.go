package auth_test

import (
	"fmt"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/totp"
)

// A visitor takes all of the account's rows along, however many they are, and only with
// a fresh proof in a session that is live.
func TestAVisitorTakesAllDataAlong(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off = false
		user := s.user(t, ann)
		s.user(t, bob)
		must(s.Login(t.Context(), from("192.0.2.1"), bob, oldPassword))(t)
		const sessions = 505 // more than a page
		for range sessions - 1 {
			c.advance(time.Millisecond) // the oldest end
			must(s.Login(t.Context(), from("192.0.2.1"), ann, oldPassword))(t)
		}
		c.advance(time.Millisecond)
		v := s.visit(t, s.browse(t, ann, true))
		_, err := s.Login(t.Context(), from("198.51.100.1"), ann, newPassword)
		wantErr(t, "a guess", err, auth.ErrCredentials)
		d := must(s.Data(t.Context(), from("192.0.2.1"), v))(t)
		same(t, "the account", d.Account.ID, user.ID)
		n := 0
		for session, err := range d.Sessions {
			if ok(t, err); session.ID == "" || session.Kind == "" || session.CreatedAt.IsZero() {
				t.Errorf("a session is %+v", session)
			}
			n++
		}
		same(t, "sessions", n, sessions)
		kinds := make(map[string]int)
		for e, err := range d.AuditLog {
			ok(t, err)
			kinds[e.Kind]++
		}
		if kinds[auth.EventOpened] != sessions || kinds[auth.AuditLoginFailed] != 1 || kinds[auth.AuditExported] != 1 {
			t.Errorf("the audit log has %v", kinds)
		}
		networks := make(map[string]int64)
		for network, err := range d.Networks {
			ok(t, err)
			networks[network.Network] = network.Failures
		}
		if len(networks) != 2 || networks[""] != 1 {
			t.Errorf("the networks are %v", networks)
		}

		ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v))
		_, err = s.Data(t.Context(), auth.Client{}, v)
		wantErr(t, "after the logout", err, auth.ErrNotLoggedIn)
		cookie := s.browse(t, ann, true)
		c.advance(10 * time.Minute)
		_, err = s.Data(t.Context(), auth.Client{}, s.visit(t, cookie))
		wantErr(t, "without a fresh proof", err, auth.ErrNotLoggedIn)
	})
}

// So is what apps have of a user: groups, grants and sessions; and the log names the apps.
func TestAVisitorTakesAppsAlong(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, ann)
		ok(t, s.CreateGroup(t.Context(), "staff"))
		ok(t, s.AddMembers(t.Context(), "staff", ann))
		v := s.visit(t, s.browse(t, ann, true))
		asks, _ := s.app(t, "asks", func(a *store.App) { a.Consent = true })
		taken, _ := s.app(t, "taken", func(a *store.App) { a.Consent = true })
		s.exchange(t, asks, s.code(t, v, asks, "email"))
		s.exchange(t, taken, s.code(t, v, taken))
		ok(t, s.TakeBack(t.Context(), auth.Client{}, v, taken.ID))
		d := must(s.Data(t.Context(), auth.Client{}, v))(t)
		var got []string
		for group, err := range d.Groups {
			ok(t, err)
			got = append(got, "in "+group)
		}
		for g, err := range d.Grants {
			ok(t, err)
			got = append(got, fmt.Sprint("sees ", g.App, g.Scopes))
		}
		for a, err := range d.AppSessions {
			ok(t, err)
			got = append(got, fmt.Sprint("at ", a.App, a.Scopes, a.EndedAt == nil, a.Session == v.SessionID))
		}
		for e, err := range d.AuditLog {
			if ok(t, err); e.App != "" {
				got = append(got, e.Kind+" "+e.App)
			}
		}
		same(t, "what is kept", sorted(got), sorted([]string{
			"in staff", "sees asks[openid email]", "sees taken[]", "at asks[openid email] true true", "at taken[openid] false true",
			"app.granted asks", "app.opened asks", "app.granted taken", "app.opened taken", "app.grant-ended taken",
		}))
	})
}

// Of factors a visitor takes along what they are, and nothing that works.
func TestAVisitorTakesFactorsAlong(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		v := s.visit(t, s.browse(t, ann, true))
		none := must(s.Data(t.Context(), from("192.0.2.1"), v))(t).Factors
		same(t, "without any", none, auth.FactorsData{Passkeys: []auth.PasskeyData{}})

		offer := must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t)
		enrolled := c.now()
		must(s.EnrolAuthenticator(t.Context(), from("192.0.2.1"), v, offer.Sealed, totp.Code(offer.Secret, enrolled)))(t)
		login := waitingLogin(t, s, ann)
		c.advance(time.Minute)
		must(s.ContinueBrowser(t.Context(), from("192.0.2.1"), login, "of a browser", offer.Codes[0]))(t)
		login = waitingLogin(t, s, ann)
		v = s.visit(t, must(s.ContinueBrowser(t.Context(), from("192.0.2.1"), login, "of a browser", totp.Code(offer.Secret, c.now())))(t))
		ok(t, s.CreateGroup(t.Context(), "board"))
		ok(t, s.AddMembers(t.Context(), "board", user.ID))
		ok(t, s.RequireTwoSteps(t.Context(), "board", true))
		_, err := s.database(t).ExecContext(t.Context(), `INSERT INTO attempts (account, network, failures, until, expires_at) VALUES ('code `+user.ID+`', '', 7, 0, 9000000000000000)`)
		ok(t, err)

		d := must(s.Data(t.Context(), from("192.0.2.1"), v))(t)
		used := c.now()
		same(t, "the factors", d.Factors, auth.FactorsData{
			TwoSteps: true, TwoStepsRequired: true, RecoveryCodes: 9, Passkeys: []auth.PasskeyData{},
			Authenticator: &auth.AuthenticatorData{CreatedAt: enrolled, LastUsedAt: &used},
		})
		codes := make(map[string]int64)
		for network, err := range d.Networks {
			if ok(t, err); network.Of == "codes" {
				codes[network.Network] = network.Failures
			}
		}
		same(t, "what is counted of codes", codes, map[string]int64{"": 7, "192.0.2.0/24": 0})
	})
}
