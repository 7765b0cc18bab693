package web_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/testing/totp"
)

// twoSteps gives a user an authenticator app and recovery codes. The codes of now and of
// the next step are still to be used.
func (s *site) twoSteps(email string) auth.Enrolment {
	s.tb.Helper()
	v, err := s.rules.Visitor(s.tb.Context(), s.pageCookie(email))
	s.ok(err)
	offer, err := s.rules.OfferAuthenticator(s.tb.Context(), v.User, "Club")
	s.ok(err)
	_, err = s.rules.EnrolAuthenticator(s.tb.Context(), auth.Client{}, v, offer.Sealed, totp.Code(offer.Secret, s.clock.now().Add(-30*time.Second)))
	s.ok(err)
	return offer
}

// board has a group require two steps of a user.
func (s *site) board(email string) {
	s.tb.Helper()
	s.ok(s.command.CreateGroup(s.tb.Context(), "board"))
	s.ok(s.command.RequireTwoSteps(s.tb.Context(), "board", true))
	s.ok(s.command.AddMembers(s.tb.Context(), "board", email))
}

// The answers to a login that lacks something, as clients must be able to rely on them.
const (
	wantsCode = `{"type":"urn:kwai:second-factor","title":"Unauthorized","status":401,"detail":"A second step is needed: send a code of your authenticator app, or a recovery code, as otp, with auth_session."`
	wantsOTP  = `{"type":"urn:kwai:second-factor","title":"Unauthorized","status":401,"detail":"A second step is needed: send a code of your authenticator app, or a recovery code, as otp."`
	wrongCode = `{"type":"urn:kwai:second-factor","title":"Unauthorized","status":401,"detail":"The code is wrong, or was used before."`
	wantsApp  = `{"type":"urn:kwai:enrolment","title":"Unauthorized","status":401,"detail":"Your account needs two steps, and has no authenticator app yet. Log in at https://auth.example.org/login to set one up."`
	loginOver = `{"type":"about:blank","title":"Unauthorized","status":401,"detail":"The login has taken too long, or the account has changed: log in again."`
	wrongPass = `{"type":"about:blank","title":"Unauthorized","status":401,"detail":"The address or the password is wrong."`
	noTokens  = `{"type":"about:blank","title":"Unauthorized","status":401,"detail":"You are not logged in."`
)

// waits is the auth_session of an answer, whose other members are those.
func (a answer) waits(t *testing.T, what, want, oauth string) string {
	t.Helper()
	session := a.field("auth_session")
	member, _ := json.Marshal(session)
	same(t, what, string(a.Body), want+`,"auth_session":`+string(member)+oauth+"}\n")
	same(t, what+": the status", a.Status, http.StatusUnauthorized)
	same(t, what+": Content-Type", a.Header.Get("Content-Type"), "application/problem+json")
	same(t, what+": Cache-Control", a.Header.Get("Cache-Control"), "no-store")
	if session == "" {
		t.Fatalf("%s: %v has no auth_session", what, a)
	}
	return session
}

// isRefusal holds that an answer is that 401, and no other member.
func (a answer) isRefusal(t *testing.T, what, want string) {
	t.Helper()
	same(t, what, string(a.Body), want+"}\n")
	same(t, what+": the status", a.Status, http.StatusUnauthorized)
}

func (a answer) tokens(t *testing.T, what string) {
	t.Helper()
	if a.Status != http.StatusOK || a.field("access_token") == "" || a.field("refresh_token") == "" {
		t.Errorf("%s: %v", what, a)
	}
}

func TestLoginByTwoSteps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		const ann = "ann@example.org"
		s.user(ann, good)
		app := s.twoSteps(ann)
		password := func(more ...string) answer {
			return s.post("login", "", append([]string{"username", ann, "password", good}, more...)...)
		}
		next := func() string {
			s.clock.advance(time.Minute)
			return totp.Code(app.Secret, s.clock.now())
		}
		for kind, post := range map[string]func(endpoint, bearer string, fields ...string) answer{"urlencoded": s.post, "multipart": s.postMultipart} {
			session := post("login", "", "username", ann, "password", good).waits(t, kind, wantsCode, "")
			post("login", "", "auth_session", session, "otp", "000000").isRefusal(t, kind+": a wrong code", wrongCode)
			code := next()
			post("login", "", "auth_session", session, "otp", code[:3]+" "+code[3:]).tokens(t, kind)
			post("login", "", "auth_session", session, "otp", code).isRefusal(t, kind+": the code again", wrongCode)
			post("login", "", "username", ann, "password", good, "otp", next()).tokens(t, kind+" at once")
		}
		session := password("otp", "").waits(t, "an empty code", wantsCode, "")
		s.post("login", "", "auth_session", session, "otp", app.Codes[0], "username", "nobody@example.org", "password", "x").tokens(t, "a recovery code, beside all that is no longer looked at")
		password("otp", app.Codes[0]).isRefusal(t, "a recovery code again", wrongCode)
		password("otp", strings.ToLower(app.Codes[1])).tokens(t, "a recovery code at once")
		password("otp", "x").isRefusal(t, "what is no code", wrongCode)
		s.post("login", "", "username", ann, "password", better, "otp", next()).isRefusal(t, "a right code behind a wrong password", wrongPass)
		s.post("login", "", "username", "nobody@example.org", "password", good, "otp", next()).isRefusal(t, "a right code of nobody", wrongPass)
		s.post("login", "", "auth_session", session).problem(t, 422, "otp")
		s.post("login", "", "otp", next()).problem(t, 422, "username", "password")
		s.post("login", "", "auth_session", session, "auth_session", session, "otp", "1", "otp", "2").problem(t, 422, "auth_session", "otp", "username", "password")
		s.post("login", "", "auth_session", session+"x", "otp", next()).isRefusal(t, "a forged auth_session", loginOver)
		s.get(userPath, session).problem(t, 401)
		s.clock.advance(10 * time.Minute)
		s.post("login", "", "auth_session", session, "otp", next()).isRefusal(t, "after ten minutes", loginOver)
		session = password().waits(t, "anew", wantsCode, "")
		s.setPassword(ann, good)
		s.post("login", "", "auth_session", session, "otp", next()).isRefusal(t, "after a new password", loginOver)
	}, limitsOff)
}

