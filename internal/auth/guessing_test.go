package auth_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/need"
)

// guess types a code behind the right password, in turn after it and together with it,
// which must not make a difference. It says how that ended, as outcome does. A wrong
// password is none of these.
func (s *server) guess(t *testing.T, address, email, code string) string {
	t.Helper()
	var err error
	if s.guesses++; s.guesses%2 == 0 {
		_, err = s.LoginWithCode(t.Context(), from(address), email, oldPassword, code)
	} else if _, err = s.Login(t.Context(), from(address), email, oldPassword); needs(err) == auth.NeedCode {
		_, err = s.ContinueLogin(t.Context(), from(address), waiting(t, auth.NeedCode, err), code)
	}
	if errors.Is(err, auth.ErrCode) {
		return "wrong"
	}
	return outcome(t, err)
}

func (s *server) wantGuess(t *testing.T, what, address, code, want string) {
	t.Helper()
	if got := s.guess(t, address, ann, code); got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// looked is how many wrong codes were looked at.
func (s *server) looked(t *testing.T) int {
	t.Helper()
	return s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'login.code-refused'`)
}

// Who has the password and tries codes from everywhere, for as long as it takes: at most
// a hundred are looked at. Meanwhile the owner gets in from where the account is known.
func TestCodesCannotBeGuessed(t *testing.T) {
	limited(t, func(l *auth.Limits) { l.Most = 100 }, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		p := s.enrolled(t, s.home(t))
		tries, looked := need.Rounds(2000, 10_000), 0
		for i := range tries {
			switch got := s.guess(t, fmt.Sprintf("203.0.%d.7", i%200), ann, "000000"); got {
			case "wrong":
				looked++
			case "in":
				t.Fatal("a guess got in")
			}
			if i%20 == 0 {
				c.advance(time.Hour) // no wait is longer
			}
			if i%(tries/10) == 0 {
				s.wantGuess(t, fmt.Sprint("the owner at home, after ", i), home, p.at(c.now()), "in")
			}
		}
		if looked != 100 || s.looked(t) != looked {
			t.Errorf("%d of %d guesses were looked at, and %d are in the audit log; want 100", looked, tries, s.looked(t))
		}
		s.wantGuess(t, "the owner on the road", cafe, p.at(c.now().Add(30*time.Second)), "1h0m0s")
		s.wantGuess(t, "the owner at home", home, p.at(c.now().Add(30*time.Second)), "in")
	})
}

// Codes from a network that the account knows are held back by a count of its own, whether
// they come after the password or with it; the password's count stays as it was.
func TestCodesFromAKnownNetwork(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		p := s.enrolled(t, s.home(t))
		s.wantTry(t, "a wrong password", home, ann, wrong, "wrong")
		for i := range 5 {
			s.wantGuess(t, fmt.Sprint("code ", i), home, "000000", "wrong")
		}
		for _, code := range []string{"000000", p.at(c.now()), "000000", p.at(c.now())} {
			s.wantGuess(t, "one more", home, code, "1s")
		}
		same(t, "codes that were looked at", s.looked(t), 5)
		failures := func(network, account string) int {
			return s.count(t, `SELECT COALESCE(SUM(failures), 0) FROM attempts WHERE network = '`+network+`' AND account `+account)
		}
		same(t, "failures of codes", failures("192.0.2.0/24", "LIKE 'code %'"), 5)
		same(t, "failures of passwords", failures("192.0.2.0/24", "NOT LIKE 'code %'"), 1)
		s.wantGuess(t, "elsewhere", cafe, p.at(c.now()), "in")
		same(t, "failures of codes at home, after that", failures("192.0.2.0/24", "LIKE 'code %'"), 5)
		for _, wait := range []time.Duration{time.Second, 2 * time.Second} {
			c.advance(wait)
			s.wantGuess(t, "a second later", home, "000000", "wrong")
			s.wantGuess(t, "and then", home, "000000", (2 * wait).String())
		}
		c.advance(time.Minute)
		s.wantGuess(t, "a whole login", home, p.at(c.now()), "in")
		same(t, "failures, of both", failures("192.0.2.0/24", "<> ''"), 0)
	})
}

// A code that comes with the password is what one after it is: it is looked at where one
// is demanded, and not elsewhere.
func TestPasswordAndCodeAtOnce(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		at := func(what, address, code string, want error) store.Session {
			t.Helper()
			tokens, err := s.LoginWithCode(t.Context(), from(address), ann, oldPassword, code)
			if !errors.Is(err, want) {
				t.Errorf("%s: error %v, want %v", what, err, want)
			}
			if err != nil {
				return store.Session{}
			}
			return s.session(t, tokens)
		}
		user := s.home(t)
		same(t, "a code where there is no app", at("a code where there is no app", home, "000000", nil).AMR, "pwd")
		p := s.enrolled(t, user)
		in := at("the code", home, p.at(c.now()), nil)
		same(t, "what it showed", in.AMR, "pwd otp mfa")
		same(t, "the audit log", s.wayIn(t, in.ID), "by password and code")
		at("the same code", home, p.at(c.now()), auth.ErrCode)
		at("the same code, elsewhere", cafe, p.at(c.now()), auth.ErrCode)
		at("half a code", home, p.at(c.now())[:3], auth.ErrCode)
		same(t, "a recovery code", at("a recovery code", home, p.codes[0], nil).AMR, "pwd mfa")
		at("it again", home, p.codes[0], auth.ErrCode)
		_, err := s.LoginWithCode(t.Context(), from(home), ann, wrong, p.at(c.now().Add(30*time.Second)))
		if !errors.Is(err, auth.ErrCredentials) {
			t.Errorf("a wrong password: %v", err)
		}
		at("its code, which wasn't looked at", home, p.at(c.now().Add(30*time.Second)), nil)

		v := s.visit(t, must(s.ContinueBrowser(t.Context(), from(home), s.halfBrowser(t, ann, auth.NeedCode), thisBrowser, p.codes[1]))(t))
		must(s.SwitchTwoSteps(t.Context(), auth.Client{}, v, false))(t)
		same(t, "a wrong code where none is demanded", at("a wrong code where none is demanded", home, "000000", nil).AMR, "pwd")
	})
}

// home is Ann, who has logged in from home.
func (s *server) home(t *testing.T) store.User {
	t.Helper()
	s.wantTry(t, "the owner, by one step", home, ann, oldPassword, "in")
	return must(s.User(t.Context(), ann))(t)
}

// Codes are held back as passwords are, each by a count of its own: neither count makes the
// other longer or shorter.
func TestCodesAndPasswordsAreCountedApart(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		p := s.enrolled(t, s.home(t))
		for i := range 5 {
			s.wantGuess(t, fmt.Sprint("code ", i), cafe, "000000", "wrong")
		}
		s.wantGuess(t, "the sixth", cafe, "000000", "1s")
		s.wantGuess(t, "the right one, too", "203.0.113.9", p.at(c.now()), "1s")
		for i := range 4 {
			s.wantTry(t, fmt.Sprint("a wrong password ", i), cafe, ann, wrong, "wrong")
		}
		for range 20 { // a right password takes nothing, and clears nothing
			waiting(t, auth.NeedCode, second(s.Login(t.Context(), from(cafe), ann, oldPassword)))
		}
		s.wantTry(t, "a fifth wrong password", cafe, ann, wrong, "wrong")
		s.wantTry(t, "and then", cafe, ann, oldPassword, "1s")
		c.advance(time.Second)
		s.wantGuess(t, "a second later", cafe, "000000", "wrong")
		s.wantGuess(t, "and then", cafe, p.at(c.now()), "2s")
		c.advance(2 * time.Second)
		s.wantGuess(t, "a whole login", cafe, p.at(c.now()), "in")
		for i := range 5 {
			s.wantGuess(t, fmt.Sprint("it has cleared the codes: ", i), cafe, "000000", "wrong")
		}
		for i := range 5 {
			s.wantTry(t, fmt.Sprint("and the passwords: ", i), cafe, ann, wrong, "wrong")
		}
	})
}

// Half a login makes no network known.
func TestHalfALoginMakesNoNetworkKnown(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		user := s.home(t)
		p := s.enrolled(t, user)
		networks := func() int {
			return s.count(t, `SELECT COUNT(*) FROM attempts WHERE account <> '' AND network = '198.51.100.0/24'`)
		}
		waiting(t, auth.NeedCode, second(s.Login(t.Context(), from(cafe), ann, oldPassword)))
		s.wantGuess(t, "a wrong code", cafe, "000000", "wrong")
		same(t, "counts that know the network", networks(), 0)
		s.wantGuess(t, "the right one", cafe, p.at(c.now()), "in")
		same(t, "counts that know the network, of passwords and of codes", networks(), 2)
	})
}

// To leave the code's page again and again costs nothing and locks nobody out.
func TestAbandonedSecondStepsLockNobodyOut(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		p := s.enrolled(t, s.home(t))
		rows := s.count(t, `SELECT COUNT(*) FROM attempts`)
		for range need.Rounds(200, 1000) {
			for _, address := range []string{home, cafe} {
				_, err := s.LoginBrowser(t.Context(), from(address), ann, oldPassword, false, thisBrowser)
				waiting(t, auth.NeedCode, err)
			}
		}
		same(t, "failures", s.count(t, `SELECT COUNT(*) FROM attempts WHERE account <> '' AND failures > 0`), 0)
		// Of the network there is a row of its own allowance, whole.
		same(t, "rows more", s.count(t, `SELECT COUNT(*) FROM attempts`)-rows, 1)
		s.wantGuess(t, "elsewhere", cafe, p.at(c.now()), "in")
		s.wantGuess(t, "at home", home, p.at(c.now().Add(30*time.Second)), "in")
	})
}

// The third wrong code within a day is mailed to the owner, and no other.
func TestWrongCodesAreMailedOnceADay(t *testing.T) {
	limited(t, func(l *auth.Limits) { l.Most = 100 }, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		s.enrolled(t, s.home(t))
		mails := func() int { return s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'user.codes-refused'`) }
		for day := range 3 {
			for wrong := 1; wrong <= 12; {
				if s.guess(t, cafe, ann, "000000") == "wrong" {
					want := day
					if wrong >= 3 {
						want++
					}
					same(t, fmt.Sprintf("day %d, wrong code %d: mails", day, wrong), mails(), want)
					wrong++
				} else {
					c.advance(time.Minute)
				}
			}
			c.advance(25 * time.Hour)
		}
		same(t, "deliveries", s.count(t, `SELECT COUNT(*) FROM deliveries JOIN events ON events.id = event_id WHERE type = 'user.codes-refused' AND subscriber = 'mail'`), 3)
	})
}

