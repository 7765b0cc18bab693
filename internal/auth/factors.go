package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"kwai/internal/store"
)

// Factors are what a user can show beside a password, or instead of it.
type Factors struct {
	store.Demands
	AuthenticatorAt, AuthenticatorUsedAt time.Time // zero: there is none; it wasn't used since
	RecoveryCodes                        int64     // that are left
	Passkeys                             []Passkey
}

// Factors reads what a user has.
func (s *Service) Factors(ctx context.Context, userID string) (f Factors, err error) {
	r := s.Store.Read(ctx)
	if f.Demands, err = r.Demands(userID, s.passkeyHost()); err != nil {
		return f, err
	}
	if f.Authenticator {
		a, err := r.Authenticator(userID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return f, err
		}
		f.AuthenticatorAt, f.AuthenticatorUsedAt = a.CreatedAt, a.UsedAt
		if f.RecoveryCodes, err = r.RecoveryCodesLeft(userID); err != nil {
			return f, err
		}
	}
	f.Passkeys, err = r.Passkeys(userID)
	return f, err
}

// Enrolment is what somebody who sets an authenticator app up is shown: nothing of it is
// stored until a code of it has come back.
type Enrolment struct {
	URI    string   // for the QR code
	Secret string   // the same to type, in groups of four
	Codes  []string // recovery codes
	Sealed string   // all of it, for the form
}

// enrolment is an authenticator app whose first code was shown, or that is to be.
type enrolment struct {
	Secret []byte
	Codes  []string
	sealed string // the secret, as it is stored
	step   int64
}

// offer is what a form holds of what it has shown. It is good for one account, as that
// was then.
type offer struct {
	enrolment
	User        string
	AuthVersion int64
	At          time.Time
}

const (
	offerLabel  = "kwai enrolment v1"
	secretLabel = "kwai authenticator v1 "
)

// OfferAuthenticator makes an authenticator app and recovery codes for an account to
// choose, for FormLife. service is what the app on the phone calls the site.
func (s *Service) OfferAuthenticator(ctx context.Context, user store.User, service string) (Enrolment, error) {
	o := offer{enrolment: enrolment{Secret: make([]byte, totpSecret)}, User: user.ID, AuthVersion: user.AuthVersion, At: s.Store.Now()}
	_, _ = rand.Read(o.Secret) // it never fails
	return s.seal(ctx, o, func(e *Enrolment) {
		e.URI, e.Secret = keyURI(service, user.Email, o.Secret), inGroups(secretText(o.Secret), 4, " ")
	})
}

// OfferRecoveryCodes makes new recovery codes for an account to choose, for FormLife.
func (s *Service) OfferRecoveryCodes(ctx context.Context, user store.User) (Enrolment, error) {
	return s.seal(ctx, offer{User: user.ID, AuthVersion: user.AuthVersion, At: s.Store.Now()}, func(*Enrolment) {})
}

func (s *Service) seal(ctx context.Context, o offer, show func(*Enrolment)) (e Enrolment, err error) {
	o.Codes = newRecoveryCodes()
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return e, err
	}
	plain, err := json.Marshal(o)
	if err != nil {
		return e, err
	}
	e.Codes = o.Codes
	show(&e)
	e.Sealed, err = keys.ring.Seal(offerLabel, plain)
	return e, notYet(err)
}

// ReadOffer is what a form was shown with, to show it once more; ErrForm if it is over,
// or the account has changed since.
func (s *Service) ReadOffer(ctx context.Context, user store.User, sealed, service string) (Enrolment, error) {
	o, err := s.openOffer(ctx, user, sealed)
	if errors.Is(err, errStands) { // nobody is to keep it once more
		err = ErrForm
	}
	if err != nil {
		return Enrolment{}, err
	}
	e := Enrolment{Codes: o.Codes, Sealed: sealed}
	if len(o.Secret) > 0 {
		e.URI, e.Secret = keyURI(service, user.Email, o.Secret), inGroups(secretText(o.Secret), 4, " ")
	}
	return e, nil
}

