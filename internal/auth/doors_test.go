package auth_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/passkeytest"
	"kwai/internal/testing/totp"
)

// What can be shown at a door.
const (
	aPassword     = "the password"
	aWrong        = "a wrong password"
	nothing       = "nothing"
	anAPILogin    = "a login of the API that waits for a code"
	aPageLogin    = "a login by page that waits for a code"
	aProofLogin   = "a fresh proof that waits for a code"
	anAPIEnrol    = "a login of the API that waits for an app"
	aPageEnrol    = "a login by page that waits for an app"
	aProofEnrol   = "a fresh proof that waits for an app"
	aBrowser      = "the cookie of the browser"
	aCodeNow      = "a code"
	aRecoveryCode = "a recovery code"
	anOfferedCode = "a code of the app that is offered"
	anOffer       = "an app that is offered"
	anOfferOfMany = "recovery codes that are offered"
	anAnswer      = "an answer of a passkey"
	aResetID      = "a unique id"
	anAccess      = "an access token"
	aRefresh      = "a refresh token"
	aFreshCookie  = "a fresh cookie"
	anOldCookie   = "a cookie that isn't fresh"
	anAppsCode    = "a code of an app"
	anAppsAccess  = "an access token of an app"
	anAppsRefresh = "a refresh token of an app"
	// What the kinds above had before the account came to its state begins so.
	stale = "from before: "
	// And those of another account, which has an authenticator app.
	bobs = "another's: "
)

// house is an account in some state, and all that can be shown for it.
type house struct {
	t       *testing.T
	s       *server
	app     store.App
	user    store.User
	visitor auth.Visitor // by the fresh cookie, read when it was good
	key     *passkeytest.Key
	tick    func() // between two challenges
	shown   map[string]string
}

// accountStates are the states of an account.
var accountStates = []struct {
	name string
	make func(h *house)
}{
	{"plain", func(h *house) { h.collect() }},
	{"app", func(h *house) {
		h.collect()
		h.age(true)
		h.enrol()
		h.collect()
	}},
	{"off", func(h *house) { // two steps are switched off
		h.enrol()
		h.collect()
		h.age(false)
		h.switchTo(false)
		h.collect()
	}},
	{"switch", func(h *house) { // off, and on again
		h.enrol()
		h.switchTo(false)
		h.collect()
		h.age(true)
		h.switchTo(true)
		h.collect()
	}},
	{"group", func(h *house) { // which requires them, and there is no app yet
		h.join()
		h.collect()
	}},
	{"member", func(h *house) { // of such a group, with an app
		h.enrol()
		h.switchTo(false)
		h.join()
		h.collect()
	}},
	{"passkey", func(h *house) { // and one step
		h.register()
		h.collect()
	}},
	{"both", func(h *house) { // an app and a passkey
		h.enrol()
		h.collect()
		h.age(false)
		h.register()
		h.collect()
	}},
	{"keyed", func(h *house) { // a group requires two steps, and there is a passkey alone
		h.register()
		h.join()
		h.collect()
	}},
	{"revoked", func(h *house) {
		h.enrol()
		h.register()
		h.collect()
		ok(h.t, h.s.Revoke(h.t.Context(), h.user.Email))
	}},
	{"invited", func(h *house) { // without a password yet
		h.user = h.invite()
		h.shown[aPassword], h.shown[aWrong], h.shown[nothing], h.shown[aBrowser] = oldPassword, newPassword, "", thisBrowser
		h.shown[aResetID] = h.s.recovery(h.t, h.user)
	}},
}

func (h *house) invite() store.User {
	h.t.Helper()
	ok(h.t, h.s.DeleteUser(h.t.Context(), h.user.Email))
	must(h.s.CreateUser(h.t.Context(), auth.NewUser{Email: h.user.Email}))(h.t)
	return must(h.s.User(h.t.Context(), h.user.Email))(h.t)
}

// phone is the authenticator app, if there is one.
func (h *house) phone() phone {
	return phone{h.shown["secret"], strings.Fields(h.shown["codes"])}
}

