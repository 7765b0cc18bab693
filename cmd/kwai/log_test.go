package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"kwai/internal/database"
	"kwai/internal/store"
)

// Whatever stands in the audit log, what is printed is fit for a terminal, each entry
// in a line of its own.
func TestTheLogObeysNobodysEscapes(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		id := s.user("ann@example.org", "a rather long one")
		db, err := store.Open(t.Context(), database.Options{URL: s.Database})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		err = db.InTx(t.Context(), func(tx *store.Tx) error {
			return tx.Record(store.AuditEntry{
				ID: "ffffffff-ffff-7fff-bfff-ffffffffffff", At: tx.Now, Kind: "session.opened", UserID: id,
				UserAgent: "\x1b[2J\u009b31m\t\u202e\r\nforged\u2028" + strings.Repeat("é", 100),
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{"--since=1h", "--json"} {
			out := s.mustCommand("", "log", flag)
			if !strings.Contains(out, "?[2J?31m????") || !strings.Contains(out, "forged?") {
				t.Errorf("kwai log %s lacks the entry: %q", flag, out)
			}
			for _, r := range strings.ReplaceAll(out, "\n", "") {
				if !unicode.IsGraphic(r) {
					t.Errorf("kwai log %s prints %q", flag, r)
				}
			}
			if strings.Contains(out, "\nforged") {
				t.Errorf("kwai log %s prints a forged line: %q", flag, out)
			}
		}
	})
}

// What happens while kwai log --follow runs is printed once, and an interruption is
// its orderly end.
func TestTheLogFollows(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", "a rather long one")
		ctx, interrupt := context.WithCancel(t.Context())
		out, in := io.Pipe()
		ended := make(chan int, 1)
		go func() {
			ended <- run(ctx, append([]string{"log", "--follow", "--json", "--user=ann@example.org"}, s.flags...), console{nil, in, io.Discard})
			in.Close()
		}()
		lines := bufio.NewScanner(out)
		var kinds []string
		next := func() string {
			if !lines.Scan() {
				t.Fatal("the log has ended after", kinds)
			}
			var e entryView
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, e.Kind)
			return e.Kind
		}
		next()
		s.mustCommand("", "user", "revoke", "ann@example.org")
		next()
		s.mustCommand("", "user", "enact", "ann@example.org")
		next()
		if want := []string{"user.created", "user.revoked", "user.reinstated"}; !slices.Equal(kinds, want) {
			t.Errorf("the log has %q, want %q", kinds, want)
		}
		interrupt()
		for lines.Scan() {
			t.Errorf("the log has %s, too", lines.Bytes())
		}
		if code := <-ended; code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestSince(t *testing.T) {
	t.Parallel()
	at := func(text string) time.Time {
		t, _ := time.Parse(time.RFC3339Nano, text)
		return t
	}
	for text, want := range map[string]timeFlag{
		"90m":                       {ago: 90 * time.Minute},
		"0s":                        {},
		"30d":                       {ago: 30 * 24 * time.Hour},
		"65535d":                    {ago: 65535 * 24 * time.Hour},
		"2026-11-23":                {at: at("2026-11-23T00:00:00Z")},
		"2026-11-23 15:04":          {at: at("2026-11-23T15:04:00Z")},
		"2026-11-23 15:04:05":       {at: at("2026-11-23T15:04:05Z")},
		"2026-11-23T15:04:05.25Z":   {at: at("2026-11-23T15:04:05.25Z")},
		"2026-11-23T15:04:05+01:00": {at: at("2026-11-23T14:04:05Z")},
	} {
		var got timeFlag
		if err := got.UnmarshalText([]byte(text)); err != nil || got.ago != want.ago || !got.at.Equal(want.at) {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "-1h", "-1d", "1.5d", "65536d", "99999999999999999999h", "2026-13-01", "now"} {
		var got timeFlag
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
}
