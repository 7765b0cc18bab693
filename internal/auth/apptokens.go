package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"kwai/internal/store"
	"kwai/internal/token"
	"kwai/verify"
)

// mostChains bounds an app's sessions of one browser session: a page that asks for a code
// each time it is loaded would leave one for each.
const mostChains = 20

// Refusals of an app's token requests. What is wrong isn't said: an app that is honest
// knows, and asks for a new code.
var (
	ErrClient = refuse(Unauthenticated, "There is no such app, or this is not its secret.")
	ErrGrant  = refuse(Unauthenticated, "The code or token is not valid (any more).")
)

// AppTokens are what an app gets.
type AppTokens struct {
	Access, Refresh, ID string
	ExpiresIn           time.Duration // of the access token
	Scopes              []string
}

// Authenticate finds the app of a client_id, and says whether the secret proves it; a
// public app has none. ErrClient for anything else, with the app's id if there is one.
func (s *Service) Authenticate(ctx context.Context, id, secret string) (store.App, error) {
	a, err := s.App(ctx, id)
	switch {
	case CodeOf(err) == NotFound:
		err = ErrClient.because("there is no app with that id")
	case err != nil:
	case a.Public() && secret != "":
		err = ErrClient.because("a public app has no secret")
	case !a.Public() && secret == "":
		err = ErrClient.because("the secret is missing")
	case !a.Public() && !hasSecret(a, secret):
		err = ErrClient.because("the secret is wrong")
	}
	if err != nil {
		return store.App{ID: a.ID}, err
	}
	return a, nil
}

// Exchange gives an app tokens for a code. A code is good once, within a minute, for the
// app and the address that it was made for, and with PKCE for who knows the verifier. One
// that comes a second time, from that very app with the verifier, ends what came of it
// (RFC 6749, 4.1.2). ErrGrant for everything else that is wrong.
func (s *Service) Exchange(ctx context.Context, client Client, a store.App, text, redirectURI, verifier string) (AppTokens, error) {
	c, good, err := s.openCode(ctx, text)
	if err != nil {
		return AppTokens{}, err
	}
	switch {
	case !good:
		return AppTokens{}, ErrGrant.because("the code is none of this server's, or its minute is over")
	case c.App != a.ID:
		return AppTokens{}, ErrGrant.because("the code is another app's")
	case c.RedirectURI != redirectURI:
		return AppTokens{}, ErrGrant.because("the redirect_uri is not the one that the code was asked for with")
	case !proves(c.Challenge, verifier):
		return AppTokens{}, ErrGrant.because("the code_verifier is missing, or is not the one of the code_challenge")
	}
	opened := store.AppSession{
		ID: c.ID, UserID: c.User, ParentID: c.Session, AppID: a.ID, SID: sidOf(c.Session, a.ID), Scopes: c.Scopes, AMR: c.AMR, AuthTime: c.AuthTime,
	}
	var user store.User
	first := false
	err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		// The user, the browser session, the app's: in this order everywhere.
		if user, err = tx.LockProven(c.User, c.AuthVersion); errors.Is(err, store.ErrNotFound) {
			err = ErrGrant.because("the user was revoked or deleted, or has another password, since the code was made")
		}
		if err != nil {
			return err
		}
		live, err := tx.LockSession(c.Session, c.User, s.Settings.lifetimes())
		if err == nil && !live {
			err = ErrGrant.because("the browser session has ended")
		}
		if err != nil {
			return err
		}
		now, err := mayExchange(tx, a.ID, c)
		if err != nil {
			return err
		}
		opened.Offline = now.Offline && slices.Contains(opened.Scopes, scopeOffline)
		if first, err = tx.OpenAppSession(opened, mostChains); err != nil {
			return err
		}
		opened.CreatedAt, opened.RenewedAt = tx.Now, tx.Now
		if first {
			return s.publish(tx, client, happening{kind: EventAppOpened, user: c.User, session: c.Session, app: a.ID})
		}
		return s.endAppSession(tx, client, opened, reasonCodeTwice)
	})
	if err == nil && !first { // what came of it has ended
		err = ErrGrant.because(reasonCodeTwice)
	}
	if err != nil {
		return AppTokens{}, err
	}
	return s.appTokens(ctx, a, opened, user, c.Nonce)
}

