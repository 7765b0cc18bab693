package auth

import (
	"context"
	"time"

	"kwai/internal/token"
)

// Ring are the opened keys as they were read last.
func (s *Service) Ring() *token.Keyring { return s.Keys.set.Load().ring }

// Age has what is known of the keys be older by d, as if the process had stood
// still.
func (s *Service) Age(d time.Duration) {
	set := *s.Keys.set.Load()
	set.read = set.read.Add(-d)
	s.Keys.set.Store(&set)
}

// ReadKeys is what FollowKeys does every second.
func (s *Service) ReadKeys(ctx context.Context) error {
	_, err := s.Keys.since(ctx, time.Now())
	return err
}

// NewerKeys reads them for the sake of an unknown key.
func (s *Service) NewerKeys(ctx context.Context) error {
	_, err := s.Keys.newer(ctx)
	return err
}

// KeysKept is how long an expired key is kept.
const KeysKept = keysKept

// PretendedCost is the cost of hashing that an address without a password is
// made to pay.
func (s *Service) PretendedCost(email string) string { return s.pretendedCost(email) }

// MaxRequests is how many recovery requests may wait.
const MaxRequests = maxRequests

// AccountOf is what an address is counted under.
func AccountOf(email string) string { return accountOf(email) }

// MaxRefusals is how many counts of refusals an hour has.
const MaxRefusals = maxRefusals

// RequestBatch is how many are looked at at a time.
const RequestBatch = requestBatch

// MaxVerified is how many tokens one generation remembers.
const MaxVerified = maxVerified

// Verified is the memory of good signatures.
type Verified struct{ v verified }

// NewVerified makes one.
func NewVerified() *Verified { return new(Verified) }

// Remember notes a token that ends then.
func (v *Verified) Remember(token string, expires time.Time) {
	v.v.remember(token, said{expires: expires})
}

// Recalls says whether a token is remembered.
func (v *Verified) Recalls(token string, now time.Time) bool {
	_, ok := v.v.recall(token, now)
	return ok
}

// Len is how many are remembered.
func (v *Verified) Len() int { return len(v.v.newer) + len(v.v.older) }

// WaitingRefusals is how many do.
func (s *Service) WaitingRefusals() int {
	s.refusals.mu.Lock()
	defer s.refusals.mu.Unlock()
	return len(s.refusals.counts)
}

// TrailPage is how many entries of the trail are read at once.
const TrailPage = trailPage

// RecordKey records what became of a server key.
var RecordKey = recordKey

// SetMaxLiveSessions bounds the sessions of a user.
func SetMaxLiveSessions(n int) { maxLiveSessions = n }