// age makes what can be shown what was shown before: of sessions, too, if they have ended.
func (h *house) age(sessions bool) {
	for _, what := range slices.Collect(maps.Keys(h.shown)) {
		switch what {
		case anAccess, aRefresh, aFreshCookie, anOldCookie, anAppsAccess, anAppsRefresh:
			if !sessions {
				continue
			}
		case anAPILogin, aPageLogin, aProofLogin, anAPIEnrol, aPageEnrol, aProofEnrol, anOffer, anOfferedCode, anOfferOfMany, anAppsCode:
		default:
			continue
		}
		h.shown[stale+what] = h.shown[what]
		delete(h.shown, what)
	}
}

// by is a visitor with a fresh proof, by all that the account demands.
func (h *house) by() (auth.Visitor, auth.Cookie) {
	h.t.Helper()
	cookie, err := h.s.LoginBrowser(h.t.Context(), auth.Client{}, h.user.Email, oldPassword, true, thisBrowser)
	if needs(err) == auth.NeedCode {
		cookie, err = h.s.ContinueBrowser(h.t.Context(), auth.Client{}, waiting(h.t, auth.NeedCode, err), thisBrowser, h.recoveryCode())
	}
	if needs(err) == auth.NeedPasskey {
		cookie, err = h.s.LoginPasskey(h.t.Context(), auth.Client{}, []byte(h.answer()), true)
	}
	ok(h.t, err)
	return h.s.visit(h.t, cookie), cookie
}

// answer is one of the passkey.
func (h *house) answer() string {
	h.tick()
	return string(h.s.assert(h.t, h.key))
}

func (h *house) register() {
	h.t.Helper()
	v, _ := h.by()
	key := newKey()
	ok(h.t, h.s.AddPasskey(h.t.Context(), auth.Client{}, v, "Phone", key.Register(must(h.s.OfferPasskey(h.t.Context(), v, "kwai"))(h.t))))
	h.key = key
}

// recoveryCode is one that wasn't used.
func (h *house) recoveryCode() string {
	code, rest, _ := strings.Cut(h.shown["codes"], " ")
	h.shown["codes"] = rest
	return code
}

func (h *house) enrol() {
	h.t.Helper()
	v, _ := h.by()
	p, _ := h.s.enrolBy(h.t, v, h.s.Store.Now().Add(-30*time.Second))
	h.shown["secret"], h.shown["codes"] = p.secret, strings.Join(p.codes, " ")
}

func (h *house) switchTo(on bool) {
	h.t.Helper()
	v, _ := h.by()
	must(h.s.SwitchTwoSteps(h.t.Context(), auth.Client{}, v, on))(h.t)
}

// join has a group require two steps. What was shown before goes on; a cookie that was
// fresh by the password alone isn't any longer.
func (h *house) join() {
	h.t.Helper()
	h.collect()
	h.age(false)
	h.s.requires(h.t)
	ok(h.t, h.s.AddMembers(h.t.Context(), "board", h.user.Email))
}

