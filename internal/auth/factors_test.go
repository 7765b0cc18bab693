package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/totp"
)

// phone is what a user has beside the password.
type phone struct {
	secret string
	codes  []string // recovery codes
}

func (p phone) at(t time.Time) string { return totp.Code(p.secret, t) }

// thisBrowser is the cookie of the browser that logins by page come from.
const thisBrowser = "of this browser"

// enrolBy has a visitor with a fresh proof enrol an authenticator app, whose code is of that time.
func (s *server) enrolBy(t *testing.T, v auth.Visitor, at time.Time) (phone, auth.Cookie) {
	t.Helper()
	offer := must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t)
	p := phone{offer.Secret, offer.Codes}
	return p, must(s.EnrolAuthenticator(t.Context(), auth.Client{}, v, offer.Sealed, p.at(at)))(t)
}

// enrolled gives a user who has none an authenticator app. The codes of now and of the
// next step are still to be used.
func (s *server) enrolled(t *testing.T, user store.User) phone {
	t.Helper()
	p, _ := s.enrolBy(t, s.visit(t, s.browse(t, user.Email, true)), s.Store.Now().Add(-30*time.Second))
	return p
}

// needs is what a login lacks by its error; "": it isn't a *More.
func needs(err error) auth.Need {
	if more, ok := errors.AsType[*auth.More](err); ok {
		return more.Need
	}
	return ""
}

// waiting is the second step that a right password leads to.
func waiting(t tb, need auth.Need, err error) string {
	t.Helper()
	more, ok := errors.AsType[*auth.More](err)
	if !ok || more.Need != need {
		t.Fatalf("error %v, want that it needs %q", err, need)
	}
	return more.Login
}

// wayIn is how the audit log says that somebody came in to a session, and proved in it.
func (s *server) wayIn(t *testing.T, session string) string {
	t.Helper()
	var ways []string
	for _, e := range s.auditLog(t, time.Time{}, ann) {
		if e.SessionID == session && (e.Kind == auth.EventOpened || e.Kind == auth.AuditProved) {
			ways = append(ways, e.Reason)
		}
	}
	return strings.Join(ways, ", ")
}

// half is an API login whose password was right.
func (s *server) half(t tb, email string) string {
	t.Helper()
	_, err := s.Login(t.Context(), auth.Client{}, email, oldPassword)
	return waiting(t, auth.NeedCode, err)
}

// halfBrowser is a page login whose password was right.
func (s *server) halfBrowser(t tb, email string, need auth.Need) string {
	t.Helper()
	_, err := s.LoginBrowser(t.Context(), auth.Client{}, email, oldPassword, true, thisBrowser)
	return waiting(t, need, err)
}

// enter logs in by password and code.
func (s *server) enter(t tb, email, code string) (auth.Tokens, error) {
	t.Helper()
	return s.ContinueLogin(t.Context(), auth.Client{}, s.half(t, email), code)
}

func (s *server) wantCode(t *testing.T, what, email, code string, want error) {
	t.Helper()
	if _, err := s.enter(t, email, code); !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// RFC 6238, appendix B: the last six of its eight digits.
func TestCodesAreThoseOfRFC6238(t *testing.T) {
	t.Parallel()
	for at, want := range map[int64]string{
		59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924", 2000000000: "69279037", 20000000000: "65353130",
	} {
		same(t, fmt.Sprint("the code at ", at), auth.OneTimeCode([]byte("12345678901234567890"), auth.StepOf(time.Unix(at, 0))), want[2:])
	}
}

func TestACodeIsGoodForThreeSteps(t *testing.T) {
	t.Parallel()
	secret := []byte("12345678901234567890")
	begin := time.Unix(1_800_000_000, 0) // of a step
	step := auth.StepOf(begin)
	for _, now := range []time.Time{begin, begin.Add(15 * time.Second), begin.Add(30*time.Second - time.Nanosecond)} {
		for by := int64(-3); by <= 3; by++ {
			got, ok := auth.MatchCode(secret, auth.OneTimeCode(secret, step+by), now)
			want := by >= -1 && by <= 1
			if ok != want || ok && got != step+by {
				t.Errorf("%v: the code of %d steps on: step %d, %v", now, by, got-step, ok)
			}
		}
	}
	for _, code := range []string{"", "0", "28708", "000000000", auth.OneTimeCode(secret, step) + "0", auth.OneTimeCode(secret, step)[:5]} {
		if _, ok := auth.MatchCode(secret, code, begin); ok {
			t.Errorf("%q is good", code)
		}
	}
}

func TestACodeAsItWasMeant(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]string{
		"123456": "123456", "123 456": "123456", "123-456": "123456", "12.34.56": "123456", "123\u00a0456": "123456", "123\u2009456": "123456",
		"123\u2013456": "123456", "\u200b123\u200d456\ufeff": "123456", "\u202a123456\u202c": "123456", "1\u00ad23456": "123456",
		"٠١٢٣٤٥٦٧٨٩": "0123456789", "۰۱۲۳۴۵۶۷۸۹": "0123456789", "０１２３４５６７８９": "0123456789", "०१२३४५६७८९": "0123456789",
		"𝟎𝟏𝟗": "019", "𝟘𝟙𝟡": "019", "𝟶𝟷𝟿": "019",
		"abcde-fghij": "ABCDEFGHIJ", "": "", "½²": "½²", "12345O": "12345O", "\x00123456": "\x00123456", "\xff123456": "\uFFFD123456",
	} {
		for _, around := range []string{typed, " " + typed + "\r\n", "\t" + typed} {
			same(t, fmt.Sprintf("%q as it was meant", around), auth.PlainCode(around), want)
		}
	}
}

