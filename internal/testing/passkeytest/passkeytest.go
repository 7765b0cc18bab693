// Package passkeytest is an authenticator in software, and the browser beside it: it
// makes passkeys, and signs with them, as WebAuthn has it.
package passkeytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
)

// Flags of authenticator data.
const (
	Present        = 1 << 0
	Verified       = 1 << 2
	BackupEligible = 1 << 3
	BackedUp       = 1 << 4
	attested       = 1 << 6
)

// Key is a passkey (ES256). Its fields are what it, or the browser, says: a test may have
// them lie.
type Key struct {
	ID         []byte
	UserHandle []byte
	Origin     string // of the page
	RPID       string
	Flags      byte
	Counter    uint32 // raised by each signature, unless it is 0
	// Undiscoverable has the browser say that the authenticator doesn't keep the key.
	Undiscoverable bool
	// Public is the public key that it says it has, COSE; nil: its own.
	Public []byte

	private *ecdsa.PrivateKey
}

// New makes a key for a page at an origin, and a host.
func New(origin, rpID string) *Key {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // there is no randomness
	}
	id := make([]byte, 32)
	_, _ = rand.Read(id)
	return &Key{ID: id, Origin: origin, RPID: rpID, Flags: Present | Verified, Counter: 1, private: private}
}

// options are those that a page gives a browser, as far as the key looks at them.
type options struct {
	PublicKey struct {
		Challenge string `json:"challenge"`
		User      struct {
			ID string `json:"id"`
		} `json:"user"`
	} `json:"publicKey"`
}

// Register answers creation options: it takes the user's handle from them.
func (k *Key) Register(creation []byte) []byte {
	o := parse(creation)
	k.UserHandle = decode(o.PublicKey.User.ID)
	public, err := k.private.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	cose := encode(map[int]any{1: 2, 3: -7, -1: 1, -2: public[1:33], -3: public[33:]})
	if k.Public != nil {
		cose = k.Public
	}
	data := slices.Concat(k.data(attested), make([]byte, 16), binary.BigEndian.AppendUint16(nil, uint16(len(k.ID))), k.ID, cose)
	return k.answer(map[string]any{
		"clientDataJSON":    k.clientData("webauthn.create", o.PublicKey.Challenge),
		"attestationObject": text(encode(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})),
	}, map[string]any{"credProps": map[string]any{"rk": !k.Undiscoverable}})
}

// RSA is an RSA key (RS256) of that many bytes, COSE. It belongs to nobody.
func RSA(size int) []byte {
	modulus := make([]byte, size)
	_, _ = rand.Read(modulus)
	modulus[0], modulus[size-1] = modulus[0]|0x80, modulus[size-1]|1
	return encode(map[int]any{1: 3, 3: -257, -1: modulus, -2: []byte{1, 0, 1}})
}

// Assert answers request options.
func (k *Key) Assert(request []byte) []byte {
	return k.AssertChallenge(parse(request).PublicKey.Challenge)
}

// AssertChallenge signs a challenge, base64url.
func (k *Key) AssertChallenge(challenge string) []byte {
	if k.Counter > 0 {
		k.Counter++
	}
	client := k.clientData("webauthn.get", challenge)
	data := k.data(0)
	hash := sha256.Sum256(decode(client))
	sum := sha256.Sum256(slices.Concat(data, hash[:]))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	if err != nil {
		panic(err)
	}
	return k.answer(map[string]any{
		"clientDataJSON": client, "authenticatorData": text(data), "signature": text(signature), "userHandle": text(k.UserHandle),
	}, map[string]any{})
}

// data is the authenticator's, but for what comes with a new key.
func (k *Key) data(more byte) []byte {
	host := sha256.Sum256([]byte(k.RPID))
	return binary.BigEndian.AppendUint32(append(host[:], k.Flags|more), k.Counter)
}

func (k *Key) clientData(kind, challenge string) string {
	return text(marshal(map[string]any{"type": kind, "challenge": challenge, "origin": k.Origin, "crossOrigin": false}))
}

func (k *Key) answer(response, extensions map[string]any) []byte {
	return marshal(map[string]any{"id": text(k.ID), "rawId": text(k.ID), "type": "public-key", "response": response, "clientExtensionResults": extensions})
}

func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decode(text string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		panic(err) // it isn't base64url
	}
	return b
}

func parse(text []byte) (o options) {
	if err := json.Unmarshal(text, &o); err != nil || o.PublicKey.Challenge == "" {
		panic("these are no options: " + string(text))
	}
	return o
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func encode(v any) []byte {
	b, err := webauthncbor.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
