package token

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// ErrNoMaster means that none of the master keys opens a sealed text: it was sealed
// under another key, for another context, or was changed since.
var ErrNoMaster = errors.New("no master key opens it")

const (
	masterSize   = 32 // bytes: AES-256
	sealVersion1 = 1  // AES-256-GCM: version, nonce of 12 bytes, ciphertext, tag of 16 bytes
)

// Master holds the master keys: the first seals, all open. It is safe for
// concurrent use and prints as its type, never as its keys.
type Master struct {
	aeads []cipher.AEAD
}

// NewMasterKey returns a new master key as ParseMaster reads it, without a
// line break.
func NewMasterKey() string {
	key := make([]byte, masterSize)
	rand.Read(key) // never fails: it ends the program instead
	return base64.StdEncoding.EncodeToString(key)
}

// ParseMaster reads master keys: one a line, as the base64 (standard alphabet,
// with padding) of 32 bytes. Blank lines and lines that start with # don't
// count. Its errors have the line's number and what is wrong, and nothing of the text.
func ParseMaster(text []byte) (*Master, error) {
	m := &Master{}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.Strict().AppendDecode(nil, line)
		if err != nil {
			return nil, fmt.Errorf("line %d is not base64; make a master key with `kwai key new`", number)
		}
		if len(key) != masterSize {
			return nil, fmt.Errorf("line %d holds %d bytes, a master key has %d; make one with `kwai key new`", number, len(key), masterSize)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		m.aeads = append(m.aeads, aead)
	}
	if len(m.aeads) == 0 {
		return nil, errors.New("there is no master key in it; make one with `kwai key new`")
	}
	return m, nil
}

// Seal encrypts plain under the first master key. The result opens only with the same
// context, which names the content and isn't secret. Random
// nonces bound a key to 2^32 seals (NIST SP 800-38D, section 8.3).
func (m *Master) Seal(plain []byte, context string) ([]byte, error) {
	if m == nil || len(m.aeads) == 0 {
		return nil, errors.New("there is no master key to seal with")
	}
	return m.aeads[0].Seal([]byte{sealVersion1}, nil, plain, additional(context)), nil //nolint:gosec // the AEAD draws the nonce; this is what it appends to
}

// Open returns the text that was sealed for the context, or ErrNoMaster.
func (m *Master) Open(sealed []byte, context string) ([]byte, error) {
	plain, _, err := m.open(sealed, context)
	return plain, err
}

// open also returns which key opened it.
func (m *Master) open(sealed []byte, context string) (plain []byte, number int, err error) {
	if m == nil || len(sealed) == 0 || sealed[0] != sealVersion1 {
		return nil, 0, ErrNoMaster
	}
	for i, aead := range m.aeads {
		if plain, err := aead.Open(nil, nil, sealed[1:], additional(context)); err == nil {
			return plain, i, nil
		}
	}
	return nil, 0, ErrNoMaster
}

// additional is what a seal binds beside the plaintext. It has the version, so that a
// later format can't be passed off as this one.
func additional(context string) []byte {
	return append([]byte{sealVersion1}, context...)
}

// Format hides the keys from every verb of fmt, and so from logs.
func (m Master) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "token.Master") }
