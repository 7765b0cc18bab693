package auth_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/i18n"
	"kwai/internal/mail"
	"kwai/internal/testing/totp"
)

// What becomes of factors, and wrong codes behind a right password, are mailed, each
// once and in the user's language, and to programs outside. No mail has anything that opens
// the account.
func TestFactorsAreMailed(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		nl := "nl"
		ok(t, s.UpdateUser(t.Context(), ann, auth.UserUpdate{Language: &nl}))
		s.subscribe(t)
		var offer auth.Enrolment
		var secrets []string
		step := func() string { // of the authenticator app, a new one each time
			c.advance(30 * time.Second)
			return totp.Code(offer.Secret, c.now())
		}
		fresh := func(code string) auth.Visitor {
			login := waitingLogin(t, s, ann)
			return s.visit(t, must(s.ContinueBrowser(t.Context(), from("192.0.2.7"), login, "of a browser", code))(t))
		}
		mailed := func(what string, events []string, changes ...string) {
			t.Helper()
			published := slices.DeleteFunc(s.published(t), func(kind string) bool { return strings.HasPrefix(kind, "session.") })
			same(t, what+": events", published, events)
			var got, want []string
			for _, m := range s.deliver(t) {
				got = append(got, m.Subject)
				for _, secret := range secrets {
					if strings.Contains(m.Text+m.HTML, secret) {
						t.Errorf("%s: the mail %q has %q", what, m.Subject, secret)
					}
				}
				same(t, what+": to", m.To, ann)
				if m.Subject == i18n.Lookup("nl").Text("mail.recovery_code_used.subject", "service", "auth.example.org") && !strings.Contains(m.Text, "Herstelcodes over: 9.") {
					t.Errorf("%s: the mail doesn't say that 9 codes are left:\n%s", what, m.Text)
				}
				if strings.HasPrefix(m.Text, "Hello") {
					t.Errorf("%s: the mail %q is in English", what, m.Subject)
				}
			}
			for _, change := range changes {
				want = append(want, i18n.Lookup("nl").Text("mail."+change+".subject", "service", "auth.example.org"))
			}
			same(t, what, got, want)
		}

		v := s.visit(t, s.browse(t, ann, true))
		offer = must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t)
		secrets = append(append(secrets, offer.Secret, strings.ReplaceAll(offer.Secret, " ", ""), offer.Sealed), offer.Codes...)
		must(s.EnrolAuthenticator(t.Context(), from("192.0.2.7"), v, offer.Sealed, step()))(t)
		mailed("an enrolment", []string{auth.EventTwoStepsOn, auth.EventAuthenticatorAdded}, string(mail.AuthenticatorAdded))

		v = fresh(offer.Codes[0])
		mailed("a login by a recovery code", []string{auth.EventRecoveryCodeUsed}, string(mail.RecoveryCodeUsed))
		must(s.SwitchTwoSteps(t.Context(), from("192.0.2.7"), v, false))(t)
		mailed("two steps off", []string{auth.EventTwoStepsOff}, string(mail.TwoStepsOff))
		must(s.SwitchTwoSteps(t.Context(), from("192.0.2.7"), s.visit(t, s.browse(t, ann, true)), true))(t)
		mailed("two steps on", []string{auth.EventTwoStepsOn}, string(mail.TwoStepsOn))

		v = fresh(step())
		codes := must(s.OfferRecoveryCodes(t.Context(), v.User))(t)
		secrets = append(secrets, codes.Codes...)
		ok(t, s.TakeRecoveryCodes(t.Context(), from("192.0.2.7"), v, codes.Sealed))
		mailed("new recovery codes", []string{auth.EventRecoveryCodes}, string(mail.RecoveryCodesMade))

		for try := range 5 {
			_, err := s.ContinueBrowser(t.Context(), from("192.0.2.66"), waitingLogin(t, s, ann), "of a browser", offer.Codes[1]) // of the set before
			wantErr(t, "a wrong code", err, auth.ErrCode)
			if try == 1 {
				mailed("two wrong codes", nil)
			}
		}
		mailed("five wrong codes", []string{auth.EventCodesRefused}, string(mail.CodesRefused))
		c.advance(25 * time.Hour)
		for range 3 {
			_, err := s.ContinueBrowser(t.Context(), from("192.0.2.66"), waitingLogin(t, s, ann), "of a browser", "000 00")
			wantErr(t, "a wrong code", err, auth.ErrCode)
		}
		mailed("three more a day later", []string{auth.EventCodesRefused}, string(mail.CodesRefused))

		ok(t, s.RemoveAuthenticator(t.Context(), from("192.0.2.7"), fresh(step())))
		mailed("a removal", []string{auth.EventAuthenticatorRemoved}, string(mail.AuthenticatorRemoved))

		ok(t, s.ResetFactors(t.Context(), user.ID, newPassword))
		mailed("a reset with a new password", []string{auth.EventFactorsReset, auth.EventPasswordChanged}, string(mail.FactorsReset), "password_changed")
	})
}