// What is stored of one user's factors is of no use in another's rows: a label has the
// user's id.
func TestFactorsAreBoundToTheirUser(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		user, thief := s.user(t, ann), s.user(t, "bob@example.org")
		own, stolen := s.enrolled(t, user), s.enrolled(t, thief)
		s.wantCode(t, "the thief's code, in the thief's own account", thief.Email, stolen.at(c.now()), nil)
		s.exec(t, `UPDATE authenticators SET secret = (SELECT secret FROM authenticators WHERE user_id = '`+thief.ID+`') WHERE user_id = '`+user.ID+`'`)
		s.exec(t, `INSERT INTO recovery_codes (user_id, hash, created_at) SELECT '`+user.ID+`', hash, created_at FROM recovery_codes WHERE user_id = '`+thief.ID+`'`)
		c.advance(30 * time.Second)
		s.wantCode(t, "the thief's code", ann, stolen.at(c.now()), auth.ErrSecret)
		s.wantCode(t, "the thief's recovery code", ann, stolen.codes[0], auth.ErrCode)
		s.wantCode(t, "the user's own", ann, own.codes[0], nil)
	})
}

func TestWhichCodesAreGood(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		bob := s.user(t, "bob@example.org")
		p, other := s.enrolled(t, must(s.User(t.Context(), ann))(t)), s.enrolled(t, bob)
		same(t, "characters of a secret, 5 bits each", len(strings.ReplaceAll(p.secret, " ", "")), 32)
		c.advance(time.Hour)
		step := 30 * time.Second
		for _, try := range []struct {
			what, code string
			want       error
		}{
			{"an hour ago", p.at(c.now().Add(-time.Hour)), auth.ErrCode},
			{"two steps before", p.at(c.now().Add(-2 * step)), auth.ErrCode},
			{"two steps on", p.at(c.now().Add(2 * step)), auth.ErrCode},
			{"another account's", other.at(c.now()), auth.ErrCode},
			{"another account's recovery code", other.codes[0], auth.ErrCode},
			{"none", "", auth.ErrCode},
			{"digits less", p.at(c.now())[:5], auth.ErrCode},
			{"a digit more", p.at(c.now()) + "0", auth.ErrCode},
			{"the step before", p.at(c.now().Add(-step)), nil},
			{"the same again", p.at(c.now().Add(-step)), auth.ErrCode},
			{"now", p.at(c.now()), nil},
			{"now, again", p.at(c.now()), auth.ErrCode},
			{"the step after", p.at(c.now().Add(step)), nil},
			{"the step after, again", p.at(c.now().Add(step)), auth.ErrCode},
			{"one before the last used", p.at(c.now()), auth.ErrCode},
		} {
			s.wantCode(t, try.what, ann, try.code, try.want)
		}
		arabic := func(code string) string {
			return strings.Map(func(r rune) rune { return r - '0' + '٠' }, code)
		}
		for what, spell := range map[string]func(string) string{
			"a space": func(c string) string { return c[:3] + " " + c[3:] + "\n" }, "a dash": func(c string) string { return c[:3] + "-" + c[3:] }, "Arabic digits": arabic,
		} {
			c.advance(2 * step)
			s.wantCode(t, what, ann, spell(p.at(c.now())), nil)
			s.wantCode(t, what+", again without", ann, p.at(c.now()), auth.ErrCode)
		}
		c.advance(time.Hour)
		tokens := must(s.enter(t, ann, p.at(c.now())))(t)
		same(t, "what was shown", s.session(t, tokens).AMR, "pwd otp mfa")
		same(t, "the audit log", s.wayIn(t, s.session(t, tokens).ID), "by password and code")
		s.wantCode(t, "Bob's own", bob.Email, other.at(c.now()), nil)
	})
}

