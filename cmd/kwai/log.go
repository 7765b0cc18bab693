package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

type logCmd struct {
	User    string      `placeholder:"EMAIL|ID" help:"Only what concerns this account."`
	App     string      `placeholder:"CLIENT_ID" help:"Only what concerns this app."`
	Since   timeFlag    `default:"24h" placeholder:"TIME|DURATION" help:"From when on: 90m, 24h or 30d ago, or 2026-11-23, 2026-11-23 15:04[:05] (UTC), 2026-11-23T15:04:05+01:00 (${default})."`
	Until   *timeFlag   `placeholder:"TIME|DURATION" help:"Only what was before, in the same forms."`
	Address addressFlag `placeholder:"ADDRESS" help:"Only what came from this address, or from this network: 203.0.113.0/24."`
	Kind    []string    `placeholder:"KIND" help:"Only these kinds, separated by commas: ${kinds}."`
	Follow  bool        `help:"Go on until interrupted, and print what happens; with --json an object a line."`
	JSON    bool        `name:"json" help:"Print a JSON array, one entry a line."`
}

// addressFlag is an address or a network.
type addressFlag struct{ netip.Prefix }

func (a *addressFlag) UnmarshalText(b []byte) (err error) {
	if a.Prefix, err = netip.ParsePrefix(string(b)); err == nil {
		a.Prefix = a.Masked()
		return nil
	}
	address, err := netip.ParseAddr(string(b))
	if err != nil {
		return fmt.Errorf("%q is neither an address such as 203.0.113.7 nor a network such as 203.0.113.0/24", b)
	}
	address = address.Unmap().WithZone("")
	a.Prefix = netip.PrefixFrom(address, address.BitLen())
	return nil
}

// matches reports whether an entry came from there.
func (a addressFlag) matches(address string) bool {
	of, err := netip.ParseAddr(address)
	return err == nil && a.Contains(of)
}

// check refuses flags that could find nothing.
func (cmd *logCmd) check() error {
	for _, kind := range cmd.Kind {
		if !slices.Contains(auth.AuditKinds, kind) {
			return &usageError{"--kind", fmt.Errorf("there is no kind %q; there are %s", kind, strings.Join(auth.AuditKinds, ", "))}
		}
	}
	switch {
	case cmd.Until == nil:
	case cmd.Follow:
		return &usageError{"--follow", errors.New("it has no end: leave --until out")}
	case !cmd.Until.time().After(cmd.Since.time()):
		return &usageError{"--until", errors.New("it is not after --since, which is 24h ago where it isn't given")}
	}
	return nil
}

// wanted passes on the entries that were asked for.
func (cmd *logCmd) wanted(all iter.Seq2[store.AuditEntry, error]) iter.Seq2[store.AuditEntry, error] {
	return func(yield func(store.AuditEntry, error) bool) {
		var until time.Time
		if cmd.Until != nil {
			until = cmd.Until.time()
		}
		for e, err := range all {
			switch {
			case err != nil:
			case !until.IsZero() && !e.At.Before(until):
				return // they are in the order of time
			case cmd.Address.IsValid() && !cmd.Address.matches(e.Address), len(cmd.Kind) > 0 && !slices.Contains(cmd.Kind, e.Kind), cmd.App != "" && cmd.App != e.AppID:
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// timeFlag is a time, or how long ago it was.
type timeFlag struct {
	at  time.Time
	ago time.Duration
}

var timeLayouts = []string{time.RFC3339, time.DateOnly, "2006-01-02 15:04", time.DateTime}

func (s *timeFlag) UnmarshalText(b []byte) error {
	text := string(b)
	for _, layout := range timeLayouts {
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

func (s *timeFlag) time() time.Time {
	if s.at.IsZero() {
		return time.Now().Add(-s.ago)
	}
	return s.at
}

// entryView is an entry of the audit log as it is printed. No member is left out;
// one without a value is empty.
type entryView struct {
	ID        string    `json:"id"` // also of the event, where one was published
	At        time.Time `json:"at"`
	Kind      string    `json:"kind"`
	Reason    string    `json:"reason"`
	User      string    `json:"user"`
	Email     string    `json:"email"`
	Session   string    `json:"session"`
	App       string    `json:"app"`
	Address   string    `json:"address"`
	UserAgent string    `json:"user_agent"`
}

func viewEntry(e store.AuditEntry) entryView {
	return entryView{
		ID: e.ID, At: e.At, Kind: e.Kind, Reason: printable(e.Reason), User: e.UserID, Email: printable(e.Email),
		Session: e.SessionID, App: e.AppID, Address: e.Address, UserAgent: printable(e.UserAgent),
	}
}

func (cmd *logCmd) Run(ctx context.Context, s *Settings, c console) error {
	if err := cmd.check(); err != nil {
		return err
	}
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		all := cmd.wanted(rules.AuditLog(ctx, cmd.Since.time(), cmd.User))
		switch {
		case cmd.Follow:
			return cmd.follow(ctx, rules, all, c.out)
		case cmd.JSON:
			return writeArray(c.out, views(all, viewEntry))
		}
		return printEntries(logTable(c.out, 0), views(all, viewEntry))
	})
}

const (
	followEvery = time.Second
	// followOverlap is how far back each look goes: so long after its time may an
	// entry be committed (a transaction's time-out, and clocks that are apart).
	followOverlap = 15 * time.Second
)

// follow prints all, and then what happens until ctx ends. It is no task of the
// server: the command runs beside it.
func (cmd *logCmd) follow(ctx context.Context, rules *auth.Service, all iter.Seq2[store.AuditEntry, error], out io.Writer) error {
	t := logTable(out, 20)
	printed := make(map[string]time.Time)
	look := time.NewTicker(followEvery)
	defer look.Stop()
	for from := (time.Time{}); ; {
		begun := rules.Store.Now()
		fresh := func(yield func(entryView, error) bool) {
			for v, err := range views(all, viewEntry) {
				if _, again := printed[v.ID]; again && err == nil {
					continue
				}
				if !yield(v, err) {
					return
				}
				printed[v.ID] = v.At
			}
		}
		var err error
		if cmd.JSON {
			err = writeLines(out, fresh)
		} else {
			err = printEntries(t, fresh)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			from = begun.Add(-followOverlap)
			maps.DeleteFunc(printed, func(_ string, at time.Time) bool { return at.Before(from) })
		case from.IsZero() || auth.CodeOf(err) != auth.Unavailable:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		all = cmd.wanted(rules.AuditLog(ctx, from, cmd.User))
	}
}

// logTable is for a person; its columns are as wide as that at least.
func logTable(out io.Writer, width int) *table {
	return newTable(out, width, "TIME (UTC)", "KIND", "USER", "ADDRESS", "REASON", "SESSION", "APP", "USER AGENT")
}

func printEntries(t *table, all iter.Seq2[entryView, error]) error {
	return writeRows(t, all, func(v entryView) {
		t.row(v.At.UTC().Format(time.DateTime), v.Kind, cmp.Or(v.Email, "-"), cmp.Or(v.Address, "-"), cmp.Or(v.Reason, "-"), cmp.Or(v.Session, "-"), cmp.Or(v.App, "-"), cmp.Or(truncate(v.UserAgent), "-"))
	})
}
