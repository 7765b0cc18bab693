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
// tells which it was.
func (s *Service) Login(ctx context.Context, email, password string) (Tokens, error) {
	tokens, err := s.login(ctx, email, password)
	if errors.Is(err, errOvertaken) {
		// Once more: it may be a login with the same password that has
		// replaced its old hash.
		tokens, err = s.login(ctx, email, password)
	}
	if errors.Is(err, errOvertaken) {
		err = ErrCredentials
	}
	s.counts.count(logins, outcomeOf(err))
	return tokens, err
}

// errOvertaken says that the password was right, but while its hash was
// computed the stored one was replaced, or the user revoked.
var errOvertaken = errors.New("the user was changed during the login")

func (s *Service) login(ctx context.Context, email, password string) (Tokens, error) {
	user, known, err := s.findUser(ctx, email)
	if err != nil {
		return Tokens{}, err
	}
	if !known || user.PasswordHash == "" {
		if err := s.Passwords.Pretend(ctx, s.pretendedCost(email), password); err != nil {
			return Tokens{}, err
		}
		return Tokens{}, ErrCredentials
	}
	ok, err := s.Passwords.Verify(ctx, user.PasswordHash, password)
	if err != nil {
		return Tokens{}, err
	}
	if !ok || !user.RevokedAt.IsZero() {
		return Tokens{}, ErrCredentials
	}
	rehashed, err := s.rehash(ctx, user.PasswordHash, password)
	if err != nil {
		return Tokens{}, err
	}
	var session store.Session
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		session = store.Session{ID: newID(), UserID: user.ID, CreatedAt: tx.Now, RenewedAt: tx.Now}
		if ok, err := tx.LogIn(user.ID, user.PasswordHash, rehashed); err != nil {
			return err
		} else if !ok {
			return errOvertaken
		}
		if err := tx.OpenSession(session.ID, user.ID); err != nil {
			return err
		}
		return s.publish(tx, EventOpened, user.ID, session.ID)
	})
	if err != nil {
		return Tokens{}, err
	}
	s.published(EventOpened)
	return s.tokens(ctx, session, session.CreatedAt)
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
// parameters; it is zero where that isn't needed.
func (s *Service) rehash(ctx context.Context, hash, password string) (store.Password, error) {
	if !s.Passwords.Stale(hash) {
		return store.Password{}, nil
	}
	fresh, err := s.Passwords.Hash(ctx, password)
	if err != nil {
		return store.Password{}, err
	}
	return passwordOf(fresh)
}

// pretendedCost is the cost of hashing for an address without a password: one
// that users have, each as often among unknown addresses as among known ones,
// and always the same for the same address. So an imported or older hash
// doesn't give away that an account exists.
func (s *Service) pretendedCost(email string) string {
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
	at := int64(s.Keys.PickFraction(key) * float64(users))
	for _, c := range *costs {
		if at -= c.Users; at < 0 {
			return c.Cost
		}
	}
	return (*costs)[len(*costs)-1].Cost
}

// RefreshCosts counts what the stored passwords cost to verify. FollowCosts
// calls it now and then.
func (s *Service) RefreshCosts(ctx context.Context) error {
	costs, err := s.Store.Read(ctx).PasswordCosts()
	if err == nil {
		s.costs.Store(&costs)
	}
	return err
}

// costsEvery is how often the costs are counted. The count reads an index of
// all users: some milliseconds for 100,000.
const costsEvery = time.Minute

// FollowCosts keeps the costs of unknown addresses like those of the users
// until ctx ends.
func (s *Service) FollowCosts(ctx context.Context) {
	tick := time.NewTicker(costsEvery)
	defer tick.Stop()
	for {
		if err := s.RefreshCosts(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("counting the costs of the stored passwords", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
