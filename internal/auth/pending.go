package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"kwai/internal/store"
)

// Need is what a login lacks, behind a right password.
type Need string

// The needs there are.
const (
	NeedCode    Need = "code"    // of the authenticator app, or a recovery code
	NeedEnrol   Need = "enrol"   // an authenticator app, which a group requires
	NeedPasskey Need = "passkey" // to log in with it, and to enrol an authenticator app then
)

// More says that the password is right and not enough. It is an error, since no session
// was opened.
type More struct { //nolint:errname // nothing is wrong: the login goes on
	Need Need
	// Login stands for the login that waits: the second step takes it, for pendingLife.
	// "" for NeedPasskey, which begins anew.
	Login string
}

func (*More) Error() string { return "the login needs a second step" }

func isMore(err error) bool {
	_, is := errors.AsType[*More](err)
	return is
}

// pendingLife is how long a login waits for its second step.
const pendingLife = 10 * time.Minute

// pending is a login whose password was right. It is no row: it is given out under a MAC,
// and is worth nothing once the user's version is another.
type pending struct {
	User        string
	AuthVersion int64
	Need        Need
	At          time.Time
	// Of the pages: the hash of the browser's own cookie, whether the session is to stay,
	// and the session that goes on by the proof, with its cookie's number.
	Browser string `json:",omitzero"`
	Stay    bool   `json:",omitzero"`
	Session string `json:",omitzero"`
	Number  int64  `json:",omitzero"`
}

// more has a login wait for its second step.
func (s *Service) more(ctx context.Context, user store.User, need Need, d door) error {
	if need == NeedPasskey {
		return &More{Need: need}
	}
	p := pending{User: user.ID, AuthVersion: user.AuthVersion, Need: need, At: s.Store.Now(), Browser: hashBrowser(d.browser), Stay: d.stay}
	if d.proves != nil {
		p.Session, p.Number = d.proves.SessionID, d.proves.number
	}
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(p)
	if err != nil {
		return err
	}
	body := base64.RawURLEncoding.EncodeToString(plain)
	return &More{need, body + "." + keys.ring.PendingMAC(string(d.kind), body)}
}

// hashBrowser is what a pending login holds of its browser's cookie; "" for none.
func hashBrowser(cookie string) string {
	if cookie == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("kwai browser v1\x00" + cookie))
	return hex.EncodeToString(sum[:16])
}

// readPending reads a login that waits at a door of that kind, in that browser. ErrLogin
// for anything else.
func (s *Service) readPending(ctx context.Context, text string, kind store.Kind, browser string) (p pending, err error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return p, err
	}
	body, mac, _ := strings.Cut(text, ".")
	if !keys.ring.CheckPendingMAC(mac, string(kind), body) {
		return p, ErrLogin.because("it is none that this server has begun")
	}
	plain, err := base64.RawURLEncoding.DecodeString(body)
	if err == nil {
		err = json.Unmarshal(plain, &p)
	}
	age := s.Store.Now().Sub(p.At)
	switch {
	case err != nil:
		return p, err // we made it
	case p.Browser != hashBrowser(browser) || kind == store.KindBrowser && browser == "":
		return p, ErrLogin.because("another browser has begun it")
	case age >= pendingLife || age < -store.ClockSlack:
		return p, ErrLogin.because("its ten minutes are over")
	}
	return p, nil
}

// door is the one that a pending login waits at.
func (p pending) door(kind store.Kind, s Settings) door {
	d := door{kind: kind, stay: p.Stay}
	if kind == store.KindBrowser && !p.Stay {
		d.life = min(shortLife, s.SessionLife)
	}
	if p.Session != "" {
		d.proves = &Visitor{Caller: Caller{SessionID: p.Session}, number: p.Number}
	}
	return d
}

// PendingLogin is a login that waits for its second step, as its page shows it.
type PendingLogin struct {
	Need   Need
	User   store.User
	Proves bool // it is a fresh proof, of who is logged in
}

// Pending reads a login that waits in a browser. ErrLogin if it is over, or was never:
// Proves still says what it was.
func (s *Service) Pending(ctx context.Context, text, browser string) (PendingLogin, error) {
	p, user, err := s.pendingUser(ctx, text, store.KindBrowser, browser)
	return PendingLogin{p.Need, user, p.Session != ""}, err
}