// A network that the user has logged in from while two steps were off is known to codes,
// too: from there the owner gets in, whatever is typed elsewhere.
func TestCodesKnowTheNetworksOfTheTimeWithout(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		p := s.enrolled(t, s.home(t))
		switches := func(on bool, code string) {
			t.Helper()
			cookie, err := s.LoginBrowser(t.Context(), from(home), ann, oldPassword, false, thisBrowser)
			if code != "" {
				cookie, err = s.ContinueBrowser(t.Context(), from(home), waiting(t, auth.NeedCode, err), thisBrowser, code)
			}
			ok(t, err)
			must(s.SwitchTwoSteps(t.Context(), from(home), s.visit(t, cookie), on))(t)
		}
		const road = "203.0.113.200"
		switches(false, p.codes[0])
		s.wantTry(t, "on the road, by one step", road, ann, oldPassword, "in")
		switches(true, "")
		for wrong := 0; wrong < s.Settings.Limits.Most; {
			if s.guess(t, cafe, ann, "000000") == "wrong" {
				wrong++
			} else {
				c.advance(time.Hour)
			}
		}
		s.wantGuess(t, "elsewhere", cafe, p.at(c.now()), "1h0m0s")
		s.wantGuess(t, "on the road", road, p.at(c.now()), "in")
	})
}