// waitingLogin is a login by page that waits for a code.
func waitingLogin(t *testing.T, s *server, email string) string {
	t.Helper()
	_, err := s.LoginBrowser(t.Context(), from("192.0.2.7"), email, oldPassword, true, "of a browser")
	more, is := errors.AsType[*auth.More](err)
	if !is || more.Need != auth.NeedCode {
		t.Fatalf("error %v, want that it needs a code", err)
	}
	return more.Login
}

// After a reset of the factors without a new password nobody gets in by the old one: a
// link is mailed, and leads to a login by one step.
func TestAResetOfFactorsMailsALink(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		v := s.visit(t, s.browse(t, ann, true))
		offer := must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t)
		must(s.EnrolAuthenticator(t.Context(), auth.Client{}, v, offer.Sealed, totp.Code(offer.Secret, c.now())))(t)
		login := waitingLogin(t, s, ann)
		s.deliver(t)
		before := s.recovery(t, v.User) // a link of before, whoever has it
		c.advance(time.Second)

		var change auth.Change
		s.Changed = func(c auth.Change) { change = c }
		ok(t, s.ResetFactors(t.Context(), ann, ""))
		same(t, "sessions that were ended", change.Sessions, int64(1))
		mails := s.deliver(t)
		if len(mails) != 2 {
			t.Fatalf("%d mails, want the notice and the link", len(mails))
		}
		same(t, "the notice", mails[0].Subject, "Two steps and passkeys of your account at auth.example.org were removed")
		for i, want := range []string{"Your account has no password now.", "has no password: none was chosen yet, or the operator took it away."} {
			if text := strings.Join(strings.Fields(mails[i].Text), " "); !strings.Contains(text, want) {
				t.Errorf("the mail %q lacks %q:\n%s", mails[i].Subject, want, text)
			}
		}
		_, err := s.Login(t.Context(), auth.Client{}, ann, oldPassword)
		wantErr(t, "the old password", err, auth.ErrCredentials)
		_, err = s.ContinueBrowser(t.Context(), auth.Client{}, login, "of a browser", offer.Codes[0])
		wantErr(t, "a login that waited", err, auth.ErrLogin)
		wantErr(t, "a link of before", s.Reset(t.Context(), auth.Client{}, before, newPassword), auth.ErrRecovery)
		ok(t, s.Reset(t.Context(), auth.Client{}, idIn(t, mails[1]), newPassword))
		s.login(t, ann, newPassword)
		f := must(s.Factors(t.Context(), v.ID))(t)
		same(t, "the factors", f, auth.Factors{})
	})
}

// Who knew the password and guessed codes keeps the owner from typing codes in new networks
// no longer than the password is that one. A recovery code is good all the time: nobody can
// guess it.
func TestANewPasswordLetsCodesBeTypedAgain(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits.Off = false
		home, away := from("192.0.2.7"), from("198.51.100.1")
		s.user(t, ann)
		v := s.visit(t, must(s.LoginBrowser(t.Context(), home, ann, oldPassword, true, "of a browser"))(t))
		offer := must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t)
		must(s.EnrolAuthenticator(t.Context(), home, v, offer.Sealed, totp.Code(offer.Secret, c.now())))(t)
		guessed := func() {
			_, err := s.database(t).ExecContext(t.Context(), `INSERT INTO attempts (account, network, failures, until, expires_at) VALUES ('code `+v.ID+`', '', 100, 0, 9000000000000000)
				ON CONFLICT (account, network) DO UPDATE SET failures = 100`)
			ok(t, err)
		}
		guessed()
		enter := func(client auth.Client, password, code string) (auth.Cookie, error) {
			_, err := s.LoginBrowser(t.Context(), client, ann, password, true, "of a browser")
			more, is := errors.AsType[*auth.More](err)
			if !is {
				t.Fatalf("error %v, want that it needs a code", err)
			}
			return s.ContinueBrowser(t.Context(), client, more.Login, "of a browser", code)
		}
		wrong := "000000" // or right, which is refused, too
		_, err := enter(away, oldPassword, wrong)
		same(t, "the code of the refusal elsewhere", auth.CodeOf(err), auth.Throttled)
		must(enter(from("203.0.113.9"), oldPassword, offer.Codes[0]))(t)
		_, err = enter(from("203.0.113.10"), oldPassword, offer.Codes[0])
		wantErr(t, "a recovery code that was used", err, auth.ErrCode)
		guessed()
		ok(t, s.Reset(t.Context(), away, s.recovery(t, v.User), oldPassword+"!"))

		cookie := must(enter(home, oldPassword+"!", offer.Codes[1]))(t)
		c.advance(time.Second)
		_, err = enter(away, oldPassword+"!", wrong)
		same(t, "the code of the refusal after a reset by mail", auth.CodeOf(err), auth.Throttled)
		must(s.ChoosePassword(t.Context(), home, s.visit(t, cookie), newPassword))(t)
		c.advance(time.Hour)
		must(enter(from("198.51.100.77"), newPassword, totp.Code(offer.Secret, c.now())))(t)
	})
}
