package token

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"sync"

	"github.com/google/uuid"
)

// numbered is a kind of token that names a session and a number. Its text is
// base64url, without padding, of 45 bytes:
//
//	 0  1  version, of this kind alone
//	 1  4  id of the MAC key
//	 5 16  session
//	21  8  number, big-endian
//	29 16  HMAC-SHA256 of the 29 bytes before, its first half
//
// 45 is a multiple of 3, so 60 characters spell it without a bit to spare, and
// no second text spells the same token. Half of a MAC leaves a forger one chance in
// 2^128 for each try (RFC 2104, section 5, asks for at least half).
type numbered struct {
	version byte
	key     func(*macKey) *sync.Pool // derived for this kind alone
}

const (
	numberedBody = 1 + macIDSize + 16 + 8
	numberedMAC  = 16
	numberedSize = numberedBody + numberedMAC
	numberedText = numberedSize / 3 * 4
)

func (k *Keyring) makeNumbered(kind numbered, session uuid.UUID, number uint64) string {
	var raw [numberedSize]byte
	raw[0] = kind.version
	copy(raw[1:], k.active.id[:])
	copy(raw[5:], session[:])
	binary.BigEndian.PutUint64(raw[21:], number)
	mac := sumNumbered(kind.key(k.active), (*[numberedBody]byte)(raw[:]))
	copy(raw[numberedBody:], mac[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

func (k *Keyring) parseNumbered(kind numbered, token string) (session uuid.UUID, number uint64, err error) {
	if len(token) != numberedText {
		return uuid.UUID{}, 0, ErrRefresh
	}
	var text [numberedText]byte
	var raw [numberedSize]byte
	copy(text[:], token)
	// Decoding passes over line breaks, and then comes out short.
	n, err := base64.RawURLEncoding.Decode(raw[:], text[:])
	if err != nil || n != numberedSize || raw[0] != kind.version {
		return uuid.UUID{}, 0, ErrRefresh
	}
	key, known := k.macs[[macIDSize]byte(raw[1:5])]
	if !known {
		return uuid.UUID{}, 0, ErrRefreshKey
	}
	if key == nil { // expired
		return uuid.UUID{}, 0, ErrRefresh
	}
	mac := sumNumbered(kind.key(key), (*[numberedBody]byte)(raw[:]))
	if !hmac.Equal(mac[:], raw[numberedBody:]) {
		return uuid.UUID{}, 0, ErrRefresh
	}
	return uuid.UUID(raw[5:21]), binary.BigEndian.Uint64(raw[21:29]), nil
}

// sumNumbered returns the MAC of a token's body.
func sumNumbered(pool *sync.Pool, body *[numberedBody]byte) [numberedMAC]byte {
	h := pool.Get().(*hasher)
	defer pool.Put(h)
	h.in = *body
	h.mac.Reset()
	h.mac.Write(h.in[:])
	h.mac.Sum(h.sum[:0])
	return [numberedMAC]byte(h.sum[:])
}