func TestWhichRecoveryCodesAreGood(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		p := s.enrolled(t, s.user(t, ann))
		same(t, "recovery codes", len(p.codes), 10)
		plain := strings.ReplaceAll(p.codes[1], "-", "")
		for _, try := range []struct {
			what, code string
			want       error
		}{
			{"as shown", p.codes[0], nil},
			{"again", p.codes[0], auth.ErrCode},
			{"again, in lower case", strings.ToLower(p.codes[0]), auth.ErrCode},
			{"cut off", plain[:24], auth.ErrCode},
			{"longer", plain + "A", auth.ErrCode},
			{"lower case and ungrouped", strings.ToLower(plain), nil},
			{"again, grouped", p.codes[1], auth.ErrCode},
			{"with spaces", strings.ReplaceAll(p.codes[2], "-", " "), nil},
			{"100 KB", strings.Repeat(p.codes[3], 4000), auth.ErrCode},
		} {
			s.wantCode(t, try.what, ann, try.code, try.want)
		}
		tokens := must(s.enter(t, ann, p.codes[3]))(t)
		same(t, "what was shown", s.session(t, tokens).AMR, "pwd mfa")
		same(t, "the audit log", s.wayIn(t, s.session(t, tokens).ID), "by password and recovery code")
		user := must(s.User(t.Context(), ann))(t)
		same(t, "codes left", must(s.Factors(t.Context(), user.ID))(t).RecoveryCodes, 6)

		c.advance(time.Minute)
		cookie := must(s.ContinueBrowser(t.Context(), auth.Client{}, s.halfBrowser(t, ann, auth.NeedCode), thisBrowser, p.at(c.now())))(t)
		v := s.visit(t, cookie)
		offer := must(s.OfferRecoveryCodes(t.Context(), v.User))(t)
		ok(t, s.TakeRecoveryCodes(t.Context(), auth.Client{}, v, offer.Sealed))
		s.wantCode(t, "of the set before", ann, p.codes[4], auth.ErrCode)
		s.wantCode(t, "of the new set", ann, offer.Codes[4], nil)
		ok(t, s.TakeRecoveryCodes(t.Context(), auth.Client{}, s.visit(t, cookie), offer.Sealed)) // a second submit: they are there
		s.wantCode(t, "of the new set, once more", ann, offer.Codes[4], auth.ErrCode)
		other := must(s.OfferRecoveryCodes(t.Context(), must(s.User(t.Context(), ann))(t)))(t)
		ok(t, s.TakeRecoveryCodes(t.Context(), auth.Client{}, s.visit(t, cookie), other.Sealed))
		wantErr(t, "a set that was replaced since", s.TakeRecoveryCodes(t.Context(), auth.Client{}, s.visit(t, cookie), offer.Sealed), auth.ErrForm)
		v = s.visit(t, cookie)
		app := must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t)
		wantErr(t, "the set of an app that was offered", s.TakeRecoveryCodes(t.Context(), auth.Client{}, v, app.Sealed), auth.ErrForm)
	})
}

