package store

import (
	"time"

	"kwai/internal/database"
)

// Logout is an end of a session that an app is still to hear of.
type Logout struct {
	ID, AppID, UserID, SID string
	CreatedAt              time.Time
	Attempts               int64
	DueAt                  time.Time // of the next attempt
	DeadAt                 time.Time // zero: it is still tried
	LastError              string
}

const logoutColumns = `logouts.id, logouts.app_id, logouts.user_id, logouts.sid, logouts.created_at, logouts.attempts, logouts.due_at, logouts.dead_at, logouts.last_error`

func scanLogout(scan database.Scan) (l Logout, err error) {
	return l, scan(&l.ID, &l.AppID, &l.UserID, &l.SID, (*instant)(&l.CreatedAt), &l.Attempts, (*instant)(&l.DueAt), (*instant)(&l.DeadAt), &l.LastError)
}

// enqueueLogouts enqueues a logout for each sid among the app sessions (logoutPending) that
// the condition is true of, if its app wants them. $1 is the time. The id is the session's,
// so that a second end of it enqueues nothing.
func (tx *Tx) enqueueLogouts(condition string, args ...any) error {
	_, err := tx.Exec(`INSERT INTO logouts (id, app_id, user_id, sid, created_at, attempts, due_at, last_error)
		SELECT MIN(app_sessions.id), app_sessions.app_id, app_sessions.user_id, app_sessions.sid, $1, 0, $1, ''
		FROM app_sessions JOIN apps ON apps.id = app_sessions.app_id AND apps.created_at <= app_sessions.created_at
		WHERE apps.backchannel_url <> '' AND `+logoutPending+` AND `+condition+`
		GROUP BY app_sessions.app_id, app_sessions.user_id, app_sessions.sid
		ON CONFLICT DO NOTHING`, append([]any{micros(tx.Now)}, args...)...)
	return err
}

// AppsWithDueLogouts lists the ids of the apps of which a logout is due.
func (r Reader) AppsWithDueLogouts(now time.Time) ([]string, error) {
	return database.QueryRows(r.db, database.Column[string], `SELECT DISTINCT app_id FROM logouts WHERE dead_at IS NULL AND due_at <= $1`, micros(now))
}

// DueLogouts lists up to n of an app's logouts that are due, the longest due first.
func (r Reader) DueLogouts(appID string, now time.Time, n int) ([]Logout, error) {
	return database.QueryRows(r.db, scanLogout, `SELECT `+logoutColumns+` FROM logouts WHERE app_id = $1 AND dead_at IS NULL AND due_at <= $2 ORDER BY due_at, id LIMIT $3`, appID, micros(now), n)
}

// Logouts lists up to n logouts, tried or dead, in the order of their ids, beginning
// behind the one given.
func (r Reader) Logouts(after string, n int) ([]Logout, error) {
	return database.QueryRows(r.db, scanLogout, `SELECT `+logoutColumns+` FROM logouts WHERE id > $1 ORDER BY id LIMIT $2`, after, n)
}

// LogoutDelivered removes a logout that its app has taken.
func (tx *Tx) LogoutDelivered(id string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM logouts WHERE id = $1`, id)
	return n == 1, err
}

// LogoutFailed notes an attempt that failed: the next one is at due, or there is none
// where that is zero.
func (tx *Tx) LogoutFailed(id, reason string, due time.Time) error {
	dead := time.Time{}
	if due.IsZero() {
		dead, due = tx.Now, tx.Now
	}
	_, err := tx.Exec(`UPDATE logouts SET attempts = attempts + 1, last_error = $1, due_at = $2, dead_at = $3 WHERE id = $4`,
		reason, micros(due), optional(dead), id)
	return err
}

// ResendLogout has a logout tried anew, for as long as a new one; false if there is none.
func (tx *Tx) ResendLogout(id string) (bool, error) {
	n, err := tx.Exec(`UPDATE logouts SET created_at = $1, due_at = $1, dead_at = NULL, attempts = 0 WHERE id = $2`, micros(tx.Now), id)
	return n == 1, err
}

// OldLogouts counts those that wait, and when the first of them happened.
func (r Reader) OldLogouts() (waiting, dead int64, oldest time.Time, err error) {
	_, err = database.QueryRow(r.db, func(scan database.Scan) (struct{}, error) {
		return struct{}{}, scan(&waiting, &dead, (*instant)(&oldest))
	}, `SELECT COUNT(CASE WHEN dead_at IS NULL THEN 1 END), COUNT(dead_at), MIN(CASE WHEN dead_at IS NULL THEN created_at END) FROM logouts`)
	return waiting, dead, oldest, err
}
