package store

import (
	"context"
	"fmt"
	"time"

	"kwai/internal/database"
)

// Counts are of rows.
type Counts struct {
	Users, Revoked, WithoutPassword int64
	LiveSessions                    int64
	OpenRecoveries                  int64 // links that work
	PendingRequests                 int64 // for recoveries, not looked at yet
	Sessions, Attempts, AuditLog    int64 // all rows, also those that will be purged
}

// Status is what a database holds. What its version doesn't let this program
// read is missing, and Problem says why.
type Status struct {
	Engine   string // as EngineOf has it
	Database string // its URL without secrets
	Bytes    int64  // its size, without SQLite's write-ahead log
	Schema   int64  // of the newest migration that was applied
	Known    int64  // of the newest that this program knows
	Oldest   string // of the oldest program that can use it
	Problem  error

	Keys        []Key // without Sealed
	Outbox      []Outbox
	Subscribers []Subscriber
	Leases      []Lease
	Counts      Counts
}

// Inspect opens a database, whatever its version, only to read its status, which
// is of one moment. To count a million sessions takes a second or so.
func Inspect(ctx context.Context, o database.Options, l Lifetimes) (Status, error) {
	o.Unchecked = true
	s, err := Open(ctx, o)
	if err != nil {
		return Status{}, err
	}
	defer func() { _ = s.Close() }() // it has written nothing
	st := Status{
		Engine: database.EngineOf(o.URL), Database: database.RedactURL(o.URL), Known: database.SchemaVersion(),
		Problem: s.CheckVersion(ctx),
	}
	err = s.Snapshot(ctx, func(r database.Reader) error {
		if err := st.readVersion(r); err != nil || st.Problem != nil {
			return err
		}
		return st.read(NewReader(r), s.Now(), l)
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", st.Database, err)
	}
	return st, err
}

func (st *Status) readVersion(r database.Reader) (err error) {
	size := `SELECT pg_database_size(current_database())`
	if st.Engine == "sqlite" {
		size = `SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()`
	}
	if st.Bytes, err = database.QueryRow(r, database.Column[int64], size); err != nil {
		return err
	}
	if st.Oldest, err = database.QueryRow(r, database.Column[string], `SELECT value FROM meta WHERE name = 'oldest_schema'`); err != nil {
		return fmt.Errorf("it is no kwai database, or it is damaged: %w", err)
	}
	st.Schema, err = database.QueryRow(r, database.Column[int64], `SELECT COALESCE(MAX(version_id), 0) FROM schema_version`)
	return err
}

func (st *Status) read(r Reader, now time.Time, l Lifetimes) (err error) {
	if st.Keys, err = r.Keys(); err != nil {
		return err
	}
	for i := range st.Keys {
		st.Keys[i].Sealed = nil
	}
	if st.Subscribers, err = r.Subscribers(); err != nil {
		return err
	}
	names, err := database.QueryRows(r.db, database.Column[string], `SELECT subscriber FROM deliveries UNION SELECT name FROM subscribers ORDER BY 1`)
	if err != nil {
		return err
	}
	for _, name := range names {
		o, err := r.Outbox(name)
		if err != nil {
			return err
		}
		st.Outbox = append(st.Outbox, o)
	}
	// Rows without an end are Serialize's.
	st.Leases, err = database.QueryRows(r.db, func(scan database.Scan) (lease Lease, err error) {
		return lease, scan(&lease.Name, &lease.Owner, (*instant)(&lease.ExpiresAt))
	}, `SELECT name, owner, expires_at FROM leases WHERE expires_at > 0 ORDER BY name`)
	if err != nil {
		return err
	}
	st.Counts, err = database.QueryRow(r.db, func(scan database.Scan) (c Counts, err error) {
		return c, scan(&c.Users, &c.Revoked, &c.WithoutPassword, &c.LiveSessions, &c.OpenRecoveries, &c.PendingRequests, &c.Sessions, &c.Attempts, &c.AuditLog)
	}, `SELECT COUNT(*), COUNT(revoked_at), COUNT(*) - COUNT(password_hash),
			(SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL AND created_at > $2 AND renewed_at > $3),
			(SELECT COUNT(*) FROM recoveries WHERE ended_at IS NULL AND expires_at > $1),
			(SELECT COUNT(*) FROM recovery_requests),
			(SELECT COUNT(*) FROM sessions), (SELECT COUNT(*) FROM attempts), (SELECT COUNT(*) FROM audit_log)
		FROM users`, micros(now), micros(now)-l.Session.Microseconds(), micros(now)-l.Idle.Microseconds())
	return err
}
