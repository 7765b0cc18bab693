package token_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kwai/internal/token"
)

// TestKeyStatuses moves a clock, also back, over keys that become active at 100,
// 200 and 300, and whose makings live for 50.
func TestKeyStatuses(t *testing.T) {
	t.Parallel()
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	key := func(p token.Purpose, n int) token.Key {
		return token.Key{ID: fmt.Sprint(p, n), Purpose: p, CreatedAt: at(n - 10), ActiveAt: at(n)}
	}
	keys := []token.Key{
		key(token.Sign, 300), key(token.Sign, 100), key(token.Sign, 200), {ID: "later", Purpose: "later"},
		key(token.MAC, 200), key(token.MAC, 100),
	}
	l := token.Lifetimes{Sign: 50 * time.Second, MAC: 150 * time.Second}
	for _, test := range []struct {
		now       int
		sign, mac string // the latest first
	}{
		{0, "next next active", "next active"}, // the clock stands before all
		{100, "next next active", "next active"},
		{199, "next next active", "next active"},
		{200, "next active retired", "active retired"},
		{249, "next active retired", "active retired"},
		{250, "next active expired", "active retired"},
		{300, "active retired expired", "active retired"},
		{350, "active expired expired", "active expired"},
		{86_400, "active expired expired", "active expired"},
		{205, "next active retired", "active retired"}, // put right
		{150, "next next active", "next active"},
	} {
		got := map[token.Purpose][]string{}
		for _, s := range token.KeyStatuses(keys, at(test.now), l) {
			got[s.Purpose] = append(got[s.Purpose], string(s.State))
			want := map[string]time.Time{"sign100": at(250), "sign200": at(350), "mac100": at(350)}[s.ID]
			if !s.Until.Equal(want) {
				t.Errorf("at %d: %s until %v, want %v", test.now, s.ID, s.Until, want)
			}
		}
		if sign, mac := strings.Join(got[token.Sign], " "), strings.Join(got[token.MAC], " "); sign != test.sign || mac != test.mac || len(got) != 2 {
			t.Errorf("at %d: sign %q, mac %q, want %q, %q", test.now, sign, mac, test.sign, test.mac)
		}
	}
}

// TestKeyringFollowsStates holds what each state allows.
func TestKeyringFollowsStates(t *testing.T) {
	t.Parallel()
	m := newMaster(t)
	l := token.Lifetimes{Sign: time.Hour, MAC: time.Hour}
	begin := time.Unix(1_000_000, 0)
	var keys []token.Key
	for i := range 4 {
		for _, p := range []token.Purpose{token.Sign, token.MAC} {
			key := newKey(t, m, p, begin.Add(time.Duration(i)*2*time.Hour))
			keys = append(keys, key)
		}
	}
	keys = append(keys, newKey(t, m, token.Decoy, begin))
	// The third is active: the first has expired, the second is retired.
	now := begin.Add(4*time.Hour + time.Minute)
	ring, err := m.OpenKeyring(token.KeyStatuses(keys, now, l), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, key := range ring.JWKS().Keys {
		got = append(got, key.KeyID)
	}
	if want := []string{keys[4].ID, keys[6].ID, keys[2].ID}; !slices.Equal(got, want) {
		t.Errorf("the key set is %v, want the third key, the next and the retired one: %v", got, want)
	}
	if ring.RecoveryKey() != keys[5].ID {
		t.Errorf("recoveries are made with %s, want the third key", ring.RecoveryKey())
	}
	for i, accepted := range []bool{false, true, true, true} {
		alone := openRing(t, m, keys[2*i], keys[2*i+1])
		refresh := alone.Refresh([16]byte{1}, 1)
		if _, _, err := ring.ParseRefresh(refresh); (err == nil) != accepted || err == token.ErrRefreshKey { //nolint:errorlint // an expired key is not unknown
			t.Errorf("a refresh token of key %d: error %v", i+1, err)
		}
		access, err := alone.Sign(claimsAt(time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		if ring.Expired(access) == accepted {
			t.Errorf("an access token of key %d: is its key known as expired? %t", i+1, ring.Expired(access))
		}
	}
	if ring.Expired("") || ring.Expired("x.") || ring.Expired("no dot") {
		t.Error("what is no token names an expired key")
	}

	// What it holds is opened once: also if it is sealed otherwise since.
	other := newMaster(t)
	if _, err := other.OpenKeyring(token.KeyStatuses(keys, now, l), ring); err != nil {
		t.Errorf("keys that were open are opened again: %v", err)
	}
	fewer, err := m.OpenKeyring(token.KeyStatuses(slices.Delete(slices.Clone(keys), 6, 7), now, l), ring)
	if err != nil {
		t.Fatal(err)
	}
	if fewer.Covers(ring) || !ring.Covers(fewer) || !ring.Covers(ring) {
		t.Error("a keyring without a key covers one with it, or not the other way")
	}
}
