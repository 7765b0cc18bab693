package auth_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/mail"
	"kwai/internal/store"
)

const eve = "eve@example.org"

var codeInMail = regexp.MustCompile(`/account/email/confirm\?code=(\S+)`)

func codeIn(t *testing.T, m mail.Message) string {
	t.Helper()
	found := codeInMail.FindStringSubmatch(m.Text)
	if found == nil {
		t.Fatalf("the mail has no link: %s", m.Text)
	}
	return found[1]
}

// emailCode has a visitor ask for an address, and makes the code that is mailed.
func (s *server) emailCode(t *testing.T, user store.User, email string) (auth.Visitor, string) {
	t.Helper()
	v := s.visit(t, s.browse(t, user.Email, true))
	ok(t, s.RequestEmail(t.Context(), auth.Client{}, v, email))
	c := must(s.Store.Read(t.Context()).EmailChange(user.ID))(t)
	m, made, err := s.MakeEmailCode(t.Context(), store.Event{ID: c.RequestID, UserID: user.ID})
	if ok(t, err); !made {
		t.Fatal("no code is made")
	}
	return v, m.Code
}

// emailMails are what is mailed for a request: the link, if there is one, and the last of
// the notices, which go to another address and have no link.
func (s *server) emailMails(t *testing.T) (link, notice mail.Message) {
	t.Helper()
	for _, m := range s.deliver(t) {
		switch {
		case !codeInMail.MatchString(m.Text):
			notice = m
		case link.ID != "":
			t.Fatalf("there are two links: %+v, %+v", link, m)
		default:
			link = m
		}
	}
	return link, notice
}

// A link goes to the new address alone, and gives it to the account once, in a session of
// that account.
func TestAVisitorChangesTheAddress(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		s.user(t, eve)
		recovery := s.recover(t, ann)
		cookie := s.browse(t, ann, true)
		v, thief := s.visit(t, cookie), s.visit(t, s.browse(t, eve, true))
		s.subscribe(t)
		ok(t, s.RequestEmail(t.Context(), from("192.0.2.1"), v, " Bob@Example.org"))
		same(t, "the event", s.published(t), []string{auth.EventEmailRequested})
		mail, notice := s.emailMails(t)
		if mail.To != "Bob@Example.org" || strings.Contains(mail.Text, user.FirstName) {
			t.Fatalf("the mail is %+v", mail)
		}
		if notice.To != ann || !strings.Contains(notice.Text, user.FirstName) || strings.Contains(notice.Text, "code=") {
			t.Fatalf("the notice is %+v", notice)
		}
		code := codeIn(t, mail)
		same(t, "the address that it is for", must(s.PendingEmail(t.Context(), v, code))(t), "Bob@Example.org")
		_, err := s.PendingEmail(t.Context(), thief, code)
		wantErr(t, "another user's look", err, auth.ErrEmailCode)
		for what, code := range map[string]string{"none": "", "half": code[:20], "a letter more": code + "A", "of a form": must(s.FormMAC(t.Context(), v))(t)} {
			wantErr(t, "a code that is "+what, s.ConfirmEmail(t.Context(), auth.Client{}, v, code), auth.ErrEmailCode)
		}
		wantErr(t, "another user", s.ConfirmEmail(t.Context(), auth.Client{}, thief, code), auth.ErrEmailCode)
		c.advance(time.Hour) // no fresh proof is asked for
		ok(t, s.ConfirmEmail(t.Context(), from("192.0.2.1"), s.visit(t, cookie), code))
		changed := must(s.User(t.Context(), bob))(t)
		same(t, "the account", changed.ID, user.ID)
		same(t, "the address", changed.Email, "Bob@Example.org")
		same(t, "when it was proven", changed.EmailProvenAt.After(user.EmailProvenAt), true)
		same(t, "the event", s.published(t), []string{auth.EventEmailChanged})
		wantErr(t, "a reset by a link to the old address", s.Reset(t.Context(), auth.Client{}, recovery, newPassword), auth.ErrRecovery)
		wantErr(t, "twice", s.ConfirmEmail(t.Context(), auth.Client{}, s.visit(t, cookie), code), auth.ErrEmailCode)
		if mails := s.deliver(t); len(mails) != 1 || mails[0].To != ann || !strings.Contains(words(mails[0].Text), "was changed to Bob@Example.org") {
			t.Errorf("the notices are %+v", mails)
		}
		for e, err := range s.AuditLog(t.Context(), c.now().Add(-2*time.Hour), user.ID) {
			if ok(t, err); strings.Contains(e.Kind, "email") && (e.Reason != auth.ByUser || e.Address != "192.0.2.1") {
				t.Errorf("the entry is %+v", e)
			}
		}
		same(t, "requests that are left", s.count(t, `SELECT COUNT(*) FROM email_changes`), 0)
	})
}

// Nothing is mailed to an address that is another user's, and nothing else shows it.
func TestATakenAddressIsNotShown(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, ann)
		s.user(t, eve)
		v := s.visit(t, s.browse(t, ann, true))
		var rows [2][]int
		for i, email := range []string{bob, eve} {
			ok(t, s.RequestEmail(t.Context(), from("192.0.2.1"), v, email))
			for _, table := range []string{"email_changes", "events", "deliveries"} {
				rows[i] = append(rows[i], s.count(t, `SELECT COUNT(*) FROM `+table))
			}
			mail, notice := s.emailMails(t)
			same(t, email+": whom the mail goes to", mail.To, []string{bob, ""}[i])
			same(t, email+": whom the notice goes to", notice.To, ann)
		}
		same(t, "what a request leaves", rows[1], rows[0])
		same(t, "what waits", len(s.outbox(t)), 0)
	})
}

