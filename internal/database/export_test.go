package database

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"testing/fstest"
	"time"
)

// The program that is tested has one migration more than is embedded, so that there
// is an older schema: Older is what takes a database back to it.
var Older []string

func init() {
	older := schemaVersion
	further := fstest.MapFS{fmt.Sprintf("%05d_further.sql", older+1): {Data: []byte(`-- +goose Up
ALTER TABLE events ADD COLUMN further TEXT;
CREATE INDEX events_further ON events (further);`)}}
	names, err := fs.Glob(migrations, "*.sql")
	if err != nil {
		panic(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(migrations, name)
		if err != nil {
			panic(err)
		}
		further[name] = &fstest.MapFile{Data: text}
	}
	migrations, schemaVersion = further, newest(further)
	Older = []string{`DROP INDEX events_further`, `ALTER TABLE events DROP COLUMN further`, fmt.Sprintf(`DELETE FROM schema_version WHERE version_id > %d`, older)}
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
