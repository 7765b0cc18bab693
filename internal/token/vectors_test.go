package token_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"kwai/verify"
)

var update = flag.Bool("update", false, "write ../../verify/testdata/tokens.json anew")

const vectorFile = "../../verify/testdata/tokens.json"

// TestVectors makes the tokens that package verify is tested with. They are
// put together by hand here, not by go-jose, which would refuse to make most
// of them; and ECDSA is used as RFC 6979 has it, so that they never vary.
func TestVectors(t *testing.T) {
	t.Parallel()
	want := vectors(t)
	if *update {
		if err := os.WriteFile(vectorFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what this test makes: run it with -update and look at the difference", vectorFile)
	}
}

// A vector's Want is "valid", "expired", "unknown key" or "invalid"; Why is
// part of the error.
type vector struct {
	Name  string `json:"name"`
	Want  string `json:"want"`
	Why   string `json:"why,omitempty"`
	Token string `json:"token"`
}

type object map[string]any

func (o object) with(name string, value any) object {
	c := maps.Clone(o)
	c[name] = value
	return c
}

func (o object) without(name string) object {
	c := maps.Clone(o)
	delete(c, name)
	return c
}

func (o object) String() string {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(b)
}

var b64 = base64.RawURLEncoding

// testKey returns a private key that everybody can know.
func testKey(curve elliptic.Curve, seed string) *ecdsa.PrivateKey {
	scalar := sha256.Sum256([]byte(seed))
	raw := make([]byte, (curve.Params().BitSize+7)/8)
	copy(raw[len(raw)-len(scalar):], scalar[:])
	key, err := ecdsa.ParseRawPrivateKey(curve, raw)
	if err != nil {
		panic(err)
	}
	return key
}

// sign joins a header and a payload and signs them with ES256.
func sign(key *ecdsa.PrivateKey, header, payload string) string {
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	digest := sha256.Sum256([]byte(input))
	der, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		panic(err)
	}
	var s struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		panic(err)
	}
	raw := make([]byte, 64)
	s.R.FillBytes(raw[:32])
	s.S.FillBytes(raw[32:])
	return input + "." + b64.EncodeToString(raw)
}

// respell changes the bits at the end of a base64url text that mean nothing.
func respell(text string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(text)%4 < 2 {
		panic("no spare bits in " + text)
	}
	last := len(text) - 1
	return text[:last] + string(alphabet[strings.IndexByte(alphabet, text[last])|1])
}

