package offline

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// rebuilt is an index or a constraint. To keep them up to date row by row takes
// longer than all else: they go while rows are copied, and come back, checked, in
// one step each.
type rebuilt struct{ drop, create string }

// rebuiltOf lists them in the order in which they can be made: foreign keys last.
func rebuiltOf(ctx context.Context, pg *pgx.Conn) ([]rebuilt, error) {
	rows, err := pg.Query(ctx, `
		SELECT 1 AS turn, format('DROP INDEX %s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid)
		FROM pg_index i
		WHERE i.indrelid = ANY ($1::text[]::regclass[]) AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = i.indexrelid)
		UNION ALL
		SELECT CASE c.contype WHEN 'f' THEN 3 ELSE 2 END, format('ALTER TABLE %s DROP CONSTRAINT %I', c.conrelid::regclass, c.conname),
			format('ALTER TABLE %s ADD CONSTRAINT %I %s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
		FROM pg_constraint c
		WHERE c.conrelid = ANY ($1::text[]::regclass[]) AND c.contype IN ('p', 'u', 'f')
		ORDER BY 1, 2`, movedTables)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r rebuilt, err error) {
		var turn int
		return r, row.Scan(&turn, &r.drop, &r.create)
	})
}

// columnsOf are a table's columns in PostgreSQL, of which SQLite must have all
// and no more.
func columnsOf(ctx context.Context, pg *pgx.Conn, from *moveSource, table string) ([]moveColumn, error) {
	rows, err := pg.Query(ctx, `SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, table)
	if err != nil {
		return nil, err
	}
	columns, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c moveColumn, err error) {
		return c, row.Scan(&c.name, &c.kind)
	})
	if err != nil {
		return nil, err
	}
	have, err := from.columns(ctx, table)
	if err != nil {
		return nil, err
	}
	want := columnNames(columns)
	if !slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(have))) {
		return nil, fmt.Errorf("the table %s has the columns %q, and in %s %q", table, want, from.path, have)
	}
	return columns, nil
}