// collect fills in what can be shown now, unless it goes on from before.
func (h *house) collect() {
	h.t.Helper()
	s, ctx := h.s, h.t.Context()
	put := func(what, text string) { h.shown[what] = text }
	put(aPassword, oldPassword)
	put(aWrong, newPassword)
	put(nothing, "")
	put(aBrowser, thisBrowser)
	h.user = must(s.User(ctx, h.user.Email))(h.t)
	if h.shown[aFreshCookie] == "" { // there is no session to go on
		in, err := s.Login(ctx, auth.Client{}, h.user.Email, oldPassword)
		if needs(err) == auth.NeedCode {
			in, err = s.ContinueLogin(ctx, auth.Client{}, waiting(h.t, auth.NeedCode, err), h.recoveryCode())
		}
		ok(h.t, err)
		put(anAccess, in.Access)
		put(aRefresh, in.Refresh)
		_, cookie := h.by()
		put(aFreshCookie, cookie.Value)
		_, old := h.by()
		put(anOldCookie, old.Value)
		s.exec(h.t, fmt.Sprintf(`UPDATE sessions SET auth_time = auth_time - 1800000000 WHERE id = '%s'`, s.visit(h.t, old).SessionID))
		v := s.visit(h.t, cookie)
		app := s.exchange(h.t, h.app, s.code(h.t, v, h.app))
		put(anAppsAccess, app.Access)
		put(anAppsRefresh, app.Refresh)
	}
	h.visitor = must(s.Visitor(ctx, h.shown[aFreshCookie]))(h.t)
	put(anAppsCode, s.code(h.t, h.visitor, h.app))
	for what, begin := range map[string]func() error{
		anAPILogin: func() error { return second(s.Login(ctx, auth.Client{}, h.user.Email, oldPassword)) },
		aPageLogin: func() error {
			return second(s.LoginBrowser(ctx, auth.Client{}, h.user.Email, oldPassword, true, thisBrowser))
		},
		aProofLogin: func() error { return second(s.Prove(ctx, auth.Client{}, h.visitor, oldPassword, thisBrowser)) },
	} {
		if d := must(s.Store.Read(ctx).Demands(h.user.ID, passkeyHost))(h.t); !d.TwoSteps && !d.Group {
			continue
		}
		more, is := errors.AsType[*auth.More](begin())
		if !is {
			h.t.Fatalf("%s: nothing waits", what)
		}
		if more.Need == auth.NeedPasskey { // nothing waits
			continue
		}
		if more.Need == auth.NeedEnrol {
			what = map[string]string{anAPILogin: anAPIEnrol, aPageLogin: aPageEnrol, aProofLogin: aProofEnrol}[what]
		}
		put(what, more.Login)
	}
	offer := must(s.OfferAuthenticator(ctx, h.user, "Club"))(h.t)
	put(anOffer, offer.Sealed)
	put(anOfferedCode, totp.Code(offer.Secret, s.Store.Now()))
	put(anOfferOfMany, must(s.OfferRecoveryCodes(ctx, h.user))(h.t).Sealed)
	if h.shown["secret"] != "" {
		put(aCodeNow, h.phone().at(s.Store.Now()))
		put(aRecoveryCode, h.recoveryCode())
	}
	if h.key != nil {
		put(anAnswer, h.answer())
	}
	if h.shown[aResetID] == "" {
		put(aResetID, s.recovery(h.t, h.user))
	}
}

// requires makes the group that requires two steps.
func (s *server) requires(t *testing.T) {
	t.Helper()
	if err := s.CreateGroup(t.Context(), "board"); err != nil {
		same(t, "the group is there", auth.CodeOf(err), auth.Conflict)
		return
	}
	ok(t, s.RequireTwoSteps(t.Context(), "board", true))
}

