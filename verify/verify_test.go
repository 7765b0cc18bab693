package verify_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"kwai/verify"
)

// testdata/tokens.json is made by TestVectors in internal/token: each token
// differs from a good one in one thing.
type vectors struct {
	Issuer, Audience string
	Now              time.Time
	JWKS             jose.JSONWebKeySet
	Tokens           []struct{ Name, Want, Why, Token string }
}

func load(t testing.TB) vectors {
	t.Helper()
	text, err := os.ReadFile("testdata/tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v vectors) verifier() *verify.Verifier {
	return &verify.Verifier{Issuer: v.Issuer, Audience: v.Audience, Keys: v.JWKS, Now: func() time.Time { return v.Now }}
}

// good returns the token that kwai itself would make.
func (v vectors) good(t testing.TB) string {
	t.Helper()
	for _, token := range v.Tokens {
		if token.Name == "as kwai makes it" {
			return token.Token
		}
	}
	t.Fatal("the vectors lack the good token")
	return ""
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "valid"
	case !errors.Is(err, verify.ErrInvalid):
		return "an error that doesn't match ErrInvalid"
	case errors.Is(err, verify.ErrExpired):
		return "expired"
	case errors.Is(err, verify.ErrUnknownKey):
		return "unknown key"
	}
	return "invalid"
}

func TestVerify(t *testing.T) {
	t.Parallel()
	v := load(t)
	for _, test := range v.Tokens {
		t.Run(test.Name, func(t *testing.T) {
			t.Parallel()
			claims, err := v.verifier().Verify(test.Token)
			if got := outcome(err); got != test.Want {
				t.Fatalf("got %s (%v), want %s", got, err, test.Want)
			}
			if (claims == nil) != (err != nil) {
				t.Errorf("got claims %v with error %v", claims, err)
			}
			if err != nil && !strings.Contains(err.Error(), test.Why) {
				t.Errorf("got error %q, want one about %q", err, test.Why)
			}
		})
	}
}

func TestVerifyClaims(t *testing.T) {
	t.Parallel()
	v := load(t)
	got, err := v.verifier().Verify(v.good(t))
	if err != nil {
		t.Fatal(err)
	}
	want := &verify.Claims{
		Issuer:    "https://login.example.org",
		Audience:  "kwai",
		Subject:   "0b9f3d3c-6a44-4b0e-9d2a-6f1f4c1d8e21",
		ClientID:  "kwai",
		SessionID: "f3b1b8de-0c57-4a3b-8f54-2f5d3a9c7b10",
		ID:        "7c1e9a52-93de-4d5f-b1f0-5a0c6e2d4b38",
		IssuedAt:  time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		ExpiresAt: time.Date(2030, 1, 2, 4, 4, 5, 0, time.UTC),
		AuthTime:  time.Date(2030, 1, 2, 2, 4, 5, 0, time.UTC),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestVerifierRefuses spoils the verifier under a good token.
func TestVerifierRefuses(t *testing.T) {
	t.Parallel()
	v := load(t)
	good := v.good(t)
	for name, test := range map[string]struct {
		want  string // the outcome, or part of the error
		spoil func(*verify.Verifier)
	}{
		"zero":                {"no issuer or no audience", func(v *verify.Verifier) { *v = verify.Verifier{} }},
		"no issuer":           {"no issuer or no audience", func(v *verify.Verifier) { v.Issuer = "" }},
		"no audience":         {"no issuer or no audience", func(v *verify.Verifier) { v.Audience = "" }},
		"no keys":             {"unknown key", func(v *verify.Verifier) { v.Keys.Keys = []jose.JSONWebKey{} }},
		"an id twice":         {"unknown key", func(v *verify.Verifier) { twice(v, v.Keys.Keys[1]) }},
		"a key twice":         {"valid", func(v *verify.Verifier) { twice(v, v.Keys.Keys[0]) }},
		"another issuer":      {"another issuer", func(v *verify.Verifier) { v.Issuer = "https://other.example" }},
		"an issuer's letters": {"in punycode (xn--…)", func(v *verify.Verifier) { v.Issuer = "https://bücher.example" }},
		"another audience":    {"another audience", func(v *verify.Verifier) { v.Audience = "other" }},
		"a fraction before":   {"valid", func(v *verify.Verifier) { at(v, time.Hour-1) }},
		"the end":             {"expired", func(v *verify.Verifier) { at(v, time.Hour) }},
		"a minute early":      {"valid", func(v *verify.Verifier) { at(v, -time.Minute) }},
		"earlier still":       {"in the future", func(v *verify.Verifier) { at(v, -time.Minute-1) }},
		"today's clock":       {clock(v.Now), func(v *verify.Verifier) { v.Now = nil }},
	} {
		verifier := v.verifier()
		test.spoil(verifier)
		_, err := verifier.Verify(good)
		if got := outcome(err); got != test.want && (got != "invalid" || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %s (%v), want %s", name, got, err, test.want)
		}
	}
}

// twice adds a key under the id of the first.
func twice(v *verify.Verifier, key jose.JSONWebKey) {
	key.KeyID = v.Keys.Keys[0].KeyID
	v.Keys.Keys = append(slices.Clone(v.Keys.Keys), key)
}

func at(v *verify.Verifier, d time.Duration) {
	now := v.Now().Add(d)
	v.Now = func() time.Time { return now }
}

// clock tells what a token issued at t for an hour is worth by the real clock.
func clock(t time.Time) string {
	switch age := time.Since(t); {
	case age >= time.Hour:
		return "expired"
	case age >= -time.Minute:
		return "valid"
	}
	return "in the future"
}

func TestClaimsMarshalRefuses(t *testing.T) {
	t.Parallel()
	if text, err := json.Marshal(verify.Claims{Issuer: "https://login.example.org"}); err == nil {
		t.Errorf("incomplete claims became %s", text)
	}
}

// TestImports keeps the package light for other programs.
func TestImports(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		if path != "kwai/verify" && path != "github.com/go-jose/go-jose/v4" && !strings.HasPrefix(path, "github.com/go-jose/go-jose/v4/") {
			t.Errorf("it must not depend on %s", path)
		}
	}
}

// FuzzVerify looks for a text that is taken although nobody signed it.
func FuzzVerify(f *testing.F) {
	v := load(f)
	signed := make(map[string]bool) // what is before the signature, which can be spelt in two ways: s and -s
	for _, test := range v.Tokens {
		f.Add(test.Token)
		if test.Want == "valid" {
			signed[test.Token[:strings.LastIndexByte(test.Token, '.')]] = true
		}
	}
	verifier := v.verifier()
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := verifier.Verify(token)
		switch {
		case err == nil && !signed[token[:strings.LastIndexByte(token, '.')]]:
			t.Errorf("%q is taken, as %+v", token, claims)
		case err != nil && !errors.Is(err, verify.ErrInvalid):
			t.Errorf("%q gives %v, which doesn't match ErrInvalid", token, err)
		}
	})
}