// mayExchange looks at what may have changed since the code was made, and returns the app
// as it is by now: another one may have got its id. ErrGrant where the code is worthless.
func mayExchange(tx *store.Tx, id string, c code) (store.App, error) {
	app, grant, err := tx.AppAndGrant(id, c.User)
	if errors.Is(err, store.ErrNotFound) || err == nil && c.MadeAt.Before(app.CreatedAt) {
		err = ErrGrant.because("the app was deleted since the code was made")
	}
	if err != nil {
		return app, err
	}
	may, err := mayUse(tx.Reader, app, c.User)
	if err == nil && (!may || grant.TakenBack != c.TakenBack) {
		err = ErrGrant.because(reasonNotAllowed)
	}
	return app, err
}

// Why a session at an app was ended, in the audit log.
const (
	reasonCodeTwice = store.EndCodeTwice
	reasonReplay    = store.EndAppReplay
	reasonByApp     = store.EndByApp
)

// reasonNotAllowed is why a code or a token is refused, in the server's log.
const reasonNotAllowed = "the user has taken it back, or may not use the app"

// endAppSession ends one chain of tokens; nobody tells the app, which did it.
func (s *Service) endAppSession(tx *store.Tx, client Client, session store.AppSession, reason string) error {
	if ended, err := tx.EndAppSession(session.ID, reason); err != nil || !ended {
		return err
	}
	return s.publish(tx, client, happening{kind: EventAppEnded, reason: reason, user: session.UserID, session: session.ParentID, app: session.AppID})
}

// A verifier of PKCE (RFC 7636, 4.1).
var pkceVerifier = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)

// proves compares a verifier with a challenge of S256. Without one there must be none:
// else somebody who has put a code of another flow into a browser could go on with it.
func proves(challenge, verifier string) bool {
	if challenge == "" || verifier == "" {
		return challenge == verifier
	}
	sum := sha256.Sum256([]byte(verifier))
	return pkceVerifier.MatchString(verifier) && subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}

// RenewApp gives an app new tokens for a refresh token, as Renew does: a replaced one is
// good within the reuse window, and ends the chain after it. ErrGrant for everything
// that is wrong.
func (s *Service) RenewApp(ctx context.Context, client Client, a store.App, refresh string, arrived time.Time) (AppTokens, error) {
	id, number, err := s.Keys.parse(ctx, refresh, (*token.Keyring).ParseAppRefresh)
	if errors.Is(err, token.ErrRefresh) {
		err = ErrGrant.because("the refresh token is none of an app's, or its key is gone")
	}
	if err != nil {
		return AppTokens{}, err
	}
	var session store.AppSession
	var user store.User
	renew := func(tx *store.Tx) (err error) {
		session, user, err = tx.RenewAppSession(id.String(), a, int64(number), s.Settings.lifetimes(), s.Settings.ReuseWindow)
		return err
	}
	if len(a.Groups) == 0 {
		err = s.Store.Statement(ctx, renew)
	} else {
		// A refusal replaces no token: one that is tried again would look like a replay.
		err = s.Store.InTx(ctx, func(tx *store.Tx) error {
			if err := renew(tx); err != nil {
				return err
			}
			may, err := mayUse(tx.Reader, a, session.UserID)
			if err == nil && !may {
				err = ErrGrant.because(reasonNotAllowed)
			}
			return err
		})
	}
	if errors.Is(err, store.ErrNotFound) {
		session, user, err = s.replacedByApp(ctx, client, a, id.String(), int64(number), arrived)
	}
	if err != nil {
		return AppTokens{}, err
	}
	may, err := mayUse(s.Store.Read(ctx), a, user.ID)
	if err == nil && !may {
		err = ErrGrant.because(reasonNotAllowed)
	}
	if err != nil {
		return AppTokens{}, err
	}
	return s.appTokens(ctx, a, session, user, "")
}

