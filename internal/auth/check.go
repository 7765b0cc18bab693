package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"kwai/internal/store"
	"kwai/verify"
)

// Caller is the user and the session of an access token.
type Caller struct {
	store.Profile
	SessionID string
}

// Check says whose access token it is. The signature alone isn't enough: the session is
// read each time, so that a token ends with it. ErrNotLoggedIn for every reason. It is
// ErrExpired, with the caller's ids alone, where nothing but its age is wrong with the
// token; then the session wasn't read.
func (s *Service) Check(ctx context.Context, access string) (Caller, error) {
	now := s.Store.Now()
	info, err := s.verify(ctx, access, s.Settings.Audience, now)
	if errors.Is(err, ErrExpired) {
		return Caller{store.Profile{ID: info.user}, info.session}, err
	}
	if err != nil {
		return Caller{}, err
	}
	user, err := s.Store.Read(ctx).UserOfSession(info.session, now, s.Settings.lifetimes())
	if errors.Is(err, store.ErrNotFound) || err == nil && user.ID != info.user {
		err = ErrNotLoggedIn
	}
	return Caller{user, info.session}, err
}

// verify verifies an access token of an audience. If its key isn't known here, another
// replica may have made it with a newer key.
func (s *Service) verify(ctx context.Context, access, audience string, now time.Time) (tokenInfo, error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return tokenInfo{}, err
	}
	known, err := s.verifyWith(keys, access, audience, now)
	if errors.Is(err, verify.ErrUnknownKey) && !keys.ring.Expired(access) {
		if keys, err = s.Keys.newer(ctx); err != nil {
			return tokenInfo{}, err
		}
		known, err = s.verifyWith(keys, access, audience, now)
	}
	switch {
	case errors.Is(err, verify.ErrExpired):
		return tokenInfoOf(access), ErrExpired
	case err != nil:
		return tokenInfo{}, ErrNotLoggedIn
	}
	return known, nil
}

// tokenInfoOf reads a token that has been verified, in all but its age.
func tokenInfoOf(access string) tokenInfo {
	var claims struct{ Sub, Sid string }
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(access, ".")[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		panic(err) // it was read before
	}
	return tokenInfo{session: claims.Sid, user: claims.Sub}
}

func (s *Service) verifyWith(keys *keySet, access, audience string, now time.Time) (tokenInfo, error) {
	if known, ok := keys.verified.get(access, now); ok && known.audience == audience {
		return known, nil
	}
	verifier := verify.Verifier{
		Issuer:   s.Settings.Issuer,
		Audience: audience,
		Keys:     keys.ring.AccessKeys(),
		Now:      func() time.Time { return now },
	}
	claims, err := verifier.Verify(access)
	if err == nil {
		err = uuid.Validate(claims.SessionID)
	}
	if err != nil {
		return tokenInfo{}, err
	}
	fresh := tokenInfo{audience, claims.SessionID, claims.Subject, claims.ExpiresAt}
	keys.verified.put(access, fresh)
	return fresh, nil
}