// OAuth 2's clients are answered in its words, those of the first-party draft for the rest.
func TestThePasswordGrantByTwoSteps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		const ann, bob = "ann@example.org", "bob@example.org"
		s.user(ann, good)
		app := s.twoSteps(ann)
		post := func(fields ...string) answer {
			return s.post("login", "", append([]string{"grant_type", "password"}, fields...)...)
		}
		session := post("username", ann, "password", good).waits(t, "the first step", wantsCode,
			`,"error":"insufficient_authorization","error_description":"A second step is needed: send a code of your authenticator app, or a recovery code, as otp, with auth_session."`)
		post("auth_session", session, "otp", "000000").isRefusal(t, "a wrong code", wrongCode+`,"error":"invalid_grant","error_description":"The code is wrong, or was used before."`)
		post("auth_session", "x", "otp", "000000").isRefusal(t, "no such login", loginOver+`,"error":"invalid_session","error_description":"The login has taken too long, or the account has changed: log in again."`)
		post("auth_session", session).oauthProblem(t, 422, "invalid_request", "otp")
		post("auth_session", session, "otp", totp.Code(app.Secret, s.clock.now())).tokens(t, "the second step")

		s.user(bob, good)
		s.board(bob)
		const setUp = "Your account needs two steps, and has no authenticator app yet. Log in at https://auth.example.org/login to set one up."
		post("username", bob, "password", good).isRefusal(t, "an app is missing", wantsApp+`,"error":"redirect_to_web","error_description":"`+setUp+`"`)
		s.post("login", "", "username", bob, "password", good, "otp", "000000").isRefusal(t, "an app is missing, with a code", wantsApp)
		s.post("login", "", "username", bob, "password", better).isRefusal(t, "and the password is wrong", wrongPass)
	}, limitsOff)
}

// Who has no two steps is answered as ever, whatever fields are sent beside the password.
func TestLoginByOneStepIsAsEver(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		const ann = "ann@example.org"
		s.user(ann, good)
		s.post("login", "", "username", ann, "password", good, "otp", "000000").tokens(t, "a code that nobody asked for")
		s.post("login", "", "username", ann, "password", better, "otp", "000000").isRefusal(t, "a wrong password", wrongPass)
		s.post("login", "", "username", ann, "password", better).isRefusal(t, "a wrong password", wrongPass)
		in := s.login(ann)
		s.post("password", in.field("access_token"), "password", good, "new_password", better, "otp", "000000").done(t, "a new password")
	}, limitsOff)
}

// A stolen access token and a phished password change no password of an account with two
// steps.
func TestThePasswordChangesByTwoSteps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		const ann, bob = "ann@example.org", "bob@example.org"
		s.user(ann, good)
		app := s.twoSteps(ann)
		code := totp.Code(app.Secret, s.clock.now())
		in := s.post("login", "", "username", ann, "password", good, "otp", code).field("access_token")
		change := func(access string, more ...string) answer {
			return s.post("password", access, append([]string{"password", good, "new_password", better}, more...)...)
		}
		change(in).isRefusal(t, "the password alone", wantsOTP)
		change(in, "otp", "").isRefusal(t, "an empty code", wantsOTP)
		change(in, "otp", "000000").isRefusal(t, "a wrong code", wrongCode)
		change(in, "otp", code).isRefusal(t, "the code of the login", wrongCode)
		change("", "otp", app.Codes[0]).isRefusal(t, "a code without a token", noTokens)
		s.post("password", in, "password", better, "new_password", better+"!", "otp", app.Codes[0]).problem(t, 422, "password")
		s.post("password", in, "password", good, "new_password", "short", "otp", app.Codes[0]).problem(t, 422, "new_password")
		change(in, "otp", app.Codes[0]).done(t, "a recovery code")
		same(t, "the session", s.get(userPath, in).Status, http.StatusOK)
		s.post("password", in, "password", better, "new_password", good, "otp", app.Codes[0]).isRefusal(t, "the recovery code again", wrongCode)
		s.clock.advance(time.Minute)
		s.post("password", in, "password", better, "new_password", good, "otp", totp.Code(app.Secret, s.clock.now())).done(t, "a code")
		s.post("login", "", "username", ann, "password", good, "otp", totp.Code(app.Secret, s.clock.now())).isRefusal(t, "the code of the change, at a login", wrongCode)

		s.user(bob, good)
		in = s.login(bob).field("access_token")
		s.board(bob)
		change(in, "otp", "000000").isRefusal(t, "an app is missing", wantsApp)
		s.post("login", "", "username", bob, "password", good).isRefusal(t, "the password from before, which is still good", wantsApp)
	}, limitsOff)
}
