// Package token makes and reads what kwai's server gives out as a proof: access
// tokens, refresh tokens and the unique ids of recoveries. It also keeps the keys
// behind them.
//
// The keys form two layers:
//
//   - Server keys sign and authenticate. They are in the database, each a [Key] sealed
//     under a master key.
//   - Master keys are outside of the database ([ParseMaster]).
//
// So a stolen database makes no token, and changing a master key means sealing a few
// rows again.
//
//	master, err := token.ParseMaster(text)
//	key, err := master.NewKey(token.Sign, now)   // and one for token.MAC and token.Decoy: store them
//	ring, err := master.OpenKeyring(token.KeyStatuses(keys, now, lifetimes), nil)
//
// A [Keyring] does the work of a request. It is immutable: when keys were added or
// removed, or when time has changed their status ([KeyStatuses]), open another one and
// swap. The active key of each purpose makes what is new. Accepted is also what the
// next key made, and what a retired key made, until all of it has expired. So a new key
// logs nobody out, if all replicas have it before it becomes active.
//
// Package kwai/verify checks access tokens, with the keys of [Keyring.JWKS]. Nothing in
// this package does I/O, and no error holds any part of a token.
//
// Files: access.go, refresh.go, browser.go, recovery.go and id.go what it gives out;
// seal.go what is given out sealed; keyring.go and keystatus.go the server keys; mac.go
// keys that are derived; master.go the sealing of keys.
//
// See docs/architecture.md#package-token for why it is so.
package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Purpose says what a server key is for; it is stored beside the key.
type Purpose string

// The purposes there are.
const (
	Sign  Purpose = "sign"  // an ECDSA P-256 private key that signs access tokens with ES256
	MAC   Purpose = "mac"   // 32 random bytes, from which the keys of refresh tokens and recovery ids are derived
	Decoy Purpose = "decoy" // 32 random bytes that choose what an unknown address costs
	ID    Purpose = "id"    // an RSA private key of 2048 bits that signs ID tokens with RS256
	Seal  Purpose = "seal"  // 32 random bytes, an AES-256 key that seals codes and what a user keeps secret
)

// Purposes are those of all keys. A server needs those that aren't Optional.
var Purposes = []Purpose{Sign, MAC, Decoy, ID, Seal}

// Known reports whether this program knows the purpose: a later version may have
// stored keys of other purposes.
func (p Purpose) Known() bool { return slices.Contains(Purposes, p) }

// Rotates reports whether keys of the purpose are replaced by a schedule; the others
// stay until they are revoked.
func (p Purpose) Rotates() bool { return p == Sign || p == MAC || p == ID }

// Optional reports whether a server starts without a key of the purpose, and makes it
// later: apps are let in once it is there.
func (p Purpose) Optional() bool { return p == ID || p == Seal }

// Key is a server key as it is stored. It reveals nothing without the master key.
type Key struct {
	ID        string // of a Sign or ID key the "kid", 22 characters of base64url; of the others 8 hexadecimal digits
	Purpose   Purpose
	Sealed    []byte
	CreatedAt time.Time
	ActiveAt  time.Time // since when it is used for what is new
}

// context binds the seal to the key: a row can't be passed off as another.
func (k *Key) context() string { return "kwai server key/" + string(k.Purpose) + "/" + k.ID }

