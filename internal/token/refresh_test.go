package token_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"kwai/internal/token"
)

var sessions = rapid.Custom(func(t *rapid.T) uuid.UUID {
	return uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "session"))
})

func refused(ring *token.Keyring, text string) bool {
	session, counter, err := ring.ParseRefresh(text)
	return errors.Is(err, token.ErrRefresh) && session == uuid.UUID{} && counter == 0
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	ring := newRing(t)
	rapid.Check(t, func(t *rapid.T) {
		session, counter := sessions.Draw(t, "session"), rapid.Uint64().Draw(t, "counter")
		text := ring.Refresh(session, counter)
		s, c, err := ring.ParseRefresh(text)
		if err != nil || s != session || c != counter {
			t.Fatalf("%s parsed as %v, %d, %v", text, s, c, err)
		}
		i := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		if b := rapid.Byte().Draw(t, "byte"); b != text[i] {
			if spoiled := text[:i] + string([]byte{b}) + text[i+1:]; !refused(ring, spoiled) {
				t.Fatalf("%q is taken for %q", spoiled, text)
			}
		}
	})
}

func TestRefreshRefuses(t *testing.T) {
	t.Parallel()
	ring := newRing(t)
	good := ring.Refresh(uuid.New(), 7)
	raw, err := b64.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(raw) {
		raw[bit/8] ^= 1 << (bit % 8)
		if !refused(ring, b64.EncodeToString(raw)) {
			t.Errorf("bit %d flipped, and still taken", bit)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	access, err := ring.Sign(claimsAt(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":              "",
		"one short":          good[1:],
		"one long":           good + "A",
		"padding":            good + "====",
		"line break behind":  good + "\n",
		"line breaks within": good[:30] + "\r\n\r\n" + good[34:],
		"space in front":     " " + good,
		"another server's":   newRing(t).Refresh(uuid.New(), 7),
		"an access token":    access,
		"start of a JWT":     access[:len(good)],
		"zeros":              strings.Repeat("A", len(good)),
		"very long":          strings.Repeat(good, 1000),
	} {
		if !refused(ring, text) {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestRefreshFormat fixes what must not change: tokens are out for 90 days.
func TestRefreshFormat(t *testing.T) {
	t.Parallel()
	session := uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff")
	if got := fixedRing(t).Refresh(session, 1<<40+5); got != goldenRefresh {
		t.Errorf("got %s, want %s", got, goldenRefresh)
	}
}

func TestRefreshOtherVersion(t *testing.T) {
	t.Parallel()
	if !refused(fixedRing(t), goldenVersion2) {
		t.Error("a token of a version that doesn't exist is taken")
	}
}

// TestRefreshShort takes a token that ends in a zero byte and puts a line break,
// which decoding passes over, where that byte was.
func TestRefreshShort(t *testing.T) {
	t.Parallel()
	ring, counter := newRing(t), uint64(0)
	text := ring.Refresh(uuid.UUID{}, counter)
	for ; !endsInZero(t, text); counter++ {
		text = ring.Refresh(uuid.UUID{}, counter)
	}
	if !refused(ring, text[:len(text)-1]+"\n") {
		t.Errorf("%s is taken without its last character", text)
	}
}

func endsInZero(t *testing.T, text string) bool {
	t.Helper()
	raw, err := b64.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw[len(raw)-1] == 0
}

func FuzzParseRefresh(f *testing.F) {
	ring := fixedRing(f)
	good := ring.Refresh(uuid.UUID{1}, 7)
	for _, seed := range []string{"", good, good[1:], good + "\n", good[:56] + "\r\n\r\n", strings.Repeat("A", len(good))} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		session, counter, err := ring.ParseRefresh(text)
		if err != nil {
			if !refused(ring, text) {
				t.Errorf("%q is refused, but with %v, %d, %v", text, session, counter, err)
			}
			return
		}
		if again := ring.Refresh(session, counter); again != text {
			t.Errorf("%q is another text of %q", text, again)
		}
	})
}

func BenchmarkParseRefresh(b *testing.B) {
	ring := newRing(b)
	good := ring.Refresh(uuid.New(), 7)
	forged := good[:59] + string(good[59]^1)
	for name, text := range map[string]string{"good": good, "forged": forged, "foreign": newRing(b).Refresh(uuid.New(), 7)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ring.ParseRefresh(text)
			}
		})
	}
}

func BenchmarkRefresh(b *testing.B) {
	ring, session := newRing(b), uuid.New()
	b.ReportAllocs()
	for b.Loop() {
		ring.Refresh(session, 7)
	}
}
