package store

import "time"

// Lease says who may do what one process at a time does.
type Lease struct {
	Name, Owner string
	ExpiresAt   time.Time
}

// HoldLease makes owner the holder of a lease, or prolongs it, until then;
// false while somebody else holds it.
func (tx *Tx) HoldLease(name, owner string, until time.Time) (bool, error) {
	n, err := tx.Exec(`INSERT INTO leases (name, owner, expires_at) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
			WHERE leases.owner = excluded.owner OR leases.expires_at <= $4`,
		name, owner, micros(until), micros(tx.Now))
	return n == 1, err
}

// ReleaseLease gives up a lease if owner holds it.
func (tx *Tx) ReleaseLease(name, owner string) error {
	_, err := tx.Exec(`DELETE FROM leases WHERE name = $1 AND owner = $2`, name, owner)
	return err
}

// releaseLeases gives up all leases.
func (tx *Tx) releaseLeases() error {
	_, err := tx.Exec(`DELETE FROM leases WHERE expires_at > 0`)
	return err
}

// Serialize makes transactions that name the same thing wait for each other,
// on every replica, until they end.
func (tx *Tx) Serialize(name string) error {
	_, err := tx.Exec(`INSERT INTO leases (name, owner, expires_at) VALUES ($1, '', 0)
		ON CONFLICT (name) DO UPDATE SET owner = excluded.owner`, name)
	return err
}