func (s *Service) openOffer(ctx context.Context, user store.User, sealed string) (o offer, err error) {
	plain, ok, err := s.openSealed(ctx, offerLabel, sealed)
	if err != nil {
		return o, err
	}
	if ok {
		err = json.Unmarshal(plain, &o)
	}
	if err == nil && ok && o.User == user.ID { // what was sent twice is done, not refused
		if stands, err := s.stands(ctx, user.ID, o.Codes); err != nil || stands {
			return o, cmp.Or(err, errStands)
		}
	}
	age := s.Store.Now().Sub(o.At)
	if err == nil && (!ok || o.User != user.ID || o.AuthVersion != user.AuthVersion || age >= FormLife || age < -store.ClockSlack) {
		err = ErrForm
	}
	return o, err
}

// errStands says that an offer was accepted before, and is what the user has.
var errStands = errors.New("the offer was accepted before")

// stands says whether the user has these recovery codes.
func (s *Service) stands(ctx context.Context, userID string, codes []string) (bool, error) {
	hashes := hashCodes(userID, codes)
	if len(hashes) == 0 {
		return false, nil
	}
	return s.Store.Read(ctx).HasRecoveryCode(userID, hashes[0])
}

// acceptOffer opens an offer of an authenticator app and compares a code of it.
func (s *Service) acceptOffer(ctx context.Context, user store.User, sealed, typed string) (enrolment, error) {
	o, err := s.openOffer(ctx, user, sealed)
	if err == nil && len(o.Secret) != totpSecret {
		err = ErrForm
	}
	if err != nil {
		return enrolment{}, err
	}
	var ok bool
	if o.step, ok = matchCode(o.Secret, plainCode(typed), s.Store.Now()); !ok {
		return enrolment{}, ErrCode.because("it is none of the authenticator app that is being set up")
	}
	keys, err := s.Keys.fresh(ctx)
	if err == nil {
		o.sealed, err = keys.ring.Seal(secretLabel+user.ID, o.Secret)
	}
	return o.enrolment, notYet(err)
}

// EnrolAuthenticator gives a visitor with a fresh proof the authenticator app that was
// offered, and switches two steps on. Another app takes the place of the one before. If
// two steps weren't on, all other sessions end, and a copy of this one's cookie. Its errors:
// ErrCode for a wrong code, ErrForm if the offer is over, ErrNotLoggedIn, Throttled after
// factorsHour changes of a kind within an hour. What was accepted already is no error.
func (s *Service) EnrolAuthenticator(ctx context.Context, client Client, v Visitor, sealed, code string) (Cookie, error) {
	if !v.FreshForm {
		return Cookie{}, ErrNotLoggedIn
	}
	e, err := s.acceptOffer(ctx, v.User, sealed, code)
	if errors.Is(err, errStands) {
		return Cookie{}, nil
	}
	if err != nil {
		return Cookie{}, err
	}
	return s.changeFactors(ctx, client, v, func(tx *store.Tx, user store.User) (renew bool, err error) {
		return user.TwoStepsAt.IsZero(), s.enrol(tx, client, user, e, v.SessionID)
	})
}

// enrol stores an authenticator app of the user's, whose row is locked, and switches two
// steps on. If they weren't all sessions end but the one to keep.
func (s *Service) enrol(tx *store.Tx, client Client, user store.User, e enrolment, keep string) error {
	before, err := tx.Demands(user.ID, s.passkeyHost())
	if err != nil {
		return err
	}
	if err := tx.PutAuthenticator(user.ID, e.sealed, e.step); err != nil {
		return err
	}
	if err := tx.PutRecoveryCodes(user.ID, hashCodes(user.ID, e.Codes)); err != nil {
		return err
	}
	if !before.Authenticator {
		// The networks that the password knows: there its user is held back by nobody else's
		// wrong codes. Later a mailed reset makes one known to the password, but not to codes.
		if err := tx.ShareNetworks(accountOfKey(user.EmailKey), codesOf(user.ID)); err != nil {
			return err
		}
	}
	if err := s.switchTwoSteps(tx, user, true, keep); err != nil {
		return err
	}
	if user.TwoStepsAt.IsZero() {
		// Programs outside learn by it that sessions were ended. To the user the mail about
		// the authenticator app says all.
		on := happening{kind: EventTwoStepsOn, user: user.ID, session: keep}
		e := s.newEvent(tx, on.kind, on.user, on.session)
		if err := record(tx, e.ID, client, on); err != nil {
			return err
		}
		if err := tx.Publish(e, s.outsiders()...); err != nil {
			return err
		}
	}
	return s.factorsChanged(tx, client, happening{kind: EventAuthenticatorAdded, user: user.ID, session: keep})
}

