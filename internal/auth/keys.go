package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"kwai/internal/store"
	"kwai/internal/token"
)

const (
	// KeysFollow is the greatest age of the keys that a server uses: so long after a
	// change every server follows it, also one that stood still or was cut off from
	// the database.
	KeysFollow = 3 * time.Second
	// KeysEvery is how often a server calls Keys.Tend, which reads them.
	KeysEvery = time.Second
	// keysLeeway is for what a server makes with a key until it knows the next one,
	// and for clocks that differ.
	keysLeeway = time.Minute
)

// KeySettings are the rules of the server's keys.
type KeySettings struct {
	Rotation   time.Duration   // how long a key is active; 0: until an operator rotates it
	JWKSMaxAge time.Duration   // how long anyone may cache the public keys
	Lifetimes  token.Lifetimes // Settings.KeyLifetimes
}

// KeyDefaults are the defaults of KeySettings; Lifetimes has none.
var KeyDefaults = KeySettings{Rotation: 90 * 24 * time.Hour, JWKSMaxAge: 5 * time.Minute}

// Lead is how long before it is used a key is published: longer than anyone may have
// cached the keys without it, also through a second cache, and until every server
// knows it.
func (s KeySettings) Lead() time.Duration { return 2*s.JWKSMaxAge + KeysFollow }

// KeyLifetimes is how long what a key has made may be valid after the next key has
// become active.
func (s Settings) KeyLifetimes() token.Lifetimes {
	return token.Lifetimes{
		Sign: s.AccessTTL + keysLeeway,
		// A browser's cookie lives as long as its session. A refresh token that was
		// replaced at the end of that is good for two reuse windows at most, and not
		// without its session. (More would overflow in the end.)
		MAC: max(s.SessionLife, s.RecoveryLife, s.InvitationLife) + min(2*s.ReuseWindow, s.SessionLife) + keysLeeway,
		ID:  s.SessionLife,
	}
}

// Keys are the server's keys, as they stand in the database, and their schedule. Tend
// reads them every second; a use case that finds them older than KeysFollow has them
// read first. So a key that was revoked is soon used nowhere, and a key that another
// server uses isn't missing.
type Keys struct {
	// Settings are set once, before the first use.
	Settings KeySettings

	db  *store.Store
	log *slog.Logger

	master   atomic.Pointer[token.Master]
	resealed atomic.Pointer[token.Master] // under the first of which everything has been sealed
	prepared atomic.Pointer[token.Key]    // of ID tokens, for the next transaction that needs one
	set      atomic.Pointer[keySet]
	failed   atomic.Int64 // readings

	unmade, unsealed atomic.Int64 // tries at making a key, and at sealing keys anew, that failed

	tendAfter time.Time // of the one goroutine that tends them

	mu      sync.Mutex
	reading *reading  // nil: nobody reads
	asking  time.Time // when keys are, or were last, read for the sake of an unknown one

	failing bool // the latest reading failed; of the one goroutine that reads
}

// keySet is what was read at some time, and never changes.
type keySet struct {
	ring     *token.Keyring
	verified *tokenCache // access tokens
	all      []token.KeyStatus
	read     time.Time // when the reading began, with a monotonic reading
}

// old says whether it is too old to be used. Where the machine was suspended,
// the monotonic clock may have stood still; where the wall clock was set, that one
// may have: the greater counts.
func (k *keySet) old(now time.Time) bool {
	return now.Sub(k.read) > KeysFollow || now.UnixNano()-k.read.UnixNano() > int64(KeysFollow)
}

// reading is one that is under way; all who need it wait for it.
type reading struct {
	done chan struct{} // closed when err is final
	err  error
}

func newKeys(db *store.Store, master *token.Master, settings KeySettings, log *slog.Logger) *Keys {
	k := &Keys{Settings: settings, db: db, log: log}
	k.master.Store(master)
	return k
}