// doors are all that lead into an account, or out of what somebody else could use. Each is
// tried with one thing after the other in the place of what its name says; all else that it
// asks for is right. takes lists what it takes, by the account's states; everything else is
// refused. alone doors ask for nothing else: another account's opens that account.
var doors = []struct {
	name    string
	alone   bool
	try     func(h *house, text string) error
	takes   map[string]string
	refuses []error // beside a *More
}{
	{"login, the password", true, func(h *house, text string) error {
		return second(h.s.Login(h.t.Context(), auth.Client{}, h.user.Email, text))
	}, map[string]string{aPassword: "plain off passkey"}, []error{auth.ErrCredentials}},
	{"login by page, the password", true, func(h *house, text string) error {
		return second(h.s.LoginBrowser(h.t.Context(), auth.Client{}, h.user.Email, text, true, thisBrowser))
	}, map[string]string{aPassword: "plain off passkey"}, []error{auth.ErrCredentials}},
	{"fresh proof, the password", true, func(h *house, text string) error {
		v := h.visitor
		v.User = h.user
		return second(h.s.Prove(h.t.Context(), auth.Client{}, v, text, thisBrowser))
	}, map[string]string{aPassword: "plain off passkey"}, []error{auth.ErrCredentials}},

	{"both at once, the password", false, func(h *house, text string) error {
		return second(h.s.LoginWithCode(h.t.Context(), from(home), h.user.Email, text, h.shown[aCodeNow]))
	}, map[string]string{aPassword: "plain app off switch member passkey both"}, []error{auth.ErrCredentials}},
	{"both at once, the code", false, func(h *house, text string) error {
		return second(h.s.LoginWithCode(h.t.Context(), from(home), h.user.Email, oldPassword, text))
	}, map[string]string{aCodeNow: "app off switch member passkey both", aRecoveryCode: "app off switch member both", "": "plain off passkey"}, []error{auth.ErrCode, auth.ErrCredentials}},

	{"second step, the login", false, func(h *house, text string) error {
		return second(h.s.ContinueLogin(h.t.Context(), auth.Client{}, text, h.shown[aCodeNow]))
	}, map[string]string{anAPILogin: "app switch member both"}, []error{auth.ErrLogin, auth.ErrCode}},
	{"second step, the code", false, func(h *house, text string) error {
		return second(h.s.ContinueLogin(h.t.Context(), auth.Client{}, h.shown[anAPILogin], text))
	}, map[string]string{aCodeNow: "app switch member both", aRecoveryCode: "app switch member both"}, []error{auth.ErrCode, auth.ErrLogin}},
	{"second step by page, the login", false, func(h *house, text string) error {
		return second(h.s.ContinueBrowser(h.t.Context(), auth.Client{}, text, thisBrowser, h.shown[aCodeNow]))
	}, map[string]string{aPageLogin: "app switch member both", aProofLogin: "app switch member both"}, []error{auth.ErrLogin, auth.ErrCode}},
	{"second step by page, the code", false, func(h *house, text string) error {
		return second(h.s.ContinueBrowser(h.t.Context(), auth.Client{}, h.shown[aPageLogin], thisBrowser, text))
	}, map[string]string{aCodeNow: "app switch member both", aRecoveryCode: "app switch member both"}, []error{auth.ErrCode, auth.ErrLogin}},
	{"second step by page, the browser", false, func(h *house, text string) error {
		return second(h.s.ContinueBrowser(h.t.Context(), auth.Client{}, h.shown[aPageLogin], text, h.shown[aCodeNow]))
	}, map[string]string{aBrowser: "app switch member both"}, []error{auth.ErrLogin}},
	{"second step of a proof, the code", false, func(h *house, text string) error {
		return second(h.s.ContinueBrowser(h.t.Context(), auth.Client{}, h.shown[aProofLogin], thisBrowser, text))
	}, map[string]string{aCodeNow: "app switch member both", aRecoveryCode: "app switch member both"}, []error{auth.ErrCode, auth.ErrLogin}},

	{"enrolment at a login, the login", false, func(h *house, text string) error {
		return second(h.s.EnrolAtLogin(h.t.Context(), auth.Client{}, text, thisBrowser, h.shown[anOffer], h.shown[anOfferedCode]))
	}, map[string]string{aPageEnrol: "group", aProofEnrol: "group"}, []error{auth.ErrLogin}},
	{"enrolment at a login, the offer", false, func(h *house, text string) error {
		return second(h.s.EnrolAtLogin(h.t.Context(), auth.Client{}, h.shown[aPageEnrol], thisBrowser, text, h.shown[anOfferedCode]))
	}, map[string]string{anOffer: "group"}, []error{auth.ErrForm, auth.ErrLogin}},
	{"enrolment at a login, the code", false, func(h *house, text string) error {
		return second(h.s.EnrolAtLogin(h.t.Context(), auth.Client{}, h.shown[aPageEnrol], thisBrowser, h.shown[anOffer], text))
	}, map[string]string{anOfferedCode: "group"}, []error{auth.ErrCode, auth.ErrLogin}},
	{"enrolment, the cookie", false, byCookie(func(h *house, v auth.Visitor) error {
		return second(h.s.EnrolAuthenticator(h.t.Context(), auth.Client{}, v, h.shown[anOffer], h.shown[anOfferedCode]))
	}), map[string]string{aFreshCookie: "plain app off switch passkey both"}, []error{auth.ErrNotLoggedIn, auth.ErrForm}},
	{"enrolment, the offer", false, func(h *house, text string) error {
		return second(h.s.EnrolAuthenticator(h.t.Context(), auth.Client{}, h.visitor, text, h.shown[anOfferedCode]))
	}, map[string]string{anOffer: "plain app off switch passkey both"}, []error{auth.ErrForm, auth.ErrNotLoggedIn}},
	{"new recovery codes, the cookie", false, byCookie(func(h *house, v auth.Visitor) error {
		return h.s.TakeRecoveryCodes(h.t.Context(), auth.Client{}, v, h.shown[anOfferOfMany])
	}), map[string]string{aFreshCookie: "app off switch both"}, []error{auth.ErrNotLoggedIn, auth.ErrForm, auth.ErrNoAuthenticator}},
	{"two steps off, the cookie", true, byCookie(func(h *house, v auth.Visitor) error {
		return second(h.s.SwitchTwoSteps(h.t.Context(), auth.Client{}, v, false))
	}), map[string]string{aFreshCookie: "app off switch both"}, []error{auth.ErrNotLoggedIn, auth.ErrTwoStepsGroup, auth.ErrNoAuthenticator}},
	{"the app's removal, the cookie", true, byCookie(func(h *house, v auth.Visitor) error {
		return h.s.RemoveAuthenticator(h.t.Context(), auth.Client{}, v)
	}), map[string]string{aFreshCookie: "app off switch both"}, []error{auth.ErrNotLoggedIn, auth.ErrTwoStepsGroup, auth.ErrNoAuthenticator}},

	{"login by passkey", true, func(h *house, text string) error {
		return second(h.s.LoginPasskey(h.t.Context(), auth.Client{}, []byte(text), true))
	}, map[string]string{anAnswer: "passkey both keyed"}, []error{auth.ErrPasskey}},
	{"fresh proof by passkey", false, func(h *house, text string) error {
		return second(h.s.ProvePasskey(h.t.Context(), auth.Client{}, h.visitor, []byte(text)))
	}, map[string]string{anAnswer: "passkey both keyed"}, []error{auth.ErrPasskey, auth.ErrNotLoggedIn}},
	{"a passkey more, the cookie", true, byCookie(func(h *house, v auth.Visitor) error {
		offer, err := h.s.OfferPasskey(h.t.Context(), v, "kwai")
		if err != nil {
			return err
		}
		return h.s.AddPasskey(h.t.Context(), auth.Client{}, v, "Key", newKey().Register(offer))
	}), map[string]string{aFreshCookie: "plain app off switch passkey both"}, []error{auth.ErrNotLoggedIn}},
	{"the passkey's removal, the cookie", true, byCookie(func(h *house, v auth.Visitor) error {
		id := ""
		if h.key != nil {
			id = base64.RawURLEncoding.EncodeToString(h.key.ID)
		}
		return h.s.RemovePasskey(h.t.Context(), auth.Client{}, v, id)
	}), map[string]string{aFreshCookie: "passkey both"}, []error{auth.ErrNotLoggedIn, auth.ErrNoPasskey}},

	{"reset, the unique id", true, func(h *house, text string) error {
		return h.s.Reset(h.t.Context(), auth.Client{}, text, newPassword)
	}, map[string]string{aResetID: "plain app off switch group member passkey both keyed invited"}, []error{auth.ErrRecovery, auth.ErrRevoked}},
	{"change of the password, the access token", false, func(h *house, text string) error {
		caller, err := h.s.Check(h.t.Context(), text)
		if err != nil {
			return err
		}
		return h.s.ChangePassword(h.t.Context(), auth.Client{}, caller, oldPassword, newPassword, h.shown[aCodeNow])
	}, map[string]string{anAccess: "plain app off switch member passkey both"}, []error{auth.ErrNotLoggedIn, auth.ErrCode}},
	{"change of the password, the password", false, func(h *house, text string) error {
		return h.s.ChangePassword(h.t.Context(), auth.Client{}, h.visitor.Caller, text, newPassword, h.shown[aCodeNow])
	}, map[string]string{aPassword: "plain app off switch member passkey both"}, []error{auth.ErrPassword, auth.ErrNotLoggedIn}},
	{"change of the password, the code", false, func(h *house, text string) error {
		return h.s.ChangePassword(h.t.Context(), auth.Client{}, h.visitor.Caller, oldPassword, newPassword, text)
	}, map[string]string{aCodeNow: "app off switch member both", aRecoveryCode: "app off switch member both", "": "plain off passkey"}, []error{auth.ErrCode, auth.ErrNotLoggedIn, auth.ErrPassword}},
	{"change of the password by page, the cookie", true, byCookie(func(h *house, v auth.Visitor) error {
		return second(h.s.ChoosePassword(h.t.Context(), auth.Client{}, v, newPassword))
	}), map[string]string{aFreshCookie: "plain app off switch passkey both"}, []error{auth.ErrNotLoggedIn}},
	{"another address, the cookie", true, byCookie(func(h *house, v auth.Visitor) error {
		return h.s.RequestEmail(h.t.Context(), auth.Client{}, v, "new-"+h.user.Email)
	}), map[string]string{aFreshCookie: "plain app off switch passkey both"}, []error{auth.ErrNotLoggedIn}},
	{"deletion, the cookie", true, byCookie(func(h *house, v auth.Visitor) error {
		return h.s.DeleteVisitor(h.t.Context(), auth.Client{}, v)
	}), map[string]string{aFreshCookie: "plain app off switch passkey both"}, []error{auth.ErrNotLoggedIn}},

	{"authorize, the cookie", true, byCookie(func(h *house, v auth.Visitor) error {
		return second2(h.s.Authorize(h.t.Context(), auth.Client{}, v, h.s.asks(h.app), false))
	}), map[string]string{aFreshCookie: "plain app off switch group member passkey both keyed", anOldCookie: "plain app off switch group member passkey both keyed"}, []error{auth.ErrNotLoggedIn}},
	{"exchange, the code", true, func(h *house, text string) error {
		return second(h.s.tryExchange(h.t, h.app, text))
	}, map[string]string{anAppsCode: "plain app off switch group member passkey both keyed"}, []error{auth.ErrGrant}},
	{"an app's refresh, its token", true, func(h *house, text string) error {
		return second(h.s.tryRenewApp(h.t, h.app, auth.AppTokens{Refresh: text}))
	}, map[string]string{anAppsRefresh: "plain app off switch group member passkey both keyed"}, []error{auth.ErrGrant}},
	{"renewal, the refresh token", true, func(h *house, text string) error {
		return second(h.s.Renew(h.t.Context(), auth.Client{}, text, h.s.Store.Now()))
	}, map[string]string{aRefresh: "plain app off switch group member passkey both keyed"}, []error{auth.ErrRefresh}},
	{"the API, the access token", true, func(h *house, text string) error {
		return second(h.s.Check(h.t.Context(), text))
	}, map[string]string{anAccess: "plain app off switch group member passkey both keyed"}, []error{auth.ErrNotLoggedIn}},
}