// switchTwoSteps raises the user's version, whether it is a change or not. Switched on, it
// ends all sessions but the one to keep: they were opened by one step.
func (s *Service) switchTwoSteps(tx *store.Tx, user store.User, on bool, keep string) error {
	if on && user.TwoStepsAt.IsZero() {
		if err := tx.EndSessionsBut(user.ID, keep, store.EndTwoSteps); err != nil {
			return err
		}
	}
	return tx.SetTwoSteps(user.ID, on)
}

// changeFactors changes what a visitor with a fresh proof can show, under the user's row.
// renew says that a copy of the visitor's cookie is to end; the cookie is zero otherwise.
func (s *Service) changeFactors(ctx context.Context, client Client, v Visitor, change func(tx *store.Tx, user store.User) (renew bool, err error)) (cookie Cookie, err error) {
	if !v.FreshForm {
		return cookie, ErrNotLoggedIn
	}
	renewed := false
	var session store.Session
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		user, err := s.lock(tx, byVisitor(client, v), v.ID)
		if err == nil && user.AuthVersion != v.User.AuthVersion {
			err = ErrForm // it has changed since the form was read
		}
		if err != nil {
			return err
		}
		if renewed, err = change(tx, user); err != nil || !renewed {
			return err
		}
		session, err = tx.RaiseNumber(v.SessionID, v.ID, v.number, "", s.Settings.lifetimes())
		if errors.Is(err, store.ErrNotFound) {
			err = ErrNotLoggedIn
		}
		return err
	})
	if err != nil || !renewed {
		return cookie, err
	}
	return s.cookie(ctx, session)
}

// factorsHour is how often within an hour a user may change factors in one way.
const factorsHour = 20

// factorsChanged publishes a change of factors, or refuses what is too often. Each is
// mailed: else one user could keep the mails of all others waiting.
func (s *Service) factorsChanged(tx *store.Tx, client Client, h happening) error {
	if err := s.atMost(tx, factorsHour, h.kind, h.user, errOften); err != nil {
		return err
	}
	return s.publish(tx, client, h)
}

// SwitchTwoSteps has a visitor's logins demand a code, or no longer. Switched on, it ends
// all other sessions. ErrNoAuthenticator where there is none, ErrTwoStepsGroup where a
// group requires them, ErrNotLoggedIn without a fresh proof.
func (s *Service) SwitchTwoSteps(ctx context.Context, client Client, v Visitor, on bool) (Cookie, error) {
	return s.changeFactors(ctx, client, v, func(tx *store.Tx, user store.User) (renew bool, err error) {
		d, err := tx.Demands(user.ID, s.passkeyHost())
		switch {
		case err != nil:
			return false, err
		case !d.Authenticator:
			return false, ErrNoAuthenticator
		case !on && d.Group:
			return false, ErrTwoStepsGroup
		case on == d.TwoSteps:
			return false, nil
		}
		kind := EventTwoStepsOff
		if on {
			kind = EventTwoStepsOn
		}
		if err := s.switchTwoSteps(tx, user, on, v.SessionID); err != nil {
			return false, err
		}
		return on, s.factorsChanged(tx, client, happening{kind: kind, user: user.ID, session: v.SessionID})
	})
}

