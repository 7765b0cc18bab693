package token

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// browserToken is numbered by the proofs that were given in the session.
var browserToken = numbered{version: 2, key: func(k *macKey) *sync.Pool { return k.browser }}

// Browser returns the value of a browser session's cookie at a number, which each
// proof raises. It has 60 characters.
func (k *Keyring) Browser(session uuid.UUID, number uint64) string {
	return k.makeNumbered(browserToken, session, number)
}

// ParseBrowser returns what the value of a cookie was made of. For anything else the
// error matches ErrRefresh.
func (k *Keyring) ParseBrowser(value string) (session uuid.UUID, number uint64, err error) {
	return k.parseNumbered(browserToken, value)
}

// FormMAC binds a form to what it is for: the session that it was made in, the user,
// and what else the parts say. Whoever sends the form must send the value with it.
func (k *Keyring) FormMAC(parts ...string) string {
	return macOf(k.active, k.active.form, parts)
}

// CheckFormMAC reports whether the value was made for the same parts.
func (k *Keyring) CheckFormMAC(value string, parts ...string) bool {
	key := k.keyOf(value)
	return key != nil && hmac.Equal([]byte(value), []byte(macOf(key, key.form, parts)))
}

// AddressCode is what is mailed to an address that a user has asked for: who has it
// reads that mailbox.
func (k *Keyring) AddressCode(parts ...string) string {
	return macOf(k.active, k.active.address, parts)
}

// CheckAddressCode reports whether the code was made for the same parts.
func (k *Keyring) CheckAddressCode(value string, parts ...string) bool {
	key := k.keyOf(value)
	return key != nil && hmac.Equal([]byte(value), []byte(macOf(key, key.address, parts)))
}

// PendingMAC proves a login that isn't finished: the door that it is for, and what has
// been shown.
func (k *Keyring) PendingMAC(parts ...string) string {
	return macOf(k.active, k.active.pending, parts)
}

// CheckPendingMAC reports whether the value was made for the same parts.
func (k *Keyring) CheckPendingMAC(value string, parts ...string) bool {
	key := k.keyOf(value)
	return key != nil && hmac.Equal([]byte(value), []byte(macOf(key, key.pending, parts)))
}

// ChallengeMAC proves a challenge that passkeys sign: what it is for, and when it was made.
func (k *Keyring) ChallengeMAC(parts ...string) string {
	return macOf(k.active, k.active.challenge, parts)
}

// CheckChallengeMAC reports whether the value was made for the same parts.
func (k *Keyring) CheckChallengeMAC(value string, parts ...string) bool {
	key := k.keyOf(value)
	return key != nil && hmac.Equal([]byte(value), []byte(macOf(key, key.challenge, parts)))
}

// keyOf is the key that a value says it was made with; nil if there is none.
func (k *Keyring) keyOf(value string) *macKey {
	id, _, _ := strings.Cut(value, ".")
	raw, ok := parseMACID(id)
	if !ok {
		return nil
	}
	return k.macs[raw]
}

func macOf(key *macKey, pool *sync.Pool, parts []string) string {
	var text strings.Builder
	for _, p := range parts { // with their lengths: no two lists look the same
		text.WriteString(strconv.Itoa(len(p)))
		text.WriteByte(':')
		text.WriteString(p)
	}
	sum := sumString(pool, text.String())
	return hex.EncodeToString(key.id[:]) + "." + base64.RawURLEncoding.EncodeToString(sum[:])
}
