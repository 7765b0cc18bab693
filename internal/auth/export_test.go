package auth

import "time"

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
