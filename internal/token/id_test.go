package token_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"kwai/internal/token"
)

// ringForApps is a keyring with more keys than it must have.
func ringForApps(t *testing.T, m *token.Master, more ...token.Key) *token.Keyring {
	t.Helper()
	at := time.Unix(1, 0)
	keys := []token.Key{newKey(t, m, token.Sign, at), newKey(t, m, token.MAC, at), newKey(t, m, token.Decoy, at)}
	ring, err := m.OpenKeyring(token.KeyStatuses(append(keys, more...), opening, token.Lifetimes{Sign: time.Hour, MAC: time.Hour, ID: time.Hour}), nil)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// Without a key there are no ID tokens, and nothing can be sealed; all else works.
func TestWithoutKeysOfApps(t *testing.T) {
	t.Parallel()
	ring := newRing(t)
	if _, err := ring.SignID("JWT", nil); !errors.Is(err, token.ErrNoKey) {
		t.Errorf("an ID token: %v", err)
	}
	if _, err := ring.Seal("label", nil); !errors.Is(err, token.ErrNoKey) {
		t.Errorf("a seal: %v", err)
	}
	if _, ok := ring.OpenSealed("label", "01020304.xyz"); ok || ring.OpenID("x.y.z", new(object)) {
		t.Error("something opens")
	}
}

// An ID token is signed by the active key, and read by each that is published. EC keys
// come first in the key set, which holds no secret.
func TestIDTokens(t *testing.T) {
	t.Parallel()
	m := newMaster(t)
	gone, old, now := newKey(t, m, token.ID, opening.Add(-3*time.Hour)), newKey(t, m, token.ID, opening.Add(-2*time.Hour)), newKey(t, m, token.ID, opening.Add(-time.Minute))
	sign := func(ring *token.Keyring, kind string) string {
		t.Helper()
		text, err := ring.SignID(kind, object{"sub": "ann"})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	ring := ringForApps(t, m, gone, old, now)
	text := sign(ring, "JWT")
	set := ring.JWKS()
	var algorithms []string
	for _, key := range set.Keys {
		algorithms = append(algorithms, key.Algorithm+" "+key.Use)
		if !key.IsPublic() || !key.Valid() {
			t.Errorf("key %s is no public key", key.KeyID)
		}
	}
	if !slices.Equal(algorithms, []string{"ES256 sig", "RS256 sig", "RS256 sig"}) || set.Keys[1].KeyID != now.ID || set.Keys[2].KeyID != old.ID {
		t.Errorf("published: %v", algorithms)
	}
	if len(ring.AccessKeys().Keys) != 1 {
		t.Error("an ID key verifies access tokens")
	}
	for _, test := range []struct {
		what, text string
		want       bool
	}{
		{"the active key's", text, true},
		{"a retired key's", sign(ringForApps(t, m, old), "JWT"), true},
		{"an expired key's", sign(ringForApps(t, m, gone), "JWT"), false},
		{"a logout token", sign(ring, "logout+jwt"), false},
		{"without a signature", text[:strings.LastIndexByte(text, '.')+1], false},
		{"changed", strings.Replace(text, ".", ".A", 1), false},
		{"of another serialization", fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, strings.Split(text, ".")[1], strings.Split(text, ".")[0], strings.Split(text, ".")[2]), false},
		{"too long", text + strings.Repeat("A", 16<<10), false},
		{"nothing", "", false},
	} {
		var claims object
		if got := ring.OpenID(test.text, &claims); got != test.want || got && claims["sub"] != "ann" {
			t.Errorf("%s opens: %v, %v", test.what, got, claims)
		}
	}
	other := newMaster(t)
	if ring.OpenID(sign(ringForApps(t, other, newKey(t, other, token.ID, opening)), "JWT"), new(object)) {
		t.Error("another server's opens")
	}
	// The public key isn't taken for a secret.
	public, err := x509.MarshalPKIXPublicKey(set.Keys[1].Key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: public}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", now.ID))
	if err != nil {
		t.Fatal(err)
	}
	forged, err := signer.Sign([]byte(`{"sub":"ann"}`))
	if err != nil {
		t.Fatal(err)
	}
	if compact, err := forged.CompactSerialize(); err != nil || ring.OpenID(compact, new(object)) {
		t.Errorf("a MAC by the public key opens; %v", err)
	}
}

// What was sealed opens under its label and its key alone, and isn't twice the same.
func TestSealed(t *testing.T) {
	t.Parallel()
	m := newMaster(t)
	key := newKey(t, m, token.Seal, time.Unix(1, 0))
	ring := ringForApps(t, m, key)
	seal := func() string {
		t.Helper()
		text, err := ring.Seal("label", []byte("what is sealed"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	text := seal()
	if text == seal() {
		t.Error("two seals are the same")
	}
	for of, want := range map[string]bool{text: false, "01020304." + text[9:]: true, "nonsense.": false, "": false} {
		if got := ring.LacksSeal(of); got != want {
			t.Errorf("the key of %q is lacking: %v", of, got)
		}
	}
	if plain, ok := ringForApps(t, m, key).OpenSealed("label", text); !ok || string(plain) != "what is sealed" {
		t.Errorf("it opens: %v, %q", ok, plain)
	}
	for i := range text {
		changed := []byte(text)
		changed[i] ^= 1
		if _, ok := ring.OpenSealed("label", string(changed)); ok {
			t.Errorf("it opens with another letter at %d", i)
		}
	}
	for what, other := range map[string]string{"shorter": text[:len(text)-1], "longer": text + "A", "with a line break": text + "\n", "without its key": text[9:], "nothing": ""} {
		if _, ok := ring.OpenSealed("label", other); ok {
			t.Errorf("it opens, %s", what)
		}
	}
	if _, ok := ring.OpenSealed("another label", text); ok {
		t.Error("it opens under another label")
	}
	if _, ok := ringForApps(t, m, newKey(t, m, token.Seal, time.Unix(1, 0))).OpenSealed("label", text); ok {
		t.Error("it opens with another key")
	}
}

// A token of one kind is none of another.
func TestNumberedTokensOfOneKind(t *testing.T) {
	t.Parallel()
	ring, id := newRing(t), uuid.New()
	type parse func(string) (uuid.UUID, uint64, error)
	parses := map[string]parse{"refresh": ring.ParseRefresh, "browser": ring.ParseBrowser, "app": ring.ParseAppRefresh}
	for kind, text := range map[string]string{"refresh": ring.Refresh(id, 7), "browser": ring.Browser(id, 7), "app": ring.AppRefresh(id, 7)} {
		for name, parse := range parses {
			got, n, err := parse(text)
			if is := err == nil; is != (kind == name) || is && (got != id || n != 7) {
				t.Errorf("%s as %s: %v, %d, %v", kind, name, got, n, err)
			}
		}
	}
}
