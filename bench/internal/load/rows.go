package load

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"
)

// open opens a database past kwai, to be written quickly: neither a crash nor a
// reference to a row that isn't there matters in what is being made.
func open(database string) (*sql.DB, error) {
	if path, ok := strings.CutPrefix(database, "sqlite://"); ok {
		return sql.Open("sqlite", path+"?_pragma=synchronous(OFF)&_pragma=cache_size(-262144)") // 256 MiB
	}
	return sql.Open("pgx", database)
}

// insert adds n rows to a table in one transaction, the quickest way that the
// engine has.
func insert(ctx context.Context, database, table string, columns []string, n int, row func(i int) ([]any, error)) error {
	if strings.HasPrefix(database, "sqlite://") {
		return insertSQLite(ctx, database, table, columns, n, row)
	}
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return err
	}
	// No trigger looks at each row's references.
	_, err = conn.Exec(ctx, "SET session_replication_role = replica")
	if err == nil {
		_, err = conn.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromSlice(n, row))
	}
	return errors.Join(err, conn.Close(ctx))
}

func insertSQLite(ctx context.Context, database, table string, columns []string, n int, row func(i int) ([]any, error)) (err error) {
	db, err := open(database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()                                                                                               // does nothing after the commit
	text := fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s)", table, strings.Join(columns, ", "), strings.Repeat(", ?", len(columns)-1)) //nolint:gosec // names from this package
	stmt, err := tx.PrepareContext(ctx, text)
	if err != nil {
		return err
	}
	defer stmt.Close()
	for i := range n {
		values, err := row(i)
		if err != nil {
			return err
		}
		if _, err := stmt.ExecContext(ctx, values...); err != nil {
			return err
		}
	}
	return tx.Commit()
}
