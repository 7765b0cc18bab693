package database

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// snapshotTimeout bounds one query of a snapshot, on PostgreSQL.
const snapshotTimeout = time.Minute

// Snapshot has fn read one state of the database, whatever is committed meanwhile.
func (db *DB) Snapshot(ctx context.Context, fn func(Reader) error) error {
	switch e := db.engine.(type) {
	case *sqliteEngine:
		return db.wrap(e.readers.with(ctx, func(c *SQLiteConn) error {
			if _, err := c.Exec(ctx, `BEGIN`); err != nil {
				return err
			}
			err := fn(Reader{ctx: ctx, q: c, wrap: db.wrap})
			_, _ = c.Exec(ctx, `ROLLBACK`) // there is nothing to undo
			return err
		}))
	case *Postgres:
		tx, err := e.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		if err != nil {
			return db.wrap(err)
		}
		defer func() { _ = tx.Rollback() }() // there is nothing to undo
		if _, err := tx.ExecContext(ctx, fmt.Sprintf(`SET LOCAL statement_timeout = %d`, snapshotTimeout.Milliseconds())); err != nil {
			return db.wrap(err)
		}
		return db.wrap(fn(Reader{ctx: ctx, q: viaSQL{tx}, wrap: db.wrap}))
	default:
		panic("database: an engine without snapshots")
	}
}