// replacedByApp judges a token that isn't its session's current one.
func (s *Service) replacedByApp(ctx context.Context, client Client, a store.App, id string, counter int64, arrived time.Time) (session store.AppSession, user store.User, err error) {
	now := s.Store.Now()
	session, user, _, err = s.Store.Read(ctx).AppSession(id, now, s.Settings.lifetimes())
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && !a.Has(session):
		return session, user, ErrGrant.because("the session has ended, or is another app's")
	case err != nil:
		return session, user, err
	case session.Reusable(counter, arrived, s.Settings.ReuseWindow):
		return session, user, nil
	case now.Sub(arrived) >= s.Settings.ReuseWindow:
		return session, user, ErrBusy // as for Renew
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error { return s.endAppSession(tx, client, session, reasonReplay) })
	if err == nil {
		err = ErrGrant.because(reasonReplay)
	}
	return session, user, err
}

// appTokens makes a session's current refresh token, an access token for userinfo, and
// an ID token.
func (s *Service) appTokens(ctx context.Context, a store.App, session store.AppSession, user store.User, nonce string) (AppTokens, error) {
	id, err := uuid.Parse(session.ID)
	if err != nil {
		return AppTokens{}, err
	}
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return AppTokens{}, err
	}
	now := s.Store.Now().Truncate(time.Second)
	expires := now.Add(s.Settings.AccessTTL)
	access, err := keys.ring.Sign(verify.Claims{
		Issuer: s.Settings.Issuer, Audience: a.ID, ClientID: a.ID, Subject: user.ID, SessionID: session.ID, ID: uuid.NewString(),
		IssuedAt: now, AuthTime: session.AuthTime.Truncate(time.Second), ExpiresAt: expires,
	})
	if err != nil {
		return AppTokens{}, err
	}
	keys.verified.put(access, tokenInfo{a.ID, session.ID, user.ID, expires})
	claims, err := s.claims(ctx, session, user)
	if err != nil {
		return AppTokens{}, err
	}
	half := sha256.Sum256([]byte(access))
	claims["iss"], claims["aud"], claims["iat"], claims["exp"] = s.Settings.Issuer, a.ID, now.Unix(), expires.Unix()
	claims["auth_time"], claims["amr"], claims["sid"] = session.AuthTime.Unix(), strings.Fields(session.AMR), session.SID
	claims["at_hash"] = base64.RawURLEncoding.EncodeToString(half[:16]) // OpenID Connect Core, 3.1.3.6
	if nonce != "" {
		claims["nonce"] = nonce
	}
	idToken, err := keys.ring.SignID("JWT", claims)
	if err != nil {
		return AppTokens{}, notYet(err)
	}
	return AppTokens{
		Access: access, Refresh: keys.ring.AppRefresh(id, uint64(session.Counter)), ID: idToken,
		ExpiresIn: expires.Sub(now), Scopes: session.Scopes,
	}, nil
}

// claims are what the session's scopes let its app see of the user.
func (s *Service) claims(ctx context.Context, session store.AppSession, user store.User) (map[string]any, error) {
	claims := map[string]any{"sub": user.ID}
	has := func(scope string) bool { return slices.Contains(session.Scopes, scope) }
	if has("profile") || has("email") {
		claims["preferred_username"] = user.Email
	}
	if has("profile") {
		name := strings.TrimSpace(user.FirstName + " " + user.LastName)
		for claim, value := range map[string]string{"name": name, "given_name": user.FirstName, "family_name": user.LastName, "locale": user.Language} {
			if value != "" {
				claims[claim] = value
			}
		}
		if name == "" {
			claims["name"] = user.Email // programs by the dozen show it
		}
	}
	if has("email") {
		claims["email"], claims["email_verified"] = user.Email, !user.EmailProvenAt.IsZero()
	}
	if has("groups") {
		groups, err := s.Store.Read(ctx).GroupsOf(user.ID)
		if err != nil {
			return nil, err
		}
		claims["groups"] = append([]string{}, groups...) // a list, also an empty one
	}
	return claims, nil
}