func second2[T, U any](_ T, _ U, err error) error { return err }

// byCookie is a door that a visitor goes through.
func byCookie(try func(h *house, v auth.Visitor) error) func(h *house, text string) error {
	return func(h *house, text string) error {
		v, err := h.s.Visitor(h.t.Context(), text)
		if err != nil {
			return err
		}
		if !v.FreshForm && v.User.ID != h.user.ID {
			return auth.ErrNotLoggedIn
		}
		return try(h, v)
	}
}

// everyDoor has all that can be shown for accounts in every state shown at every door.
type everyDoor struct {
	t    *testing.T
	s    *server
	app  store.App
	tick func()
	n    int
	bobs map[string]string
}

func (e *everyDoor) house(furnish func(h *house)) *house {
	e.t.Helper()
	e.n++
	h := &house{t: e.t, s: e.s, app: e.app, tick: e.tick, shown: map[string]string{}}
	h.user = e.s.user(e.t, fmt.Sprintf("user%d@example.org", e.n))
	furnish(h)
	e.s.known(e.t, h.user, "192.0.2.0/24")
	h.user = must(e.s.User(e.t.Context(), h.user.Email))(e.t)
	return h
}

// holds is what of an account a refusal must leave as it is.
func (h *house) holds() (all [3]int64) {
	h.t.Helper()
	ok(h.t, h.s.database(h.t).QueryRowContext(h.t.Context(), `SELECT (SELECT auth_version FROM users WHERE id = $1),
		(SELECT COUNT(*) FROM sessions WHERE user_id = $1 AND ended_at IS NULL),
		(SELECT COALESCE(SUM(counter), 0) FROM sessions WHERE user_id = $1)`, h.user.ID).Scan(&all[0], &all[1], &all[2]))
	return all
}

