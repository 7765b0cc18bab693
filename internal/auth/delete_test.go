package auth_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// A deletion leaves nothing but the audit log, without addresses, and a last mail.
func TestADeletionLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off = false
		user, other := s.user(t, ann), s.user(t, bob)
		ok(t, s.UpdateUser(t.Context(), ann, auth.UserUpdate{Language: new("nl")}))
		home := from("192.0.2.1")
		must(s.Login(t.Context(), home, ann, oldPassword))(t) // the password ends it
		ended := must(s.Login(t.Context(), home, ann, oldPassword))(t)
		ok(t, s.Logout(t.Context(), home, s.caller(t, ended), ended.Refresh))
		others := must(s.Login(t.Context(), home, bob, oldPassword))(t)
		id := s.recover(t, ann)
		ok(t, s.SetPassword(t.Context(), ann, oldPassword)) // its notice waits
		session := must(s.Login(t.Context(), home, ann, oldPassword))(t)
		_, err := s.Login(t.Context(), from("198.51.100.1"), ann, newPassword)
		wantErr(t, "a guess", err, auth.ErrCredentials)
		c.advance(30 * time.Minute)
		ok(t, s.Recover(t.Context(), home, ann)) // nobody has looked at it yet
		entries := s.count(t, `SELECT COUNT(*) FROM audit_log`)

		var change auth.Change
		s.Changed = func(c auth.Change) { change = c }
		ok(t, s.DeleteUser(t.Context(), ann))
		if change.ID != user.ID || change.Sessions != 1 {
			t.Errorf("the change is %+v", change)
		}
		s.deleted(t, user)
		s.dead(t, user, session)
		wantErr(t, "a reset", s.Reset(t.Context(), auth.Client{}, id, newPassword), auth.ErrRecovery)
		wantErr(t, "a deletion again", s.DeleteUser(t.Context(), ann), auth.ErrNoUser)
		wantErr(t, "a deletion again", s.DeleteUser(t.Context(), user.ID), auth.ErrNoUser)
		if n := s.count(t, `SELECT COUNT(*) FROM recovery_requests`); n != 0 {
			t.Errorf("%d requests are left", n)
		}
		if n := s.count(t, `SELECT COUNT(*) FROM attempts WHERE account = '`+auth.AccountOf(ann)+`'`); n != 0 {
			t.Errorf("%d counts are left", n)
		}
		if n := s.count(t, `SELECT COUNT(*) FROM audit_log WHERE user_id = '`+user.ID+`' AND (address <> '' OR user_agent <> '')`); n != 0 {
			t.Errorf("%d entries say where the client was", n)
		}
		if n := s.count(t, `SELECT COUNT(*) FROM audit_log`); n != entries+1 {
			t.Errorf("the audit log has %d entries, had %d and gets one", n, entries)
		}
		kinds := map[string]int{}
		for e, err := range s.AuditLog(t.Context(), c.now().Add(-24*time.Hour), user.ID) {
			ok(t, err)
			kinds[e.Kind]++
		}
		if kinds[auth.EventDeleted] != 1 || kinds[auth.EventOpened] != 3 {
			t.Errorf("the audit log of the id has %v", kinds)
		}

		// Everybody else has all as before.
		s.alive(t, others)
		if n := s.count(t, `SELECT COUNT(*) FROM audit_log WHERE user_id = '`+other.ID+`' AND address <> ''`); n != 1 {
			t.Errorf("%d entries of another user say where the client was", n)
		}
		if n := s.count(t, `SELECT COUNT(*) FROM attempts WHERE account = '`+auth.AccountOf(bob)+`'`); n != 1 {
			t.Errorf("another account has %d counts", n)
		}

		// The last mail, in the language that was chosen.
		var listed []string
		for d, err := range s.UndeliveredMail(t.Context()) {
			ok(t, err)
			listed = append(listed, d.Type+" "+d.Email)
			ok(t, s.ResendMail(t.Context(), d.ID))
		}
		if !slices.Equal(listed, []string{"user.deleted " + ann}) {
			t.Errorf("the mails are %v", listed)
		}
		mails := s.deliver(t)
		if len(mails) != 1 || mails[0].To != ann || !strings.Contains(words(mails[0].Text), "verwijderd") {
			t.Fatalf("the mails are %+v", mails)
		}
		for _, table := range []string{"events", "deliveries"} {
			if n := s.count(t, `SELECT COUNT(*) FROM `+table); n != 0 {
				t.Errorf("%d %s are left", n, table)
			}
		}

		// The address may have a new account, which is another one.
		again := s.user(t, ann)
		if again.ID == user.ID {
			t.Error("the new account has the id of the old one")
		}
		s.dead(t, again, session)
		s.login(t, ann, oldPassword)
	})
}

