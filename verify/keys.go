package verify

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	// fetchPause is the least time between the beginnings of two fetches. It bounds
	// what forged tokens can cost the server.
	fetchPause = 2 * time.Second
	// minLife and maxLife bound Cache-Control; without it usualLife counts. kwai
	// sends five minutes. maxLife is how long a revoked key could be used at most
	// while the server can be reached.
	minLife, usualLife, maxLife = 3 * time.Second, time.Minute, 10 * time.Minute
	// grace is how much longer keys are used while the server is away: as long as its
	// access tokens live by default. A server that is away makes no tokens, so more
	// would only help an attacker who keeps it away.
	grace = time.Hour
	// freshWait is how long a request whose key is known waits for fresher keys,
	// after a pause without fetches.
	freshWait = time.Second
)

// keySet is the content of one answer. It never changes.
type keySet struct {
	keys    map[string]*ecdsa.PublicKey
	issuer  string // the issuer that the server signs for; "" if the answer has none
	fetched time.Time
	due     time.Time // from then on it is fetched anew in the background
	stale   time.Time // from then on it is used only while the server is away
	end     time.Time // from then on it is not used
}

func newKeySet(keys map[string]*ecdsa.PublicKey, issuer string, fetched time.Time, life time.Duration) *keySet {
	stale := fetched.Add(life)
	return &keySet{keys, issuer, fetched, fetched.Add(life * 3 / 4), stale, stale.Add(grace)}
}

// usable is also false if the clock was set back: then the set's age is unknown.
func (k *keySet) usable(now time.Time) bool {
	return k != nil && !now.Before(k.fetched) && now.Before(k.end)
}

// fetch is one try to get the key set.
type fetch struct {
	begun time.Time
	again bool          // the try before it failed
	done  chan struct{} // closed at the end; only then err may be read
	err   error
}

func (f *fetch) ended() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// wait returns the outcome of the fetch.
func (f *fetch) wait(ctx context.Context) error {
	select {
	case <-f.done:
		if f.err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, f.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
	}
}

// key returns the issuer's key that has the id.
func (s *issuer) key(ctx context.Context, id string) (*ecdsa.PublicKey, error) {
	now, set := s.now(), s.known.Load()
	if set.usable(now) && set.keys[id] != nil {
		if now.Before(set.due) {
			return set.keys[id], nil
		}
		s.freshen(ctx, now, set)
	} else if err := s.begin(now).wait(ctx); err != nil {
		return nil, err
	}
	if key := s.known.Load().keys[id]; key != nil {
		return key, nil
	}
	return nil, ErrUnknownKey
}

// freshen fetches a usable set anew. It waits only if there was no try since the set
// became stale, as after a night without requests: a key may have been revoked
// meanwhile. If the server is known to be away it doesn't wait.
func (s *issuer) freshen(ctx context.Context, now time.Time, set *keySet) {
	f := s.begin(now)
	left := f.begun.Add(freshWait).Sub(now)
	if f.again || f.begun.Before(set.stale) || left <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	_ = f.wait(ctx) // if it fails, the known keys are used
}

// ready waits for a usable set of a server that signs for the issuer.
func (s *issuer) ready(ctx context.Context) error {
	now, set := s.now(), s.known.Load()
	if !set.usable(now) || s.foreign(set) != nil {
		if err := s.begin(now).wait(ctx); err != nil {
			return err
		}
		set = s.known.Load()
	}
	return s.foreign(set)
}

// foreign is an error if the server signs for another issuer: then each of its tokens
// is refused.
func (s *issuer) foreign(set *keySet) error {
	if set == nil || set.issuer == "" || set.issuer == s.name {
		return nil
	}
	return fmt.Errorf("%w: %s is of %q and the verifier's issuer is %q, so every token is refused: set Issuer to the former, and Server to where it is reached", ErrUnavailable, s.keysURL, set.issuer, s.name)
}

// begin returns the fetch that is under way, or the latest if it began just now, or a
// new one. A fetch outlives its caller: others may wait for it, too.
func (s *issuer) begin(now time.Time) *fetch {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last
	if last != nil {
		// It is below 0 for a caller that read the clock before the fetch began.
		age := now.Sub(last.begun)
		if !last.ended() || -fetchPause < age && age < fetchPause {
			return last
		}
	}
	f := &fetch{begun: now, again: last != nil && last.err != nil, done: make(chan struct{})}
	s.last = f
	go s.fetch(f)
	return f
}

