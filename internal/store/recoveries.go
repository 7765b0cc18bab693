package store

import (
	"cmp"
	"slices"
	"time"

	"kwai/internal/database"
)

// RecoveryRequest is an address for which somebody asked for a recovery. It may
// be nobody's.
type RecoveryRequest struct {
	ID          string
	EmailKey    string
	RequestedAt time.Time
	Address     string // of the client
	UserAgent   string
	Language    string // of the page; "" of a program
}

// RequestRecovery notes a request; one that is pending for the same address is
// made as young as this one and keeps its id.
func (tx *Tx) RequestRecovery(r RecoveryRequest) error {
	_, err := tx.Exec(`INSERT INTO recovery_requests (id, email_key, requested_at, address, user_agent, language) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (email_key) DO UPDATE SET requested_at = `+later(`recovery_requests.requested_at`, `excluded.requested_at`),
		r.ID, r.EmailKey, micros(r.RequestedAt), r.Address, r.UserAgent, r.Language)
	return err
}

// RecoveryRequested says whether a request is pending.
func (r Reader) RecoveryRequested() (bool, error) {
	return exists(r.db, `SELECT 1 FROM recovery_requests LIMIT 1`)
}

// TakeRecoveryRequests removes up to n requests, the oldest first.
func (tx *Tx) TakeRecoveryRequests(n int) ([]RecoveryRequest, error) {
	taken, err := database.QueryRows(tx.db, func(scan database.Scan) (r RecoveryRequest, err error) {
		return r, scan(&r.ID, &r.EmailKey, (*instant)(&r.RequestedAt), &r.Address, &r.UserAgent, &r.Language)
	}, `DELETE FROM recovery_requests WHERE id IN (SELECT id FROM recovery_requests ORDER BY requested_at, id LIMIT $1)
		RETURNING id, email_key, requested_at, address, user_agent, language`, n)
	// RETURNING has no order.
	slices.SortFunc(taken, func(a, b RecoveryRequest) int {
		return cmp.Or(a.RequestedAt.Compare(b.RequestedAt), cmp.Compare(a.ID, b.ID))
	})
	return taken, err
}

// Recovery lets its user choose a new password. Its unique id, derived from
// RequestID under the MAC key named MACKey, is stored as a hash.
type Recovery struct {
	RequestID string
	MACKey    string
	IDHash    []byte
	UserID    string
	ExpiresAt time.Time
	EndedAt   time.Time // used or replaced; zero if neither
}

const recoveryColumns = `recoveries.request_id, recoveries.mac_key, recoveries.id_hash, recoveries.user_id, recoveries.expires_at, recoveries.ended_at`

// dest is what recoveryColumns are scanned into.
func (r *Recovery) dest() []any {
	return []any{&r.RequestID, &r.MACKey, &r.IDHash, &r.UserID, (*instant)(&r.ExpiresAt), (*instant)(&r.EndedAt)}
}

// RecoveryByRequest finds what was made for a request; ErrNotFound if nothing.
func (r Reader) RecoveryByRequest(requestID string) (Recovery, error) {
	return database.QueryRow(r.db, func(scan database.Scan) (found Recovery, err error) {
		return found, scan(found.dest()...)
	}, `SELECT `+recoveryColumns+` FROM recoveries WHERE recoveries.request_id = $1`, requestID)
}

// RecoveryByIDHash finds a recovery by the hash of its unique id, ended or not,
// and its user; ErrNotFound if there is none.
func (r Reader) RecoveryByIDHash(hash []byte) (Recovery, User, error) {
	var found Recovery
	user, err := database.QueryRow(r.db, func(scan database.Scan) (u User, err error) {
		return u, scan(append(u.dest(), found.dest()...)...)
	}, `SELECT `+userColumns+`, `+recoveryColumns+` FROM recoveries JOIN users ON users.id = recoveries.user_id WHERE recoveries.id_hash = $1`, hash)
	return found, user, err
}

// InsertRecovery adds a recovery. ClaimRecovery and EndRecoveries come first, in
// the same transaction.
func (tx *Tx) InsertRecovery(r Recovery) error {
	_, err := tx.Exec(`INSERT INTO recoveries (request_id, mac_key, id_hash, user_id, expires_at) VALUES ($1, $2, $3, $4, $5)`,
		r.RequestID, r.MACKey, r.IDHash, r.UserID, micros(r.ExpiresAt))
	return err
}

// UseRecovery ends a valid recovery; false if it isn't valid, or no longer is. The
// user's row is updated first, in the same transaction.
func (tx *Tx) UseRecovery(idHash []byte) (bool, error) {
	n, err := tx.Exec(`UPDATE recoveries SET ended_at = $1 WHERE id_hash = $2 AND ended_at IS NULL AND expires_at > $1`,
		micros(tx.Now), idHash)
	return n == 1, err
}

// RecoveryGood says whether a recovery of the user works, or will once it is
// mailed: one that was requested since then, under the id of its trace, and is
// still to be delivered to the subscriber.
func (r Reader) RecoveryGood(userID, subscriber, since string, now time.Time) (bool, error) {
	return exists(r.db, `SELECT 1 FROM recoveries WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $4
		UNION ALL
		SELECT 1 FROM audit_log JOIN users ON users.id = audit_log.user_id JOIN events e ON e.id = audit_log.id JOIN deliveries d ON d.event_id = e.id
			WHERE audit_log.user_id = $1 AND d.subscriber = $2 AND audit_log.id > $3 AND d.dead_at IS NULL AND e.type = audit_log.kind
			AND e.expires_at > $4 AND e.created_at > COALESCE(users.recovery_requested_at, 0)
		LIMIT 1`, userID, subscriber, since, micros(now))
}

// EndRecovery ends what was made for a request, if anything was.
func (tx *Tx) EndRecovery(requestID string) error {
	_, err := tx.Exec(`UPDATE recoveries SET ended_at = $1 WHERE request_id = $2 AND ended_at IS NULL`, micros(tx.Now), requestID)
	return err
}

// EndRecoveries ends all of the user's recoveries.
func (tx *Tx) EndRecoveries(userID string) error {
	_, err := tx.Exec(`UPDATE recoveries SET ended_at = $1 WHERE user_id = $2 AND ended_at IS NULL`, micros(tx.Now), userID)
	return err
}

// DeleteRecoveries removes all of the user's recoveries, and a request that is pending
// for the user's address. LockUser comes first, in the same transaction.
func (tx *Tx) DeleteRecoveries(userID, emailKey string) error {
	if _, err := tx.Exec(`DELETE FROM recoveries WHERE user_id = $1`, userID); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM recovery_requests WHERE email_key = $1`, emailKey)
	return err
}
