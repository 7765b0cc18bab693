package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"kwai/internal/store"
)

const (
	// MaxPasskeys is how many passkeys a user has at most.
	MaxPasskeys = 20
	// maxPublicKey bounds a passkey's public key, in bytes: RSA with 4096 bits has some 540.
	// Anybody may have a signature verified, which takes the longer, the longer the key is.
	maxPublicKey = 1024
	// maxPasskeyAnswer bounds what a browser sends of a passkey, in bytes: ten times what
	// one has.
	maxPasskeyAnswer = 16 << 10

	// How long a challenge may be answered.
	registrationLife = 10 * time.Minute
	assertionLife    = 5 * time.Minute
)

// Passkey is one of a user's.
type Passkey = store.Passkey

// PasskeyHost is the host of a public URL that passkeys are for, WebAuthn's RP ID; "" if
// there can be none: an address is no domain.
func PasskeyHost(publicURL string) string {
	u, err := url.Parse(publicURL)
	if err != nil || protocol.ValidateRPID(u.Hostname()) != nil {
		return ""
	}
	return u.Hostname()
}

// passkeyHost is the host that passkeys are for; "" where there can be none.
func (s *Service) passkeyHost() string { return PasskeyHost(s.Settings.Issuer) }

// webAuthn is WebAuthn for the public URL. service is what the user's device calls the
// site. ErrNoPasskeys where there can be none.
func (s *Service) webAuthn(service string) (*webauthn.WebAuthn, error) {
	host := s.passkeyHost()
	u, err := url.Parse(s.Settings.Issuer)
	if host == "" || err != nil {
		return nil, ErrNoPasskeys
	}
	discoverable := true
	return webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: cmp.Or(service, host), RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: &discoverable, UserVerification: protocol.VerificationRequired,
		},
		// Password managers answer extensions that nobody asked for.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
		Timeouts: webauthn.TimeoutsConfig{
			Login:        webauthn.TimeoutConfig{Timeout: assertionLife},
			Registration: webauthn.TimeoutConfig{Timeout: registrationLife},
		},
	})
}

// passkeyUser is a user as WebAuthn knows users.
type passkeyUser struct {
	store.User
	credentials []webauthn.Credential
}

func (u passkeyUser) WebAuthnID() []byte                         { return []byte(u.ID) }
func (u passkeyUser) WebAuthnName() string                       { return u.Email }
func (u passkeyUser) WebAuthnDisplayName() string                { return u.Email }
func (u passkeyUser) WebAuthnCredentials() []webauthn.Credential { return u.credentials }

// What a challenge is for.
const (
	forRegistration = "register"
	forAssertion    = "login"
)

// challenge makes what a passkey is to sign: the time and a nonce, with a MAC over these
// and what it is for. It stands in no row and in no cookie.
func (s *Service) challenge(ctx context.Context, purpose ...string) ([]byte, error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return nil, err
	}
	var raw [8 + 16]byte
	binary.BigEndian.PutUint64(raw[:], uint64(s.Store.Now().UnixMicro()))
	_, _ = rand.Read(raw[8:]) // it never fails
	body := base64.RawURLEncoding.EncodeToString(raw[:])
	return []byte(body + "." + keys.ring.ChallengeMAC(append(purpose, body)...)), nil
}

// checkChallenge says when the challenge that an answer names was made; why is what is
// wrong with it otherwise.
func (s *Service) checkChallenge(ctx context.Context, named string, life time.Duration, purpose ...string) (made time.Time, why string, err error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return made, "", err
	}
	text, _ := base64.RawURLEncoding.DecodeString(named) // what can't be decoded has no MAC
	body, mac, _ := strings.Cut(string(text), ".")
	if !keys.ring.CheckChallengeMAC(mac, append(purpose, body)...) {
		return made, "it answers no challenge of this server's for that", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return made, "", err // we made it
	}
	made = time.UnixMicro(int64(binary.BigEndian.Uint64(raw)))
	if age := s.Store.Now().Sub(made); age >= life || age < -store.ClockSlack {
		return made, "its challenge is too old", nil
	}
	return made, "", nil
}

// publicKey are the options for a browser, as navigator.credentials takes them, with
// bytes as base64url.
func publicKey(options any, err error) (json.RawMessage, error) {
	if err != nil {
		return nil, err
	}
	return json.Marshal(options)
}

