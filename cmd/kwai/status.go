package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"kwai/internal/auth"
	"kwai/internal/database"
	"kwai/internal/store"
)

type statusCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (statusCmd) Help() string {
	return "Works beside a running server or without one, and changes nothing. It counts rows: with millions of sessions that takes seconds."
}

// Run prints what can be read, also where it then fails because this program
// can't use the database.
func (cmd statusCmd) Run(ctx context.Context, s *Settings, c console) error {
	rules := s.rules()
	st, err := store.Inspect(ctx, database.Options{URL: s.Database, Log: s.logger(c)}, store.Lifetimes{Idle: rules.RefreshIdle, Session: rules.SessionLife})
	if err != nil {
		return &usageError{"--database", err}
	}
	v := viewStatus(st)
	if cmd.JSON {
		err = writeJSON(c.out, v)
	} else {
		err = v.print(c.out)
	}
	if err == nil && st.Problem != nil {
		err = fmt.Errorf("the database can't be used: %w", st.Problem)
	}
	return err
}

// statusView is a status as it is printed. Where there is a problem, what could
// not be read is left out.
type statusView struct {
	Version  string       `json:"version"`
	Revision string       `json:"revision"`
	Go       string       `json:"go"`
	Database databaseView `json:"database"`
	Problem  string       `json:"problem,omitempty"`
	*contentView
}

type databaseView struct {
	Engine       string `json:"engine"`
	URL          string `json:"url"`
	Bytes        int64  `json:"bytes"`
	Schema       int64  `json:"schema"`
	KnownSchema  int64  `json:"known_schema"`
	OldestSchema string `json:"oldest_schema"`
}

type contentView struct {
	Keys        []keyView        `json:"keys"`
	Outbox      []outboxView     `json:"outbox"`
	Subscribers []subscriberView `json:"subscribers"`
	Leases      []leaseView      `json:"leases"`
	Counts      countsView       `json:"counts"`
}

type keyView struct {
	ID        string    `json:"id"`
	Purpose   string    `json:"purpose"`
	CreatedAt time.Time `json:"created_at"`
}

type outboxView struct {
	Subscriber string     `json:"subscriber"`
	Waiting    int64      `json:"waiting"`
	Dead       int64      `json:"dead"`
	OldestAt   *time.Time `json:"oldest_at"` // null where none waits
}

type subscriberView struct {
	Name   string     `json:"name"`
	SeenAt *time.Time `json:"seen_at"` // null where it is not served any more
}

type leaseView struct {
	Name      string    `json:"name"`
	Owner     string    `json:"owner"`
	ExpiresAt time.Time `json:"expires_at"`
}

type countsView struct {
	Users           int64 `json:"users"`
	Revoked         int64 `json:"revoked"`
	WithoutPassword int64 `json:"without_password"`
	LiveSessions    int64 `json:"live_sessions"`
	OpenRecoveries  int64 `json:"open_recoveries"`
	PendingRequests int64 `json:"pending_requests"`
	Sessions        int64 `json:"sessions"`
	Attempts        int64 `json:"attempts"`
	AuditLog        int64 `json:"audit_log"`
}

func viewStatus(st store.Status) statusView {
	v := statusView{
		Version: version(), Revision: revision(), Go: runtime.Version(),
		Database: databaseView{st.Engine, st.Database, st.Bytes, st.Schema, st.Known, st.Oldest},
	}
	if st.Problem != nil {
		v.Problem = oneLine(st.Problem)
		return v
	}
	// Lists that are empty are not null.
	content := contentView{Keys: []keyView{}, Outbox: []outboxView{}, Subscribers: []subscriberView{}, Leases: []leaseView{}, Counts: countsView(st.Counts)}
	for _, k := range st.Keys {
		content.Keys = append(content.Keys, keyView{k.ID, k.Purpose, k.CreatedAt})
	}
	mailed := false
	for _, o := range st.Outbox {
		content.Outbox = append(content.Outbox, outboxView{o.Subscriber, o.Waiting, o.Dead, orNull(o.OldestAt)})
		mailed = mailed || o.Subscriber == auth.SubscriberMail
	}
	if !mailed {
		content.Outbox = append(content.Outbox, outboxView{Subscriber: auth.SubscriberMail})
	}
	for _, s := range st.Subscribers {
		content.Subscribers = append(content.Subscribers, subscriberView{s.Name, orNull(s.SeenAt)})
	}
	for _, l := range st.Leases {
		content.Leases = append(content.Leases, leaseView(l))
	}
	v.contentView = &content
	return v
}

func (v statusView) print(out io.Writer) error {
	t := newTable(out, 0)
	row := func(name, format string, args ...any) { t.row(name, fmt.Sprintf(format, args...)) }
	row("version", "%s (revision %s, %s)", v.Version, v.Revision, v.Go)
	row("database", "%s", v.Database.URL)
	row("size", "%d bytes", v.Database.Bytes)
	row("schema", "%d; this program knows %d; programs that know %s can use it", v.Database.Schema, v.Database.KnownSchema, v.Database.OldestSchema)
	if v.contentView == nil {
		return t.Flush()
	}
	n := v.Counts
	row("users", "%d, of whom %d are revoked and %d have no password", n.Users, n.Revoked, n.WithoutPassword)
	row("live sessions", "%d", n.LiveSessions)
	row("rows", "%d of sessions, %d of attempts to log in, %d of the audit log", n.Sessions, n.Attempts, n.AuditLog)
	row("recoveries", "%d open, %d requests to be looked at", n.OpenRecoveries, n.PendingRequests)
	for _, k := range v.Keys {
		row("key", "%s %s, made %s, %s ago", k.Purpose, k.ID, formatTime(&k.CreatedAt), formatDays(time.Since(k.CreatedAt)))
	}
	for _, o := range v.Outbox {
		oldest := ""
		if o.OldestAt != nil {
			oldest = ", the oldest since " + formatTime(o.OldestAt)
		}
		row("outbox", "%s: %d waiting, %d dead%s", o.Subscriber, o.Waiting, o.Dead, oldest)
	}
	for _, s := range v.Subscribers {
		if s.SeenAt == nil {
			row("subscriber", "%s, told no more", s.Name)
			continue
		}
		row("subscriber", "%s, a server that tells it was seen %s", s.Name, formatTime(s.SeenAt))
	}
	for _, l := range v.Leases {
		row("lease", "%s, of %s until %s", l.Name, l.Owner, formatTime(&l.ExpiresAt))
	}
	return t.Flush()
}