func vectors(t *testing.T) []byte {
	t.Helper()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	key, old, other := testKey(elliptic.P256(), "new"), testKey(elliptic.P256(), "old"), testKey(elliptic.P256(), "other")
	jwk := func(k *ecdsa.PrivateKey, id, use, alg string) jose.JSONWebKey {
		return jose.JSONWebKey{Key: &k.PublicKey, KeyID: id, Use: use, Algorithm: alg}
	}
	header := object{"alg": "ES256", "kid": "new", "typ": "at+jwt"}
	payload := payloadAt(now)

	var all []vector
	add := func(want, why, name, token string) {
		all = append(all, vector{Name: name, Want: want, Why: why, Token: token})
	}
	claimed := func(want, why, name string, payload object) {
		add(want, why, name, sign(key, header.String(), payload.String()))
	}
	headed := func(want, why, name string, header object) {
		add(want, why, name, sign(key, header.String(), payload.String()))
	}
	plain := sign(key, header.String(), payload.String())
	parts := strings.Split(plain, ".")
	join := func(parts ...string) string { return strings.Join(parts, ".") }

	add("valid", "", "as kwai makes it", plain)
	add("valid", "", "signed by an older key", sign(old, header.with("kid", "old").String(), payload.String()))
	headed("valid", "", "type in capitals", header.with("typ", "AT+JWT"))
	headed("valid", "", "type in full", header.with("typ", "application/at+jwt"))
	claimed("valid", "", "its last second", payload.with("exp", at(time.Second)))
	claimed("valid", "", "issued a minute ahead", payload.with("iat", at(time.Minute)))
	claimed("valid", "", "not before a minute ahead", payload.with("nbf", at(time.Minute)))
	claimed("valid", "", "without auth_time", payload.without("auth_time"))
	claimed("valid", "", "a claim that nobody knows", payload.with("scope", "a b"))
	fill := strings.Repeat(" ", (verify.MaxSize-len(plain))/4*3)
	for len(sign(key, header.String(), payload.String()+fill)) < verify.MaxSize {
		fill += " "
	}
	add("valid", "", "as long as may be", sign(key, header.String(), payload.String()+fill))

	claimed("expired", "", "expires now", payload.with("exp", at(0)))
	claimed("expired", "", "expired a second ago", payload.with("exp", at(-time.Second)))
	claimed("expired", "", "expired in 1970", payload.with("exp", 0))

	headed("unknown key", "", "key that nobody knows", header.with("kid", "lost"))
	add("unknown key", "", "key for encryption", sign(other, header.with("kid", "enc").String(), payload.String()))
	headed("unknown key", "", "key for another algorithm", header.with("kid", "alg"))
	headed("unknown key", "", "key on another curve", header.with("kid", "p384"))
	headed("unknown key", "", "key that is a shared secret", header.with("kid", "oct"))

	const alg = "algorithm"
	none := header.with("alg", "none").String()
	add("invalid", alg, "alg none", join(b64.EncodeToString([]byte(none)), parts[1], ""))
	add("invalid", alg, "alg none with a signature", sign(key, none, payload.String()))
	headed("invalid", alg, "alg in lower case", header.with("alg", "es256"))
	headed("invalid", alg, "alg ES384", header.with("alg", "ES384"))
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public, err := jwk(key, "new", "sig", "ES256").MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{
		"DER": spki, "JWK": public, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}),
	} {
		input := b64.EncodeToString([]byte(header.with("alg", "HS256").String())) + "." + parts[1]
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		add("invalid", alg, "HS256 under the public key as "+name, input+"."+b64.EncodeToString(mac.Sum(nil)))
	}

	const typ = "type"
	headed("invalid", typ, "type JWT", header.with("typ", "JWT"))
	headed("invalid", typ, "type with a space", header.with("typ", "at+jwt "))

	const head = "its header"
	for _, name := range []string{"alg", "kid", "typ"} {
		headed("invalid", head, "no "+name, header.without(name))
		headed("invalid", head, "empty "+name, header.with(name, ""))
		headed("invalid", head, "null "+name, header.with(name, nil))
	}
	for name, value := range map[string]any{
		"jku": "https://elsewhere.example/jwks.json", "x5u": "https://elsewhere.example/cert.pem",
		"jwk": json.RawMessage(public), "x5c": []string{"AAAA"}, "x5t": "AAAA",
		"crit": []string{"exp"}, "b64": false, "cty": "JWT", "nonce": "n",
	} {
		headed("invalid", head, "header "+name, header.with(name, value))
		headed("invalid", head, "header "+name+" in place of kid", header.without("kid").with(name, value))
	}
	headed("invalid", head, "kid a number", header.with("kid", 1))
	repeated := strings.Replace(header.String(), "{", `{"kid":"old",`, 1)
	add("invalid", head, "kid twice", sign(key, repeated, payload.String()))
	add("invalid", head, "header no object", sign(key, `"ES256"`, payload.String()))
	add("invalid", head, "header null", sign(key, `null`, payload.String()))
	add("invalid", head, "header no JSON", sign(key, `{`, payload.String()))

	const signature = "signature"
	raw, _ := b64.DecodeString(parts[2])
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
	if err != nil {
		t.Fatal(err)
	}
	add("invalid", signature, "signed by another", sign(other, header.String(), payload.String()))
	add("invalid", signature, "signed by the older key under the newer's id", sign(old, header.String(), payload.String()))
	add("invalid", signature, "another user's claims", join(parts[0], b64.EncodeToString([]byte(payload.with("sub", "root").String())), parts[2]))
	add("invalid", signature, "another header", join(b64.EncodeToString([]byte(header.with("typ", "AT+JWT").String())), parts[1], parts[2]))
	add("invalid", signature, "no signature", join(parts[0], parts[1], ""))
	add("invalid", signature, "signature of zeros", join(parts[0], parts[1], b64.EncodeToString(make([]byte, 64))))
	add("invalid", signature, "signature in DER", join(parts[0], parts[1], b64.EncodeToString(der)))
	add("invalid", signature, "signature too long", join(parts[0], parts[1], b64.EncodeToString(append(raw, 0))))

	for name := range payload {
		if name == "auth_time" {
			continue
		}
		why := "claim " + name
		claimed("invalid", why, "no "+name, payload.without(name))
		claimed("invalid", why, "null "+name, payload.with(name, nil))
		claimed("invalid", why, "another case of "+name, payload.without(name).with(strings.ToUpper(name), payload[name]))
		if _, ok := payload[name].(string); ok {
			claimed("invalid", why, "empty "+name, payload.with(name, ""))
		}
	}

	const read = "can't be read"
	claimed("invalid", read, "exp a string", payload.with("exp", "1893553445"))
	claimed("invalid", read, "exp with a fraction", payload.with("exp", json.RawMessage("1893553445.5")))
	claimed("invalid", read, "exp with an exponent", payload.with("exp", json.RawMessage("1e12")))
	claimed("invalid", read, "exp too large for 64 bits", payload.with("exp", json.RawMessage("9223372036854775808")))
	claimed("invalid", read, "a list of audiences", payload.with("aud", []string{"kwai", "other"}))
	add("invalid", read, "sub twice", sign(key, header.String(), strings.Replace(payload.String(), "{", `{"sub":"root",`, 1)))
	add("invalid", read, "claims no object", sign(key, header.String(), `[]`))
	add("invalid", read, "claims no JSON", sign(key, header.String(), payload.String()+"}"))
	add("invalid", read, "no claims", sign(key, header.String(), ""))
	add("invalid", "missing", "claims null", sign(key, header.String(), "null"))

	const out = "out of range"
	claimed("invalid", out, "exp that wraps around", payload.with("exp", int64(1<<63-1)))
	claimed("invalid", out, "exp after the year 9999", payload.with("exp", int64(253402300800)))
	claimed("invalid", out, "iat before 1970", payload.with("iat", -1))
	claimed("invalid", out, "nbf that wraps around", payload.with("nbf", int64(1<<63-1)))
	claimed("invalid", out, "auth_time before 1970", payload.with("auth_time", -1))

	claimed("invalid", "issuer", "another issuer", payload.with("iss", "https://other.example"))
	claimed("invalid", "issuer", "issuer with a slash more", payload.with("iss", exampleIssuer+"/"))
	claimed("invalid", "audience", "another audience", payload.with("aud", "other"))
	claimed("invalid", "audience", "audience in capitals", payload.with("aud", "KWAI"))
	claimed("invalid", "issuer", "another issuer, and expired", payload.with("iss", "https://other.example").with("exp", at(-time.Hour)))
	claimed("invalid", "future", "issued too far ahead", payload.with("iat", at(61*time.Second)))
	claimed("invalid", "not valid yet", "not before too far ahead", payload.with("nbf", at(61*time.Second)))

	const jwt = "not a signed JWT"
	spare := payload.String() + strings.Repeat(" ", 3-(len(payload.String())+2)%3) // one byte over a multiple of 3
	spaced := strings.Split(sign(key, header.String(), spare), ".")
	add("invalid", jwt, "empty", "")
	add("invalid", head, "dots", "..")
	add("invalid", jwt, "two parts", join(parts[0], parts[1]))
	add("invalid", jwt, "four parts", plain+".")
	add("invalid", jwt, "five parts", plain+".."+parts[2])
	add("invalid", jwt, "with its scheme", "Bearer "+plain)
	add("invalid", jwt, "space behind", plain+" ")
	add("invalid", jwt, "line break behind", plain+"\n")
	add("invalid", jwt, "line break within", plain[:40]+"\r\n"+plain[40:])
	add("invalid", jwt, "padding", plain+"==")
	add("invalid", jwt, "standard alphabet", join(parts[0], parts[1], "++//"+parts[2][4:]))
	add("invalid", jwt, "claims respelled", join(spaced[0], respell(spaced[1]), spaced[2]))
	add("invalid", jwt, "signature respelled", join(parts[0], parts[1], respell(parts[2])))
	add("invalid", jwt, "JSON serialisation", object{"protected": parts[0], "payload": parts[1], "signature": parts[2]}.String())
	add("invalid", jwt, "a refresh token", fixedRing(t).Refresh(uuid.UUID{1}, 1))
	add("invalid", "too long", "a byte too long", strings.Repeat("A", verify.MaxSize+1))
	add("invalid", "too long", "signed, but too long", sign(key, header.String(), payload.String()+fill+" "))

	slices.SortFunc(all, func(a, b vector) int { return strings.Compare(a.Name, b.Name) }) // maps have no order
	text, err := json.MarshalIndent(object{
		"issuer": exampleIssuer, "audience": "kwai", "now": now,
		"jwks": jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
			jwk(key, "new", "sig", "ES256"), jwk(old, "old", "", ""), jwk(other, "enc", "enc", ""),
			jwk(key, "alg", "sig", "ES384"), jwk(testKey(elliptic.P384(), "p384"), "p384", "sig", ""),
			{Key: []byte("shared"), KeyID: "oct"},
		}},
		"tokens": all,
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}