// OfferPasskey makes the options by which a visitor with a fresh proof registers a
// passkey, within 10 minutes. ErrNoPasskeys, ErrNotLoggedIn.
func (s *Service) OfferPasskey(ctx context.Context, v Visitor, service string) (json.RawMessage, error) {
	if !v.FreshForm {
		return nil, ErrNotLoggedIn
	}
	w, err := s.webAuthn(service)
	if err != nil {
		return nil, err
	}
	challenge, err := s.challenge(ctx, forRegistration, v.SessionID, v.ID)
	if err != nil {
		return nil, err
	}
	have, err := s.Passkeys(ctx, v)
	if err != nil {
		return nil, err
	}
	creation, _, err := w.BeginRegistration(passkeyUser{User: v.User}, func(o *protocol.PublicKeyCredentialCreationOptions) error {
		o.Challenge = challenge
		o.Extensions.CredProps = true // whether it is discoverable, CreatePasskey wants to know
		for _, p := range have {
			id, err := base64.RawURLEncoding.DecodeString(p.ID)
			if err != nil {
				return err
			}
			o.CredentialExcludeList = append(o.CredentialExcludeList, protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType, CredentialID: id})
		}
		return nil
	})
	return publicKey(creation, err)
}

// AddPasskey gives a visitor with a fresh proof the passkey that a browser has made for
// OfferPasskey. Its errors: ErrPasskeyAnswer, ErrPasskeyThere, ErrManyPasskeys, Invalid for
// a bad name, ErrNoPasskeys, ErrNotLoggedIn.
func (s *Service) AddPasskey(ctx context.Context, client Client, v Visitor, name string, answer []byte) error {
	if !v.FreshForm {
		return ErrNotLoggedIn
	}
	name, err := passkeyName(name)
	if err != nil {
		return err
	}
	p, err := s.verifyRegistration(ctx, v, answer)
	if err != nil {
		return err
	}
	p.Name = name
	_, err = s.changeFactors(ctx, client, v, func(tx *store.Tx, user store.User) (renew bool, err error) {
		have, err := tx.Passkeys(user.ID)
		if err != nil {
			return false, err
		}
		if len(have) >= MaxPasskeys {
			return false, ErrManyPasskeys
		}
		if added, err := tx.InsertPasskey(p); err != nil {
			return false, err
		} else if !added {
			return false, ErrPasskeyThere
		}
		if err := tx.RaiseAuthVersion(user.ID); err != nil {
			return false, err
		}
		return false, s.factorsChanged(tx, client, happening{kind: EventPasskeyAdded, user: user.ID, session: v.SessionID})
	})
	return err
}

// passkeyName is a name as it is stored.
func passkeyName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" {
		return "", InvalidFields(Field{"name", "Type a name.", "passkey.unnamed"})
	}
	if wrong := checkName("name", name); len(wrong) > 0 {
		return "", InvalidFields(wrong...)
	}
	return name, nil
}

// verifyRegistration makes a passkey of what a browser has sent.
func (s *Service) verifyRegistration(ctx context.Context, v Visitor, answer []byte) (p Passkey, err error) {
	w, err := s.webAuthn("")
	if err != nil {
		return p, err
	}
	if len(answer) > maxPasskeyAnswer {
		return p, ErrPasskeyAnswer.because("it is too long")
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return p, ErrPasskeyAnswer.because("it can't be read")
	}
	named := parsed.Response.CollectedClientData.Challenge
	_, why, err := s.checkChallenge(ctx, named, registrationLife, forRegistration, v.SessionID, v.ID)
	if err == nil && why != "" {
		err = ErrPasskeyAnswer.because(why)
	}
	if err != nil {
		return p, err
	}
	user := passkeyUser{User: v.User}
	credential, err := w.CreateCredential(user, webauthn.SessionData{
		Challenge: named, RelyingPartyID: w.Config.RPID, UserID: user.WebAuthnID(),
		UserVerification: protocol.VerificationRequired, CredParams: webauthn.CredentialParametersDefault(),
	}, parsed)
	if err != nil {
		return p, ErrPasskeyAnswer.because(err.Error())
	}
	if len(credential.PublicKey) > maxPublicKey {
		return p, ErrPasskeyAnswer.because("its public key is too long")
	}
	if found := credential.Extensions.RK; found != nil && !*found {
		return p, ErrPasskeyAnswer.because("it isn't discoverable")
	}
	credential.Attestation = webauthn.CredentialAttestation{} // nobody looks at it again
	p = Passkey{ID: base64.RawURLEncoding.EncodeToString(credential.ID), UserID: v.ID, RPID: w.Config.RPID}
	p.Credential, err = credentialText(credential)
	return p, err
}

func credentialText(c *webauthn.Credential) (string, error) {
	text, err := json.Marshal(c)
	return string(text), err
}

