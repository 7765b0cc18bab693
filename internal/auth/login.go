package auth

import (
	"context"
	"errors"
	"time"

	"kwai/internal/store"
)

// Login opens a session for the user with that address and password. An unknown or
// malformed address, a revoked user and a wrong password all cost one hash and get
// ErrCredentials: neither the answer nor its time tells which it was. Throttled comes
// before, alike for every address.
func (s *Service) Login(ctx context.Context, client Client, email, password string) (Tokens, error) {
	tokens, err := s.login(ctx, client, email, password)
	s.counts.count(logins, succeeded, err)
	return tokens, err
}

func (s *Service) login(ctx context.Context, client Client, email, password string) (Tokens, error) {
	var result loginResult
	err := s.attempt(ctx, client, accountOf(email), func(ctx context.Context, a store.Attempt) (err error) {
		// Twice at most: a login with the same password may have replaced its old hash.
		for range 2 {
			if result, err = s.tryLogin(ctx, client, a, email, password); err != nil || result.refused != reasonChanged {
				break
			}
		}
		return err
	})
	if err != nil {
		return Tokens{}, err
	}
	if result.refused != "" {
		failed := happening{kind: AuditLoginFailed, reason: string(result.refused), user: result.user}
		return Tokens{}, s.recordRefusal(ctx, client, failed, ErrCredentials)
	}
	return s.tokens(ctx, result.session, result.session.CreatedAt)
}

// loginResult is what a login has come to: a session, or the reason for which there
// is none.
type loginResult struct {
	session store.Session
	refused refusal
	user    string // the account's id; "" for an unknown address
}

// refusal is why a login is refused, as the audit log says it; "": it isn't. The
// client learns none of them.
type refusal string

const (
	reasonUnknown  refusal = "no such account"
	reasonInvited  refusal = "no password is chosen yet"
	reasonPassword refusal = "wrong password"
	reasonRevoked  refusal = "the user is revoked"
	reasonChanged  refusal = "the password was changed meanwhile"
)

func (s *Service) tryLogin(ctx context.Context, client Client, a store.Attempt, email, password string) (loginResult, error) {
	user, err := s.findUser(ctx, email)
	if err != nil {
		return loginResult{}, err
	}
	refused, stale, err := s.verifyLogin(ctx, user, email, password)
	if err != nil || refused != "" {
		return loginResult{refused: refused, user: user.ID}, err
	}
	var rehashed store.Password // zero: the stored hash stays
	if stale {
		if rehashed.Hash, rehashed.Cost, err = s.Passwords.Hash(ctx, password); err != nil {
			return loginResult{}, err
		}
	}
	return s.openSession(ctx, client, a, user, rehashed)
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

// openSession opens the session, unless the stored hash was replaced or the user
// revoked while the hash was computed.
func (s *Service) openSession(ctx context.Context, client Client, a store.Attempt, user store.User, rehashed store.Password) (r loginResult, err error) {
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		r = loginResult{user: user.ID}
		if ok, err := tx.LogIn(user.ID, user.PasswordHash, rehashed); err != nil {
			return err
		} else if !ok {
			r.refused = reasonChanged
			return nil
		}
		r.session = store.Session{ID: nextID(tx), UserID: user.ID, CreatedAt: tx.Now, RenewedAt: tx.Now}
		ended, err := tx.OpenSession(r.session.ID, user.ID, maxLiveSessions)
		if err != nil {
			return err
		}
		knew, err := s.succeedAttempt(tx, a)
		if err != nil {
			return err
		}
		notify, err := s.newNetwork(tx, a, user, knew)
		if err != nil {
			return err
		}
		return s.publishLogin(tx, client, r.session, ended, notify)
	})
	return r, err
}

// publishLogin publishes a login, the sessions that it ended, and that it came from
// a new network.
func (s *Service) publishLogin(tx *store.Tx, client Client, session store.Session, ended []string, newNetwork bool) error {
	var all []happening
	for _, id := range ended {
		all = append(all, happening{kind: EventEnded, reason: reasonExcess, user: session.UserID, session: id})
	}
	all = append(all, happening{kind: EventOpened, user: session.UserID, session: session.ID})
	if newNetwork {
		all = append(all, happening{kind: EventNewNetwork, user: session.UserID, session: session.ID})
	}
	for _, h := range all {
		if err := s.publish(tx, client, h); err != nil {
			return err
		}
	}
	return nil
}

// maxLiveSessions bounds a user's sessions: else anyone with the password could
// open too many to be ended in one transaction, as a reset must. Tests make it less.
var maxLiveSessions = 10_000

// maxNewNetworkNotices bounds the mails within a day about logins from new networks.
// A user who travels, or whose provider changes the address, must not stop reading them.
const maxNewNetworkNotices = 5

// newNetwork says whether the user is to be mailed about a login from a new network.
// A user who has logged in lately, yet has no known network, did so before networks
// were remembered: then nothing is new. After an absence that is longer than networks
// are remembered, it is.
func (s *Service) newNetwork(tx *store.Tx, a store.Attempt, user store.User, knew bool) (bool, error) {
	lately := tx.Now.Sub(user.LastLoginAt) < s.Settings.Limits.Remember
	if !s.Settings.LoginNotices || a.Network == "" || a.Known || user.LastLoginAt.IsZero() || lately && !knew {
		return false, nil
	}
	n, err := tx.CountAuditEntries(user.ID, EventNewNetwork, firstID(tx.Now.Add(-24*time.Hour)), firstID(tx.Now.Add(store.ClockSlack)))
	return n < maxNewNetworkNotices, err
}