// The clock of the phone stays right: while the server's is wrong its codes are refused,
// and afterwards they are good. What was counted meanwhile locks nobody out.
func TestAClockThatJumpsLocksNoCodeOut(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		p := s.enrolled(t, must(s.User(t.Context(), ann))(t))
		codes := 0
		for _, jump := range []time.Duration{time.Minute, -time.Minute, time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour} {
			c.advance(2 * time.Hour)
			right := c.now()
			c.advance(jump)
			s.wantCode(t, fmt.Sprint(jump, " wrong"), ann, p.at(right), auth.ErrCode)
			s.wantCode(t, fmt.Sprint(jump, " wrong, a recovery code"), ann, p.codes[codes], nil)
			codes++
			c.set(right)
			s.wantCode(t, fmt.Sprint("put right after ", jump), ann, p.at(c.now()), nil)
		}
		// Of a phone whose clock went wrong with the server's, as on the same machine.
		c.advance(24 * time.Hour)
		s.wantCode(t, "both a day ahead", ann, p.at(c.now()), nil)
		c.advance(-24*time.Hour + time.Minute)
		s.wantCode(t, "both put right: the codes of a day are used up", ann, p.at(c.now()), auth.ErrCode)
		s.wantCode(t, "a recovery code", ann, p.codes[codes], nil)
	})
}

// Of two tabs that each show an authenticator app the first to finish enrols its own, the
// older as well as the newer.
func TestEnrolmentBegunInTwoTabs(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		v := s.visit(t, s.browse(t, ann, true))
		first, second := must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t), must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t)
		_, err := s.EnrolAuthenticator(t.Context(), auth.Client{}, v, first.Sealed, totp.Code(second.Secret, c.now()))
		wantErr(t, "the code of the other tab", err, auth.ErrCode)
		cookie := must(s.EnrolAuthenticator(t.Context(), auth.Client{}, v, first.Sealed, totp.Code(first.Secret, c.now())))(t)
		_, err = s.EnrolAuthenticator(t.Context(), auth.Client{}, v, second.Sealed, totp.Code(second.Secret, c.now()))
		wantErr(t, "the newer tab", err, auth.ErrForm)
		_, err = s.EnrolAuthenticator(t.Context(), auth.Client{}, s.visit(t, cookie), second.Sealed, totp.Code(second.Secret, c.now()))
		wantErr(t, "the newer tab, without a proof by a code", err, auth.ErrNotLoggedIn)
		must(s.EnrolAuthenticator(t.Context(), auth.Client{}, v, first.Sealed, totp.Code(first.Secret, c.now())))(t) // a second submit
		s.wantCode(t, "the newer tab's code", ann, totp.Code(second.Secret, c.now()), auth.ErrCode)
		s.wantCode(t, "the newer tab's recovery code", ann, second.Codes[0], auth.ErrCode)
		s.wantCode(t, "the older tab's code", ann, totp.Code(first.Secret, c.now().Add(30*time.Second)), nil)
		s.wantCode(t, "the older tab's recovery code", ann, first.Codes[0], nil)
	})
}

// What an account demands since makes a proof by less no longer fresh.
func TestAProofByLessIsNotFresh(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		cookie := s.browse(t, ann, true)
		same(t, "fresh by the password", s.visit(t, cookie).Fresh, true)
		s.requires(t)
		ok(t, s.AddMembers(t.Context(), "board", ann))
		v := s.visit(t, cookie)
		form := must(s.FormMAC(t.Context(), v))(t)
		taken, good, err := s.TakeForm(t.Context(), v, form)
		ok(t, err)
		if v.Fresh || v.FreshForm || !good || taken.FreshForm {
			t.Errorf("once a group requires two steps: %+v, its form %v %+v", v.Fresh, good, taken.FreshForm)
		}
		ok(t, s.RemoveMembers(t.Context(), "board", ann))
		same(t, "fresh once none requires it any longer", s.visit(t, cookie).Fresh, true)

		p, cookie := s.enrolBy(t, s.visit(t, cookie), c.now())
		same(t, "fresh after the enrolment", s.visit(t, cookie).Fresh, false)
		proof := must(s.ContinueBrowser(t.Context(), auth.Client{}, s.halfBrowser(t, ann, auth.NeedCode), thisBrowser, p.codes[0]))(t)
		same(t, "fresh by password and code", s.visit(t, proof).Fresh, true)
	})
}

// Each change is mailed: one user can't keep the mails of all others waiting.
func TestChangesOfFactorsAreBounded(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		p := s.enrolled(t, must(s.User(t.Context(), ann))(t))
		v := s.visit(t, must(s.ContinueBrowser(t.Context(), auth.Client{}, s.halfBrowser(t, ann, auth.NeedCode), thisBrowser, p.codes[0]))(t))
		take := func() error {
			v.User = must(s.User(t.Context(), ann))(t)
			return s.TakeRecoveryCodes(t.Context(), auth.Client{}, v, must(s.OfferRecoveryCodes(t.Context(), v.User))(t).Sealed)
		}
		for range 20 {
			ok(t, take())
		}
		same(t, "the code of the next refusal", auth.CodeOf(take()), auth.Throttled)
		c.advance(time.Hour + time.Minute)
		ok(t, take())
	})
}