// Promise 12: no door opens without what the account demands, and a refusal changes
// nothing.
func TestEveryDoorInEveryState(t *testing.T) {
	longer(t, func(t *testing.T, url string) {
		c := newClock()
		e := &everyDoor{t: t, tick: func() { c.advance(time.Millisecond) }, s: start(t, url, c.now, nil).forApps(t), bobs: make(map[string]string)}
		e.s.counting()
		e.app, _ = e.s.app(t, "wiki")
		bob := e.house(func(h *house) { h.enrol(); h.register(); h.collect() })
		for what, text := range bob.shown {
			e.bobs[bobs+what] = text
		}
		e.bobs[bobs+aBrowser], e.bobs[bobs+aPassword] = "of another browser", third // the others are the same
		for _, state := range accountStates {
			if !need.All() && !slices.Contains([]string{"app", "group", "keyed"}, state.name) {
				continue // the others take long
			}
			h := e.house(state.make)
			for i := range doors {
				h = e.try(h, i, state.name, state.make)
			}
		}
	})
}

// try shows everything at a door, what it takes last: so that refusals are seen to spoil
// nothing. It returns the account, or one like it if the door has opened.
func (e *everyDoor) try(h *house, door int, state string, again func(h *house)) *house {
	e.t.Helper()
	d := doors[door]
	takes := func(what string) bool {
		states, listed := d.takes[what]
		if !listed {
			states = d.takes[""] // whatever it is
		}
		return slices.Contains(strings.Fields(states), state)
	}
	kinds := slices.Sorted(maps.Keys(h.shown))
	if !d.alone {
		kinds = append(kinds, slices.Sorted(maps.Keys(e.bobs))...)
	}
	slices.SortStableFunc(kinds, func(a, b string) int {
		return map[bool]int{true: 1}[takes(a)] - map[bool]int{true: 1}[takes(b)]
	})
	opened := false
	for _, what := range kinds {
		if opened {
			h = e.house(again)
		}
		text, mine := h.shown[what]
		if !mine {
			text = e.bobs[what]
		}
		before := h.holds()
		err := d.try(h, text)
		opened = err == nil
		if opened != takes(what) {
			e.t.Errorf("%s, %s: with %s: %v; taken: %v, want %v", state, d.name, what, err, opened, !opened)
		}
		if opened {
			continue
		}
		if _, more := errors.AsType[*auth.More](err); !more && !slices.ContainsFunc(d.refuses, func(r error) bool { return errors.Is(err, r) }) {
			e.t.Errorf("%s, %s: with %s: refused by %v, want one of %v", state, d.name, what, err, d.refuses)
		}
		if after := h.holds(); after != before {
			e.t.Errorf("%s, %s: with %s: refused, and the account went from %v to %v", state, d.name, what, before, after)
		}
	}
	if opened {
		h = e.house(again)
	}
	return h
}
