package main

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"kwai/internal/auth"
)

type logCmd struct {
	User  string `placeholder:"EMAIL" help:"Only what concerns this account."`
	Since since  `default:"24h" placeholder:"TIME|DURATION" help:"From when on: 90m, 24h or 30d ago, or 2026-11-23, 2026-11-23 15:04[:05] (UTC), 2026-11-23T15:04:05+01:00 (${default})."`
	JSON  bool   `name:"json" help:"Print a JSON array, one entry a line."`
}

func (cmd *logCmd) Help() string {
	return "What throttling refused is counted by account, network and hour, and shown at the hour's beginning."
}

// since is a time, or how long ago it was.
type since struct {
	at  time.Time
	ago time.Duration
}

var sinceLayouts = []string{time.RFC3339, time.DateOnly, "2006-01-02 15:04", time.DateTime}

func (s *since) UnmarshalText(b []byte) error {
	text := string(b)
	for _, layout := range sinceLayouts {
		if at, err := time.Parse(layout, text); err == nil {
			s.at = at
			return nil
		}
	}
	var err error
	if days, is := strings.CutSuffix(text, "d"); is {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		s.ago = time.Duration(n) * 24 * time.Hour
	} else {
		s.ago, err = time.ParseDuration(text)
	}
	if err != nil || s.ago < 0 {
		return fmt.Errorf("%q is neither a duration such as 90m, 24h or 30d nor a time such as 2026-11-23 or 2026-11-23T15:04:05Z", text)
	}
	return nil
}

func (s *since) time() time.Time {
	if s.at.IsZero() {
		return time.Now().Add(-s.ago)
	}
	return s.at
}

// entryView is an entry of the trail as it is printed. Each member is there, empty
// where there is nothing to say.
type entryView struct {
	ID        string    `json:"id"` // of the event, too, where one tells the same
	At        time.Time `json:"at"`
	Kind      string    `json:"kind"`
	Reason    string    `json:"reason"`
	User      string    `json:"user"`
	Email     string    `json:"email"`
	Session   string    `json:"session"`
	Address   string    `json:"address"` // or the network, where refusals are counted
	UserAgent string    `json:"user_agent"`
	Count     int64     `json:"count"` // 1, or how many were refused
}

func viewEntry(e auth.Entry) entryView {
	return entryView{
		ID: e.ID, At: e.At, Kind: e.Kind, Reason: printable(e.Reason), User: e.UserID, Email: printable(e.Email),
		Session: e.SessionID, Address: e.Address, UserAgent: printable(e.UserAgent), Count: max(e.Count, 1),
	}
}

func (cmd *logCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		all := viewEntries(rules.Trail(ctx, cmd.Since.time(), cmd.User))
		if cmd.JSON {
			return writeArray(c.out, all)
		}
		t := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "TIME (UTC)\tKIND\tUSER\tADDRESS\tREASON\tSESSION\tUSER AGENT")
		lines := 0
		for v, err := range all {
			if err != nil {
				return err
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.At.UTC().Format(time.DateTime), v.Kind, orDash(v.Email), orDash(v.Address),
				orDash(v.why()), orDash(v.Session), orDash(shorten(v.UserAgent)))
			// The columns are as wide as what is kept for them, which shall not be
			// all of a year.
			if lines++; lines%1000 == 0 {
				if err := t.Flush(); err != nil {
					return err
				}
			}
		}
		return t.Flush()
	})
}

func viewEntries(all iter.Seq2[auth.Entry, error]) iter.Seq2[entryView, error] {
	return func(yield func(entryView, error) bool) {
		for e, err := range all {
			if !yield(viewEntry(e), err) {
				return
			}
		}
	}
}

func (v entryView) why() string {
	if v.Kind == auth.TraceThrottled {
		return fmt.Sprintf("%d in this hour", v.Count)
	}
	return v.Reason
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// printable is text that others wrote, without what a terminal would obey or what
// hides some of it. It is clean when it is stored: this is for what wrote past that.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return '?'
		}
		return r
	}, text)
}

// shorten leaves of a user agent what fits at a line's end.
func shorten(text string) string {
	const most = 60
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}
