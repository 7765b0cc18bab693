package token

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"strings"
)

// sealKey seals what the server gives out and must not be read, nor changed.
type sealKey struct {
	id   string
	aead cipher.AEAD
}

func newSealKey(id string, plain []byte) (*sealKey, error) {
	if len(plain) != masterSize {
		return nil, errors.New("what is sealed is not a key of 32 bytes")
	}
	block, err := aes.NewCipher(plain)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &sealKey{id, aead}, err
}

// Seal encrypts plain with AES-256-GCM. The result is text that opens only under the same
// label, which says what it is. ErrNoKey until there is a key. Random nonces bound a key
// to 2^32 seals (NIST SP 800-38D, section 8.3): some hundred a second for a year.
func (k *Keyring) Seal(label string, plain []byte) (string, error) {
	if k.sealer == nil {
		return "", ErrNoKey
	}
	sealed := k.sealer.aead.Seal(nil, nil, plain, []byte(label)) //nolint:gosec // the AEAD draws the nonce
	return k.sealer.id + "." + base64.RawURLEncoding.EncodeToString(sealed), nil
}

// LacksSeal reports whether a text says that it is sealed with a key that isn't in the
// keyring. Anyone can make such a text: bound what it makes you do.
func (k *Keyring) LacksSeal(text string) bool {
	id, _, _ := strings.Cut(text, ".")
	_, isID := parseMACID(id)
	return isID && k.seals[id] == nil
}

// OpenSealed returns what was sealed under the label; false for anything else.
func (k *Keyring) OpenSealed(label, text string) ([]byte, bool) {
	id, body, _ := strings.Cut(text, ".")
	key := k.seals[id]
	if key == nil || strings.ContainsAny(body, "\r\n") { // which decoding passes over
		return nil, false
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return nil, false
	}
	plain, err := key.aead.Open(nil, nil, sealed, []byte(label))
	return plain, err == nil
}