func (s *issuer) fetch(f *fetch) {
	defer close(f.done)
	set, err := s.load(f.begun)
	if err == nil {
		before := s.known.Swap(set)
		if foreign := s.foreign(set); foreign != nil && s.foreign(before) == nil {
			s.log.Warn("access tokens are refused", "error", foreign)
		}
	}
	f.err = err
	switch {
	case err != nil && !f.again:
		s.log.Warn("the keys of access tokens can't be fetched", "error", err)
	case err == nil && f.again:
		s.log.Info("the keys of access tokens can be fetched again")
	}
}

// load asks for the key set. A set without a usable key is a mistake, since such a
// server could sign nothing: it doesn't replace good keys.
func (s *issuer) load(now time.Time) (*keySet, error) {
	got, err := s.get(context.Background(), s.keysURL, "")
	if err != nil {
		return nil, err
	}
	if got.status != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", s.keysURL, got.status)
	}
	keys, err := readKeys(got.body)
	if err != nil {
		return nil, fmt.Errorf("the answer of %s is of no use: %w", s.keysURL, err)
	}
	var of struct {
		Issuer string `json:"issuer"`
	}
	_ = json.Unmarshal(got.body, &of) // other servers than kwai may not send it
	return newKeySet(keys, of.Issuer, now, life(got.header)), nil
}

// readKeys returns the keys of a set (RFC 7517, section 5) that can check
// tokens, by their ids. It skips all others, and ids that two different keys have: a
// signature may need either.
func readKeys(document []byte) (map[string]*ecdsa.PublicKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, errors.New("it is not a JSON Web Key Set")
	}
	keys := make(map[string]*ecdsa.PublicKey)
	for _, text := range set.Keys {
		var k jwk
		if json.Unmarshal(text, &k) != nil {
			continue
		}
		key := k.public()
		if key == nil {
			continue
		}
		if other, ok := keys[k.KeyID]; ok && (other == nil || !other.Equal(key)) {
			key = nil
		}
		keys[k.KeyID] = key
	}
	maps.DeleteFunc(keys, func(_ string, k *ecdsa.PublicKey) bool { return k == nil })
	if len(keys) == 0 {
		return nil, errors.New("it has no P-256 key for ES256 signatures")
	}
	return keys, nil
}

// jwk has the needed members of the one kind of key that is used. go-jose would read
// all kinds, with certificates, private parts and shared secrets.
type jwk struct {
	Type      string          `json:"kty"`
	Curve     string          `json:"crv"`
	KeyID     string          `json:"kid"`
	Use       string          `json:"use"`
	Algorithm string          `json:"alg"`
	Ops       []string        `json:"key_ops"`
	X         string          `json:"x"`
	Y         string          `json:"y"`
	Private   json.RawMessage `json:"d"` // a published private key is no longer secret
}

// public returns the key, or nil if it can't check tokens.
func (k *jwk) public() *ecdsa.PublicKey {
	if k.Type != "EC" || k.Curve != "P-256" || k.KeyID == "" || k.Private != nil || !forES256(k.Use, k.Algorithm) ||
		k.Ops != nil && !slices.Contains(k.Ops, "verify") {
		return nil
	}
	x, err := strict.DecodeString(k.X)
	if err != nil || len(x) != 32 {
		return nil
	}
	y, err := strict.DecodeString(k.Y)
	if err != nil || len(y) != 32 {
		return nil
	}
	// SEC 1, section 2.3.3; it refuses points that are not on the curve.
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil
	}
	return key
}

// life is how long an answer may be kept (RFC 9111, section 4.2), bounded.
func life(h http.Header) time.Duration {
	life := usualLife
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return minLife
		case "max-age":
			life = deltaSeconds(strings.Trim(value, `"`))
		}
	}
	// A cache on the way has already kept it for that long.
	life -= deltaSeconds(h.Get("Age"))
	return min(max(life, minLife), maxLife)
}

// deltaSeconds reads a number of seconds (RFC 9111, section 1.2.2), a day at
// most; 0 if there is none.
func deltaSeconds(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && n == 0 {
		return 0
	}
	return time.Duration(min(n, 24*60*60)) * time.Second
}
