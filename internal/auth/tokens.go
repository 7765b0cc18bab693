package auth

import (
	"context"
	"time"

	"github.com/google/uuid"

	"kwai/internal/store"
	"kwai/verify"
)

// Tokens are what a login or a renewal answers.
type Tokens struct {
	Access    string // a JWT as RFC 9068 has it
	Refresh   string
	ExpiresAt time.Time // of the access token
	ExpiresIn time.Duration
}

// tokens makes a session's current refresh token and a new access token, which
// never outlives the session.
func (s *Service) tokens(ctx context.Context, session store.Session, now time.Time) (Tokens, error) {
	id, err := uuid.Parse(session.ID)
	if err != nil {
		return Tokens{}, err
	}
	// What a key signs after it was active might outlive it.
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return Tokens{}, err
	}
	// JWTs count in seconds: the earlier one.
	now = now.Truncate(time.Second)
	expires := now.Add(s.Settings.AccessTTL)
	for _, end := range []time.Time{session.CreatedAt.Add(s.Settings.SessionLife), session.RenewedAt.Add(s.Settings.RefreshIdle)} {
		if expires.After(end) {
			expires = end.Truncate(time.Second)
		}
	}
	access, err := keys.ring.Sign(verify.Claims{
		Issuer:    s.Settings.Issuer,
		Audience:  s.Settings.Audience,
		ClientID:  s.Settings.Audience,
		Subject:   session.UserID,
		SessionID: session.ID,
		ID:        uuid.NewString(),
		IssuedAt:  now,
		AuthTime:  session.AuthTime.Truncate(time.Second),
		ExpiresAt: expires,
	})
	if err != nil {
		return Tokens{}, err
	}
	keys.verified.put(access, tokenInfo{s.Settings.Audience, session.ID, session.UserID, expires})
	return Tokens{
		Access:    access,
		Refresh:   keys.ring.Refresh(id, uint64(session.Counter)),
		ExpiresAt: expires,
		ExpiresIn: expires.Sub(now),
	}, nil
}
