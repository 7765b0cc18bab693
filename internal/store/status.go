package store

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Outbox is what waits for a subscriber.
type Outbox struct {
	Subscriber string
	Waiting    int64 // deliveries that are still tried
	Dead       int64 // those that were given up
	// OldestAt is when the first happened that waits for no reason of its own; zero
	// if none does.
	OldestAt time.Time
}

// What the reason begins with of a delivery that failed for a reason of its own,
// which says nothing of the others.
const (
	Refused = "refused"
	Alone   = "this one alone"
)

// Outbox counts by indices alone, some 100 ms where a million wait: due_at is
// there to have SQLite choose the one of those that are still tried.
func (r Reader) Outbox(subscriber string) (Outbox, error) {
	return queryRow(r, func(scan scanFunc) (Outbox, error) {
		o := Outbox{Subscriber: subscriber}
		var all int64
		var oldest sql.NullInt64
		err := scan(&all, &o.Waiting, &oldest)
		o.Dead, o.OldestAt = all-o.Waiting, fromOptional(oldest)
		return o, err
	}, `SELECT (SELECT COUNT(*) FROM deliveries WHERE subscriber = $1),
		(SELECT COUNT(*) FROM deliveries WHERE subscriber = $1 AND dead_at IS NULL AND due_at > 0),
		(SELECT created_at FROM events WHERE id = (SELECT event_id FROM deliveries
			WHERE subscriber = $1 AND dead_at IS NULL
				AND (last_error NOT LIKE $2 AND last_error NOT LIKE $3 OR EXISTS (SELECT 1 FROM subscribers WHERE name = $1))
			ORDER BY position LIMIT 1))`, subscriber, Refused+": %", Alone+": %")
}

// Lease says who may do what one process at a time does.
type Lease struct {
	Name, Owner string
	ExpiresAt   time.Time
}

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
func Inspect(ctx context.Context, o Options, l Lifetimes) (Status, error) {
	o.unchecked = true
	s, err := Open(ctx, o)
	if err != nil {
		return Status{}, err
	}
	defer func() { _ = s.Close() }() // it has written nothing
	st := Status{Engine: EngineOf(o.URL), Database: redactURL(o.URL), Known: schemaVersion, Problem: s.checkVersion(ctx)}
	err = s.snapshot(ctx, func(r Reader, size string) error {
		if err := st.readVersion(r, size); err != nil || st.Problem != nil {
			return err
		}
		return st.read(r, s.Now(), l)
	})
	if err != nil {
		return st, fmt.Errorf("%s: %w", st.Database, s.wrap(err))
	}
	return st, nil
}

// inspectTimeout bounds one of a status' queries, on PostgreSQL.
const inspectTimeout = time.Minute

// snapshot has fn read one state of the database; size is the query for its size.
func (s *Store) snapshot(ctx context.Context, fn func(r Reader, size string) error) error {
	switch q := s.readers.(type) {
	case *readers:
		return q.with(ctx, func(c *sqliteConn) error {
			if _, err := c.exec(ctx, `BEGIN`); err != nil {
				return err
			}
			err := fn(Reader{ctx: ctx, q: c, wrap: s.wrap}, `SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()`)
			_, _ = c.exec(ctx, `ROLLBACK`) // there is nothing to undo
			return err
		})
	default:
		tx, err := s.engine.(*postgresEngine).db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // there is nothing to undo
		if _, err := tx.ExecContext(ctx, fmt.Sprintf(`SET LOCAL statement_timeout = %d`, inspectTimeout.Milliseconds())); err != nil {
			return err
		}
		return fn(Reader{ctx: ctx, q: viaSQL{tx}, wrap: s.wrap}, `SELECT pg_database_size(current_database())`)
	}
}

func (st *Status) readVersion(r Reader, size string) (err error) {
	if st.Bytes, err = queryRow(r, column[int64], size); err != nil {
		return err
	}
	if st.Oldest, err = queryRow(r, column[string], `SELECT value FROM meta WHERE name = 'oldest_schema'`); err != nil {
		return fmt.Errorf("it is no kwai database, or it is damaged: %w", err)
	}
	st.Schema, err = queryRow(r, column[int64], `SELECT COALESCE(MAX(version_id), 0) FROM schema_version`)
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
	names, err := queryRows(r, column[string], `SELECT subscriber FROM deliveries UNION SELECT name FROM subscribers ORDER BY 1`)
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
	st.Leases, err = queryRows(r, func(scan scanFunc) (lease Lease, err error) {
		var expires int64
		err = scan(&lease.Name, &lease.Owner, &expires)
		lease.ExpiresAt = fromMicros(expires)
		return lease, err
	}, `SELECT name, owner, expires_at FROM leases WHERE expires_at > 0 ORDER BY name`)
	if err != nil {
		return err
	}
	st.Counts, err = queryRow(r, func(scan scanFunc) (c Counts, err error) {
		err = scan(&c.Users, &c.Revoked, &c.WithoutPassword, &c.LiveSessions, &c.OpenRecoveries, &c.PendingRequests, &c.Sessions, &c.Attempts, &c.AuditLog)
		return c, err
	}, `SELECT COUNT(*), COUNT(revoked_at), COUNT(*) - COUNT(password_hash),
			(SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL AND created_at > $2 AND renewed_at > $3),
			(SELECT COUNT(*) FROM recoveries WHERE ended_at IS NULL AND expires_at > $1),
			(SELECT COUNT(*) FROM recovery_requests),
			(SELECT COUNT(*) FROM sessions), (SELECT COUNT(*) FROM attempts), (SELECT COUNT(*) FROM audit_log)
		FROM users`, micros(now), micros(now)-l.Session.Microseconds(), micros(now)-l.Idle.Microseconds())
	return err
}

// EngineOf is sqlite or postgres, as the URL has it.
func EngineOf(of string) string {
	if strings.HasPrefix(of, "sqlite://") {
		return "sqlite"
	}
	return "postgres"
}

// redactURL is a URL without what could be secret.
func redactURL(of string) string {
	if EngineOf(of) == "sqlite" {
		return of
	}
	config, err := parsePostgres(of)
	if err != nil {
		return "" // it could not have been opened
	}
	u := url.URL{Scheme: "postgres", User: url.User(config.User), Path: "/" + config.Database,
		Host: net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))}
	if strings.HasPrefix(config.Host, "/") { // a socket's folder
		u.Host, u.RawQuery = "", url.Values{"host": {config.Host}}.Encode()
	}
	return u.String()
}