// EnsureKeys opens the server's keys, and makes those that are missing and that it can't
// do without. Tend makes the others, which take longer. Replicas that start together make them once.
func EnsureKeys(ctx context.Context, db *store.Store, master *token.Master, settings KeySettings, log *slog.Logger) (*Keys, error) {
	k := newKeys(db, master, settings, log)
	_, err := k.makeNext(ctx, "at the start", func(tx *store.Tx, _ token.Purpose, all []token.KeyStatus) (time.Time, bool, error) {
		return tx.Now, len(all) == 0, nil
	}, slices.DeleteFunc(slices.Clone(token.Purposes), token.Purpose.Optional)...)
	if err != nil {
		return nil, err
	}
	return k, k.open(ctx)
}

// OpenKeys is EnsureKeys for commands: it makes none.
func OpenKeys(ctx context.Context, db *store.Store, master *token.Master, settings KeySettings, log *slog.Logger) (*Keys, error) {
	k := newKeys(db, master, settings, log)
	return k, k.open(ctx)
}

// open reads the keys and has them used from then on. All must open, the expired ones
// too: a master key file that isn't the database's is noticed at the start.
func (k *Keys) open(ctx context.Context) error {
	began := time.Now()
	rows, err := k.db.Read(ctx).Keys()
	if err == nil {
		err = k.take(keysOf(rows), began)
	}
	return err
}

// fresh are the keys as they are used: at most KeysFollow old. It costs a look at
// the clock. Its error is the store's.
func (k *Keys) fresh(ctx context.Context) (*keySet, error) {
	now := time.Now()
	if set := k.set.Load(); !set.old(now) {
		return set, nil
	}
	return k.since(ctx, now)
}

// newer are the keys as they stand after it was called, for a token whose key isn't
// known. However many are forged, there is one reading a second for all: a caller that
// comes after it waits for the next.
func (k *Keys) newer(ctx context.Context) (*keySet, error) {
	called := time.Now()
	k.mu.Lock()
	if !k.asking.After(called) {
		k.asking = k.asking.Add(KeysEvery)
		if k.asking.Before(called) {
			k.asking = called
		}
	}
	wait := k.asking.Sub(called)
	k.mu.Unlock()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return k.since(ctx, called)
}

// since are keys whose reading began then or later. Of all callers one reads.
func (k *Keys) since(ctx context.Context, then time.Time) (*keySet, error) {
	for {
		if set := k.set.Load(); !set.read.Before(then) {
			return set, nil
		}
		k.mu.Lock()
		r := k.reading
		if r == nil {
			r = &reading{done: make(chan struct{})}
			k.reading = r
			go k.run(r) //nolint:gosec // for all who wait, so not in the context of one
		}
		k.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if r.err != nil {
			return nil, r.err
		}
	}
}

// readingTakes bounds a reading.
const readingTakes = 5 * time.Second

// run is open; that it fails is logged once.
func (k *Keys) run(r *reading) {
	ctx, cancel := context.WithTimeout(context.Background(), readingTakes)
	defer cancel()
	if err := k.open(ctx); err != nil {
		k.failed.Add(1)
		r.err = fmt.Errorf("%w: reading the server keys: %w", store.ErrUnavailable, err)
		if !k.failing {
			k.log.Error("the server keys can't be read; without them nobody is let in", "error", r.err)
		}
	}
	k.failing = r.err != nil
	k.mu.Lock()
	k.reading = nil
	k.mu.Unlock()
	close(r.done)
}

// take makes a set of what was read.
func (k *Keys) take(keys []token.Key, began time.Time) error {
	next := &keySet{all: token.KeyStatuses(keys, k.db.Now(), k.Settings.Lifetimes), verified: new(tokenCache), read: began}
	last := k.set.Load()
	var before *token.Keyring
	if last != nil {
		before = last.ring
	}
	var err error
	if next.ring, err = k.master.Load().OpenKeyring(next.all, before); err != nil {
		return err
	}
	if last != nil && next.ring.Covers(last.ring) {
		next.verified = last.verified
	}
	k.set.Store(next)
	if last != nil { // logged once it is true
		k.logChanges(last.all, next.all)
	}
	return nil
}

