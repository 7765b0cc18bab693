package store

// Exec runs any statement in the transaction.
func (tx *Tx) Exec(query string, args ...any) (int64, error) { return tx.exec(query, args...) }

// Text returns the first column of the query's first row.
func (r Reader) Text(query string, args ...any) (string, error) {
	return one(r, column[string], query, args...)
}