// Passkeys lists a visitor's passkeys, the oldest first.
func (s *Service) Passkeys(ctx context.Context, v Visitor) ([]Passkey, error) {
	return s.Store.Read(ctx).Passkeys(v.ID)
}

// RenamePasskey has a visitor call a passkey otherwise. ErrNoPasskey if there is none
// such, Invalid for a bad name, ErrNotLoggedIn.
func (s *Service) RenamePasskey(ctx context.Context, client Client, v Visitor, id, name string) error {
	name, err := passkeyName(name)
	if err != nil {
		return err
	}
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		if _, err := s.lock(tx, byVisitor(client, v), v.ID); err != nil {
			return err
		}
		renamed, err := tx.RenamePasskey(v.ID, id, name)
		if err == nil && !renamed {
			err = ErrNoPasskey
		}
		return err
	})
}

// RemovePasskey removes a passkey of a visitor with a fresh proof. ErrNoPasskey if there
// is none such, ErrNotLoggedIn.
func (s *Service) RemovePasskey(ctx context.Context, client Client, v Visitor, id string) error {
	_, err := s.changeFactors(ctx, client, v, func(tx *store.Tx, user store.User) (renew bool, err error) {
		if there, err := tx.DeletePasskey(user.ID, id); err != nil {
			return false, err
		} else if !there {
			return false, ErrNoPasskey
		}
		if err := tx.RaiseAuthVersion(user.ID); err != nil {
			return false, err
		}
		return false, s.factorsChanged(tx, client, happening{kind: EventPasskeyRemoved, user: user.ID, session: v.SessionID})
	})
	return err
}

// ChallengePasskey makes the options by which a browser shows a passkey, within 5
// minutes. They name no passkey: a list would show who has which. ErrNoPasskeys.
func (s *Service) ChallengePasskey(ctx context.Context) (json.RawMessage, error) {
	w, err := s.webAuthn("")
	if err != nil {
		return nil, err
	}
	challenge, err := s.challenge(ctx, forAssertion)
	if err != nil {
		return nil, err
	}
	assertion, _, err := w.BeginDiscoverableLogin(webauthn.WithChallenge(challenge))
	return publicKey(assertion, err)
}

// LoginPasskey opens a browser session by a passkey alone: its user was verified, so it
// is a whole way in. The session is LoginBrowser's. ErrPasskey for every reason,
// ErrNoPasskeys where there can be none.
//
// Such logins are neither counted nor held back: a signature can't be guessed.
func (s *Service) LoginPasskey(ctx context.Context, client Client, answer []byte, stay bool) (Cookie, error) {
	return s.cookieByPasskey(ctx, client, answer, pending{Stay: stay}.door(store.KindBrowser, s.Settings))
}

// ProvePasskey is a fresh proof by a passkey of the visitor's. Its errors are
// LoginPasskey's, and ErrNotLoggedIn where the cookie is dead by now.
func (s *Service) ProvePasskey(ctx context.Context, client Client, v Visitor, answer []byte) (Cookie, error) {
	return s.cookieByPasskey(ctx, client, answer, door{kind: store.KindBrowser, proves: &v})
}

func (s *Service) cookieByPasskey(ctx context.Context, client Client, answer []byte, d door) (Cookie, error) {
	shown, err := s.verifyPasskey(ctx, answer)
	var r loginResult
	switch {
	case err != nil:
	case d.proves != nil && d.proves.ID != shown.user.ID:
		err = ErrPasskey.because("it is another user's than who is logged in")
	default:
		var a store.Attempt
		if a, err = s.uncounted(ctx, client, shown.user); err == nil {
			r, err = s.admit(ctx, client, a, shown, d)
		}
		if err == nil && r.refused != "" {
			err = ErrPasskey.because(string(r.refused))
		}
	}
	if errors.Is(err, ErrPasskey) && shown.user.ID != "" {
		err = s.recordPasskey(ctx, client, shown.user, err)
	}
	s.counts.count(logins, succeeded, err)
	if err != nil {
		return Cookie{}, err
	}
	return s.cookie(ctx, r.session)
}

// usedPasskey is a passkey whose signature was verified, as it is since, and when the
// challenge was made that it answered.
type usedPasskey struct {
	id, credential string
	challenge      time.Time
}

