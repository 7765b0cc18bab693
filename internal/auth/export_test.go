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

// DecoyCost is the cost of hashing for an address without a password.
func (s *Service) DecoyCost(email string) string { return s.decoyCost(email) }

// MaxRequests is how many recovery requests may wait.
const MaxRequests = maxRequests

// AccountOf is what an address is counted under.
func AccountOf(email string) string { return accountOf(email) }

// RequestBatch is how many are looked at at a time.
const RequestBatch = requestBatch

// MaxCached is how many tokens one generation holds.
const MaxCached = maxCached

// TokenCache is the cache of verified tokens.
type TokenCache struct{ v tokenCache }

// NewTokenCache makes one.
func NewTokenCache() *TokenCache { return new(TokenCache) }

// Put adds a token that expires then.
func (v *TokenCache) Put(token string, expires time.Time) {
	v.v.put(token, tokenInfo{expires: expires})
}

// Has says whether a token is cached.
func (v *TokenCache) Has(token string, now time.Time) bool {
	_, ok := v.v.get(token, now)
	return ok
}

// Len is how many are cached.
func (v *TokenCache) Len() int { return len(v.v.newer) + len(v.v.older) }

// AuditPage is how many entries of the audit log are read at once.
const AuditPage = pageSize

// RecordKey records what became of a server key.
var RecordKey = recordKey

// SetMaxLiveSessions bounds the sessions of a user.
func SetMaxLiveSessions(n int) { maxLiveSessions = n }

// UnderWay is how many attempts have a slot at the account there.
func (s *Service) UnderWay(email, network string) int {
	s.underWay.mu.Lock()
	defer s.underWay.mu.Unlock()
	if p := s.underWay.slots[counterKey{accountOf(email), network}]; p != nil {
		return len(p.taken)
	}
	return 0
}

// UnderWayAnywhere is of how many accounts and networks something is kept.
func (s *Service) UnderWayAnywhere() int {
	s.underWay.mu.Lock()
	defer s.underWay.mu.Unlock()
	return len(s.underWay.slots) + len(s.underWay.counts)
}

// Begin begins an attempt; end ends it as a login does, if it succeeded or not.
func (s *Service) Begin(ctx context.Context, client Client, email string) (end func(ok bool) error, err error) {
	begun, result, ended := make(chan struct{}), make(chan bool), make(chan error, 1)
	go func() {
		ended <- s.attempt(ctx, client, accountOf(email), func(ctx context.Context, a store.Attempt) error {
			close(begun)
			if !<-result {
				return nil
			}
			return s.Store.InTx(ctx, func(tx *store.Tx) error {
				_, err := s.succeedAttempts(tx, a)
				return err
			})
		})
	}()
	select {
	case <-begun:
	case err = <-ended:
	}
	return func(ok bool) error {
		result <- ok
		return <-ended
	}, err
}

// UnderWayAtOnce has so many attempts of one account take a slot at once, and run
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
		panic("something is kept")
	}
	return int(no.Load())
}

// The figures of purging.
const (
	PurgeBatch  = purgeBatch
	PurgeMargin = purgeMargin
	PurgeLife   = purgeLife
	PurgeEvery  = purgeEvery
	PurgeLook   = purgeLook
)

// NewID is an id of that time.
func NewID(at time.Time) string { return newID(at) }

// Purger is what one replica purges by.
type Purger struct{ p *purger }

// NewPurger makes one that calls rest where it would pause.
func (s *Service) NewPurger(rest func()) *Purger {
	p := s.newPurger()
	p.rest = func(context.Context, time.Duration) { rest() }
	return &Purger{p}
}

// RestAsServed has it pause as long as a server's does.
func (p *Purger) RestAsServed() *Purger {
	p.p.rest = restAfter
	return p
}

// Sweep goes through all tables once; false if another one does, or did.
func (p *Purger) Sweep(ctx context.Context) (bool, error) { return p.p.sweep(ctx) }

// Release gives up the lease.
func (p *Purger) Release(ctx context.Context) { p.p.release(ctx) }
