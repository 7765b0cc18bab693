package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"sync"
	"time"

	"kwai/internal/password"
	"kwai/internal/store"
)

// accountOf is what an address is counted under. It needs no key: the database has
// the addresses, too. A malformed address has no count, only its network has: it may
// be a password that was typed into the wrong field, which must not be kept.
func accountOf(email string) string {
	key, err := FoldEmail(email)
	if err != nil {
		return ""
	}
	return accountOfKey(key)
}

// accountOfKey is accountOf for a folded address, as a user's row has it. Folding it
// again would not do: the folded form may be too long for an address.
func accountOfKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// The prefixes of a network: what one customer of a provider commonly gets.
const (
	prefix4 = 24
	prefix6 = 56
)

// network is the prefix that the client's failures are counted by; "" where it
// isn't known.
func (c Client) network() string {
	if !c.Network || !c.Address.IsValid() {
		return ""
	}
	address := c.Address.Unmap().WithZone("")
	bits := prefix6
	if address.Is4() {
		bits = prefix4
	}
	p, err := address.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// attempt runs try, which tries a password or a code for an account. First the attempt
// counts as a failure, for every address alike; if it is one too many, the error is
// Throttled. try calls succeedAttempts if it was right. If its error is inconclusive, the
// count is undone.
func (s *Service) attempt(ctx context.Context, client Client, account string, try func(context.Context, store.Attempt) error) error {
	a := store.Attempt{Account: account, Network: client.network()}
	limits := s.Settings.Limits
	if !limits.Off && account != "" {
		leave, free, err := s.underWay.enter(ctx, counterKey{a.Account, a.Network}, limits.Free)
		if err != nil {
			return err
		}
		if !free {
			return throttledFor(limits.FirstWait)
		}
		defer leave()
	}
	// A look before the write: to refuse costs the disk nothing.
	wait, known, err := s.readWait(ctx, a)
	if err != nil {
		return err
	}
	if wait > 0 {
		return throttledFor(wait)
	}
	a.Known = known
	if !limits.Off {
		if a, err = s.countAttempt(ctx, a); err != nil {
			return err
		}
		defer s.underWay.count(counterOf(a), -1)
	}
	ctx = password.InTurn(ctx, a.Network, a.Account)
	if err = try(ctx, a); err != nil && inconclusive(err) && a.Counted {
		s.refundAttempt(ctx, a)
	}
	return err
}

// attemptCode is attempt for a code behind a right password, where the account demands one
// and knows the network: there one statement counts it, and finds the secret of the
// authenticator app that it must be of. Where it isn't tried, attempt knows why.
func (s *Service) attemptCode(ctx context.Context, a store.Attempt, userID string, try func(ctx context.Context, a store.Attempt, secret string) error) (tried bool, err error) {
	limits := s.Settings.Limits
	a = store.Attempt{Account: codesOf(userID), Network: a.Network, Known: a.Known}
	if limits.Off || !a.Known {
		return false, nil
	}
	leave, free, err := s.underWay.enter(ctx, counterOf(a), limits.Free)
	if err != nil {
		return false, err
	}
	if !free {
		return true, throttledFor(limits.FirstWait)
	}
	defer leave()
	s.underWay.count(counterOf(a), 1)
	defer s.underWay.count(counterOf(a), -1)
	var secret string
	counted := a
	err = s.Store.Statement(ctx, func(tx *store.Tx) (err error) {
		counted, secret, err = tx.CountCode(a, userID, limits.counting())
		return err
	})
	if err != nil || !counted.Counted {
		return false, err
	}
	if err = try(ctx, counted, secret); err != nil && inconclusive(err) {
		s.refundAttempt(ctx, counted)
	}
	return true, err
}

// readWait reads how long an attempt must wait, and whether the account knows the
// network.
func (s *Service) readWait(ctx context.Context, a store.Attempt) (wait time.Duration, knows bool, err error) {
	counts, err := s.Store.Read(ctx).Attempts(a.Account, a.Network)
	if err != nil {
		return 0, false, err
	}
	now := s.Store.Now()
	var unknown, known, allowance store.Attempts
	for _, c := range counts {
		switch {
		case c.Account == "":
			allowance = c
		case c.Network != "":
			known = c
		case c.ExpiresAt.After(now):
			unknown = c
		}
	}
	knows = known.ExpiresAt.After(now)
	limits := s.Settings.Limits
	switch {
	case limits.Off:
		return 0, knows, nil
	case knows:
		return limits.wait(known, now), true, nil
	}
	return max(limits.wait(unknown, now), limits.networkWait(allowance, now)), false, nil
}

// countAttempt writes the failure. It may be throttled by another attempt that was
// counted since the counts were read, of the account or of the network.
func (s *Service) countAttempt(ctx context.Context, a store.Attempt) (counted store.Attempt, err error) {
	limits := s.Settings.Limits
	s.underWay.count(counterOf(a), 1)
	count := func(tx *store.Tx) (err error) {
		counted, err = tx.CountAttempt(a, limits.counting())
		return err
	}
	if a.Known {
		err = s.Store.Statement(ctx, count)
	} else {
		err = s.Store.InTx(ctx, count)
	}
	if errors.Is(err, store.ErrAllowance) || err == nil && !counted.Counted {
		err = throttledFor(limits.FirstWait)
	}
	if err != nil {
		s.underWay.count(counterOf(a), -1)
	}
	return counted, err
}

// refundAttempt undoes the count of an attempt that was inconclusive. For a client
// that has disconnected, the network's count stays: the hash may have been computed,
// and to write and undo for ever is work, too.
func (s *Service) refundAttempt(ctx context.Context, a store.Attempt) {
	if ctx.Err() != nil {
		a.Took = 0
	}
	err := s.Store.InTx(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.RefundAttempt(a) })
	if err != nil {
		s.Log.Warn("a login that was given up counts as a failure", "error", err)
	}
}

