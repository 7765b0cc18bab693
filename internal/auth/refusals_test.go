package auth_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/auth"
)

// Refusals are counted by account, network and hour.
func TestRefusalsAreCountedByTheHour(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits = auth.Defaults.Limits
		s.Settings.Limits.Free, s.Settings.Limits.FirstWait, s.Settings.Limits.LongestWait = 1, 24*time.Hour, 24*time.Hour
		s.user(t, ann)
		hour := c.now()
		c.set(hour.Add(59*time.Minute + 50*time.Second))
		try := func(address, email string, want auth.Code) {
			t.Helper()
			if _, err := s.Login(from(t.Context(), address), email, "wrong"); auth.CodeOf(err) != want {
				t.Fatalf("a login to %s from %s: %v", email, address, err)
			}
		}
		try("192.0.2.1", ann, auth.Unauthenticated)
		try("192.0.2.1", "nobody@example.org", auth.Unauthenticated)
		try("192.0.2.2", ann, auth.Throttled)
		try("192.0.2.3", "ANN@example.org ", auth.Throttled)
		try("198.51.100.1", ann, auth.Throttled)
		try("198.51.100.1", "nobody@example.org", auth.Throttled)
		ok(t, s.WriteRefusals(t.Context()))
		try("192.0.2.4", ann, auth.Throttled)
		c.set(hour.Add(time.Hour - time.Microsecond))
		try("192.0.2.4", ann, auth.Throttled)
		c.set(hour.Add(time.Hour))
		try("192.0.2.4", ann, auth.Throttled)
		ok(t, s.WriteRefusals(t.Context()))
		ok(t, s.WriteRefusals(t.Context())) // nothing is left
		counts := func(since time.Time, email string) map[string]int64 {
			m := make(map[string]int64)
			for _, e := range s.trail(t, since, email) {
				if e.Kind == auth.TraceThrottled {
					m[e.At.Sub(hour).String()+" "+e.Email+" "+e.Address] += e.Count
					m["entries"]++
				}
			}
			return m
		}
		all := map[string]int64{
			"0s " + ann + " 192.0.2.0/24": 4, "0s " + ann + " 198.51.100.0/24": 1, "0s  198.51.100.0/24": 1, "1h0m0s " + ann + " 192.0.2.0/24": 1, "entries": 4,
		}
		anns := maps.Clone(all)
		delete(anns, "0s  198.51.100.0/24")
		anns["entries"] = 3
		late := map[string]int64{"1h0m0s " + ann + " 192.0.2.0/24": 1, "entries": 1}
		for _, tt := range []struct {
			since time.Time
			email string
			want  map[string]int64
		}{
			{time.Time{}, "", all},
			{hour.Add(time.Hour - time.Microsecond), "", all}, // the whole hour that it is in
			{hour.Add(time.Hour), "", late},
			{hour.Add(2 * time.Hour), "", map[string]int64{}},
			{hour, ann, anns},
		} {
			if diff := cmp.Diff(tt.want, counts(tt.since, tt.email)); diff != "" {
				t.Errorf("since %v of %q (-want +got):\n%s", tt.since, tt.email, diff)
			}
		}
	})
}

// A recovery that isn't mailed, since one was just before, is counted as refused.
func TestThrottledRecoveriesAreCounted(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits = auth.Defaults.Limits
		s.user(t, ann)
		began := c.now()
		for range 3 {
			c.advance(time.Second)
			ok(t, s.Recover(from(t.Context(), "192.0.2.1"), ann))
			must(s.TakeRecoveries(t.Context()))(t)
		}
		ok(t, s.WriteRefusals(t.Context()))
		c.advance(time.Second)
		got := make(map[string]int64)
		for _, e := range s.trail(t, began, ann) {
			got[e.Kind] += max(e.Count, 1)
		}
		if want := map[string]int64{"user.created": 1, "user.recovery": 1, "throttled": 2}; !maps.Equal(got, want) {
			t.Errorf("recorded %v, want %v", got, want)
		}
	})
}

// A flood from ever other networks fills no memory: what is above the bound is
// counted together.
func TestRefusalsThatWaitAreBounded(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.Settings.Limits = auth.Defaults.Limits
		s.Settings.Limits.Free, s.Settings.Limits.FirstWait, s.Settings.Limits.LongestWait = 1, 24*time.Hour, 24*time.Hour
		const more = 50
		_, err := s.Login(from(t.Context(), "192.0.2.1"), ann, "wrong")
		wantErr(t, "the one that is allowed", err, auth.ErrCredentials)
		for i := range auth.MaxRefusals + more {
			if _, err := s.Login(from(t.Context(), fmt.Sprintf("10.%d.%d.1", i/256, i%256)), ann, "wrong"); auth.CodeOf(err) != auth.Throttled {
				t.Fatal(err)
			}
		}
		if n := s.WaitingRefusals(); n > auth.MaxRefusals+1 {
			t.Errorf("%d counts wait, want %d and that of all others at most", n, auth.MaxRefusals)
		}
		ok(t, s.WriteRefusals(t.Context()))
		total, together := int64(0), int64(0)
		for _, e := range s.trail(t, time.Time{}, "") {
			if total += e.Count; e.Count > 0 && e.Address == "" {
				together += e.Count
			}
		}
		if total != auth.MaxRefusals+more || together != more {
			t.Errorf("%d refusals are counted, %d of them together; want %d and %d", total, together, auth.MaxRefusals+more, more)
		}
	})
}
