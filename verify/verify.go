// Package verify checks the access tokens of a kwai server in any Go program. They are
// JWTs of the profile in RFC 9068. Name the server and the audience that you trust, and
// put the Verifier in front of your handlers:
//
//	kwai := &verify.Verifier{Issuer: "https://auth.example.org", Audience: "kwai"}
//	http.Handle("/members/", kwai.Protect(http.HandlerFunc(members)))
//
//	func members(w http.ResponseWriter, r *http.Request) {
//		user := verify.FromContext(r.Context()).Subject // the user's UUID
//
// Issuer and Audience are compared byte for byte with the token's. The server's public
// keys are fetched from the issuer, unless Server names another address of it. Call
// Ready at the start of a program, and at its readiness endpoint, to see whether tokens
// can be checked. Outside of HTTP, VerifyContext takes the text after "Bearer ".
//
// # What is promised
//
// A token is accepted only if a key of the server signed it with ES256, for
// this issuer and this audience, and if it has not expired. The token never chooses how
// it is checked: its header must hold exactly "alg", "kid" and "typ", so jku, x5u, jwk,
// x5c and crit are refused and not just ignored. If a field of the Verifier is missing,
// tokens are refused; no check is skipped.
//
// A new key is seen at once: a token that names an unknown one makes the
// Verifier fetch the keys, once for all requests that wait, and at most every
// two seconds however many tokens are forged. kwai publishes its keys long
// before they sign.
//
// A key that the server revoked is refused as soon as its key set is stale:
// after five minutes by kwai's headers, and never more than ten. While keys are in use
// they are fetched anew before that, in the background, so no request waits for a slow
// server. After a longer pause the first requests wait, for a second at most.
//
// While the key set can't be fetched, the known keys are used for another hour, which
// is how long kwai's tokens live by default: a server that is away makes no new ones.
// After that, or if there never were any keys, nothing is accepted: ErrUnavailable, or
// 503.
//
// # What is not promised
//
// A logout, a revocation or a reset at the server ends the session at once, but
// a signature stays good until the token expires. A program that must see the end at
// once sets Live. Then the Verifier asks the server about each token that is good so
// far. That costs a request each time, and nothing is accepted while the server is away.
//
// # Without I/O
//
// A Verifier with Keys fetches nothing, and Verify on it is a pure function. After
// ErrUnknownKey it makes sense to load the keys again.
//
// Files: verify.go the checks, claims.go the claims, keys.go and issuer.go the keys and
// the server, http.go the handlers. See docs/architecture.md#package-verify.
package verify

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	// Unlike encoding/json it refuses repeated members and compares names
	// exactly, so two readers can't see two different tokens in one text.
	"github.com/go-jose/go-jose/v4/json"
)

// MaxSize is the length in bytes above which a token is refused unread. kwai's
// own tokens take about 600.
const MaxSize = 4 << 10

// leeway is how far in the future a token may have been made, since clocks differ.
// There is none for the end of a token.
const leeway = time.Minute

// The error for a refused token always matches ErrInvalid with errors.Is; the two below
// it are special cases. ErrUnavailable says nothing about the token. The texts name the
// failed check and hold nothing of the token, so they may be logged; don't show them to
// the client.
var (
	ErrInvalid = errors.New("not a valid access token")

	// ErrExpired is for a token that is good but for its age.
	ErrExpired = fmt.Errorf("%w: it has expired", ErrInvalid)

	// ErrUnknownKey means that the key set lacks the key that the token names.
	// Anyone can make such a token: if you load Keys yourself, bound how often it
	// makes you do so.
	ErrUnknownKey = fmt.Errorf("%w: its key is not in the key set", ErrInvalid)

	// ErrUnavailable means that the token can't be checked now: the server gives no
	// keys or, with Live, no answer about it. Refuse the request for now and let
	// the client keep its token.
	ErrUnavailable = errors.New("the access token can't be checked now")
)

func invalid(why string) error { return fmt.Errorf("%w: %s", ErrInvalid, why) }

