package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/i18n"
	"kwai/internal/store"
)

const bob = "bob@example.org"

func TestUpdatesChangeWhatIsGiven(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		before := s.user(t, ann)
		session := s.login(t, ann, oldPassword)
		s.subscribe(t)
		for _, step := range []struct {
			what   string
			update auth.UserUpdate
			change func(*store.User)
			events []string
		}{
			{"a name", auth.UserUpdate{LastName: new(" Änder ")}, func(u *store.User) { u.LastName = "Änder" }, []string{auth.EventUpdated}},
			{"the same", auth.UserUpdate{LastName: new("Änder"), Email: new(ann)}, func(*store.User) {}, nil},
			{"no name", auth.UserUpdate{FirstName: new("")}, func(u *store.User) { u.FirstName = "" }, []string{auth.EventUpdated}},
			{"a language", auth.UserUpdate{Language: new("nl")}, func(u *store.User) { u.Language = "nl" }, []string{auth.EventUpdated}},
			{"no language", auth.UserUpdate{Language: new("")}, func(u *store.User) { u.Language = "" }, []string{auth.EventUpdated}},
			{"the spelling of the address", auth.UserUpdate{Email: new("Ann@Example.org")}, func(u *store.User) { u.Email = "Ann@Example.org" }, []string{auth.EventUpdated}},
			{"the address", auth.UserUpdate{Email: new(" Bob@example.org")}, func(u *store.User) {
				u.Email, u.EmailKey, u.AuthVersion = "Bob@example.org", bob, u.AuthVersion+1
			}, []string{auth.EventEmailChanged}},
			{"all", auth.UserUpdate{Email: new(ann), FirstName: new("Ann"), LastName: new("Other"), Language: new("de")}, func(u *store.User) {
				u.Email, u.EmailKey, u.AuthVersion = ann, ann, u.AuthVersion+1
				u.FirstName, u.LastName, u.Language = "Ann", "Other", "de"
			}, []string{auth.EventUpdated, auth.EventEmailChanged}},
		} {
			want := must(s.User(t.Context(), before.ID))(t)
			step.change(&want)
			nothing := false
			s.Changed = func(c auth.Change) { nothing = c.Nothing }
			ok(t, s.UpdateUser(t.Context(), before.ID, step.update))
			same(t, step.what, must(s.User(t.Context(), before.ID))(t), want)
			same(t, "the events of "+step.what, s.published(t), step.events)
			if nothing != (step.events == nil) {
				t.Errorf("%s changed nothing: %v", step.what, nothing)
			}
		}
		s.alive(t, session)
	})
}

func TestUpdatesThatAreRefused(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		before := s.user(t, ann)
		s.user(t, bob)
		for _, u := range []auth.UserUpdate{
			{Email: new("nonsense")}, {Email: new("")}, {FirstName: new("A\nB")}, {LastName: new(strings.Repeat("x", 101))}, {Language: new("xx")}, {Language: new("EN")},
		} {
			u.FirstName = cmpOr(u.FirstName, new("Eve"))
			if err := s.UpdateUser(t.Context(), ann, u); auth.CodeOf(err) != auth.Invalid {
				t.Errorf("%v: error %v, want one of the input", u, err)
			}
		}
		err := s.UpdateUser(t.Context(), ann, auth.UserUpdate{FirstName: new("Eve"), Email: new("BOB@example.org")})
		if err != auth.ErrUserExists { //nolint:errorlint // it is shown: nothing of the database may stand in it
			t.Errorf("a taken address: error %v", err)
		}
		wantErr(t, "an update of nobody", s.UpdateUser(t.Context(), "nobody@example.org", auth.UserUpdate{}), auth.ErrNoUser)
		same(t, "the user", must(s.User(t.Context(), ann))(t), before)
		if _, err := s.CreateUser(t.Context(), auth.NewUser{Email: "c@example.org", Language: "xx"}); auth.CodeOf(err) != auth.Invalid {
			t.Errorf("an account in a language that there isn't: error %v", err)
		}
	})
}

func cmpOr(a, b *string) *string {
	if a != nil {
		return a
	}
	return b
}

// words is a text in one line.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }

// Another address ends the links that went to the one before, and takes along what
// throttling knows of the account.
func TestAnotherAddress(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off = false
		user := s.user(t, ann)
		must(s.Login(t.Context(), from("192.0.2.1"), ann, oldPassword))(t)
		id := s.recover(t, ann)
		for _, email := range []string{ann, bob, bob, bob} { // and guesses at an address that is nobody's
			_, err := s.Login(t.Context(), from("198.51.100.1"), email, newPassword)
			wantErr(t, "a guess", err, auth.ErrCredentials)
		}
		before := must(s.Throttling(t.Context(), user))(t)
		if before.Failures != 1 || before.Networks != 1 {
			t.Fatalf("the account is counted as %+v", before)
		}
		ok(t, s.UpdateUser(t.Context(), ann, auth.UserUpdate{Email: new(bob)}))
		user = must(s.User(t.Context(), bob))(t)
		same(t, "what is counted", must(s.Throttling(t.Context(), user))(t), before)
		if n := s.count(t, `SELECT COUNT(DISTINCT account) FROM attempts WHERE account <> ''`); n != 1 {
			t.Errorf("%d accounts are counted", n)
		}
		wantErr(t, "a reset by the old address' link", s.Reset(t.Context(), auth.Client{}, id, newPassword), auth.ErrRecovery)
		_, err := s.Login(t.Context(), from("192.0.2.1"), ann, oldPassword)
		wantErr(t, "a login by the old address", err, auth.ErrCredentials)
		must(s.Login(t.Context(), from("192.0.2.1"), bob, oldPassword))(t)

		mails := s.deliver(t)
		if len(mails) != 1 || mails[0].To != ann || !strings.Contains(words(mails[0].Text), "was changed to bob@example.org") {
			t.Fatalf("the mails are %+v, want one to the old address", mails)
		}
		c.advance(time.Hour)
		must(s.CreateUser(t.Context(), auth.NewUser{Email: ann}))(t) // it is free
	})
}