// A secret that can't be opened is the server's fault: no code counts as wrong for it, and
// a recovery code gets in.
func TestCodesWithoutTheirKey(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		p := s.enrolled(t, s.home(t))
		s.exec(t, `UPDATE authenticators SET secret = '00000000' || substr(secret, 9)`)
		for range 2 {
			_, err := s.enter(t, ann, p.at(c.now()))
			wantErr(t, "a right code", err, auth.ErrSecret)
			_, err = s.LoginWithCode(t.Context(), from(home), ann, oldPassword, p.at(c.now()))
			wantErr(t, "a right code with its password", err, auth.ErrSecret)
		}
		same(t, "what counts as wrong", s.count(t, `SELECT COUNT(*) FROM attempts WHERE account <> '' AND failures > 0`), 0)
		s.wantCode(t, "a recovery code", ann, p.codes[0], nil)
	})
}

// What was counted of an authenticator app goes with it, and who sets one up has nothing
// to guess.
func TestCodesOfARemovedAppCountNoMore(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		user := must(s.User(t.Context(), ann))(t)
		p := s.enrolled(t, user)
		for range 5 {
			s.wantCode(t, "a wrong code", ann, "000000", auth.ErrCode)
			c.advance(time.Hour)
		}
		v := s.visit(t, must(s.ContinueBrowser(t.Context(), auth.Client{}, s.halfBrowser(t, ann, auth.NeedCode), thisBrowser, p.codes[0]))(t))
		ok(t, s.RemoveAuthenticator(t.Context(), auth.Client{}, v))
		same(t, "what is counted", s.count(t, `SELECT COUNT(*) FROM attempts WHERE account LIKE 'code %'`), 0)
		s.requires(t)
		ok(t, s.AddMembers(t.Context(), "board", ann))
		login := s.halfBrowser(t, ann, auth.NeedEnrol)
		offer := must(s.OfferAtLogin(t.Context(), login, thisBrowser, "Club"))(t)
		for range 30 {
			_, err := s.EnrolAtLogin(t.Context(), from("192.0.2.1"), login, thisBrowser, offer.Sealed, "000000")
			wantErr(t, "a wrong code", err, auth.ErrCode)
		}
		must(s.EnrolAtLogin(t.Context(), from("192.0.2.1"), login, thisBrowser, offer.Sealed, totp.Code(offer.Secret, c.now())))(t)
		same(t, "networks that codes know", s.count(t, `SELECT COUNT(*) FROM attempts WHERE account LIKE 'code %' AND network = '192.0.2.0/24'`), 1)
	})
}

// A network that a reset made known is none that a login by two steps is from for the first
// time.
func TestAKnownNetworkIsNotNewByTwoSteps(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		s.forApps(t)
		user := must(s.User(t.Context(), ann))(t)
		must(s.Login(t.Context(), from("192.0.2.1"), ann, oldPassword))(t)
		p := s.enrolled(t, user)
		ok(t, s.Reset(t.Context(), from("198.51.100.7"), s.recovery(t, user), newPassword))
		login := func(address, code string) {
			t.Helper()
			_, err := s.Login(t.Context(), from(address), ann, newPassword)
			must(s.ContinueLogin(t.Context(), from(address), waiting(t, auth.NeedCode, err), code))(t)
		}
		login("198.51.100.7", p.at(c.now()))
		same(t, "notices of a known network", s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'session.new-network'`), 0)
		login("203.0.113.5", p.codes[0])
		same(t, "notices of a new one", s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'session.new-network'`), 1)
	})
}

