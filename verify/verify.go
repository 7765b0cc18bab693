// Package verify checks, in any Go program, the access tokens that a kwai
// server signs: JWTs of the profile in RFC 9068. Say which server and which
// audience you trust, and put it in front of your handlers:
//
//	kwai := &verify.Verifier{Issuer: "https://auth.example.org", Audience: "kwai"}
//	http.Handle("/members/", kwai.Protect(http.HandlerFunc(members)))
//
//	func members(w http.ResponseWriter, r *http.Request) {
//		user := verify.FromContext(r.Context()).Subject // the user's UUID
//
// Both are compared byte for byte with what a token says; the issuer is also
// where the server's public keys are fetched, unless Server says that this program
// reaches it by another address. Ready tells at the start of a
// program, and at its readiness endpoint, whether tokens can be checked. Where
// there is no HTTP request, VerifyContext takes what stood after "Bearer ".
//
// # What is promised
//
// A token is accepted only if a key of the server signed it with ES256, for
// this issuer and this audience, and if it has not expired. The token never
// chooses how it is checked: its header must hold exactly "alg", "kid" and
// "typ", so that jku, x5u, jwk, x5c and crit are refused and not just ignored.
// Missing configuration refuses; it never skips a check.
//
// A new key is seen at once: a token that names an unknown one makes the
// Verifier fetch the keys, once for all requests that wait, and at most every
// two seconds however many tokens are forged. kwai publishes its keys long
// before they sign.
//
// A key that the server revoked is refused as soon as its key set is stale:
// after five minutes as kwai sends it, ten at most whatever is sent. While keys
// are in use they are fetched anew before that, in the background, so no
// request waits for a slow server; after a longer pause the first requests wait,
// for a second at most. While the key set can't be fetched, the known keys are
// used for another hour, as long as kwai's tokens live unless set otherwise:
// a server that is away makes no new ones. After that, and where there never
// were any keys, nothing is accepted: ErrUnavailable, or 503.
//
// # What is not promised
//
// A logout, a revocation or a reset at the server ends the session at once, but
// a signature stays good until the token expires. A program that must see it at
// once sets Live: then each token that is good so far is shown to the server,
// which costs a request to it each time, and nothing is accepted while it is
// away.
//
// # Without I/O
//
// A Verifier with Keys fetches nothing, and Verify on it is a pure function.
// ErrUnknownKey tells when the keys are worth loading again.
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

// leeway, in which a token may come from the future, is for the clocks of
// other machines. There is none for the end of a token.
const leeway = time.Minute

// The error for a token that is refused matches ErrInvalid with errors.Is, in
// each case; the two below it are told apart as well. Only ErrUnavailable says
// nothing about the token. Their texts name the failed check and hold nothing
// of the token, so they may be logged; don't show them to the client.
var (
	ErrInvalid = errors.New("not a valid access token")

	// ErrExpired is given to a token that is good in all but its age.
	ErrExpired = fmt.Errorf("%w: it has expired", ErrInvalid)

	// ErrUnknownKey is given where the key set lacks the key that the token
	// names. Anyone can make such a token: where you load Keys yourself, bound
	// how often it makes you do so.
	ErrUnknownKey = fmt.Errorf("%w: its key is not in the key set", ErrInvalid)

	// ErrUnavailable is given where the token can't be checked now: the keys,
	// or with Live the answer about it, can't be had from the server. Refuse
	// the request for now and let the client keep its token.
	ErrUnavailable = errors.New("the access token can't be checked now")
)

func invalid(why string) error { return fmt.Errorf("%w: %s", ErrInvalid, why) }

// A Verifier checks tokens of one issuer for one audience. It may be used by
// many goroutines at once. Don't copy it, nor change its fields, after its
// first use; it needs no end.
type Verifier struct {
	// Issuer is the server's public URL, exactly as its tokens' "iss" has it: in
	// lower case, a host of other than ASCII letters in punycode (xn--…). Empty
	// refuses every token.
	Issuer string
	// Server is the URL at which this program reaches the server, such as
	// http://kwai.auth.svc:8080 inside a cluster. Empty: at Issuer. Where something
	// is fetched it must be https, or http to a loopback address; the URL may have a
	// path.
	Server string
	// Audience is the tokens' "aud". Empty refuses every token.
	Audience string
	// Keys are the server's public keys. Nil has them fetched from the server
	// as they change. Only P-256 keys whose "use" and "alg" allow ES256
	// signatures are used; an id that two of them have names neither.
	Keys jose.JSONWebKeySet
	// Live shows each token that is good so far to the server, which knows
	// about logouts: one request to it for each check, five seconds at most.
	Live bool
	// PlainHTTP lets the server be at an http URL that is not on loopback. Whoever
	// is on the way can then make tokens: for a network that is your own.
	PlainHTTP bool
	// Transport makes the requests to the server; nil is one made like
	// http.DefaultTransport. It must heed the context of a request.
	Transport http.RoundTripper
	// Log is told when keys can't be fetched and when they can again, and at
	// debug level why Protect refuses; nil means slog.Default().
	Log *slog.Logger
	// Now tells the time; nil means time.Now.
	Now func() time.Time

	once   sync.Once
	issuer *issuer // made at first use
}

// Verify is VerifyContext for a Verifier with Keys, which never waits; on
// others it takes as long as the server does, ten seconds at most.
func (v *Verifier) Verify(token string) (*Claims, error) {
	return v.VerifyContext(context.Background(), token)
}

// VerifyContext returns the claims of a token in which everything holds. The
// error for every other one matches ErrInvalid, or ErrUnavailable where that
// can't be told now, also because ctx has ended.
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

// Ready says why tokens can't be checked, or nil: a mistake in the fields, keys
// that can't be fetched, or a server that signs for another issuer. It fetches the
// keys if there are none yet.
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

// forES256 says whether a key's members "use" and "alg" allow ES256 signatures.
func forES256(use, alg string) bool {
	return (use == "" || use == "sig") && (alg == "" || alg == string(jose.ES256))
}

// server is what the Verifier knows of its issuer.
func (v *Verifier) server() *issuer {
	v.once.Do(func() { v.issuer = newIssuer(v.Issuer, v.Server, v.PlainHTTP, v.Transport, v.Log, v.Now) })
	return v.issuer
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
