// Package token makes and reads everything that kwai's server hands out as a
// proof: access tokens, refresh tokens and the unique ids of recoveries; and
// it keeps the keys behind them.
//
// The keys form two layers. Server keys sign and authenticate; they live in
// the database, each a Key sealed under a master key. Master keys live outside
// of the database (ParseMaster). So a stolen database makes no token, and
// changing a master key means sealing a few rows again.
//
//	master, err := token.ParseMaster(text)
//	key, err := master.NewKey(token.Sign, now)   // and one for token.MAC: store both
//	ring, err := master.OpenKeyring(keys)        // at start, and when keys were added
//
// A Keyring does the work of a request. It is immutable: to change keys, open
// another one and swap. The newest key of each purpose is used for what is
// new, all of them for what comes back, so a new key logs nobody out. Where
// several replicas share a database each must hold a key before any of them
// gets tokens made with it: have all of them read the keys again soon after
// one was added.
//
// Access tokens are checked by package kwai/verify, with the keys of JWKS.
// Nothing in this package does I/O, and no error holds any part of a token.
package token

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Purpose says what a server key is for; it is stored beside the key.
type Purpose string

// The purposes there are.
const (
	Sign Purpose = "sign" // an ECDSA P-256 private key that signs access tokens with ES256
	MAC  Purpose = "mac"  // 32 random bytes, from which the keys of refresh tokens, recovery ids and picks are derived
)

// Key is a server key as it is stored. None of it is secret from someone who
// lacks the master key.
type Key struct {
	ID        string // of a Sign key the "kid", 22 characters of base64url; of a MAC key 8 hexadecimal digits
	Purpose   Purpose
	Sealed    []byte
	CreatedAt time.Time
}

// context is what a key is sealed for: a row can't be passed off as another.
func (k *Key) context() string { return "kwai server key/" + string(k.Purpose) + "/" + k.ID }

// NewKey makes a server key and seals it. A MAC key's id is short, since every
// refresh token carries it: store keys under unique ids, and make another one
// should the id be taken.
func (m *Master) NewKey(p Purpose, now time.Time) (Key, error) {
	var id, plain []byte
	key := Key{Purpose: p, CreatedAt: now}
	switch p {
	case Sign:
		id = make([]byte, 16)
		rand.Read(id)
		key.ID = base64.RawURLEncoding.EncodeToString(id)
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return Key{}, fmt.Errorf("make a signing key: %w", err)
		}
		if plain, err = private.Bytes(); err != nil {
			return Key{}, fmt.Errorf("make a signing key: %w", err)
		}
	case MAC:
		id = make([]byte, macIDSize)
		rand.Read(id)
		key.ID = hex.EncodeToString(id)
		plain = make([]byte, 32)
		rand.Read(plain)
	default:
		return Key{}, fmt.Errorf("there are no keys for the purpose %q", p)
	}
	var err error
	key.Sealed, err = m.Seal(plain, key.context())
	return key, err
}

// Keyring holds opened server keys, ready for use. It is immutable, safe for
// concurrent use, and prints as its type, never as its keys.
type Keyring struct {
	signer *signer
	public []jose.JSONWebKey
	macs   map[[macIDSize]byte]*macKey
	newest *macKey // makes refresh tokens and recovery ids
	oldest *macKey // picks
}

// OpenKeyring opens stored keys, of which there must be at least one of each
// purpose. The newest is the one with the latest CreatedAt, the greater id
// where those are equal, so that all replicas agree. Keys of other purposes are
// passed over: a later version may have stored them. The error names the key
// that fails, and matches ErrNoMaster if no master key opens it.
func (m *Master) OpenKeyring(keys []Key) (*Keyring, error) {
	keys = slices.SortedFunc(slices.Values(keys), func(a, b Key) int { // newest first
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	ring := &Keyring{macs: make(map[[macIDSize]byte]*macKey)}
	for _, key := range keys {
		add := ring.addMAC
		switch key.Purpose {
		case Sign:
			add = ring.addSign
		case MAC:
		default:
			continue
		}
		plain, err := m.Open(key.Sealed, key.context())
		if err == nil {
			err = add(key.ID, plain)
		}
		if errors.Is(err, ErrNoMaster) {
			return nil, fmt.Errorf("server key %q is sealed and %w: is this the master key file that belongs to this database?", key.ID, err)
		}
		if err != nil {
			return nil, fmt.Errorf("server key %q: %w", key.ID, err)
		}
	}
	if ring.signer == nil {
		return nil, errors.New("there is no server key that signs")
	}
	if ring.newest == nil {
		return nil, errors.New("there is no server key for MACs")
	}
	return ring, nil
}

// addSign and addMAC are called with the newest key first.
func (k *Keyring) addSign(id string, plain []byte) error {
	if slices.ContainsFunc(k.public, func(j jose.JSONWebKey) bool { return j.KeyID == id }) {
		return errors.New("another key has the same id")
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), plain)
	if err != nil {
		return errors.New("what is sealed is not a P-256 private key")
	}
	if k.signer == nil {
		if k.signer, err = newSigner(id, private); err != nil {
			return err
		}
	}
	k.public = append(k.public, jose.JSONWebKey{
		Key: &private.PublicKey, KeyID: id, Use: "sig", Algorithm: string(jose.ES256),
	})
	return nil
}

func (k *Keyring) addMAC(id string, plain []byte) error {
	mac, err := newMACKey(id, plain)
	if err != nil {
		return err
	}
	if k.macs[mac.id] != nil {
		return errors.New("another key has the same id")
	}
	k.macs[mac.id] = mac
	if k.newest == nil {
		k.newest = mac
	}
	k.oldest = mac
	return nil
}

// JWKS returns the public keys, the one that signs first.
func (k *Keyring) JWKS() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: slices.Clone(k.public)}
}

// Format hides the keys from every verb of fmt, and so from logs.
func (k Keyring) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "token.Keyring") }
