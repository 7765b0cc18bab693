package auth_test

import (
	"testing"
	"time"

	"kwai/internal/auth"
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
