package auth

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"kwai/internal/store"
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

// ReadKeys is what Keys.Tend does every second.
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
func (s *Service) PretendedCost(email string) string { return s.decoyCost(email) }

// MaxRequests is how many recovery requests may wait.
const MaxRequests = maxRequests

// AccountOf is what an address is counted under.
func AccountOf(email string) string { return accountOf(email) }

// RequestBatch is how many are looked at at a time.
const RequestBatch = requestBatch

// MaxVerified is how many tokens one generation remembers.
const MaxVerified = maxCached

// Verified is the memory of good signatures.
type Verified struct{ v tokenCache }

// NewVerified makes one.
func NewVerified() *Verified { return new(Verified) }

// Remember notes a token that ends then.
func (v *Verified) Remember(token string, expires time.Time) {
	v.v.put(token, tokenInfo{expires: expires})
}

// Recalls says whether a token is remembered.
func (v *Verified) Recalls(token string, now time.Time) bool {
	_, ok := v.v.get(token, now)
	return ok
}

// Len is how many are remembered.
func (v *Verified) Len() int { return len(v.v.newer) + len(v.v.older) }

// TrailPage is how many entries of the audit log are read at once.
const TrailPage = auditPage

// RecordKey records what became of a server key.
var RecordKey = recordKey

// SetMaxLiveSessions bounds the sessions of a user.
func SetMaxLiveSessions(n int) { maxLiveSessions = n }

// UnderWay is how many attempts have a place at the account there.
func (s *Service) UnderWay(email, network string) int {
	s.underWay.mu.Lock()
	defer s.underWay.mu.Unlock()
	if p := s.underWay.slots[counterKey{accountOf(email), network}]; p != nil {
		return len(p.taken)
	}
	return 0
}

// UnderWayAnywhere is of how many accounts and networks something is remembered.
func (s *Service) UnderWayAnywhere() int {
	s.underWay.mu.Lock()
	defer s.underWay.mu.Unlock()
	return len(s.underWay.slots) + len(s.underWay.counts)
}

// Begin begins an attempt; end ends it as a login does, if it succeeded or not.
func (s *Service) Begin(ctx context.Context, client Client, email string) (end func(ok bool) error, err error) {
	a, err := s.beginAttempt(ctx, client, accountOf(email))
	return func(ok bool) error {
		defer s.endAttempt(a)
		if !ok {
			return nil
		}
		return s.Store.InTx(ctx, func(tx *store.Tx) error { return s.succeedAttempt(tx, a) })
	}, err
}

// UnderWayAtOnce has so many attempts of one account take a place at once, and run
// each while they have it; it says how many got none.
func UnderWayAtOnce(ctx context.Context, attempts, most int, each func()) (refused int) {
	var u underWay
	var all sync.WaitGroup
	var no atomic.Int64
	for range attempts {
		all.Go(func() {
			leave, ok, err := u.enter(ctx, counterKey{"account", "network"}, most)
			if err != nil || !ok {
				no.Add(1)
				return
			}
			each()
			leave()
		})
	}
	all.Wait()
	if len(u.slots) > 0 {
		panic("something is remembered")
	}
	return int(no.Load())
}