// What was on its way to a user who is deleted is nothing to mail, and no error.
func TestEventsOfADeletedUserAreNotMailed(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		user := s.user(t, ann)
		event := s.request(user)
		ok(t, s.Recover(t.Context(), auth.Client{}, ann))
		ok(t, s.DeleteUser(t.Context(), ann))
		if _, made, err := s.MakeRecovery(t.Context(), event); made || err != nil {
			t.Errorf("a recovery was made: %v, %v", made, err)
		}
		// As if it had been published just then.
		for _, kind := range []string{auth.EventRecovery, auth.EventPasswordChanged, auth.EventEmailChanged} {
			e := event
			e.ID, e.Type = auth.NewID(s.Store.Now()), kind
			ok(t, s.Store.InTx(t.Context(), func(tx *store.Tx) error { return tx.Publish(e, auth.SubscriberMail) }))
		}
		for d, err := range s.UndeliveredMail(t.Context()) {
			ok(t, err)
			if d.Type != auth.EventDeleted && d.Email != "" {
				t.Errorf("%s is to %s", d.Type, d.Email)
			}
		}
		if mails := s.deliver(t); len(mails) != 1 || !strings.Contains(mails[0].Subject, "was deleted") {
			t.Errorf("the mails are %+v", mails)
		}
		same(t, "what is left", len(s.outbox(t)), 0)
	})
}

// A login that comes to its end after the deletion is recorded without an address.
func TestARefusalOfADeletedUserHasNoAddress(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		user := s.user(t, ann)
		ok(t, s.DeleteUser(t.Context(), ann))
		ok(t, s.Store.Statement(t.Context(), func(tx *store.Tx) error {
			return tx.RecordRefusal(store.AuditEntry{ID: auth.NewID(tx.Now), At: tx.Now, Kind: auth.AuditLoginFailed, UserID: user.ID, Address: "192.0.2.1", UserAgent: "agent"})
		}))
		if n := s.count(t, `SELECT COUNT(*) FROM audit_log WHERE address <> '' OR user_agent <> ''`); n != 0 {
			t.Error("it says where the client was")
		}
	})
}

// A visitor's deletion is an operator's, but for who did it.
func TestAVisitorDeletesTheAccount(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		session := s.login(t, ann, oldPassword)
		cookie := s.browse(t, ann, true)
		c.advance(25 * time.Minute)
		wantErr(t, "without a fresh proof", s.DeleteVisitor(t.Context(), from("192.0.2.1"), s.visit(t, cookie)), auth.ErrNotLoggedIn)
		v := s.visit(t, s.browse(t, ann, true))
		ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v))
		wantErr(t, "after the logout", s.DeleteVisitor(t.Context(), from("192.0.2.1"), v), auth.ErrNotLoggedIn)
		v = s.visit(t, s.browse(t, ann, true))
		s.subscribe(t)
		ok(t, s.DeleteVisitor(t.Context(), from("192.0.2.1"), v))
		s.deleted(t, user)
		s.dead(t, user, session)
		s.wantDead(t, "another browser", cookie)
		same(t, "the events", s.published(t), []string{auth.EventDeleted})
		wantErr(t, "once more", s.DeleteVisitor(t.Context(), from("192.0.2.1"), v), auth.ErrNotLoggedIn)
		for e, err := range s.AuditLog(t.Context(), c.now().Add(-time.Hour), user.ID) {
			if ok(t, err); e.Kind == auth.EventDeleted && e.Reason != auth.ByUser || e.Address != "" {
				t.Errorf("the entry is %+v", e)
			}
		}
		if mails := s.deliver(t); len(mails) != 1 || mails[0].To != ann {
			t.Errorf("the mails are %+v", mails)
		}
	})
}

// A thief who changes the address and deletes the account at once: its owner hears of it,
// though the notices of the address still waited.
func TestADeletionTellsTheAddressBefore(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		for _, confirmed := range []bool{true, false} {
			user := s.user(t, ann)
			v, code := s.emailCode(t, user, eve)
			want := map[string]string{ann: "was deleted"} // the new address never was the account's
			if confirmed {
				ok(t, s.ConfirmEmail(t.Context(), auth.Client{}, v, code))
				want[eve] = "was deleted"
			}
			ok(t, s.DeleteVisitor(t.Context(), auth.Client{}, v))
			s.subscribe(t)
			got := make(map[string]string)
			for _, m := range s.deliver(t) {
				if strings.Contains(words(m.Text), "was deleted") {
					got[m.To] = "was deleted"
				} else {
					t.Errorf("a mail to %s is %s", m.To, m.Subject)
				}
			}
			same(t, "the last mails", got, want)
		}
	})
}
