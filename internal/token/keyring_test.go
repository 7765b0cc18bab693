package token_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"kwai/internal/token"
	"kwai/verify"
)

const exampleIssuer = "https://login.example.org"

func claimsAt(now time.Time) verify.Claims {
	now = now.UTC().Truncate(time.Second)
	return verify.Claims{
		Issuer:    exampleIssuer,
		Audience:  "kwai",
		Subject:   "0b9f3d3c-6a44-4b0e-9d2a-6f1f4c1d8e21",
		ClientID:  "kwai",
		SessionID: "f3b1b8de-0c57-4a3b-8f54-2f5d3a9c7b10",
		ID:        "7c1e9a52-93de-4d5f-b1f0-5a0c6e2d4b38",
		IssuedAt:  now,
		ExpiresAt: now.Add(time.Hour),
		AuthTime:  now.Add(-time.Hour),
	}
}

// payloadAt is what claimsAt must look like in a token.
func payloadAt(now time.Time) object {
	c := claimsAt(now)
	return object{
		"iss": c.Issuer, "aud": c.Audience, "sub": c.Subject, "client_id": c.ClientID, "sid": c.SessionID, "jti": c.ID,
		"iat": c.IssuedAt.Unix(), "exp": c.ExpiresAt.Unix(), "auth_time": c.AuthTime.Unix(),
	}
}