// pendingUser is readPending, with the user.
func (s *Service) pendingUser(ctx context.Context, text string, kind store.Kind, browser string) (p pending, user store.User, err error) {
	if p, err = s.readPending(ctx, text, kind, browser); err != nil {
		return p, user, err
	}
	user, err = s.Store.Read(ctx).UserByID(p.User)
	if errors.Is(err, store.ErrNotFound) || err == nil && user.AuthVersion != p.AuthVersion {
		err = ErrLogin.because("the account has changed since")
	}
	return p, user, err
}

// codesOf is what a user's codes are counted under. It is beside what passwords count
// under, so that who knows the password alone makes no codes cheaper, and who knows the
// address alone can't keep the user from typing one. A count goes with the user's id: another
// address leaves it.
func codesOf(userID string) string { return "code " + userID }

// ContinueLogin is the second step of a Login: a code of the authenticator app, or a
// recovery code. ErrCode for a wrong one, ErrLogin if the login is over, Throttled.
func (s *Service) ContinueLogin(ctx context.Context, client Client, login, code string) (Tokens, error) {
	session, err := s.secondStep(ctx, client, login, store.KindAPI, "", code)
	if err != nil {
		return Tokens{}, err
	}
	return s.tokens(ctx, session, session.CreatedAt)
}

// ContinueBrowser is ContinueLogin for the page: also the second step of a Prove.
func (s *Service) ContinueBrowser(ctx context.Context, client Client, login, browser, code string) (Cookie, error) {
	session, err := s.secondStep(ctx, client, login, store.KindBrowser, browser, code)
	if err != nil {
		return Cookie{}, err
	}
	return s.cookie(ctx, session)
}

func (s *Service) secondStep(ctx context.Context, client Client, login string, kind store.Kind, browser, code string) (session store.Session, err error) {
	defer func() { s.counts.count(secondSteps, succeeded, err) }()
	p, user, err := s.pendingUser(ctx, login, kind, browser)
	if err == nil && p.Need != NeedCode {
		err = ErrLogin.because("it waits for an authenticator app, not for a code")
	}
	if err != nil {
		return session, err
	}
	return s.tryCode(ctx, client, user, p.door(kind, s.Settings), code)
}

// tryCode verifies a code behind a right password, and goes in by both.
func (s *Service) tryCode(ctx context.Context, client Client, user store.User, d door, code string) (session store.Session, err error) {
	var r loginResult
	err = s.withCode(ctx, client, user, code, func(ctx context.Context, a store.Attempt, shown proof) (err error) {
		r, err = s.admit(ctx, client, a, shown, d)
		return err
	})
	if err == nil && r.refused != "" {
		err = ErrLogin.because(string(r.refused))
	}
	return r.session, err
}

// useOfCode is what a code is shown for. The attempt is the password's.
type useOfCode func(ctx context.Context, a store.Attempt, shown proof) error

