package token

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
)

// A refresh token is base64url, without padding, of 45 bytes:
//
//	 0  1  version: 1
//	 1  4  id of the MAC key
//	 5 16  session
//	21  8  counter, big-endian
//	29 16  HMAC-SHA256 of the 29 bytes before, its first half
//
// 45 is a multiple of 3, so 60 characters spell it without a bit to spare, and
// no second text spells the same token. Half of a MAC leaves a forger one chance in
// 2^128 for each try (RFC 2104, section 5, asks for at least half).
const (
	refreshVersion = 1
	refreshBody    = 1 + macIDSize + 16 + 8
	refreshMAC     = 16
	refreshSize    = refreshBody + refreshMAC
	refreshText    = refreshSize / 3 * 4
)

// ErrRefresh means that a text is no refresh token made under one of the
// keyring's keys.
var ErrRefresh = errors.New("not a refresh token of this server")

// ErrRefreshKey is an ErrRefresh: it is given where the keyring lacks the key that
// a text names. Anyone can make such a text: bound what it makes you do.
var ErrRefreshKey = fmt.Errorf("%w: its key is not in the keyring", ErrRefresh)

// Refresh returns the refresh token of a session at a counter: the same one
// each time as long as the active MAC key stays the same. It has 60 characters.
func (k *Keyring) Refresh(session uuid.UUID, counter uint64) string {
	var raw [refreshSize]byte
	raw[0] = refreshVersion
	copy(raw[1:], k.active.id[:])
	copy(raw[5:], session[:])
	binary.BigEndian.PutUint64(raw[21:], counter)
	mac := sumRefresh(k.active.refresh, (*[refreshBody]byte)(raw[:]))
	copy(raw[refreshBody:], mac[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// ParseRefresh returns what a refresh token was made of. For anything else the
// error matches ErrRefresh; for a text of another length, at once.
func (k *Keyring) ParseRefresh(token string) (session uuid.UUID, counter uint64, err error) {
	if len(token) != refreshText {
		return uuid.UUID{}, 0, ErrRefresh
	}
	var text [refreshText]byte
	var raw [refreshSize]byte
	copy(text[:], token)
	// Decoding passes over line breaks, and then comes out short.
	n, err := base64.RawURLEncoding.Decode(raw[:], text[:])
	if err != nil || n != refreshSize || raw[0] != refreshVersion {
		return uuid.UUID{}, 0, ErrRefresh
	}
	key, known := k.macs[[macIDSize]byte(raw[1:5])]
	if !known {
		return uuid.UUID{}, 0, ErrRefreshKey
	}
	if key == nil { // expired
		return uuid.UUID{}, 0, ErrRefresh
	}
	mac := sumRefresh(key.refresh, (*[refreshBody]byte)(raw[:]))
	if !hmac.Equal(mac[:], raw[refreshBody:]) {
		return uuid.UUID{}, 0, ErrRefresh
	}
	return uuid.UUID(raw[5:21]), binary.BigEndian.Uint64(raw[21:29]), nil
}

// sumRefresh returns the MAC of a token's body.
func sumRefresh(pool *sync.Pool, body *[refreshBody]byte) [refreshMAC]byte {
	h := pool.Get().(*hasher)
	defer pool.Put(h)
	h.in = *body
	h.mac.Reset()
	h.mac.Write(h.in[:])
	h.mac.Sum(h.sum[:0])
	return [refreshMAC]byte(h.sum[:])
}
