package store

import "database/sql"

// Exec runs any statement in the transaction.
func (tx *Tx) Exec(query string, args ...any) (int64, error) { return tx.exec(query, args...) }

// Text returns the first column of the query's first row.
func (r Reader) Text(query string, args ...any) (string, error) {
	text, err := one(r, column[sql.NullString], query, args...)
	return text.String, err
}
