package token_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"kwai/internal/token"
)

func TestRecoveryID(t *testing.T) {
	t.Parallel()
	ring := newRing(t)
	rapid.Check(t, func(t *rapid.T) {
		request := rapid.String().Draw(t, "request")
		id, err := ring.RecoveryID(ring.RecoveryKey(), request)
		if err != nil {
			t.Fatal(err)
		}
		u, err := uuid.Parse(id)
		if err != nil || u.String() != id {
			t.Fatalf("%s is no canonical UUID: %v", id, err)
		}
		if u.Version() != 4 || u.Variant() != uuid.RFC4122 {
			t.Fatalf("%s has version %v and variant %v", id, u.Version(), u.Variant())
		}
		if !token.ValidRecoveryID(id) {
			t.Fatalf("%s is not valid", id)
		}
		other := rapid.String().Draw(t, "other")
		again, err := ring.RecoveryID(ring.RecoveryKey(), other)
		if err != nil {
			t.Fatal(err)
		}
		if (again == id) != (other == request) {
			t.Fatalf("request %q has %s, request %q %s", request, id, other, again)
		}
	})
}

// TestRecoveryFormat fixes what must not change while mails are under way.
func TestRecoveryFormat(t *testing.T) {
	t.Parallel()
	ring := fixedRing(t)
	id, err := ring.RecoveryID("01020304", "request")
	if err != nil {
		t.Fatal(err)
	}
	if id != goldenRecovery {
		t.Errorf("got the id %s, want %s", id, goldenRecovery)
	}
	if got := hex.EncodeToString(token.HashRecoveryID(id)); got != goldenRecoveryHash {
		t.Errorf("got the hash %s, want %s", got, goldenRecoveryHash)
	}
	if got := ring.DecoyFraction("a@example.org"); got != goldenDecoy {
		t.Errorf("got the fraction %v, want %v", got, goldenDecoy)
	}
}

func TestRecoveryIDUnknownKey(t *testing.T) {
	t.Parallel()
	ring := newRing(t)
	for _, key := range []string{"", "00000000", ring.RecoveryKey() + "0", ring.RecoveryKey()[1:], strings.Repeat("0", 1000), "0102030G"} {
		if id, err := ring.RecoveryID(key, "request"); err == nil {
			t.Errorf("key %q gave %s", key, id)
		}
	}
}

func TestValidRecoveryID(t *testing.T) {
	t.Parallel()
	const good = "0b9f3d3c-6a44-4b0e-9d2a-6f1f4c1d8e21"
	for id, want := range map[string]bool{
		good: true, "00000000-0000-4000-8000-000000000000": true, "ffffffff-ffff-4fff-bfff-ffffffffffff": true,
		"": false, good[1:]: false, good + "0": false, " " + good[1:]: false, good[:35] + "\n": false,
		strings.ToUpper(good): false, "{" + good + "}": false, "urn:uuid:" + good: false,
		strings.ReplaceAll(good, "-", ""): false, strings.ReplaceAll(good, "-", "_"): false,
		"0b9f3d3c-6a44-4b0e-9d2a-6f1f4c1d8e2g": false, "0b9f3d3c-6a44-4b0e-9d2a-6f1f4c1d8e2/": false,
		"0b9f3d3c-6a44-4b0e-9d2a-6f1f4c1d8e2`": false, "0b9f3d3c-6a44-4b0e-9d2a-6f1f4c1d8e2:": false,
		"0b9f3d3c-6a44-1b0e-9d2a-6f1f4c1d8e21": false, // version 1
		"0b9f3d3c-6a44-7b0e-9d2a-6f1f4c1d8e21": false, // version 7
		"0b9f3d3c-6a44-4b0e-7d2a-6f1f4c1d8e21": false, // other variants
		"0b9f3d3c-6a44-4b0e-cd2a-6f1f4c1d8e21": false,
		"00000000-0000-0000-0000-000000000000": false,
		"0b9f3d3c6-a44-4b0e-9d2a-6f1f4c1d8e21": false, // a dash out of place
	} {
		if got := token.ValidRecoveryID(id); got != want {
			t.Errorf("%q: got %t", id, got)
		}
	}
}

func TestDecoyFraction(t *testing.T) {
	t.Parallel()
	ring := newRing(t)
	const n, buckets = 4000, 8
	var count [buckets]int
	for i := range n {
		f := ring.DecoyFraction(uuid.UUID{byte(i), byte(i >> 8)}.String())
		if f < 0 || f >= 1 {
			t.Fatalf("%v is not in [0, 1)", f)
		}
		count[int(f*buckets)]++
	}
	for i, c := range count { // 500 each; the standard deviation is 21
		if c < 350 || c > 650 {
			t.Errorf("%d of %d addresses fell into part %d of %d", c, n, i, buckets)
		}
	}
}