// NewKey makes a server key and seals it. A MAC key's id is short, since every
// refresh token carries it. Store keys under unique ids, and make another key if the
// id is taken.
func (m *Master) NewKey(p Purpose, now time.Time) (Key, error) {
	var id, plain []byte
	key := Key{Purpose: p, CreatedAt: now, ActiveAt: now}
	switch p {
	case Sign, ID:
		id = make([]byte, 16)
		for key.ID == "" || key.ID[0] == '-' { // a command would take it for a flag
			rand.Read(id)
			key.ID = base64.RawURLEncoding.EncodeToString(id)
		}
		var err error
		if plain, err = newPrivateKey(p); err != nil {
			return Key{}, fmt.Errorf("make a signing key: %w", err)
		}
	case MAC, Decoy, Seal:
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

func newPrivateKey(p Purpose) ([]byte, error) {
	if p == ID {
		private, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS1PrivateKey(private), nil
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return private.Bytes()
}

// Under returns which of the master keys opens a key: 0 is the first, which seals. It
// returns false if none does.
func (m *Master) Under(key Key) (number int, ok bool) {
	_, number, err := m.open(key.Sealed, key.context())
	return number, err == nil
}

// Reseal returns the key sealed anew, under the first master key.
func (m *Master) Reseal(key Key) (Key, error) {
	plain, err := m.Open(key.Sealed, key.context())
	if err == nil {
		key.Sealed, err = m.Seal(plain, key.context())
	}
	return key, err
}

// Check reports whether all keys can be used. Its error names the first key that
// fails, and matches ErrNoMaster if no master key opens it.
func (m *Master) Check(keys []Key) error {
	for _, key := range keys {
		if _, err := m.openKey(key); err != nil && key.Purpose.Known() {
			return err
		}
	}
	return nil
}

// Keyring holds opened server keys, ready for use. It is immutable, safe for
// concurrent use, and prints as its type, never as its keys.
type Keyring struct {
	keys    map[string]any // all, by purpose and id, as openKey returns them
	signer  *signer
	public  []jose.JSONWebKey
	expired map[string]bool             // headers of access tokens
	macs    map[[macIDSize]byte]*macKey // nil: expired
	active  *macKey                     // makes refresh tokens and recovery ids
	decoy   *sync.Pool                  // each of *hasher
	// Of apps alone; nil until there is one.
	idSigner *idSigner
	idPublic []jose.JSONWebKey // behind public in the key set
	seals    map[string]*sealKey
	sealer   *sealKey
}

// OpenKeyring opens keys, of which there must be at least one of each purpose that isn't
// Optional.
// Keys that the keyring before holds (it may be nil) are taken from there, even if they
// have been sealed anew since. The error names the key that fails, and matches
// ErrNoMaster if no master key opens it.
func (m *Master) OpenKeyring(keys []KeyStatus, before *Keyring) (*Keyring, error) {
	ring := &Keyring{keys: make(map[string]any), expired: make(map[string]bool), macs: make(map[[macIDSize]byte]*macKey), seals: make(map[string]*sealKey)}
	for _, key := range keys {
		if ring.keys[key.context()] != nil {
			return nil, fmt.Errorf("server key %q: another key has the same id", key.ID)
		}
		var o any
		if before != nil {
			o = before.keys[key.context()]
		}
		if o == nil {
			var err error
			if o, err = m.openKey(key.Key); err != nil {
				return nil, err
			}
		}
		ring.keys[key.context()] = o
		switch o := o.(type) {
		case *macKey:
			ring.addMAC(o, key)
		case *signer:
			ring.addSign(o, key)
		case *sync.Pool:
			if key.State == Active {
				ring.decoy = o
			}
		case *idSigner:
			ring.addID(o, key)
		case *sealKey:
			ring.seals[key.ID] = o
			if key.State == Active {
				ring.sealer = o
			}
		}
	}
	if ring.signer == nil {
		return nil, errors.New("there is no server key that signs")
	}
	if ring.active == nil {
		return nil, errors.New("there is no server key for MACs")
	}
	if ring.decoy == nil {
		return nil, errors.New("there is no server key for decoys")
	}
	return ring, nil
}

// openKey returns a *macKey, a *signer, an *idSigner, a *sealKey or, of a Decoy key, a
// *sync.Pool.
func (m *Master) openKey(key Key) (opened any, err error) {
	plain, err := m.Open(key.Sealed, key.context())
	if err != nil {
		return nil, fmt.Errorf("server key %q is sealed and %w: is this the master key file that belongs to this database?", key.ID, err)
	}
	switch key.Purpose {
	case MAC:
		opened, err = newMACKey(key.ID, plain)
	case Decoy:
		opened, err = deriveMAC(plain, "kwai decoy v1")
	case ID:
		opened, err = parseIDSigner(key.ID, plain)
	case Seal:
		opened, err = newSealKey(key.ID, plain)
	default:
		opened, err = parseSigner(key.ID, plain)
	}
	if err != nil {
		return nil, fmt.Errorf("server key %q: %w", key.ID, err)
	}
	return opened, nil
}

func parseSigner(id string, plain []byte) (*signer, error) {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), plain)
	if err != nil {
		return nil, errors.New("what is sealed is not a P-256 private key")
	}
	return newSigner(id, private)
}

func (k *Keyring) addSign(s *signer, key KeyStatus) {
	if key.State == Expired {
		k.expired[s.header] = true
		return
	}
	at := len(k.public)
	if key.State == Active {
		k.signer, at = s, 0
	}
	k.public = slices.Insert(k.public, at, jose.JSONWebKey{
		Key: &s.key.PublicKey, KeyID: s.id, Use: "sig", Algorithm: string(jose.ES256),
	})
}

func (k *Keyring) addMAC(mac *macKey, key KeyStatus) {
	k.macs[mac.id] = mac
	if key.State == Active {
		k.active = mac
	}
	if key.State == Expired {
		k.macs[mac.id] = nil
	}
}

// Expired reports whether an access token names an expired key of the server: there is
// no use in looking for that key elsewhere.
func (k *Keyring) Expired(access string) bool {
	return k.expired[access[:strings.IndexByte(access, '.')+1]]
}

// Covers reports whether everything that other accepts is accepted here, too.
func (k *Keyring) Covers(other *Keyring) bool {
	for id, mac := range other.macs {
		if mac != nil && k.macs[id] == nil {
			return false
		}
	}
	for id := range other.seals {
		if k.seals[id] == nil {
			return false
		}
	}
	return !slices.ContainsFunc(slices.Concat(other.public, other.idPublic), func(a jose.JSONWebKey) bool {
		return !slices.ContainsFunc(slices.Concat(k.public, k.idPublic), func(b jose.JSONWebKey) bool { return a.KeyID == b.KeyID })
	})
}

// JWKS returns the public keys: those of access tokens, the one that signs first, then
// those of ID tokens.
func (k *Keyring) JWKS() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: slices.Concat(k.public, k.idPublic)}
}

// AccessKeys are those of the JWKS that sign access tokens.
func (k *Keyring) AccessKeys() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: slices.Clone(k.public)}
}

// Format hides the keys from every verb of fmt, and so from logs.
func (k Keyring) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "token.Keyring") }
