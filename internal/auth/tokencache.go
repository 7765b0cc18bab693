package auth

import (
	"crypto/sha256"
	"sync"
	"time"

	"kwai/verify"
)

// tokenCache has the claims of access tokens whose signatures are valid: to verify one
// takes several times as long as to read its session. A cached token was made here or
// has been accepted before, so only its expiry is looked at again. A cache belongs to a
// set of keys, and goes when one of them does. The zero value is ready.
type tokenCache struct {
	mu sync.Mutex
	// Two generations: when the newer one is full it becomes the older, and what
	// is asked for again moves on. So the memory is bounded, and what is used
	// stays.
	newer, older map[[sha256.Size]byte]tokenInfo
}

// maxCached bounds each generation: a MiB or two.
const maxCached = 8192

// tokenInfo is what a check needs of a token.
type tokenInfo struct {
	audience, session, user string
	expires                 time.Time
}

// get returns what is cached of a token, unless it has expired.
func (v *tokenCache) get(token string, now time.Time) (tokenInfo, bool) {
	if len(token) > verify.MaxSize {
		return tokenInfo{}, false
	}
	key := keyOf(token)
	v.mu.Lock()
	defer v.mu.Unlock()
	s, ok := v.newer[key]
	if !ok {
		if s, ok = v.older[key]; ok {
			v.add(key, s)
		}
	}
	return s, ok && now.Before(s.expires)
}

func (v *tokenCache) put(token string, s tokenInfo) {
	key := keyOf(token)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.add(key, s)
}

// keyOf is the hash of a token of MaxSize at most. The copy stays on the stack.
func keyOf(token string) [sha256.Size]byte {
	var text [verify.MaxSize]byte
	return sha256.Sum256(text[:copy(text[:], token)])
}

func (v *tokenCache) add(key [sha256.Size]byte, s tokenInfo) {
	if v.newer == nil || len(v.newer) >= maxCached {
		v.newer, v.older = make(map[[sha256.Size]byte]tokenInfo), v.newer
	}
	v.newer[key] = s
}