// The notice waits, is listed and sent again under the old address.
func TestTheNoticeToTheOldAddressIsListed(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, ann)
		ok(t, s.UpdateUser(t.Context(), ann, auth.UserUpdate{Email: new(bob), Language: new("fr")}))
		for d, err := range s.UndeliveredMail(t.Context()) {
			ok(t, err)
			if d.Email != ann || d.Type != auth.EventEmailChanged {
				t.Errorf("%s to %s is listed", d.Type, d.Email)
			}
			ok(t, s.ResendMail(t.Context(), d.ID))
		}
		mails := s.deliver(t)
		if len(mails) != 1 || mails[0].To != ann || !strings.Contains(words(mails[0].Text), "a été remplacée par bob@example.org") {
			t.Errorf("the mails are %+v", mails)
		}
	})
}

// A mail is in the language that the user chose, else in that of the page which caused
// it, else in the server's.
func TestTheLanguageOfAMail(t *testing.T) {
	subject := func(language, mail string) string {
		return i18n.Lookup(language).Text("mail."+mail+".subject", "service", "auth.example.org")
	}
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		for _, tt := range []struct{ chosen, page, want string }{
			{"", "", "en"}, {"", "nl", "nl"}, {"de", "nl", "de"}, {"de", "", "de"}, {"xx", "nl", "nl"},
		} {
			c.advance(time.Hour)
			if _, err := s.database(t).ExecContext(t.Context(), `UPDATE users SET language = $1`, tt.chosen); err != nil {
				t.Fatal(err)
			}
			ok(t, s.Recover(t.Context(), auth.Client{Language: tt.page}, ann))
			must(s.TakeRecoveries(t.Context()))(t)
			mails := s.deliver(t)
			if len(mails) != 1 || mails[0].Subject != subject(tt.want, "recovery") {
				t.Fatalf("chosen %q, page %q: the mails are %+v, want one in %s", tt.chosen, tt.page, mails, tt.want)
			}
			ok(t, s.Reset(t.Context(), auth.Client{Language: tt.page}, idIn(t, mails[0]), newPassword))
			if mails = s.deliver(t); len(mails) != 1 || mails[0].Subject != subject(tt.want, "password_changed") {
				t.Errorf("chosen %q, page %q: the notices are %+v, want one in %s", tt.chosen, tt.page, mails, tt.want)
			}
		}
	})
}

// Only the mail's delivery has a language or an address.
func TestSubscribersOutsideGetNoAddress(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, ann)
		s.subscribe(t)
		ok(t, s.UpdateUser(t.Context(), ann, auth.UserUpdate{Email: new(bob), Language: new("fr")}))
		ok(t, s.DeleteUser(t.Context(), bob))
		if n := s.count(t, `SELECT COUNT(*) FROM deliveries WHERE subscriber <> 'mail' AND (recipient <> '' OR language <> '')`); n != 0 {
			t.Errorf("%d deliveries outside have an address or a language", n)
		}
		if n := s.count(t, `SELECT COUNT(*) FROM deliveries WHERE subscriber <> 'mail'`); n != 3 {
			t.Errorf("%d deliveries outside", n)
		}
	})
}

// A visitor's update is the user's own in the audit log, and needs the session.
func TestAVisitorUpdatesTheProfile(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		v := s.visit(t, s.browse(t, ann, true))
		s.subscribe(t)
		ok(t, s.UpdateProfile(t.Context(), from("192.0.2.1"), v, " Anna", "", "nl"))
		ok(t, s.UpdateProfile(t.Context(), from("192.0.2.1"), v, "Anna", "", "nl")) // the same: nothing is published
		same(t, "the events", s.published(t), []string{auth.EventUpdated})
		user := must(s.User(t.Context(), ann))(t)
		same(t, "the user", []string{user.FirstName, user.LastName, user.Language, user.Email}, []string{"Anna", "", "nl", ann})
		for e, err := range s.AuditLog(t.Context(), c.now().Add(-time.Hour), ann) {
			if ok(t, err); e.Kind == auth.EventUpdated && (e.Reason != auth.ByUser || e.Address != "192.0.2.1") {
				t.Errorf("the entry is %+v", e)
			}
		}
		var refused *auth.Error
		if err := s.UpdateProfile(t.Context(), auth.Client{}, v, "A\nB", strings.Repeat("x", 101), ""); !errors.As(err, &refused) || len(refused.Fields) != 2 {
			t.Errorf("two wrong names: error %v", err)
		}
		ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v))
		wantErr(t, "an update after the logout", s.UpdateProfile(t.Context(), auth.Client{}, v, "Eve", "", ""), auth.ErrNotLoggedIn)
		v = s.visit(t, s.browse(t, ann, true))
		ok(t, s.DeleteUser(t.Context(), ann))
		wantErr(t, "an update after the deletion", s.UpdateProfile(t.Context(), auth.Client{}, v, "Eve", "", ""), auth.ErrNotLoggedIn)
	})
}