// logChanges says what has become of the keys.
func (k *Keys) logChanges(last, next []token.KeyStatus) {
	states := make(map[string]token.State)
	for _, key := range last {
		states[key.ID] = key.State
	}
	for _, key := range next {
		was := states[key.ID]
		delete(states, key.ID)
		if was == key.State {
			continue
		}
		log := k.log.With("key", key.ID, "purpose", string(key.Purpose))
		switch key.State {
		case token.Next:
			log.Info("there is a new server key", "active_at", key.ActiveAt)
		case token.Active:
			log.Info("a server key is active")
		case token.Retired:
			log.Info("a server key is retired", "until", key.Until)
		case token.Expired:
			log.Info("a server key has expired")
		}
	}
	for id := range states {
		k.log.Info("a server key is gone", "key", id)
	}
}

// parseRefresh parses a refresh token. The error matches token.ErrRefresh or is the
// store's.
func (k *Keys) parseRefresh(ctx context.Context, refresh string) (session uuid.UUID, counter uint64, err error) {
	return k.parse(ctx, refresh, (*token.Keyring).ParseRefresh)
}

// parseBrowser parses a browser session's cookie. Its errors are parseRefresh's.
func (k *Keys) parseBrowser(ctx context.Context, cookie string) (session uuid.UUID, number uint64, err error) {
	return k.parse(ctx, cookie, (*token.Keyring).ParseBrowser)
}

// parse reads the keys anew if the text's key isn't known.
func (k *Keys) parse(ctx context.Context, text string, parse func(*token.Keyring, string) (uuid.UUID, uint64, error)) (session uuid.UUID, number uint64, err error) {
	keys, err := k.fresh(ctx)
	if err != nil {
		return session, 0, err
	}
	session, number, err = parse(keys.ring, text)
	if errors.Is(err, token.ErrRefreshKey) {
		if keys, err = k.newer(ctx); err == nil {
			session, number, err = parse(keys.ring, text)
		}
	}
	return session, number, err
}

// DecoyFraction is the keyring's, however old the keyring is.
func (k *Keys) DecoyFraction(address string) float64 {
	return k.set.Load().ring.DecoyFraction(address)
}

// jwksWait is how long the public keys wait for a database that doesn't answer.
const jwksWait = time.Second

// JWKS are the public keys, the one that signs first. While the database is away
// they are the last ones that were read: verifying goes on.
func (k *Keys) JWKS(ctx context.Context) jose.JSONWebKeySet {
	ctx, cancel := context.WithTimeout(ctx, jwksWait)
	defer cancel()
	set, err := k.fresh(ctx)
	if err != nil {
		set = k.set.Load()
	}
	return set.ring.JWKS()
}

// Ready tells whether the keys can be used now.
func (k *Keys) Ready(ctx context.Context) error {
	_, err := k.fresh(ctx)
	return err
}

// activeSince is when the key in use became active, in Unix seconds.
func (k *Keys) activeSince(purpose token.Purpose) float64 {
	for _, key := range k.set.Load().all {
		if key.Purpose == purpose && key.State == token.Active {
			return float64(key.ActiveAt.UnixMicro()) / 1e6
		}
	}
	return 0
}

// KeyStates lists the server's keys and what each is used for, the latest of each
// purpose first. It needs no master key.
func KeyStates(ctx context.Context, db *store.Store, settings KeySettings) ([]token.KeyStatus, error) {
	rows, err := db.Read(ctx).Keys()
	return token.KeyStatuses(keysOf(rows), db.Now(), settings.Lifetimes), err
}

// States is KeyStates of these keys.
func (k *Keys) States(ctx context.Context) ([]token.KeyStatus, error) {
	return KeyStates(ctx, k.db, k.Settings)
}

func keysOf(rows []store.Key) []token.Key {
	keys := make([]token.Key, len(rows))
	for i, row := range rows {
		keys[i] = token.Key{ID: row.ID, Purpose: token.Purpose(row.Purpose), Sealed: row.Sealed, CreatedAt: row.CreatedAt, ActiveAt: row.ActiveAt}
	}
	return keys
}

// CheckKeys says whether a master key opens a database's keys: token.ErrNoMaster if not.
func CheckKeys(master *token.Master, rows []store.Key) error {
	return master.Check(keysOf(rows))
}