// RemoveAuthenticator removes a visitor's authenticator app and recovery codes: two steps
// are off then. Its errors are SwitchTwoSteps'.
func (s *Service) RemoveAuthenticator(ctx context.Context, client Client, v Visitor) error {
	_, err := s.changeFactors(ctx, client, v, func(tx *store.Tx, user store.User) (renew bool, err error) {
		d, err := tx.Demands(user.ID, s.passkeyHost())
		switch {
		case err != nil:
			return false, err
		case d.Group:
			return false, ErrTwoStepsGroup
		}
		if there, err := tx.DropAuthenticator(user.ID); err != nil {
			return false, err
		} else if !there {
			return false, ErrNoAuthenticator
		}
		if err := tx.PutRecoveryCodes(user.ID, nil); err != nil {
			return false, err
		}
		if err := tx.ForgetAccount(codesOf(user.ID)); err != nil { // they were of that app
			return false, err
		}
		if err := s.switchTwoSteps(tx, user, false, ""); err != nil {
			return false, err
		}
		return false, s.factorsChanged(tx, client, happening{kind: EventAuthenticatorRemoved, user: user.ID, session: v.SessionID})
	})
	return err
}

// TakeRecoveryCodes replaces a visitor's recovery codes by those that were offered, and
// that the visitor has kept. ErrForm if the offer is over, ErrNoAuthenticator,
// ErrNotLoggedIn.
func (s *Service) TakeRecoveryCodes(ctx context.Context, client Client, v Visitor, sealed string) error {
	o, err := s.openOffer(ctx, v.User, sealed)
	if errors.Is(err, errStands) {
		return nil
	}
	if err == nil && len(o.Secret) > 0 {
		err = ErrForm // it was offered with an authenticator app
	}
	if err != nil {
		return err
	}
	_, err = s.changeFactors(ctx, client, v, func(tx *store.Tx, user store.User) (renew bool, err error) {
		if d, err := tx.Demands(user.ID, s.passkeyHost()); err != nil {
			return false, err
		} else if !d.Authenticator {
			return false, ErrNoAuthenticator
		}
		if err := tx.PutRecoveryCodes(user.ID, hashCodes(user.ID, o.Codes)); err != nil {
			return false, err
		}
		if err := tx.RaiseAuthVersion(user.ID); err != nil {
			return false, err
		}
		return false, s.factorsChanged(tx, client, happening{kind: EventRecoveryCodes, user: user.ID, session: v.SessionID})
	})
	return err
}

// OfferAtLogin makes an authenticator app for a login that waits for one.
func (s *Service) OfferAtLogin(ctx context.Context, login, browser, service string) (Enrolment, error) {
	p, user, err := s.pendingUser(ctx, login, store.KindBrowser, browser)
	if err == nil && p.Need != NeedEnrol {
		err = ErrLogin.because("it waits for a code, not for an authenticator app")
	}
	if err != nil {
		return Enrolment{}, err
	}
	return s.OfferAuthenticator(ctx, user, service)
}

// EnrolAtLogin finishes a login that waits for an authenticator app. ErrCode for a wrong
// code, ErrForm if the offer is over, ErrLogin if the login is.
func (s *Service) EnrolAtLogin(ctx context.Context, client Client, login, browser, sealed, code string) (cookie Cookie, err error) {
	defer func() { s.counts.count(secondSteps, succeeded, err) }()
	p, user, err := s.pendingUser(ctx, login, store.KindBrowser, browser)
	if err == nil && p.Need != NeedEnrol {
		err = ErrLogin.because("it waits for a code, not for an authenticator app")
	}
	if err != nil {
		return cookie, err
	}
	e, err := s.acceptOffer(ctx, user, sealed, code)
	if errors.Is(err, errStands) {
		err = ErrForm
	}
	if err != nil {
		return cookie, err
	}
	a, err := s.uncounted(ctx, client, user) // who enrols has the secret: there is nothing to guess
	if err != nil {
		return cookie, err
	}
	shown := proof{user: user, amr: amrPassword + " " + amrCode + " " + amrMore, enrols: &e}
	r, err := s.admit(ctx, client, a, shown, p.door(store.KindBrowser, s.Settings))
	if err == nil && r.refused != "" || isMore(err) { // there is an authenticator app, or a passkey, by now
		err = ErrLogin.because("the account has changed meanwhile")
	}
	if err != nil {
		return cookie, err
	}
	return s.cookie(ctx, r.session)
}