// UserInfo is what an app's access token lets it see. ErrNotLoggedIn for every reason:
// the session is read each time, so that a token ends with it.
func (s *Service) UserInfo(ctx context.Context, access string) (map[string]any, error) {
	session, user, a, err := s.appOf(ctx, access)
	if err != nil {
		return nil, err
	}
	may, err := mayUse(s.Store.Read(ctx), a, user.ID)
	if err == nil && !may {
		err = ErrNotLoggedIn
	}
	if err != nil {
		return nil, err
	}
	return s.claims(ctx, session, user)
}

// appOf finds the live session of an app's access token.
func (s *Service) appOf(ctx context.Context, access string) (session store.AppSession, user store.User, a store.App, err error) {
	audience, now := audienceOf(access), s.Store.Now()
	if audience == "" || audience == s.Settings.Audience {
		return session, user, a, ErrNotLoggedIn
	}
	info, err := s.verify(ctx, access, audience, now)
	if errors.Is(err, ErrExpired) {
		err = ErrNotLoggedIn
	}
	if err != nil {
		return session, user, a, err
	}
	session, user, a, err = s.Store.Read(ctx).AppSession(info.session, now, s.Settings.lifetimes())
	if errors.Is(err, store.ErrNotFound) || err == nil && (session.AppID != audience || user.ID != info.user) {
		err = ErrNotLoggedIn
	}
	return session, user, a, err
}

// audienceOf reads whom a token says that it is for; "" if it isn't one.
func audienceOf(access string) string {
	var claims struct{ Aud string }
	parts := strings.Split(access, ".")
	if len(access) > verify.MaxSize || len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Aud
}

// RevokeApp ends the session of an app's own token of either kind (RFC 7009). Any other
// token is nothing to do.
func (s *Service) RevokeApp(ctx context.Context, client Client, a store.App, text string) error {
	var session store.AppSession
	id, _, err := s.Keys.parse(ctx, text, (*token.Keyring).ParseAppRefresh)
	switch {
	case err == nil:
		session, err = s.Store.Read(ctx).AppSessionByID(id.String())
	case errors.Is(err, token.ErrRefresh):
		session, _, _, err = s.appOf(ctx, text)
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, ErrNotLoggedIn) || err == nil && session.AppID != a.ID {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Store.InTx(ctx, func(tx *store.Tx) error { return s.endAppSession(tx, client, session, reasonByApp) })
}

// Hint is what an ID token says that an app sends with a logout.
type Hint struct {
	Issuer  string `json:"iss"`
	App     string `json:"aud"`
	Subject string `json:"sub"`
	SID     string `json:"sid"`
}

// ReadHint reads an ID token of ours, however old it is; false for anything else.
func (s *Service) ReadHint(ctx context.Context, text string) (h Hint, ok bool, err error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return h, false, err
	}
	ok = keys.ring.OpenID(text, &h) && h.Issuer == s.Settings.Issuer && h.App != "" && h.SID != ""
	return h, ok, nil
}

// IsOf says whether a hint is of the visitor's browser session.
func (h Hint) IsOf(v Visitor) bool { return h.Subject == v.ID && h.SID == sidOf(v.SessionID, h.App) }

// LogoutApp ends the app's session that a hint names, where its browser is elsewhere.
func (s *Service) LogoutApp(ctx context.Context, client Client, h Hint) error {
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		ended, err := tx.EndAppSessions(h.Subject, h.App, h.SID, store.EndByApp, false)
		if err != nil || ended == 0 {
			return err
		}
		return s.publish(tx, client, happening{kind: EventAppEnded, reason: reasonByApp, user: h.Subject, app: h.App})
	})
}
