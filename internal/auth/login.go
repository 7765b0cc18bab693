package auth

import (
	"context"
	"errors"

	"kwai/internal/store"
)

// Login opens a session of the API for the user with that address and password. An
// unknown or malformed address, a revoked user and a wrong password all cost one hash
// and get ErrCredentials: neither the answer nor its time tells which it was. Throttled
// comes before, alike for every address. Where two steps are demanded the error is a
// *More, for ContinueLogin.
func (s *Service) Login(ctx context.Context, client Client, email, password string) (Tokens, error) {
	return s.LoginWithCode(ctx, client, email, password, "")
}

// LoginWithCode is Login and ContinueLogin in one, with the errors of both. A code that
// isn't demanded isn't looked at.
func (s *Service) LoginWithCode(ctx context.Context, client Client, email, password, code string) (Tokens, error) {
	session, err := s.login(ctx, client, email, password, code, door{kind: store.KindAPI})
	if more, ok := errors.AsType[*More](err); ok && more.Need == NeedCode && code != "" {
		return s.ContinueLogin(ctx, client, more.Login, code)
	}
	if err != nil {
		return Tokens{}, err
	}
	return s.tokens(ctx, session, session.CreatedAt)
}

// login verifies a password at a door, and at once, if it can, a code that came with it.
func (s *Service) login(ctx context.Context, client Client, email, password, code string, d door) (store.Session, error) {
	var result loginResult
	err := s.attempt(ctx, client, accountOf(email), func(ctx context.Context, a store.Attempt) (err error) {
		result, err = s.tryLogin(ctx, client, a, email, password, code, d)
		return err
	})
	if err == nil && result.refused != "" {
		failed := happening{kind: AuditLoginFailed, reason: string(result.refused), user: result.user}
		err = s.recordRefusal(ctx, client, failed, ErrCredentials)
	}
	success := succeeded
	if result.codeTried {
		success = halfway
	}
	s.counts.count(logins, success, err)
	if failed, ok := errors.AsType[rightPasswordError](err); ok {
		err = failed.error
	}
	if result.codeTried {
		s.counts.count(secondSteps, succeeded, err)
	}
	return result.session, err
}

// rightPasswordError is an error of a code that came with a right password: the password's
// attempt was no failure, and no login either.
type rightPasswordError struct{ error }

func (e rightPasswordError) Unwrap() error { return e.error }

// isHalfway says that the password was right and no login came of it, since a code is
// missing, or was refused.
func isHalfway(err error) bool {
	_, refused := errors.AsType[rightPasswordError](err)
	return refused || isMore(err)
}

// loginResult is what a login has come to: a session, or the reason for which there
// is none.
type loginResult struct {
	session store.Session
	refused refusal
	user    string // the account's id; "" for an unknown address
	// codeTried says that a code was looked at, too.
	codeTried bool
}

// refusal is why a login is refused, as the audit log says it; "": it isn't. The
// client learns none of them.
type refusal string

const (
	reasonUnknown  refusal = "no such account"
	reasonInvited  refusal = "no password is chosen yet"
	reasonPassword refusal = "wrong password"
	reasonRevoked  refusal = "the user is revoked"
	reasonChanged  refusal = "the account has changed meanwhile"
)

func (s *Service) tryLogin(ctx context.Context, client Client, a store.Attempt, email, password, code string, d door) (loginResult, error) {
	user, err := s.findUser(ctx, email)
	if err != nil {
		return loginResult{}, err
	}
	refused, stale, err := s.verifyLogin(ctx, user, email, password)
	if err != nil || refused != "" {
		return loginResult{refused: refused, user: user.ID}, err
	}
	shown := proof{user: user, amr: amrPassword}
	if stale {
		if shown.rehashed.Hash, shown.rehashed.Cost, err = s.Passwords.Hash(ctx, password); err != nil {
			return loginResult{}, err
		}
	}
	r, err := s.tryCodeToo(ctx, client, a, shown, d, code)
	if err == nil && !r.codeTried {
		r, err = s.admit(ctx, client, a, shown, d)
	}
	if stale && isHalfway(err) { // the second step doesn't have the password
		if err := s.Store.Statement(ctx, func(tx *store.Tx) error { return tx.Rehash(user.ID, user.AuthVersion, shown.rehashed) }); err != nil {
			return loginResult{}, err
		}
	}
	if more, ok := errors.AsType[*More](err); ok {
		err = s.more(ctx, user, more.Need, d)
	}
	return r, err
}

// tryCodeToo looks at a code that came with a right password, where that takes nothing but
// to count it, and goes in by both.
func (s *Service) tryCodeToo(ctx context.Context, client Client, a store.Attempt, shown proof, d door, code string) (r loginResult, err error) {
	if code == "" {
		return r, nil
	}
	tried, err := s.withUsualCode(ctx, client, a, shown, code, func(ctx context.Context, a store.Attempt, shown proof) (err error) {
		r, err = s.admit(ctx, client, a, shown, d)
		return err
	})
	if err == nil && r.refused != "" {
		err = ErrLogin.because(string(r.refused))
	}
	if tried && err != nil {
		err = rightPasswordError{err}
	}
	return loginResult{session: r.session, user: shown.user.ID, codeTried: tried}, err
}

// findUser finds a user by an address as it was typed; the zero User if there is
// none.
func (s *Service) findUser(ctx context.Context, email string) (store.User, error) {
	key, err := FoldEmail(email)
	if err != nil {
		return store.User{}, nil //nolint:nilerr // a malformed address is nobody's
	}
	user, err := s.Store.Read(ctx).UserByEmail(key)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, nil
	}
	return user, err
}

// verifyLogin computes one hash, whether there is a user with a password or not. It
// says whether the user's is stale.
func (s *Service) verifyLogin(ctx context.Context, user store.User, email, password string) (refused refusal, stale bool, err error) {
	if user.PasswordHash == "" {
		refused = reasonInvited
		if user.ID == "" {
			refused = reasonUnknown
		}
		return refused, false, s.Passwords.VerifyDummy(ctx, s.decoyCost(email), password)
	}
	ok, stale, err := s.Passwords.Verify(ctx, user.PasswordHash, password)
	switch {
	case err != nil:
		return "", false, err
	case !ok:
		return reasonPassword, false, nil
	case !user.RevokedAt.IsZero():
		return reasonRevoked, false, nil
	}
	return "", stale, nil
}