func newMaster(t testing.TB) *token.Master {
	t.Helper()
	m, err := token.ParseMaster([]byte(token.NewMasterKey()))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newKey(t testing.TB, m *token.Master, p token.Purpose, created time.Time) token.Key {
	t.Helper()
	key, err := m.NewKey(p, created)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// opening is after all keys' times, before any has expired.
var (
	opening = time.Unix(2000, 0)
	lives   = token.Lifetimes{Sign: time.Hour, MAC: 30 * 24 * time.Hour}
)

// openRing opens keys, and a decoy key of its own if there is none among them.
func openRing(t testing.TB, m *token.Master, keys ...token.Key) *token.Keyring {
	t.Helper()
	if !slices.ContainsFunc(keys, func(key token.Key) bool { return key.Purpose == token.Decoy }) {
		keys = append(slices.Clone(keys), newKey(t, m, token.Decoy, time.Unix(1, 0)))
	}
	ring, err := m.OpenKeyring(token.KeyStatuses(keys, opening, lives), nil)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func newRing(t testing.TB) *token.Keyring {
	m := newMaster(t)
	return openRing(t, m, newKey(t, m, token.Sign, time.Unix(1, 0)), newKey(t, m, token.MAC, time.Unix(1, 0)))
}

// fixedRing has keys that never change, so that formats can be pinned.
func fixedRing(t testing.TB) *token.Keyring {
	m := newMaster(t)
	seal := func(p token.Purpose, id string, plain []byte) token.Key {
		sealed, err := m.Seal(plain, fmt.Sprintf("kwai server key/%s/%s", p, id))
		if err != nil {
			t.Fatal(err)
		}
		return token.Key{ID: id, Purpose: p, Sealed: sealed}
	}
	return openRing(t, m,
		seal(token.Sign, "kid", bytes.Repeat([]byte{1}, 32)), seal(token.MAC, "01020304", bytes.Repeat([]byte{2}, 32)), seal(token.Decoy, "05060708", bytes.Repeat([]byte{3}, 32)))
}

func decode(t *testing.T, part string) map[string]any {
	t.Helper()
	raw, err := b64.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSign(t *testing.T) {
	t.Parallel()
	ring, now := newRing(t), time.Now()
	text, err := ring.Sign(claimsAt(now))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(text, ".")
	header := map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": ring.JWKS().Keys[0].KeyID}
	if diff := cmp.Diff(header, decode(t, parts[0])); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	want := decode(t, b64.EncodeToString([]byte(payloadAt(now).String())))
	if diff := cmp.Diff(want, decode(t, parts[1])); diff != "" {
		t.Errorf("payload (-want +got):\n%s", diff)
	}
	v := verify.Verifier{Issuer: exampleIssuer, Audience: "kwai", Keys: ring.JWKS()}
	got, err := v.Verify(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(claimsAt(now), *got); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	ring := newRing(t)
	for name, spoil := range map[string]func(*verify.Claims){
		"iss": func(c *verify.Claims) { c.Issuer = "" },
		"aud": func(c *verify.Claims) { c.Audience = "" },
		"sub": func(c *verify.Claims) { c.Subject = "" },
		"cli": func(c *verify.Claims) { c.ClientID = "" },
		"sid": func(c *verify.Claims) { c.SessionID = "" },
		"jti": func(c *verify.Claims) { c.ID = "" },
		"iat": func(c *verify.Claims) { c.IssuedAt = time.Time{} },
		"exp": func(c *verify.Claims) { c.ExpiresAt = time.Time{} },
		"big": func(c *verify.Claims) { c.Issuer = strings.Repeat("i", verify.MaxSize) },
	} {
		c := claimsAt(time.Now())
		spoil(&c)
		if text, err := ring.Sign(c); err == nil {
			t.Errorf("without %s: signed %s", name, text)
		}
	}
}

// TestKeyRotation follows the tokens of an old keyring into one with new keys.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	m := newMaster(t)
	at := time.Unix(1000, 0)
	sign1, mac1 := newKey(t, m, token.Sign, at), newKey(t, m, token.MAC, at)
	sign2, mac2 := newKey(t, m, token.Sign, at.Add(1)), newKey(t, m, token.MAC, at.Add(1))
	decoy := newKey(t, m, token.Decoy, at)
	future := token.Key{ID: "x", Purpose: "later", CreatedAt: at.Add(2)}
	before, after := openRing(t, m, sign1, mac1, decoy), openRing(t, m, mac1, sign1, future, mac2, sign2, decoy)
	gone := openRing(t, m, sign2, mac2)
	session := uuid.New()
	verifies := func(ring *token.Keyring, text string) bool {
		v := verify.Verifier{Issuer: exampleIssuer, Audience: "kwai", Keys: ring.JWKS()}
		_, err := v.Verify(text)
		return err == nil
	}
	parses := func(ring *token.Keyring, text string) bool {
		_, _, err := ring.ParseRefresh(text)
		return err == nil
	}
	oldAccess, err := before.Sign(claimsAt(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	newAccess, err := after.Sign(claimsAt(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	oldID, err := before.RecoveryID(before.RecoveryKey(), "request")
	if err != nil {
		t.Fatal(err)
	}
	sameID, err := after.RecoveryID(before.RecoveryKey(), "request")
	if err != nil {
		t.Fatal(err)
	}
	newID, err := after.RecoveryID(after.RecoveryKey(), "request")
	if err != nil {
		t.Fatal(err)
	}
	_, lost := gone.RecoveryID(before.RecoveryKey(), "request")
	for name, ok := range map[string]bool{
		"an old access token verifies":            verifies(after, oldAccess),
		"the newest key signs":                    !verifies(before, newAccess),
		"a key that is gone verifies nothing":     !verifies(gone, oldAccess),
		"the signing key stands first":            after.JWKS().Keys[0].KeyID == sign2.ID && len(after.JWKS().Keys) == 2,
		"an old refresh token parses":             parses(after, before.Refresh(session, 1)),
		"the newest key makes refresh tokens":     !parses(before, after.Refresh(session, 1)),
		"a key that is gone parses nothing":       !parses(gone, before.Refresh(session, 1)),
		"the newest key makes recovery ids":       after.RecoveryKey() == mac2.ID,
		"a recovery id stays under its key":       oldID == sameID,
		"another key makes another recovery id":   oldID != newID,
		"a key that is gone makes no recovery id": lost != nil,
		"a new key changes no decoy":              before.DecoyFraction("a@example.org") == after.DecoyFraction("a@example.org"),
		"another decoy key does":                  before.DecoyFraction("a@example.org") != gone.DecoyFraction("a@example.org"),
	} {
		if !ok {
			t.Errorf("not so: %s", name)
		}
	}
}

func TestJWKSHoldsNoSecret(t *testing.T) {
	t.Parallel()
	keys := newRing(t).JWKS()
	for _, k := range keys.Keys {
		if !k.IsPublic() || k.Use != "sig" || k.Algorithm != "ES256" {
			t.Errorf("key %s is not a public key for ES256 signatures: public %t, use %q, alg %q", k.KeyID, k.IsPublic(), k.Use, k.Algorithm)
		}
	}
}

func TestOpenKeyringRefuses(t *testing.T) {
	t.Parallel()
	m, at := newMaster(t), time.Unix(1000, 0)
	sign, mac, decoy := newKey(t, m, token.Sign, at), newKey(t, m, token.MAC, at), newKey(t, m, token.Decoy, at)
	reseal := func(k token.Key, plain string) token.Key {
		var err error
		if k.Sealed, err = m.Seal([]byte(plain), fmt.Sprintf("kwai server key/%s/%s", k.Purpose, k.ID)); err != nil {
			t.Fatal(err)
		}
		return k
	}
	under := func(k token.Key, id string) token.Key { k.ID = id; return k }
	for _, test := range []struct {
		name, id string // id is what the error must name
		keys     []token.Key
		noMaster bool
	}{
		{"no signing key", "signs", []token.Key{mac, decoy}, false},
		{"no MAC key", "for MACs", []token.Key{sign, decoy}, false},
		{"no decoy key", "for decoys", []token.Key{sign, mac}, false},
		{"a decoy key that is none", decoy.ID, []token.Key{sign, mac, reseal(decoy, "short")}, false},
		{"sealed by another master", mac.ID, []token.Key{sign, newForeign(t, mac)}, true},
		{"under another id", "ffffffff", []token.Key{sign, under(mac, "ffffffff")}, true},
		{"for another purpose", mac.ID, []token.Key{sign, {ID: mac.ID, Purpose: token.Sign, Sealed: mac.Sealed}}, true},
		{"nothing sealed", mac.ID, []token.Key{sign, {ID: mac.ID, Purpose: token.MAC}}, true},
		{"a signing key twice", sign.ID, []token.Key{sign, sign, mac}, false},
		{"a MAC key twice", mac.ID, []token.Key{sign, mac, mac}, false},
		{"a signing key that is none", sign.ID, []token.Key{reseal(sign, "short"), mac}, false},
		{"a MAC key that is none", mac.ID, []token.Key{sign, reseal(mac, "short")}, false},
		{"a MAC key's id in capitals", "0102030A", []token.Key{sign, reseal(under(mac, "0102030A"), strings.Repeat("k", 32))}, false},
	} {
		_, err := m.OpenKeyring(token.KeyStatuses(test.keys, opening, lives), nil)
		if err == nil || !strings.Contains(err.Error(), test.id) || errors.Is(err, token.ErrNoMaster) != test.noMaster {
			t.Errorf("%s: got error %v", test.name, err)
		}
	}
}

// newForeign returns the key sealed under a master key of somebody else.
func newForeign(t *testing.T, k token.Key) token.Key {
	k.Sealed = newKey(t, newMaster(t), k.Purpose, k.CreatedAt).Sealed
	return k
}

func TestNewKeyRefusesOtherPurposes(t *testing.T) {
	t.Parallel()
	if key, err := newMaster(t).NewKey("later", time.Now()); err == nil {
		t.Errorf("made %+v", key)
	}
}

func BenchmarkSign(b *testing.B) {
	ring, claims := newRing(b), claimsAt(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ring.Sign(claims); err != nil {
			b.Fatal(err)
		}
	}
}
