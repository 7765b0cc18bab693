package store

import (
	"context"
	"database/sql"
	"time"
)

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
