package token_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kwai/internal/token"
)

func TestParseMaster(t *testing.T) {
	t.Parallel()
	a, b := token.NewMasterKey(), token.NewMasterKey()
	for _, text := range []string{a, a + "\n", "# mine\n\n  " + a + "\t\r\n#" + b, a + "\n" + b} {
		m, err := token.ParseMaster([]byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		sealed, err := m.Seal([]byte("x"), "c")
		if err != nil {
			t.Fatal(err)
		}
		first, err := token.ParseMaster([]byte(a))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := first.Open(sealed, "c"); err != nil {
			t.Errorf("%q: the first key doesn't seal", text)
		}
	}
}

func TestParseMasterRefuses(t *testing.T) {
	t.Parallel()
	key := token.NewMasterKey()
	for name, test := range map[string]struct{ text, want string }{
		"empty":        {"", "no master key"},
		"comments":     {"#" + key + "\n\n", "no master key"},
		"short":        {"# one\n" + base64.StdEncoding.EncodeToString(make([]byte, 31)), "line 2 holds 31 bytes"},
		"long":         {base64.StdEncoding.EncodeToString(make([]byte, 33)), "line 1 holds 33 bytes"},
		"no padding":   {strings.TrimRight(key, "="), "line 1 is not base64"},
		"URL alphabet": {"\n" + strings.Repeat("-", 43) + "=", "line 2 is not base64"},
		"words":        {key + "\n" + key + " mine\n", "line 2 is not base64"},
		"spare bits":   {strings.Repeat("A", 42) + "B=", "line 1 is not base64"},
		"second bad":   {key + "\nsecret!", "line 2 is not base64"},
	} {
		_, err := token.ParseMaster([]byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, test.want)
		} else if strings.Contains(err.Error(), key[:8]) || strings.Contains(err.Error(), "secret!") {
			t.Errorf("%s: the error tells what stood there: %v", name, err)
		}
	}
}

// TestMasterKeys seals under one key and opens after the keys changed.
func TestMasterKeys(t *testing.T) {
	t.Parallel()
	a, b := token.NewMasterKey(), token.NewMasterKey()
	parse := func(text string) *token.Master {
		m, err := token.ParseMaster([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	sealed, err := parse(a).Seal([]byte("plain"), "c")
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := parse(b+"\n"+a).Open(sealed, "c"); err != nil || string(plain) != "plain" {
		t.Errorf("the second key opened %q, %v", plain, err)
	}
	if plain, err := parse(b).Open(sealed, "c"); !errors.Is(err, token.ErrNoMaster) {
		t.Errorf("another key opened %q, %v", plain, err)
	}
}

func TestSeal(t *testing.T) {
	t.Parallel()
	m := newMaster(t)
	rapid.Check(t, func(t *rapid.T) {
		plain, context := rapid.SliceOf(rapid.Byte()).Draw(t, "plain"), rapid.String().Draw(t, "context")
		sealed, err := m.Seal(plain, context)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.Open(sealed, context); err != nil || string(got) != string(plain) {
			t.Fatalf("opened as %x, %v", got, err)
		}
		if again, err := m.Seal(plain, context); err != nil || string(again) == string(sealed) {
			t.Fatal("two seals are the same")
		}
		if other := rapid.String().Draw(t, "other"); other != context {
			if _, err := m.Open(sealed, other); !errors.Is(err, token.ErrNoMaster) {
				t.Fatalf("opened for %q", other)
			}
		}
		if _, err := m.Open(sealed[:rapid.IntRange(0, len(sealed)-1).Draw(t, "cut")], context); !errors.Is(err, token.ErrNoMaster) {
			t.Fatal("opened what was cut")
		}
		bit := rapid.IntRange(0, 8*len(sealed)-1).Draw(t, "bit")
		sealed[bit/8] ^= 1 << (bit % 8)
		if _, err := m.Open(sealed, context); !errors.Is(err, token.ErrNoMaster) {
			t.Fatalf("opened with bit %d flipped", bit)
		}
	})
}

// TestSealFormat opens what an earlier build sealed.
func TestSealFormat(t *testing.T) {
	t.Parallel()
	m, err := token.ParseMaster([]byte(base64.StdEncoding.EncodeToString(make([]byte, 32))))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := base64.StdEncoding.DecodeString(goldenSeal)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := m.Open(sealed, "context"); err != nil || string(plain) != "plain" {
		t.Errorf("opened as %q, %v", plain, err)
	}
}

// TestNothingPrints looks for keys in what a careless log line would show.
func TestNothingPrints(t *testing.T) {
	t.Parallel()
	m, ring := newMaster(t), newRing(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for want, values := range map[string][]any{"token.Master": {m, *m}, "token.Keyring": {ring, *ring}} {
			for _, v := range values {
				if got := fmt.Sprintf(verb, v); got != want {
					t.Errorf("%s of %s prints %s", verb, want, got)
				}
			}
		}
	}
}