// verifyPasskey verifies what a browser sent of a passkey. The proof names the user of
// an ErrPasskey, too, if the passkey is known.
func (s *Service) verifyPasskey(ctx context.Context, answer []byte) (shown proof, err error) {
	w, err := s.webAuthn("")
	if err != nil {
		return shown, err
	}
	if len(answer) > maxPasskeyAnswer {
		return shown, ErrPasskey.because("it is too long")
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return shown, ErrPasskey.because("it can't be read")
	}
	made, why, err := s.checkChallenge(ctx, parsed.Response.CollectedClientData.Challenge, assertionLife, forAssertion)
	if err == nil && why != "" {
		err = ErrPasskey.because(why)
	}
	if err != nil {
		return shown, err
	}
	// The user is read before the signature is verified, with the version of then.
	r := s.Store.Read(ctx)
	p, err := r.Passkey(base64.RawURLEncoding.EncodeToString(parsed.RawID))
	if err == nil && p.UserID != string(parsed.Response.UserHandle) {
		err = ErrPasskey.because("it names another user than its own")
	}
	if err == nil {
		shown.user, err = r.UserByID(p.UserID)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = ErrPasskey.because("there is no such passkey")
	}
	if err == nil && !shown.user.RevokedAt.IsZero() {
		err = ErrPasskey.because(string(reasonRevoked))
	}
	if err != nil {
		return shown, err
	}
	used, err := s.verifyAssertion(w, shown.user, p, parsed)
	used.challenge = made
	shown.amr, shown.passkey = amrPasskey, &used
	return shown, err
}

// verifyAssertion verifies the signature of a passkey of the user's. Its challenge was
// checked.
func (s *Service) verifyAssertion(w *webauthn.WebAuthn, user store.User, p Passkey, parsed *protocol.ParsedCredentialAssertionData) (used usedPasskey, err error) {
	if p.RPID != w.Config.RPID {
		return used, ErrPasskey.because("it is for " + p.RPID)
	}
	var stored webauthn.Credential
	if err := json.Unmarshal([]byte(p.Credential), &stored); err != nil {
		return used, err
	}
	// A passkey that begins to sync says so from then on. WebAuthn has the flag never
	// change, but some do, and their users must get in.
	backup := parsed.Response.AuthenticatorData.Flags.HasBackupEligible()
	changed := stored.Flags.BackupEligible != backup
	stored.Flags.BackupEligible = backup
	_, credential, err := w.ValidatePasskeyLogin(func(_, _ []byte) (webauthn.User, error) {
		return passkeyUser{user, []webauthn.Credential{stored}}, nil
	}, webauthn.SessionData{
		Challenge: parsed.Response.CollectedClientData.Challenge, RelyingPartyID: w.Config.RPID, UserVerification: protocol.VerificationRequired,
	}, parsed)
	if err != nil {
		return used, ErrPasskey.because(err.Error())
	}
	log := s.Log.With("user", user.ID, "passkey", p.ID)
	if changed {
		log.Info("a passkey can be synced now, or no longer", "sync", backup)
	}
	if credential.Authenticator.CloneWarning {
		log.Warn("a passkey's counter stands still: there may be a copy of it", "counter", parsed.Response.AuthenticatorData.Counter)
		credential.Authenticator.CloneWarning = false // to be noted each time
	}
	used.id = p.ID
	used.credential, err = credentialText(credential)
	return used, err
}

// usePasskey uses up the challenge that a passkey has answered, in the transaction that
// the proof is for. ErrPasskey if it was used before, or the passkey was removed
// meanwhile, which undoes the transaction.
func (s *Service) usePasskey(tx *store.Tx, user store.User, p usedPasskey) error {
	used, err := tx.UsePasskey(user.ID, p.id, p.credential, p.challenge)
	if err == nil && !used {
		err = ErrPasskey.because("its challenge was used before, or an older one is shown, or it was removed")
	}
	return err
}

// recordPasskey records a refused passkey of a user's, and returns the refusal.
func (s *Service) recordPasskey(ctx context.Context, client Client, user store.User, refused error) error {
	reason := ""
	if e, ok := errors.AsType[*Error](refused); ok {
		reason = e.Reason
	}
	err := s.Store.InTx(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		n, err := tx.CountAuditEntries(user.ID, AuditPasskeyRefused, firstID(tx.Now.Add(-24*time.Hour)), firstID(tx.Now.Add(store.ClockSlack)))
		if err != nil || n >= maxRefusals {
			return err
		}
		return tx.RecordRefusal(auditEntry(tx, nextID(tx), client, happening{kind: AuditPasskeyRefused, reason: reason, user: user.ID}))
	})
	if err != nil {
		return err
	}
	return refused
}

// PasskeysElsewhere counts the passkeys that are for another host than the public URL's:
// nobody can use them here.
func (s *Service) PasskeysElsewhere(ctx context.Context) (int64, error) {
	return s.Store.Read(ctx).CountPasskeysElsewhere(s.passkeyHost())
}
