package store

import (
	"time"

	"kwai/internal/database"
)

// Passkey is a user's.
type Passkey struct {
	ID                string // the credential's, base64url
	UserID            string
	RPID              string // the host that it is for
	Name              string // as its user calls it
	Credential        string // public key, flags and counter, JSON
	CreatedAt, UsedAt time.Time
}

const passkeyColumns = `id, user_id, rp_id, name, credential, created_at, used_at` //nolint:gosec // no credentials: the names of columns

func scanPasskey(scan database.Scan) (p Passkey, err error) {
	return p, scan(&p.ID, &p.UserID, &p.RPID, &p.Name, &p.Credential, (*instant)(&p.CreatedAt), (*instant)(&p.UsedAt))
}

// Passkey finds a passkey; ErrNotFound if there is none.
func (r Reader) Passkey(id string) (Passkey, error) {
	return database.QueryRow(r.db, scanPasskey, `SELECT `+passkeyColumns+` FROM passkeys WHERE id = $1`, id)
}

// Passkeys lists a user's passkeys, the oldest first.
func (r Reader) Passkeys(userID string) ([]Passkey, error) {
	return database.QueryRows(r.db, scanPasskey, `SELECT `+passkeyColumns+` FROM passkeys WHERE user_id = $1 ORDER BY created_at, id`, userID)
}

// CountPasskeysElsewhere counts the passkeys that are for another host than that.
func (r Reader) CountPasskeysElsewhere(rpID string) (int64, error) {
	return database.QueryRow(r.db, database.Column[int64], `SELECT COUNT(*) FROM passkeys WHERE rp_id <> $1`, rpID)
}

// InsertPasskey adds a passkey, created now, after LockUser; false if its id is taken.
func (tx *Tx) InsertPasskey(p Passkey) (bool, error) {
	n, err := tx.Exec(`INSERT INTO passkeys (id, user_id, rp_id, name, credential, last_challenge, created_at)
		VALUES ($1, $2, $3, $4, $5, 0, $6) ON CONFLICT DO NOTHING`, p.ID, p.UserID, p.RPID, p.Name, p.Credential, micros(tx.Now))
	return n == 1, err
}

// UsePasskey uses up a challenge that a user's passkey has answered, and those made
// before it, and stores the credential as it is since. False if one made then or later was
// used before, or if the passkey is gone. The user's row is locked before it, in the same
// transaction. A challenge that lies further ahead than anything can was made by a clock
// that was wrong: it must not keep the user out until then.
func (tx *Tx) UsePasskey(userID, id, credential string, challenge time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE passkeys SET last_challenge = $1, used_at = $2, credential = $3
		WHERE id = $4 AND user_id = $5 AND (last_challenge < $1 OR last_challenge > $6)`,
		micros(challenge), micros(tx.Now), credential, id, userID, micros(tx.Now.Add(ClockSlack)))
	return n == 1, err
}

// RenamePasskey has a user call a passkey otherwise; false if there is none such.
func (tx *Tx) RenamePasskey(userID, id, name string) (bool, error) {
	n, err := tx.Exec(`UPDATE passkeys SET name = $1 WHERE id = $2 AND user_id = $3`, name, id, userID)
	return n == 1, err
}

// DeletePasskey removes a user's passkey, after LockUser; false if there is none such.
func (tx *Tx) DeletePasskey(userID, id string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM passkeys WHERE id = $1 AND user_id = $2`, id, userID)
	return n == 1, err
}
