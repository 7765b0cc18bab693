// Package store has kwai's tables and their queries: one text for SQLite and
// PostgreSQL, one file per table.
//
//	users.go       accounts, and the proportions of their passwords' costs
//	sessions.go    sessions, renewals, replays
//	recoveries.go  recoveries, and requests for them that nobody has looked at yet
//	attempts.go    counts of failed logins; the networks that an account knows
//	factors.go     what accounts demand of logins; authenticator apps, recovery codes; passkeys.go
//	audit.go       the audit log
//	events.go      events and their deliveries: the outbox; its subscribers
//	leases.go      what one process at a time does
//	apps.go        apps, and what users let them see; groups.go: who may use them
//	appsessions.go sessions of apps; logouts.go: those that they are to hear of
//	keys.go        server keys, sealed
//	purge.go       what goes when it is of no use
//	status.go      what `kwai status` shows
//
// Read with [Store.Read], write with [Store.InTx]:
//
//	user, err := db.Read(ctx).UserByEmail(key)
//	err = db.InTx(ctx, func(tx *store.Tx) error { … })
//
// Two rules keep races out. Races on one row are settled by one conditional
// statement with RETURNING. Races across rows are settled at the user's row:
// whatever makes something under a user (a session, a recovery) or ends it all
// (a reset, a revocation) updates the user's row first, in the same
// transaction, so that one waits for the other.
//
// Times are columns of microseconds, given by the caller. docs/architecture.md,
// Package store, has the reasons.
package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/database"
)

// What errors of this package and of the database may be: package database says
// what each means.
var (
	ErrNotFound    = database.ErrNotFound
	ErrUnavailable = database.ErrUnavailable
)

// Store is an open database with kwai's tables. It is safe for concurrent use.
type Store struct {
	*database.DB

	// Published, set before the first use, is called after a commit for each
	// subscriber to whom something was published in it, to have it delivered at
	// once; nil leaves it to the next look.
	Published func(subscriber string)
}

// Open opens the database that o.URL names, as database.Open does.
func Open(ctx context.Context, o database.Options) (*Store, error) {
	db, err := database.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &Store{DB: db}
	if o.Serve && database.EngineOf(o.URL) == "sqlite" {
		// The holders of its leases served this database, and have ended.
		if err := s.Statement(ctx, (*Tx).releaseLeases); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", database.RedactURL(o.URL), err), db.Close())
		}
	}
	return s, nil
}

// Reader has the queries that change nothing.
type Reader struct{ db database.Reader }

// NewReader reads kwai's tables in a database that was opened otherwise: a backup.
func NewReader(db database.Reader) Reader { return Reader{db} }

// Tx is a transaction: the Reader's queries and those that change something.
type Tx struct {
	Reader
	*database.Tx

	subscribers []string // to whom something is published
}

// Read is database.DB's, with kwai's queries.
func (s *Store) Read(ctx context.Context) Reader { return NewReader(s.DB.Read(ctx)) }

// InTx is database.DB's, with kwai's queries. Its commit tells Published.
func (s *Store) InTx(ctx context.Context, fn func(*Tx) error) error {
	return s.run(ctx, s.DB.InTx, fn)
}

// Statement is database.DB's, with kwai's queries.
func (s *Store) Statement(ctx context.Context, fn func(*Tx) error) error {
	return s.run(ctx, s.DB.Statement, fn)
}

func (s *Store) run(ctx context.Context, run func(context.Context, func(*database.Tx) error) error, fn func(*Tx) error) error {
	var committed *Tx // the last try
	err := run(ctx, func(tx *database.Tx) error {
		committed = &Tx{Reader: Reader{tx.Reader}, Tx: tx}
		return fn(committed)
	})
	if err == nil && s.Published != nil {
		for _, subscriber := range committed.subscribers {
			s.Published(subscriber)
		}
	}
	return err
}

// Metrics are the database's, and how many keys there are.
func (s *Store) Metrics() []prometheus.Collector {
	return append(s.DB.Metrics(), keyCounts{s})
}

// exists says whether a query has a row.
func exists(r database.Reader, query string, args ...any) (bool, error) {
	_, err := database.QueryRow(r, database.Column[int64], query, args...)
	return found(err)
}

// found turns ErrNotFound into false.
func found(err error) (bool, error) {
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Times in rows.

func micros(t time.Time) int64 { return t.UnixMicro() }

// optional is micros with null for the zero time.
func optional(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: !t.IsZero()}
}

// later is, in SQL, the later of the time in a row and the one that would replace
// it. A clock that is behind, like that of a machine without a battery when it
// boots, must not set back what was true before.
func later(have, now string) string {
	return `CASE WHEN ` + have + ` > ` + now + ` THEN ` + have + ` ELSE ` + now + ` END`
}

func fromMicros(n int64) time.Time { return time.UnixMicro(n).UTC() }

// instant scans a column of microseconds into a time; null is the zero time.
type instant time.Time

// Scan is sql.Scanner's.
func (t *instant) Scan(value any) error {
	switch n := value.(type) {
	case nil:
		*t = instant{}
	case int64:
		*t = instant(fromMicros(n))
	default:
		return fmt.Errorf("a time is a %T", value)
	}
	return nil
}

// nullable scans a column of text into a string; null is "".
type nullable string

// Scan is sql.Scanner's.
func (s *nullable) Scan(value any) error {
	var text sql.NullString
	err := text.Scan(value)
	*s = nullable(text.String)
	return err
}

// blob scans a column of bytes into a slice; null is nil.
type blob []byte

// Scan is sql.Scanner's.
func (b *blob) Scan(value any) error {
	switch v := value.(type) {
	case nil:
		*b = nil
	case []byte:
		*b = bytes.Clone(v)
	default:
		return fmt.Errorf("bytes are a %T", value)
	}
	return nil
}

func fromOptional(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return fromMicros(n.Int64)
}
