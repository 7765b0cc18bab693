package store

import (
	"time"

	"kwai/internal/database"
)

// A browser session is a row of sessions of its own kind. Its cookie has a number,
// which each proof raises: counter is the newest, mark the newest that was seen. Once
// the newest has been seen the one before is dead; until then an answer may have been
// lost, and both are good.

// BrowserSession finds a live browser session and its user, and says whether a group of
// the user's requires two steps; ErrNotFound if there is none.
func (r Reader) BrowserSession(id string, now time.Time, l Lifetimes) (s Session, u User, group bool, err error) {
	var row sessionRow
	var groups int64
	_, err = database.QueryRow(r.db, func(scan database.Scan) (struct{}, error) {
		return struct{}{}, scan(append(append(row.dest(), u.dest()...), &groups)...)
	}, `SELECT `+sessionColumns+`, `+userColumns+`, `+groupsDemand+` FROM sessions JOIN users ON users.id = sessions.user_id
		WHERE sessions.id = $1 AND sessions.kind = 'browser' AND sessions.ended_at IS NULL AND sessions.created_at > $2 AND sessions.renewed_at > $3
			AND (sessions.ends_at IS NULL OR sessions.ends_at > $4)`,
		id, micros(now)-l.Session.Microseconds(), micros(now)-l.Idle.Microseconds(), micros(now))
	return row.session(), u, groups > 0, err
}

// Seen says whether the newest number of a browser session's cookie has come back.
func (s Session) Seen() bool { return s.mark >= s.Counter }

// SeeNumber notes that a browser session's newest number has come back; false if it
// was seen before, or isn't the newest.
func (tx *Tx) SeeNumber(id string, number int64) (bool, error) {
	n, err := tx.Exec(`UPDATE sessions SET mark = $1 WHERE id = $2 AND kind = 'browser' AND counter = $1 AND mark < $1`, number, id)
	return n == 1, err
}

// TouchSession has the idle time of a live browser session begin anew.
func (tx *Tx) TouchSession(id string) error {
	now := micros(tx.Now)
	_, err := tx.Exec(`UPDATE sessions SET renewed_at = $1 WHERE id = $2 AND kind = 'browser' AND ended_at IS NULL AND renewed_at < $1`, now, id)
	return err
}

// RaiseNumber has the cookie of a live browser session get the next number, and notes
// the proof that was shown, with its amr; "" is none, which makes nothing fresh.
// ErrNotFound if the session isn't live, or the cookie is dead by now. The user's row is
// locked before it, in the same transaction.
//
// A number above the row's came back from a lost history: the next one is above it. One
// below a newest that nobody has seen shows that the answer with that was lost, or is on
// its way to another tab: it is given once more. So however many answers get
// lost, the cookie that the browser has stays good.
func (tx *Tx) RaiseNumber(id, userID string, number int64, amr string, l Lifetimes) (Session, error) {
	now := micros(tx.Now)
	return database.QueryRow(tx.db, scanSession, `UPDATE sessions SET counter = $1 + 1,
			auth_time = CASE WHEN $3 = '' THEN auth_time ELSE $2 END, amr = CASE WHEN $3 = '' THEN amr ELSE $3 END, renewed_at = `+later(`renewed_at`, `$2`)+`
		WHERE id = $4 AND user_id = $5 AND kind = 'browser' AND ended_at IS NULL AND created_at > $6 AND renewed_at > $7
			AND (ends_at IS NULL OR ends_at > $2) AND (counter <= $1 OR counter = $1 + 1 AND mark < counter) RETURNING `+sessionColumns,
		number, now, amr, id, userID, now-l.Session.Microseconds(), now-l.Idle.Microseconds())
}