// A mailed reset makes its network known to the password alone, also once the owner has
// replaced the authenticator app.
func TestANetworkOfAResetGuessesNoCodes(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		user := s.home(t)
		p := s.enrolled(t, user)
		const thief = "203.0.113.200"
		ok(t, s.Reset(t.Context(), from(thief), s.recovery(t, user), oldPassword))
		for wrong := 0; wrong < s.Settings.Limits.Most; {
			if s.guess(t, cafe, ann, "000000") == "wrong" {
				wrong++
			} else {
				c.advance(time.Hour)
			}
		}
		s.wantGuess(t, "after the reset", thief, "000000", "1h0m0s")
		_, err := s.LoginBrowser(t.Context(), from(home), ann, oldPassword, true, thisBrowser)
		cookie := must(s.ContinueBrowser(t.Context(), from(home), waiting(t, auth.NeedCode, err), thisBrowser, p.codes[0]))(t)
		s.enrolBy(t, s.visit(t, cookie), c.now())
		s.wantGuess(t, "after the replacement", thief, "000000", "1h0m0s")
	})
}

// An old hash is replaced behind a right password, whatever becomes of the code.
func TestAWrongCodeKeepsTheNewHash(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		s.enrolled(t, s.home(t))
		s.exec(t, `UPDATE users SET password_hash = '`+bcryptOf(t, oldPassword)+`'`)
		_, err := s.LoginWithCode(t.Context(), from(home), ann, oldPassword, "000000")
		wantErr(t, "a wrong code", err, auth.ErrCode)
		same(t, "old hashes", s.count(t, `SELECT COUNT(*) FROM users WHERE password_hash LIKE '$2%'`), 0)
		s.wantTry(t, "a wrong password", home, ann, wrong, "wrong")
	})
}

// An operator's unlock lets the user type codes again.
func TestAnUnlockIsOfCodesToo(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		p := s.enrolled(t, s.home(t))
		for wrong := 0; wrong < s.Settings.Limits.Most; {
			if s.guess(t, cafe, ann, "000000") == "wrong" {
				wrong++
			} else {
				c.advance(time.Hour)
			}
		}
		c.advance(24 * time.Hour)
		s.wantGuess(t, "locked", cafe, p.at(c.now()), "1h0m0s")
		ok(t, s.Unlock(t.Context(), ann))
		s.wantGuess(t, "unlocked", cafe, p.at(c.now()), "in")
	})
}