// An offer is one account's, for a quarter of an hour, and as the account was then.
func TestAnOfferIsOneAccounts(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		v, bob := s.visit(t, s.browse(t, s.user(t, ann).Email, true)), s.user(t, "bob@example.org")
		enrol := func(what, sealed, secret string, v auth.Visitor, want error) {
			t.Helper()
			_, err := s.EnrolAuthenticator(t.Context(), auth.Client{}, v, sealed, totp.Code(secret, c.now()))
			wantErr(t, what, err, want)
		}
		mine, bobs := must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t), must(s.OfferAuthenticator(t.Context(), bob, "Club"))(t)
		enrol("another account's", bobs.Sealed, bobs.Secret, v, auth.ErrForm)
		enrol("changed", mine.Sealed[:len(mine.Sealed)-1], mine.Secret, v, auth.ErrForm)
		enrol("none", "", mine.Secret, v, auth.ErrForm)
		onlyCodes := must(s.OfferRecoveryCodes(t.Context(), v.User))(t)
		enrol("of recovery codes alone", onlyCodes.Sealed, mine.Secret, v, auth.ErrForm)
		wantErr(t, "recovery codes without an app", s.TakeRecoveryCodes(t.Context(), auth.Client{}, v, onlyCodes.Sealed), auth.ErrNoAuthenticator)
		unfresh := v
		unfresh.FreshForm = false
		enrol("without a fresh proof", mine.Sealed, mine.Secret, unfresh, auth.ErrNotLoggedIn)
		c.advance(15 * time.Minute)
		enrol("after a quarter of an hour", mine.Sealed, mine.Secret, v, auth.ErrForm)
		c.advance(-17 * time.Minute)
		enrol("of a clock that was ahead", mine.Sealed, mine.Secret, v, auth.ErrForm)
		c.advance(2*time.Minute + 14*time.Minute + 59*time.Second)
		enrol("just before", mine.Sealed, mine.Secret, v, nil)
		_, err := s.ReadOffer(t.Context(), must(s.User(t.Context(), ann))(t), mine.Sealed, "Club")
		wantErr(t, "its form, shown once more", err, auth.ErrForm)
	})
}

// A login that waits is worth nothing at another door, in another browser, for another
// step, too late, or once the account has changed.
func TestALoginThatWaits(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		p := s.enrolled(t, s.user(t, ann))
		c.advance(time.Minute)
		api, page := s.half(t, ann), s.halfBrowser(t, ann, auth.NeedCode)
		none := func(what string, err error) {
			t.Helper()
			wantErr(t, what, err, auth.ErrLogin)
		}
		onPage := func(login, browser string) error {
			_, err := s.ContinueBrowser(t.Context(), auth.Client{}, login, browser, p.at(c.now()))
			return err
		}
		byAPI := func(login string) error {
			_, err := s.ContinueLogin(t.Context(), auth.Client{}, login, p.at(c.now()))
			return err
		}
		none("the API's on a page", onPage(api, thisBrowser))
		none("the API's on a page without a cookie", onPage(api, ""))
		none("a page's at the API", byAPI(page))
		none("in another browser", onPage(page, "of another"))
		none("in a browser without a cookie", onPage(page, ""))
		_, err := s.LoginBrowser(t.Context(), auth.Client{}, ann, oldPassword, true, "")
		none("begun without a cookie", onPage(waiting(t, auth.NeedCode, err), ""))
		_, err = s.OfferAtLogin(t.Context(), page, thisBrowser, "Club")
		none("for a code, to enrol", err)
		user := must(s.User(t.Context(), ann))(t)
		offer := must(s.OfferAuthenticator(t.Context(), user, "Club"))(t)
		_, err = s.EnrolAtLogin(t.Context(), auth.Client{}, page, thisBrowser, offer.Sealed, totp.Code(offer.Secret, c.now()))
		none("for a code, to enrol", err)
		for _, text := range []string{"", ".", api + "x", "x" + api, strings.ToUpper(page), page[:len(page)-1], strings.SplitN(page, ".", 2)[0] + "." + strings.SplitN(api, ".", 2)[1]} {
			none(fmt.Sprintf("forged: %.20q", text), byAPI(text))
			none(fmt.Sprintf("forged: %.20q", text), onPage(text, thisBrowser))
		}
		c.advance(10*time.Minute - time.Microsecond)
		ok(t, byAPI(api))
		c.advance(time.Minute)
		none("after its ten minutes", onPage(page, thisBrowser))
		c.advance(-13 * time.Minute)
		none("of a clock that was ahead", onPage(page, thisBrowser))
		c.advance(time.Hour)

		for what, change := range map[string]func() error{
			"a new password":       func() error { return s.SetPassword(t.Context(), ann, oldPassword) },
			"a revocation":         func() error { return s.Revoke(t.Context(), ann) },
			"being enacted":        func() error { return errors.Join(s.Revoke(t.Context(), ann), s.Reinstate(t.Context(), ann)) },
			"another app enrolled": func() error { p = s.enrolAgain(t, c, p); return nil },
		} {
			c.advance(time.Minute)
			api, page := s.half(t, ann), s.halfBrowser(t, ann, auth.NeedCode)
			ok(t, change())
			c.advance(time.Minute)
			none("after "+what, byAPI(api))
			none("after "+what, onPage(page, thisBrowser))
			_, err := s.Pending(t.Context(), page, thisBrowser)
			none("shown after "+what, err)
			if what == "a revocation" {
				ok(t, s.Reinstate(t.Context(), ann))
			}
		}
		same(t, "what is live", s.count(t, `SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL AND kind = 'api'`), 0)
		c.advance(time.Minute)
		api = s.half(t, ann)
		ok(t, s.DeleteUser(t.Context(), ann))
		none("after a deletion", byAPI(api))
	})
}

