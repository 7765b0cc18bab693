package auth

import (
	"context"
	"errors"
	"time"

	"kwai/internal/store"
)

// Login opens a session for the user with that address and password. An
// unknown or malformed address, a revoked user and a wrong password all cost
// one hash and get ErrCredentials, so that neither the answer nor its time
// tells which it was. Nor does a refusal by the limits, which comes before.
func (s *Service) Login(ctx context.Context, client Client, email, password string) (Tokens, error) {
	tokens, err := s.login(ctx, client, email, password)
	s.counts.count(logins, outcomeOf(err))
	return tokens, err
}

func (s *Service) login(ctx context.Context, client Client, email, password string) (Tokens, error) {
	a, err := s.attempt(ctx, client, accountOf(email))
	if err != nil {
		return Tokens{}, err
	}
	defer s.attemptEnded(a)
	ctx = a.inTurn(ctx)
	session, why, err := s.open(ctx, client, a, email, password)
	if err == nil && why.reason == reasonChanged {
		// Once more: it may be a login with the same password that has
		// replaced its old hash.
		session, why, err = s.open(ctx, client, a, email, password)
	}
	if err != nil {
		if inconclusive(err) {
			s.refundAttempt(ctx, a)
		}
		return Tokens{}, err
	}
	if why.reason != "" {
		if err := s.loginFailed(ctx, client, why); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, ErrCredentials
	}
	return s.tokens(ctx, session, session.CreatedAt)
}

// loginFailed records why, alike for every reason.
func (s *Service) loginFailed(ctx context.Context, client Client, why happening) error {
	// Who hangs up in time isn't spared the record.
	return s.Store.Statement(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		return record(tx, nextID(tx), AuditLoginFailed, why.reason, why.user, "", client)
	})
}

// open opens a session if the password is right; else it gives the reason why
// not. Its kind is that of what was told beside the login, if anything was.
func (s *Service) open(ctx context.Context, client Client, a attempt, email, password string) (session store.Session, why happening, err error) {
	user, known, err := s.findUser(ctx, email)
	if err != nil {
		return session, why, err
	}
	why.user = user.ID
	if !known || user.PasswordHash == "" {
		why.reason = reasonUnknown
		if known {
			why.reason = reasonInvited
		}
		return session, why, s.Passwords.VerifyDummy(ctx, s.decoyCost(email), password)
	}
	ok, err := s.Passwords.Verify(ctx, user.PasswordHash, password)
	switch {
	case err != nil:
		return session, why, err
	case !ok:
		why.reason = reasonPassword
		return session, why, nil
	case !user.RevokedAt.IsZero():
		why.reason = reasonRevoked
		return session, why, nil
	}
	rehashed, err := s.rehash(ctx, user.PasswordHash, password)
	if err != nil {
		return session, why, err
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		session = store.Session{ID: nextID(tx), UserID: user.ID, CreatedAt: tx.Now, RenewedAt: tx.Now}
		why.kind, why.reason = "", ""
		if ok, err := tx.LogIn(user.ID, user.PasswordHash, rehashed); err != nil {
			return err
		} else if !ok {
			// While the hash was computed, the stored one was replaced or the
			// user revoked.
			why.reason = reasonChanged
			return nil
		}
		if err := tx.OpenSession(session.ID, user.ID); err != nil {
			return err
		}
		isNew, err := s.fromNewNetwork(tx, a, user)
		if err != nil {
			return err
		}
		excess, err := tx.EndOldest(user.ID, maxLiveSessions)
		if err != nil {
			return err
		}
		for _, id := range excess {
			if err := s.publish(tx, client, happening{kind: EventEnded, reason: reasonExcess, user: user.ID, session: id}); err != nil {
				return err
			}
		}
		if err := s.attemptSucceeded(tx, a); err != nil {
			return err
		}
		if err := s.publish(tx, client, happening{kind: EventOpened, user: user.ID, session: session.ID}); err != nil || !isNew {
			return err
		}
		why.kind = EventNewNetwork
		return s.publish(tx, client, happening{kind: why.kind, user: user.ID, session: session.ID})
	})
	return session, why, err
}

// maxLiveSessions bounds a user's sessions: else whoever has the password could
// open so many that they can't be ended in one transaction, as a reset must. Tests
// make it less.
var maxLiveSessions = 10_000

// maxNewNetworkNotices bounds how many logins from new networks a user is told of within a
// day. Who travels, or whose provider moves him about, shall not stop reading them.
const maxNewNetworkNotices = 5

// fromNewNetwork says whether the user is to be told of a login because it comes from a
// network that is new. One who has logged in lately, yet has no known network, did
// so before networks were remembered: then nothing is new. Who was away for longer
// than they are remembered is told.
func (s *Service) fromNewNetwork(tx *store.Tx, a attempt, user store.User) (bool, error) {
	if !s.Settings.LoginNotices || a.network == "" || a.known || user.LastLoginAt.IsZero() {
		return false, nil
	}
	if tx.Now.Sub(user.LastLoginAt) < s.Settings.Limits.Remember {
		if knows, err := tx.KnowsNetworks(a.account); err != nil || !knows {
			return false, err
		}
	}
	n, err := tx.CountAuditEntries(user.ID, EventNewNetwork, firstID(tx.Now.Add(-24*time.Hour)), firstID(tx.Now.Add(store.ClockSlack)))
	return n < maxNewNetworkNotices, err
}

// findUser finds a user by an address as it was typed.
func (s *Service) findUser(ctx context.Context, email string) (user store.User, known bool, err error) {
	key, err := FoldEmail(email)
	if err != nil {
		return user, false, nil //nolint:nilerr // a malformed address is nobody's
	}
	user, err = s.Store.Read(ctx).UserByEmail(key)
	if errors.Is(err, store.ErrNotFound) {
		return user, false, nil
	}
	return user, err == nil, err
}

// rehash hashes a password anew whose stored hash isn't made with today's
// parameters; it is zero where that isn't needed, or not possible.
func (s *Service) rehash(ctx context.Context, hash, password string) (store.Password, error) {
	if !s.Passwords.Stale(hash, password) {
		return store.Password{}, nil
	}
	return s.hash(ctx, password)
}

// decoyCost is the cost of hashing for an address without a password: one
// that users have, each as often among unknown addresses as among known ones,
// and always the same for the same address. So an imported or older hash
// doesn't give away that an account exists.
func (s *Service) decoyCost(email string) string {
	costs := s.costs.Load()
	if costs == nil || len(*costs) == 0 {
		return s.Passwords.Cost()
	}
	key, err := FoldEmail(email)
	if err != nil {
		key = email
	}
	var users int64
	for _, c := range *costs {
		users += c.Users
	}
	at := int64(s.Keys.DecoyFraction(key) * float64(users))
	for _, c := range *costs {
		if at -= c.Users; at < 0 {
			return c.Cost
		}
	}
	return (*costs)[len(*costs)-1].Cost
}

// RefreshCosts counts what the stored passwords cost to verify, so that unknown
// addresses cost what users do. The count reads an index of all users: some
// milliseconds for 100,000.
func (s *Service) RefreshCosts(ctx context.Context) error {
	costs, err := s.Store.Read(ctx).PasswordCosts()
	if err == nil {
		s.costs.Store(&costs)
	}
	return err
}
