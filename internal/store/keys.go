package store

import "time"

// Key is a server key, sealed under a master key.
type Key struct {
	ID        string
	Purpose   string
	Sealed    []byte
	CreatedAt time.Time
}

// Keys lists the server's keys, the newest first.
func (r Reader) Keys() ([]Key, error) {
	return list(r, func(scan scanFunc) (k Key, err error) {
		var created int64
		err = scan(&k.ID, &k.Purpose, &k.Sealed, &created)
		k.CreatedAt = fromMicros(created)
		return k, err
	}, `SELECT id, purpose, sealed, created_at FROM keys ORDER BY created_at DESC, id`)
}

// InsertKey adds a key.
func (tx *Tx) InsertKey(k Key) error {
	_, err := tx.exec(`INSERT INTO keys (id, purpose, sealed, created_at) VALUES ($1, $2, $3, $4)`,
		k.ID, k.Purpose, k.Sealed, micros(k.CreatedAt))
	return err
}
