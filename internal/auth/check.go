package auth

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"kwai/internal/store"
	"kwai/verify"
)

// Check says whose access token it is. The signature alone isn't enough: the
// session is read each time, so that a token dies with it. ErrNotLoggedIn
// whatever the reason.
func (s *Service) Check(ctx context.Context, access string) (store.User, error) {
	now := s.Store.Now()
	verifier := verify.Verifier{
		Issuer:   s.Settings.Issuer,
		Audience: s.Settings.Audience,
		Keys:     s.Keys.JWKS(),
		Now:      func() time.Time { return now },
	}
	claims, err := verifier.Verify(access)
	if err != nil || uuid.Validate(claims.SessionID) != nil {
		return store.User{}, ErrNotLoggedIn
	}
	session, user, err := s.Store.Read(ctx).SessionWithUser(claims.SessionID)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, ErrNotLoggedIn
	}
	if err != nil {
		return store.User{}, err
	}
	if user.ID != claims.Subject || !session.Live(now, s.Settings.lives()) {
		return store.User{}, ErrNotLoggedIn
	}
	return user, nil
}