// withCode verifies a code behind a right password, and has do what it is shown for. A
// wrong one is recorded, and counted if it can be guessed.
func (s *Service) withCode(ctx context.Context, client Client, user store.User, code string, do useOfCode) error {
	a, err := s.uncounted(ctx, client, user)
	if err != nil {
		return err
	}
	if hash, ok := recoveryHash(user.ID, plainCode(code)); ok {
		// Who knows the password alone must not keep its owner from using one.
		err = do(ctx, a, proof{user: user, amr: amrPassword + " " + amrMore, code: &usedCode{recovery: hash}})
		return s.codeError(ctx, client, user, err)
	}
	if tried, err := s.withUsualCode(ctx, client, a, proof{user: user}, code, do); tried || err != nil {
		return err
	}
	err = s.attempt(ctx, client, codesOf(user.ID), func(ctx context.Context, ofCode store.Attempt) error {
		app, err := s.Store.Read(ctx).Authenticator(user.ID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		shown, err := s.verifyCode(ctx, ofCode, proof{user: user}, app.Secret, code)
		if err != nil {
			return err
		}
		return do(ctx, a, shown)
	})
	return s.codeError(ctx, client, user, err)
}

// withUsualCode is withCode for a code of the authenticator app, where the account demands
// one and knows the network of the password's attempt. false: it wasn't looked at.
func (s *Service) withUsualCode(ctx context.Context, client Client, a store.Attempt, shown proof, code string, do useOfCode) (tried bool, err error) {
	if len(plainCode(code)) != totpDigits {
		return false, nil
	}
	tried, err = s.attemptCode(ctx, a, shown.user.ID, func(ctx context.Context, ofCode store.Attempt, secret string) error {
		shown, err := s.verifyCode(ctx, ofCode, shown, secret, code)
		if err != nil {
			return err
		}
		return do(ctx, a, shown)
	})
	return tried, s.codeError(ctx, client, shown.user, err)
}

// codeError is the error of a code, which is recorded if it was wrong.
func (s *Service) codeError(ctx context.Context, client Client, user store.User, err error) error {
	if refused, ok := errors.AsType[*Error](err); ok && errors.Is(err, errThrottled) {
		return &Error{Code: Throttled, Detail: ErrManyCodes.Detail, RetryAfter: refused.RetryAfter, Of: ErrManyCodes}
	}
	if errors.Is(err, ErrCode) {
		return s.recordCode(ctx, client, user, err)
	}
	return err
}

// uncounted is an attempt with what can't be guessed: a passkey or a recovery code. It is
// neither counted nor held back, and clears what a whole login clears.
func (s *Service) uncounted(ctx context.Context, client Client, user store.User) (a store.Attempt, err error) {
	a = store.Attempt{Account: accountOfKey(user.EmailKey), Network: client.network()}
	_, a.Known, err = s.readWait(ctx, a)
	return a, err
}

// usedCode is a code that was shown and is to be used up: of a step of the authenticator
// app, or a recovery code.
type usedCode struct {
	step     int64
	attempt  store.Attempt // that it was counted as
	recovery []byte        // its hash; nil for a step
}

// verifyCode adds a code to what was shown, if it is one of the authenticator app with
// that secret. ErrCode otherwise.
func (s *Service) verifyCode(ctx context.Context, a store.Attempt, shown proof, sealed, typed string) (proof, error) {
	code := plainCode(typed)
	if len(code) != totpDigits {
		return shown, ErrCode.because("it has not the form of a code")
	}
	if sealed == "" {
		return shown, ErrCode.because("there is no authenticator app")
	}
	secret, err := s.openSecret(ctx, shown.user.ID, sealed)
	if err != nil {
		return shown, err
	}
	step, ok := matchCode(secret, code, s.Store.Now())
	if !ok {
		return shown, ErrCode.because("it is none of this time's")
	}
	shown.amr, shown.code = amrPassword+" "+amrCode+" "+amrMore, &usedCode{step: step, attempt: a}
	return shown, nil
}

// useCode uses a code up, in the transaction that it opens a session in. ErrCode if it
// was used before, which undoes the transaction.
func (s *Service) useCode(tx *store.Tx, client Client, user store.User, c usedCode) error {
	if c.recovery == nil {
		used, err := tx.UseStep(user.ID, c.step)
		if err == nil && !used {
			err = ErrCode.because("it was used before")
		}
		return err
	}
	used, err := tx.UseRecoveryCode(user.ID, c.recovery)
	if err == nil && !used {
		err = ErrCode.because("the user has no such recovery code left")
	}
	if err != nil {
		return err
	}
	return s.publish(tx, client, happening{kind: EventRecoveryCodeUsed, user: user.ID})
}

// wrongCodes is after how many wrong codes within a day the user is mailed: whoever types
// them knows the password.
const wrongCodes = 3

// maxRefusals bounds the refusals within a day that the audit log keeps of what isn't
// throttled, of a user's codes and passkeys each: they must not fill the database.
const maxRefusals = 100

// recordCode records a refused code, and has the user hear of the third within a day.
func (s *Service) recordCode(ctx context.Context, client Client, user store.User, refused error) error {
	reason := ""
	if e, ok := errors.AsType[*Error](refused); ok {
		reason = e.Reason
	}
	err := s.Store.InTx(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		// The row first: of several at once each sees those before it. The user may be deleted
		// meanwhile.
		if _, err := tx.LockUser(user.ID); err != nil {
			return ignoreGone(err)
		}
		from, to := firstID(tx.Now.Add(-24*time.Hour)), firstID(tx.Now.Add(store.ClockSlack))
		wrong, err := tx.CountAuditEntries(user.ID, AuditCodeRefused, from, to)
		if err != nil || wrong >= maxRefusals {
			return err
		}
		entry := auditEntry(tx, nextID(tx), client, happening{kind: AuditCodeRefused, reason: reason, user: user.ID})
		if err := tx.RecordRefusal(entry); err != nil || wrong+1 < wrongCodes {
			return err
		}
		mailed, err := tx.CountAuditEntries(user.ID, EventCodesRefused, from, to)
		if err != nil || mailed > 0 {
			return err
		}
		return s.publish(tx, client, happening{kind: EventCodesRefused, user: user.ID})
	})
	if err != nil {
		return err
	}
	return refused
}

// ignoreGone has nothing be wrong where a user was deleted meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
