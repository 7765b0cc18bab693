package token

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"sync"
)

const macIDSize = 4 // bytes of a MAC key's id inside a refresh token

// macKey is an opened server key for MACs. Each use has a derived key of its own, so
// that a value made for one use is worth nothing for another.
type macKey struct {
	id [macIDSize]byte
	// Each is a pool of *hasher.
	refresh, recovery, browser, form, address, app, pending, challenge *sync.Pool
}

func newMACKey(id string, plain []byte) (*macKey, error) {
	raw, ok := parseMACID(id)
	if !ok {
		return nil, errors.New("its id is not 8 lower-case hexadecimal digits")
	}
	k := &macKey{id: raw}
	for label, pool := range map[string]**sync.Pool{
		"kwai refresh token v1":     &k.refresh,
		"kwai recovery id v1":       &k.recovery,
		"kwai browser session v1":   &k.browser,
		"kwai form v1":              &k.form,
		"kwai address change v1":    &k.address,
		"kwai app refresh v1":       &k.app,
		"kwai pending login v1":     &k.pending,
		"kwai passkey challenge v1": &k.challenge,
	} {
		var err error
		if *pool, err = deriveMAC(plain, label); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// deriveMAC derives the key of one use (HKDF-SHA256, RFC 5869). The labels are
// part of the formats: changing a label voids everything made under it.
func deriveMAC(plain []byte, label string) (*sync.Pool, error) {
	if len(plain) != sha256.Size {
		return nil, errors.New("what is sealed is not a key of 32 bytes")
	}
	key, err := hkdf.Key(sha256.New, plain, nil, label, sha256.Size)
	if err != nil {
		return nil, err
	}
	return &sync.Pool{New: func() any { return &hasher{mac: hmac.New(sha256.New, key)} }}, nil
}

func parseMACID(text string) (id [macIDSize]byte, ok bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != macIDSize || hex.EncodeToString(b) != text {
		return id, false
	}
	return [macIDSize]byte(b), true
}

// A hasher is an HMAC with its buffers. Kept in pools: making one costs more
// than using it, and buffers on the stack would escape through hash.Hash.
type hasher struct {
	mac hash.Hash
	in  [numberedBody]byte
	sum [sha256.Size]byte
}

// sumString returns the HMAC-SHA256 of s.
func sumString(pool *sync.Pool, s string) [sha256.Size]byte {
	h := pool.Get().(*hasher)
	defer pool.Put(h)
	h.mac.Reset()
	h.mac.Write([]byte(s))
	h.mac.Sum(h.sum[:0])
	return h.sum
}
