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

// attempt is a try of a password for an account, from a network.
type attempt struct {
	account string // as the counts name it
	network string // "" where it isn't known
	known   bool   // the account knows the network
	counted bool
	until   time.Time // that the account's next attempt must wait
	leave   func()    // frees its slot; nil: it has none
}

// attemptOf is an attempt by the user that isn't counted.
func attemptOf(client Client, user store.User) attempt {
	return attempt{account: accountOfKey(user.EmailKey), network: client.network()}
}

// counter is where the attempt counts as a failure of the account.
func (a attempt) counter() counterKey {
	if a.known {
		return counterKey{a.account, a.network}
	}
	return counterKey{a.account, ""}
}

// inTurn has passwords hashed in the turn of the attempt's network.
func (a attempt) inTurn(ctx context.Context) context.Context {
	return password.InTurn(ctx, a.network, a.account)
}

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

// beginAttempt counts a try of a password for an account as a failure, unless it is
// one too many: then the error is Throttled. It does the same for every address. The
// caller says with succeedAttempt or refundAttempt that it was no failure, and ends
// it with endAttempt.
func (s *Service) beginAttempt(ctx context.Context, client Client, account string) (a attempt, err error) {
	a = attempt{account: account, network: client.network()}
	limits := s.Settings.Limits
	if !limits.Off && account != "" {
		var free bool
		if a.leave, free, err = s.underWay.enter(ctx, counterKey{account, a.network}, limits.Free); err != nil {
			return a, err
		}
		if !free {
			return a, throttledFor(limits.FirstWait)
		}
	}
	// A look before the write: to refuse costs the disk nothing.
	var wait time.Duration
	wait, a.known, err = s.readWait(ctx, account, a.network)
	if err == nil && wait == 0 && !limits.Off {
		wait, err = s.countAttempt(ctx, &a)
	}
	if err == nil && wait > 0 {
		err = throttledFor(wait)
	}
	if err != nil {
		s.endAttempt(a)
	}
	return a, err
}

// readWait reads how long an attempt must wait, and whether the account knows the
// network.
func (s *Service) readWait(ctx context.Context, account, network string) (wait time.Duration, knows bool, err error) {
	counts, err := s.Store.Read(ctx).Attempts(account, network)
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

// countAttempt writes the failure. A wait means that another attempt was counted
// since the counts were read, of the account or of the network.
func (s *Service) countAttempt(ctx context.Context, a *attempt) (wait time.Duration, err error) {
	limits := s.Settings.Limits
	s.underWay.count(a.counter(), 1)
	defer func() {
		if !a.counted {
			s.underWay.count(a.counter(), -1)
		}
	}()
	if a.known {
		err = s.Store.Statement(ctx, func(tx *store.Tx) (err error) {
			a.until, a.counted, err = tx.CountKnown(a.account, a.network, limits.waits())
			return err
		})
	} else {
		err = s.Store.InTx(ctx, func(tx *store.Tx) error { return a.countUnknown(tx, limits) })
		if errors.Is(err, errNotCounted) {
			err = nil
		}
	}
	if err == nil && !a.counted {
		wait = limits.FirstWait
	}
	return wait, err
}

// countUnknown counts an attempt from a network that the account doesn't know: for
// the account, and against the network's allowance.
func (a *attempt) countUnknown(tx *store.Tx, limits Limits) (err error) {
	a.counted = true
	if a.account != "" {
		if a.until, a.counted, err = tx.CountUnknown(a.account, limits.waits(), limits.Remember); err != nil || !a.counted {
			return err
		}
	}
	if a.network == "" {
		return nil
	}
	if a.counted, err = tx.CountNetwork(a.network, limits.allowance()); err == nil && !a.counted {
		err = errNotCounted // the account's count is undone
	}
	return err
}

var errNotCounted = errors.New("the network has used up its allowance")

// endAttempt frees what the attempt has taken; its result has been written.
func (s *Service) endAttempt(a attempt) {
	if a.counted {
		s.underWay.count(a.counter(), -1)
	}
	if a.leave != nil {
		a.leave()
	}
}

// refundAttempt undoes the count of an attempt that was inconclusive. For a client
// that has disconnected, the network's count stays: the hash may have been computed,
// and to write and undo for ever is work, too.
func (s *Service) refundAttempt(ctx context.Context, a attempt) {
	if !a.counted {
		return
	}
	err := s.Store.InTx(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if a.known {
			return tx.RefundAttempt(a.account, a.network, a.until)
		}
		if err := tx.RefundAttempt(a.account, "", a.until); err != nil || a.network == "" || ctx.Err() != nil {
			return err
		}
		return tx.RefundNetwork(a.network, s.Settings.Limits.allowance())
	})
	if err != nil {
		s.Log.Warn("a login that was given up counts as a failure", "error", err)
	}
}

// inconclusive says that an error came before the password was looked at, or
// after it was found right.
func inconclusive(err error) bool {
	return errors.Is(err, password.ErrBusy) || errors.Is(err, store.ErrUnavailable) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// succeedAttempt clears the count that the attempt was added to, and has the account
// know the network from now on. Other attempts that are under way go on counting.
func (s *Service) succeedAttempt(tx *store.Tx, a attempt) error {
	others := s.underWay.others(a.counter())
	if !a.known {
		if err := tx.ForgetUnknown(a.account, others); err != nil {
			return err
		}
		others = 0
		if a.counted && a.network != "" {
			if err := tx.RefundNetwork(a.network, s.Settings.Limits.allowance()); err != nil {
				return err
			}
		}
	}
	return s.knowNetwork(tx, a, others)
}

// knowNetwork has the account know the attempt's network, where so many other
// attempts are under way.
func (s *Service) knowNetwork(tx *store.Tx, a attempt, others int) error {
	if a.network == "" {
		return nil
	}
	return tx.KnowNetwork(a.account, a.network, !a.known, others, tx.Now.Add(s.Settings.Limits.Remember))
}

// throttledFor refuses for a time; the same for every address.
func throttledFor(wait time.Duration) *Error {
	e := *errThrottled
	e.RetryAfter = wait
	return &e
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

// others is how many are counted beside the caller's.
func (u *underWay) others(key counterKey) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return max(u.counts[key]-1, 0)
}
