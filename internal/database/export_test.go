package database

import (
	"context"
	"database/sql"
	"io/fs"
	"testing/fstest"
	"time"
)

// The program that is tested is one migration further than 0.1.0, so that there
// is an older schema: Older is what takes a database back to it.
var Older = []string{`DROP INDEX events_further`, `ALTER TABLE events DROP COLUMN further`, `DELETE FROM schema_version WHERE version_id > 4`}

func init() {
	const first = "00004_0.1.0.sql"
	text, err := fs.ReadFile(migrations, first)
	if err != nil {
		panic(err)
	}
	migrations = fstest.MapFS{first: {Data: text}, "00005_further.sql": {Data: []byte(`-- +goose Up
ALTER TABLE events ADD COLUMN further TEXT;
CREATE INDEX events_further ON events (further);`)}}
	schemaVersion = 5
}

// WaitAtMost replaces, and returns, what bounds a read from PostgreSQL or SQLite's
// wait for another process. Nothing uses the database yet.
func (db *DB) WaitAtMost(d time.Duration) (was time.Duration) {
	bound := &db.timeout
	if e, ok := db.engine.(*sqliteEngine); ok {
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

// CheckServer judges a server of that version and with that encoding, which
// gave a session that time-out.
func CheckServer(version int64, encoding, timeout string) error {
	return server{version: version, versionText: "x.y", encoding: encoding, synchronous: "on", timeout: timeout, schema: "public"}.check()
}

// SkewedClock returns the local clock, wrong by skew, before and after it was
// set by the database's.
func SkewedClock(ctx context.Context, skew string, db *sql.DB) (local, set time.Time, err error) {
	c := newClock(skew)
	local = c.now()
	err = c.measure(ctx, db)
	return local, c.now(), err
}