// What overtakes a request ends its link.
func TestLinksToANewAddressEnd(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		for name, overtake := range map[string]func(email, id string, v auth.Visitor) error{
			"another request": func(email, _ string, v auth.Visitor) error {
				return s.RequestEmail(t.Context(), auth.Client{}, v, "other-"+email)
			},
			"a new password": func(_, _ string, v auth.Visitor) error {
				_, err := s.ChoosePassword(t.Context(), auth.Client{}, v, newPassword)
				return err
			},
			"another address": func(email, id string, _ auth.Visitor) error {
				return s.UpdateUser(t.Context(), id, auth.UserUpdate{Email: new("moved-" + email)})
			},
			"another user with that address": func(email, _ string, _ auth.Visitor) error {
				_, err := s.CreateUser(t.Context(), auth.NewUser{Email: "new-" + email})
				return err
			},
			"its time": func(_, _ string, _ auth.Visitor) error { c.advance(s.Settings.RecoveryLife); return nil },
		} {
			email := strings.ReplaceAll(name, " ", "-") + "@example.org"
			user := s.user(t, email)
			v := s.visit(t, s.browse(t, email, true))
			ok(t, s.RequestEmail(t.Context(), auth.Client{}, v, "new-"+email))
			mail, _ := s.emailMails(t)
			code := codeIn(t, mail)
			must(s.PendingEmail(t.Context(), v, code))(t)
			ok(t, overtake(email, user.ID, v))
			wantErr(t, name, s.ConfirmEmail(t.Context(), auth.Client{}, v, code), auth.ErrEmailCode)
			s.deliver(t)
		}
	})
}

// A mail that waits is nothing to send once its request was overtaken; sent again by an
// operator it has a new link, and the old one ends.
func TestTheMailToANewAddressWaits(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		v := s.visit(t, s.browse(t, ann, true))
		ok(t, s.RequestEmail(t.Context(), auth.Client{}, v, "first@example.org"))
		ok(t, s.RequestEmail(t.Context(), auth.Client{}, v, bob))
		c.advance(3 * time.Minute)
		for d, err := range s.UndeliveredMail(t.Context()) {
			ok(t, err)
			ok(t, s.ResendMail(t.Context(), d.ID))
		}
		mail, _ := s.emailMails(t)
		same(t, "whom the mail goes to", mail.To, bob)
		ok(t, s.ConfirmEmail(t.Context(), auth.Client{}, v, codeIn(t, mail)))
		v = s.visit(t, s.browse(t, bob, true))
		ok(t, s.RequestEmail(t.Context(), auth.Client{}, v, ann))
		ok(t, s.Revoke(t.Context(), bob))
		for _, m := range s.deliver(t) {
			if codeInMail.MatchString(m.Text) {
				t.Errorf("a revoked user is mailed %+v", m)
			}
		}
	})
}

func TestRequestsForAnAddressThatAreRefused(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off = false
		s.user(t, ann)
		cookie := s.browse(t, ann, true)
		v := s.visit(t, cookie)
		for _, email := range []string{"", "nonsense", "ANN@example.org"} {
			if err := s.RequestEmail(t.Context(), auth.Client{}, v, email); auth.CodeOf(err) != auth.Invalid {
				t.Errorf("%q: error %v", email, err)
			}
		}
		for i := range 6 {
			err := s.RequestEmail(t.Context(), auth.Client{}, v, bob)
			if refused := auth.CodeOf(err) == auth.Throttled; refused != (i == 5) || !refused && err != nil {
				t.Errorf("request %d: error %v", i, err)
			}
		}
		c.advance(time.Hour + time.Minute)
		wantErr(t, "without a fresh proof", s.RequestEmail(t.Context(), auth.Client{}, s.visit(t, cookie), bob), auth.ErrNotLoggedIn)
		v = s.visit(t, s.browse(t, ann, true))
		ok(t, s.RequestEmail(t.Context(), auth.Client{}, v, bob))
		ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v))
		wantErr(t, "after the logout", s.RequestEmail(t.Context(), auth.Client{}, v, bob), auth.ErrNotLoggedIn)
		wantErr(t, "a confirmation after the logout", s.ConfirmEmail(t.Context(), auth.Client{}, v, "x"), auth.ErrNotLoggedIn)
		v = s.visit(t, s.browse(t, ann, true))
		ok(t, s.DeleteVisitor(t.Context(), auth.Client{}, v)) // with its request
	})
}

// An operator vouches for the address of an account, unless told not to; a link that was
// mailed proves it.
func TestWhenAnAddressIsProven(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		same(t, "vouched for", s.user(t, eve).EmailProvenAt.IsZero(), false)
		must(s.CreateUser(t.Context(), auth.NewUser{Email: ann, Unverified: true}))(t)
		user := must(s.User(t.Context(), ann))(t)
		same(t, "not vouched for", user.EmailProvenAt, time.Time{})
		mails := s.deliver(t)
		ok(t, s.Reset(t.Context(), auth.Client{}, idIn(t, mails[0]), newPassword))
		same(t, "after the invitation", must(s.User(t.Context(), ann))(t).EmailProvenAt.IsZero(), false)
	})
}
