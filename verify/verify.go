// Package verify checks, in any Go program, the access tokens that a kwai
// server signs: JWTs of the profile in RFC 9068.
//
// Take the server's public keys from /.well-known/jwks.json and say which
// server and which audience you trust; both are compared byte for byte:
//
//	var keys jose.JSONWebKeySet
//	err := json.Unmarshal(document, &keys)
//	...
//	v := &verify.Verifier{
//		Issuer:   "https://login.example.org",
//		Audience: "kwai",
//		Keys:     keys,
//	}
//	claims, err := v.Verify(token) // what stood after "Bearer "
//
// What it promises: a token is accepted only if one of the given keys signed
// it with ES256, for this issuer and this audience, and if it has not expired.
// The token never chooses how it is checked: its header must hold exactly
// "alg", "kid" and "typ", so that jku, x5u, jwk, x5c and crit are refused and
// not just ignored. Missing configuration refuses; it never skips a check.
//
// What it can't promise: a logout, a revocation or a reset at the server ends
// the session at once, but a signature stays good until the token expires.
// A program that has to know earlier must ask the server.
//
// The package does no I/O. ErrUnknownKey tells when the key set is worth
// loading again: a server publishes new keys before it drops old ones.
package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	// Unlike encoding/json it refuses repeated members and compares names
	// exactly, so two readers can't see two different tokens in one text.
	"github.com/go-jose/go-jose/v4/json"
)

// MaxSize is the length in bytes above which a token is refused unread. kwai's
// own tokens take about 600.
const MaxSize = 4 << 10

// leeway, in which a token may come from the future, is for the clocks of
// other machines. There is none for the end of a token.
const leeway = time.Minute

// The errors that Verify returns match ErrInvalid with errors.Is, all of them;
// the two below are told apart as well. Their texts name the failed check and
// hold nothing of the token, so they may be logged.
var (
	ErrInvalid = errors.New("not a valid access token")

	// ErrExpired is given to a token that is good in all but its age.
	ErrExpired = fmt.Errorf("%w: it has expired", ErrInvalid)

	// ErrUnknownKey is given where the key set lacks the key that the token
	// names. Anyone can make such a token: bound how often it makes you fetch.
	ErrUnknownKey = fmt.Errorf("%w: its key is not in the key set", ErrInvalid)
)

func invalid(why string) error { return fmt.Errorf("%w: %s", ErrInvalid, why) }

// A Verifier checks tokens of one issuer for one audience. It may be used by
// many goroutines at once, as long as nobody changes its fields; to follow a
// change of keys, make another one.
type Verifier struct {
	// Issuer is the server's public URL, exactly as its tokens' "iss" has it.
	// Empty refuses every token.
	Issuer string
	// Audience is the tokens' "aud". Empty refuses every token.
	Audience string
	// Keys are the server's public keys. Only P-256 keys whose "use" and "alg"
	// allow ES256 signatures are used.
	Keys jose.JSONWebKeySet
	// Now tells the time; nil means time.Now.
	Now func() time.Time
}

// Verify returns the claims of a token in which everything holds. The error
// for every other one matches ErrInvalid.
func (v *Verifier) Verify(token string) (*Claims, error) {
	if v.Issuer == "" || v.Audience == "" {
		return nil, invalid("the verifier has no issuer or no audience to compare with")
	}
	payload, err := v.open(token)
	if err != nil {
		return nil, err
	}
	var w wire
	if err := json.Unmarshal(payload, &w); err != nil {
		return nil, invalid("its claims can't be read")
	}
	if name := w.missing(); name != "" {
		return nil, invalid("the claim " + name + " is missing")
	}
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	if err := w.check(v.Issuer, v.Audience, now()); err != nil {
		return nil, err
	}
	return w.claims(), nil
}

// open returns the payload of a token with a good header and signature.
func (v *Verifier) open(token string) ([]byte, error) {
	if len(token) > MaxSize {
		return nil, invalid("it is too long")
	}
	header, ok := split(token)
	if !ok {
		return nil, invalid("it is not a signed JWT")
	}
	// Read here and not by go-jose, which would go on to parse whatever keys
	// and certificates a stranger put there.
	var h map[string]string
	if err := json.Unmarshal(header, &h); err != nil || len(h) != 3 || h["alg"] == "" || h["kid"] == "" || h["typ"] == "" {
		return nil, invalid("its header must hold alg, kid and typ as strings, and nothing else")
	}
	if h["alg"] != string(jose.ES256) {
		return nil, invalid("its algorithm is not ES256")
	}
	// RFC 9068, section 4; media types are compared without case.
	if t := strings.ToLower(h["typ"]); t != "at+jwt" && t != "application/at+jwt" {
		return nil, invalid("its type is not at+jwt")
	}
	key := v.key(h["kid"])
	if key == nil {
		return nil, ErrUnknownKey
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, invalid("it is not a signed JWT")
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, invalid("its signature is wrong")
	}
	return payload, nil
}

// strict refuses what the usual decoding lets pass: bits that mean nothing at
// the end. A token is no unique text all the same: whoever has one can make
// another valid signature of it, as ECDSA allows; its jti is what names it.
var strict = base64.RawURLEncoding.Strict()

// split decodes the header of a token and tells whether the token is three
// parts of strict base64url.
func split(token string) (header []byte, ok bool) {
	parts := strings.SplitN(token, ".", 4)
	if len(parts) != 3 || strings.ContainsAny(token, "\r\n") { // which decoding would skip
		return nil, false
	}
	for i, part := range parts {
		b, err := strict.DecodeString(part)
		if err != nil {
			return nil, false
		}
		if i == 0 {
			header = b
		}
	}
	return header, true
}

// key returns the public key for ES256 that has the id, or nil.
func (v *Verifier) key(id string) *ecdsa.PublicKey {
	for _, k := range v.Keys.Keys {
		if k.KeyID != id || k.Use != "" && k.Use != "sig" || k.Algorithm != "" && k.Algorithm != string(jose.ES256) {
			continue
		}
		if p, ok := k.Key.(*ecdsa.PublicKey); ok && p.Curve == elliptic.P256() {
			return p
		}
	}
	return nil
}
