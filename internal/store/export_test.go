package store

import (
	"context"
	"database/sql"
	"io/fs"
	"testing/fstest"
	"time"
)

// The program that is tested is one migration further than 0.1.0, so that there
// is an older schema: Older is what takes a database back to it.
var Older = []string{`DROP TABLE further`, `DROP INDEX events_further`, `ALTER TABLE events DROP COLUMN further`, `DELETE FROM schema_version WHERE version_id > 4`}

func init() {
	const first = "00004_0.1.0.sql"
	text, err := fs.ReadFile(migrations, first)
	if err != nil {
		panic(err)
	}
	migrations = fstest.MapFS{first: {Data: text}, "00005_further.sql": {Data: []byte(`-- +goose Up
CREATE TABLE further (id TEXT PRIMARY KEY);
ALTER TABLE events ADD COLUMN further TEXT;
CREATE INDEX events_further ON events (further);`)}}
	schemaVersion = 5
	movedTables = append(movedTables, "further")
}

// WaitAtMost replaces, and returns, what bounds a read from PostgreSQL or SQLite's
// wait for another process. Nothing uses the store yet.
func (s *Store) WaitAtMost(d time.Duration) (was time.Duration) {
	bound := &s.timeout
	if e, ok := s.engine.(*sqliteEngine); ok {
		bound = &e.writer.timeout
	}
	was, *bound = *bound, d
	return was
}

// TxTimeout are the options with a transaction given that time.
func (o Options) TxTimeout(d time.Duration) Options {
	o.txTimeout = d
	return o
}

// DeadAfter are the options with a connection given up so soon.
func (o Options) DeadAfter(d time.Duration) Options {
	o.deadAfter = d
	return o
}

// Exec runs any statement in the transaction.
func (tx *Tx) Exec(query string, args ...any) (int64, error) { return tx.exec(query, args...) }

// Text returns the first column of the query's first row.
func (r Reader) Text(query string, args ...any) (string, error) {
	text, err := queryRow(r, column[sql.NullString], query, args...)
	return text.String, err
}

// VacuumInto copies a database to an empty file.
func VacuumInto(ctx context.Context, db *sql.DB, file string) error { return vacuumInto(ctx, db, file) }