// inconclusive says that an error came before the password was looked at, or
// after it was found right.
func inconclusive(err error) bool {
	if isHalfway(err) {
		return true // it gives back its own count and clears nothing: the login isn't whole
	}
	return errors.Is(err, password.ErrBusy) || errors.Is(err, ErrSecret) || errors.Is(err, store.ErrUnavailable) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// succeedAttempts clears the counts that the attempts were added to, and has the accounts
// know the network from now on; it says whether the first one's knew any before. Other
// attempts that are under way go on counting.
func (s *Service) succeedAttempts(tx *store.Tx, all ...store.Attempt) (knew bool, err error) {
	var done []store.Success
	for _, a := range all {
		done = append(done, store.Success{Attempt: a, UnderWay: s.underWay.others(a)})
	}
	return tx.SucceedAttempts(tx.Now.Add(s.Settings.Limits.Remember), done...)
}

// throttledFor refuses for a time; the same for every address.
func throttledFor(wait time.Duration) *Error {
	return &Error{Code: Throttled, Detail: errThrottled.Detail, RetryAfter: wait, Of: errThrottled}
}

// underWay are the attempts that have begun and not ended on this server. A success
// doesn't clear them: else a client with the right password could have any number
// under way. The zero value is ready.
type underWay struct {
	mu     sync.Mutex
	slots  map[counterKey]*slots
	counts map[counterKey]int // that the database counts
}

// counterKey names an account's count for a network that it knows, or for all
// others: "".
type counterKey struct{ account, network string }

// counterOf is where the attempt counts as a failure of the account.
func counterOf(a store.Attempt) counterKey {
	if a.Known {
		return counterKey{a.Account, a.Network}
	}
	return counterKey{a.Account, ""}
}

// slots bound how many attempts run at once.
type slots struct {
	taken chan struct{} // holds one for each
	users int           // attempts that have one or wait for one
}

// slotWait is how long an attempt waits for its slot. A flood of attempts is slowed
// by it.
const slotWait = time.Second

// enter takes one of so many slots, or waits for one; false if that takes too long.
func (u *underWay) enter(ctx context.Context, key counterKey, most int) (leave func(), ok bool, err error) {
	p := u.join(key, most)
	leave = func() {
		<-p.taken
		u.quit(key, p)
	}
	select {
	case p.taken <- struct{}{}:
		return leave, true, nil
	default:
	}
	timeout := time.NewTimer(slotWait)
	defer timeout.Stop()
	select {
	case p.taken <- struct{}{}:
		return leave, true, nil
	case <-timeout.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	u.quit(key, p)
	return nil, false, err
}

func (u *underWay) join(key counterKey, most int) *slots {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.slots[key]
	if p == nil {
		if u.slots == nil {
			u.slots = make(map[counterKey]*slots)
		}
		p = &slots{taken: make(chan struct{}, most)}
		u.slots[key] = p
	}
	p.users++
	return p
}

func (u *underWay) quit(key counterKey, p *slots) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(u.slots, key)
	}
}

// count says that the database counts an attempt, by 1, or that it has ended, by -1.
func (u *underWay) count(key counterKey, by int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.counts == nil {
		u.counts = make(map[counterKey]int)
	}
	if u.counts[key] += by; u.counts[key] == 0 {
		delete(u.counts, key)
	}
}

// others is how many are counted beside the attempt, where that counts.
func (u *underWay) others(a store.Attempt) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.counts[counterOf(a)]
	if a.Counted {
		n--
	}
	return max(n, 0)
}