// enrolAgain replaces Ann's authenticator app.
func (s *server) enrolAgain(t *testing.T, c *clock, p phone) phone {
	t.Helper()
	cookie := must(s.ContinueBrowser(t.Context(), auth.Client{}, s.halfBrowser(t, ann, auth.NeedCode), thisBrowser, p.at(c.now())))(t)
	next, _ := s.enrolBy(t, s.visit(t, cookie), c.now())
	return next
}

// Who must have two steps enrols at the next login, or at the next fresh proof, whose
// session goes on.
func TestEnrolmentAtALogin(t *testing.T) {
	eachForApps(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		before := s.login(t, ann, oldPassword)
		cookie := s.browse(t, ann, true)
		s.requires(t)
		ok(t, s.AddMembers(t.Context(), "board", ann))
		s.alive(t, before)

		_, err := s.Login(t.Context(), auth.Client{}, ann, oldPassword)
		api := waiting(t, auth.NeedEnrol, err)
		_, err = s.ContinueLogin(t.Context(), auth.Client{}, api, "000000")
		wantErr(t, "a code where an app is missing", err, auth.ErrLogin)
		_, err = s.OfferAtLogin(t.Context(), api, "", "Club")
		wantErr(t, "the API's login on a page", err, auth.ErrLogin)
		page := s.halfBrowser(t, ann, auth.NeedEnrol)
		_, err = s.ContinueBrowser(t.Context(), auth.Client{}, page, thisBrowser, "000000")
		wantErr(t, "a code where an app is missing", err, auth.ErrLogin)

		v := s.visit(t, cookie)
		_, err = s.Prove(t.Context(), auth.Client{}, v, oldPassword, thisBrowser)
		proving := waiting(t, auth.NeedEnrol, err)
		offer := must(s.OfferAtLogin(t.Context(), proving, thisBrowser, "Club"))(t)
		_, err = s.EnrolAtLogin(t.Context(), auth.Client{}, proving, thisBrowser, offer.Sealed, "000000")
		wantErr(t, "a wrong code", err, auth.ErrCode)
		next := must(s.EnrolAtLogin(t.Context(), auth.Client{}, proving, thisBrowser, offer.Sealed, totp.Code(offer.Secret, c.now())))(t)
		now := s.visit(t, next)
		same(t, "the session that goes on", now.SessionID, v.SessionID)
		same(t, "its freshness", now.Fresh, true)
		same(t, "what was shown", now.AMR, "pwd otp mfa")
		same(t, "the audit log", s.wayIn(t, now.SessionID), "by password, by password and code")
		s.wantDead(t, "the cookie from before", cookie)
		s.dead(t, v.User, before)

		_, err = s.EnrolAtLogin(t.Context(), auth.Client{}, page, thisBrowser, offer.Sealed, totp.Code(offer.Secret, c.now()))
		wantErr(t, "another login that waited to enrol", err, auth.ErrLogin)
		s.wantCode(t, "the code, again", ann, totp.Code(offer.Secret, c.now()), auth.ErrCode)
		s.wantCode(t, "the next", ann, totp.Code(offer.Secret, c.now().Add(30*time.Second)), nil)
		wantErr(t, "the switch", second(s.SwitchTwoSteps(t.Context(), auth.Client{}, now, false)), auth.ErrTwoStepsGroup)
		wantErr(t, "the removal", s.RemoveAuthenticator(t.Context(), auth.Client{}, now), auth.ErrTwoStepsGroup)
	})
}