// ResetFactors removes all factors of an account, and two steps with them, and ends its
// sessions; its user gets a mail. Whoever has the password could enrol an authenticator app
// next: so a new one is set, or, with "", the old one is good no longer and a link is
// mailed to choose one. A group that requires two steps has the user enrol at the next
// login. ErrNoUser, and Invalid for a password that breaks the policy.
func (s *Service) ResetFactors(ctx context.Context, who, password string) error {
	user, err := s.User(ctx, who)
	if err != nil {
		return err
	}
	var fresh store.Password
	if password != "" {
		if fresh, err = s.choose(ctx, password, user); err != nil {
			return err
		}
	}
	change := Change{User: user}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		now, err := tx.SetPassword(user.ID, fresh)
		if err != nil {
			return gone(err)
		}
		if change.Sessions, err = tx.CountSessions(user.ID, tx.Now, s.Settings.lifetimes()); err != nil {
			return err
		}
		if err := tx.DropFactors(user.ID); err != nil {
			return err
		}
		if err := tx.SetTwoSteps(user.ID, false); err != nil {
			return err
		}
		if err := tx.ForgetAccount(codesOf(user.ID)); err != nil {
			return err
		}
		if err := s.publish(tx, Operator, happening{kind: EventFactorsReset, reason: ByCommand, user: user.ID}); err != nil {
			return err
		}
		if password != "" {
			return s.passwordChanged(tx, Operator, now, "", ByCommand)
		}
		if err := s.endLogins(tx, Operator, now, ""); err != nil {
			return err
		}
		return s.publish(tx, Operator, happening{kind: EventRecovery, reason: ByCommand, user: user.ID})
	})
	return s.changed(change, err)
}

// Recovery codes: ten of 25 letters and digits of base32, which are 125 bits.
const (
	recoveryCodes = 10
	recoveryBytes = 16
	recoveryChars = 25
)

var recoveryAlphabet = base32.StdEncoding.WithPadding(base32.NoPadding)

func newRecoveryCodes() []string {
	codes := make([]string, recoveryCodes)
	for i := range codes {
		raw := make([]byte, recoveryBytes)
		_, _ = rand.Read(raw) // it never fails
		codes[i] = inGroups(recoveryAlphabet.EncodeToString(raw)[:recoveryChars], 5, "-")
	}
	return codes
}

func inGroups(text string, n int, between string) string {
	var groups []string
	for ; len(text) > n; text = text[n:] {
		groups = append(groups, text[:n])
	}
	return strings.Join(append(groups, text), between)
}

// recoveryHash is what is stored of a recovery code that was typed; false if it has not
// the form of one. A fast hash is enough: nobody can try 2^125.
func recoveryHash(userID, code string) ([]byte, bool) {
	if len(code) != recoveryChars || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return nil, false
	}
	sum := sha256.Sum256([]byte("kwai recovery code v1\x00" + userID + "\x00" + code))
	return sum[:], true
}

func hashCodes(userID string, codes []string) (hashes [][]byte) {
	for _, code := range codes {
		if hash, ok := recoveryHash(userID, plainCode(code)); ok {
			hashes = append(hashes, hash)
		}
	}
	return hashes
}

// openSecret opens the secret of an authenticator app as it is stored.
func (s *Service) openSecret(ctx context.Context, userID, sealed string) ([]byte, error) {
	secret, ok, err := s.openSealed(ctx, secretLabel+userID, sealed)
	if err == nil && !ok {
		s.Log.Error("the secret of an authenticator app can't be opened: its server key, of the purpose seal, is gone", "user", userID)
		err = ErrSecret
	}
	return secret, err
}

// openSealed opens what this server, or one beside it, has sealed; false for anything
// else.
func (s *Service) openSealed(ctx context.Context, label, text string) (plain []byte, ok bool, err error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return nil, false, err
	}
	if keys.ring.LacksSeal(text) { // perhaps another server has just made it
		if keys, err = s.Keys.newer(ctx); err != nil {
			return nil, false, err
		}
	}
	plain, ok = keys.ring.OpenSealed(label, text)
	return plain, ok, nil
}