// A Verifier checks tokens of one issuer for one audience. It may be used by
// many goroutines at once. Don't copy it, nor change its fields, after its
// first use. It need not be closed.
type Verifier struct {
	// Issuer is the server's public URL, exactly as its tokens' "iss" has it: in
	// lower case, a host of other than ASCII letters in punycode (xn--…). Empty
	// refuses every token.
	Issuer string
	// Server is the URL at which this program reaches the server, such as
	// http://kwai.auth.svc:8080 inside a cluster. Empty: Issuer. The server's
	// URL must be https, or http to a loopback address, if something is fetched. It
	// may have a path.
	Server string
	// Audience is the tokens' "aud". Empty refuses every token.
	Audience string
	// Keys are the server's public keys. If they are nil, they are fetched from the
	// server as they change. Only P-256 keys whose "use" and "alg" allow ES256
	// signatures are used; an id that two of them have names neither.
	Keys jose.JSONWebKeySet
	// Live asks the server about each token that is good so far, since the server
	// knows about logouts: one request for each check, five seconds at most.
	Live bool
	// PlainHTTP allows an http URL that is not on loopback. Anybody on the way can
	// then make tokens: use it only in a network of your own.
	PlainHTTP bool
	// Transport makes the requests to the server; nil is one made like
	// http.DefaultTransport. It must heed the context of a request.
	Transport http.RoundTripper
	// Log gets a line when keys can't be fetched and when they can again, and at
	// debug level why Protect refuses. Nil means slog.Default().
	Log *slog.Logger
	// Now returns the time; nil means time.Now.
	Now func() time.Time

	once   sync.Once
	issuer *issuer // made at first use
}

// Verify is VerifyContext without a context. With Keys it never waits; without, it takes
// as long as the server does, ten seconds at most.
func (v *Verifier) Verify(token string) (*Claims, error) {
	return v.VerifyContext(context.Background(), token)
}

// VerifyContext returns the claims of a good token. The error for any other token
// matches ErrInvalid. It matches ErrUnavailable if the token can't be checked now, also
// because ctx has ended.
func (v *Verifier) VerifyContext(ctx context.Context, token string) (*Claims, error) {
	if err := v.configured(); err != nil {
		return nil, err
	}
	payload, err := v.open(ctx, token)
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
	if v.Live {
		if err := v.server().live(ctx, token, w.Subject); err != nil {
			return nil, err
		}
	}
	return w.claims(), nil
}

// Ready returns why tokens can't be checked: a mistake in the fields, keys that can't be
// fetched, or a server that signs for another issuer. It fetches the keys if there are
// none yet. If all is well it returns nil.
func (v *Verifier) Ready(ctx context.Context) error {
	if err := v.configured(); err != nil {
		return err
	}
	fetched := v.Keys.Keys == nil
	if fetched || v.Live {
		if err := v.server().mistake; err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	if fetched {
		return v.server().ready(ctx)
	}
	return nil
}

func (v *Verifier) configured() error {
	if v.Issuer == "" || v.Audience == "" {
		return invalid("the verifier has no issuer or no audience to compare with")
	}
	if strings.ContainsFunc(v.Issuer, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return invalid("the verifier's issuer isn't as tokens have it: write its host in punycode (xn--…) and percent-encode its path, as the issuer in the server's /.well-known/jwks.json")
	}
	return nil
}

// open returns the payload of a token with a good header and signature.
func (v *Verifier) open(ctx context.Context, token string) ([]byte, error) {
	if len(token) > MaxSize {
		return nil, invalid("it is too long")
	}
	header, ok := split(token)
	if !ok {
		return nil, invalid("it is not a signed JWT")
	}
	// Read here and not by go-jose, which would go on to parse keys and certificates
	// that an attacker put there.
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
	key, err := v.key(ctx, h["kid"])
	if err != nil {
		return nil, err
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

// key returns the public key for ES256 that has the id.
func (v *Verifier) key(ctx context.Context, id string) (*ecdsa.PublicKey, error) {
	if v.Keys.Keys == nil {
		return v.server().key(ctx, id)
	}
	var found *ecdsa.PublicKey
	for _, k := range v.Keys.Keys {
		p, ok := k.Key.(*ecdsa.PublicKey)
		if k.KeyID != id || !ok || p.Curve != elliptic.P256() || !forES256(k.Use, k.Algorithm) {
			continue
		}
		if found != nil && !found.Equal(p) {
			return nil, ErrUnknownKey
		}
		found = p
	}
	if found == nil {
		return nil, ErrUnknownKey
	}
	return found, nil
}

// forES256 reports whether a key's members "use" and "alg" allow ES256 signatures.
func forES256(use, alg string) bool {
	return (use == "" || use == "sig") && (alg == "" || alg == string(jose.ES256))
}

// server returns what the Verifier knows of its issuer.
func (v *Verifier) server() *issuer {
	v.once.Do(func() { v.issuer = newIssuer(v.Issuer, v.Server, v.PlainHTTP, v.Transport, v.Log, v.Now) })
	return v.issuer
}

// strict refuses meaningless bits at the end, which the usual decoding allows. A token
// is no unique text all the same: anybody who has one can make another valid signature
// of it, as ECDSA allows. Its jti identifies it.
var strict = base64.RawURLEncoding.Strict()

// split decodes the header of a token, and reports whether the token is three parts of
// strict base64url.
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
