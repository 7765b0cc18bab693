package auth

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"kwai/internal/store"
	"kwai/verify"
)

// Caller is who bears an access token.
type Caller struct {
	store.Profile
	SessionID string
}

// Check says whose access token it is. The signature alone isn't enough: the
// session is read each time, so that a token dies with it. ErrNotLoggedIn
// whatever the reason.
func (s *Service) Check(ctx context.Context, access string) (Caller, error) {
	now := s.Store.Now()
	said, err := s.verify(access, now)
	if err != nil {
		return Caller{}, err
	}
	user, err := s.Store.Read(ctx).UserOfSession(said.session, now, s.Settings.lives())
	if errors.Is(err, store.ErrNotFound) || err == nil && user.ID != said.user {
		err = ErrNotLoggedIn
	}
	return Caller{user, said.session}, err
}

// verify says what an access token of ours says.
func (s *Service) verify(access string, now time.Time) (said, error) {
	if known, ok := s.verified.recall(access, now); ok {
		return known, nil
	}
	verifier := verify.Verifier{
		Issuer:   s.Settings.Issuer,
		Audience: s.Settings.Audience,
		Keys:     s.Keys.JWKS(),
		Now:      func() time.Time { return now },
	}
	claims, err := verifier.Verify(access)
	if err != nil || uuid.Validate(claims.SessionID) != nil {
		return said{}, ErrNotLoggedIn
	}
	fresh := said{claims.SessionID, claims.Subject, claims.ExpiresAt}
	s.verified.remember(access, fresh)
	return fresh, nil
}
