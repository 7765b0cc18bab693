package store

import (
	"database/sql"
	"time"
)

// Session is a login that goes on. Its refresh tokens are numbered; Counter is
// the number of the current one.
type Session struct {
	ID        string
	UserID    string
	Counter   int64
	CreatedAt time.Time
	RenewedAt time.Time // when the current refresh token became current
	EndedAt   time.Time // zero: it has not been ended
	// The first token replaced in RenewedAt's reuse window; in that and the
	// window before; in those and the one before that.
	mark, floor, prior int64
}

// Lifetimes bound a session.
type Lifetimes struct {
	Idle    time.Duration // since the latest renewal
	Session time.Duration // since the login
}

// Live says whether the session goes on at that time.
func (s Session) Live(now time.Time, l Lifetimes) bool {
	return s.EndedAt.IsZero() && now.Sub(s.CreatedAt) < l.Session && now.Sub(s.RenewedAt) < l.Idle
}

// Reusable says whether the token numbered counter, no longer current, may
// still be exchanged by a request that arrived then: it was replaced less than
// a window before. Time is cut into windows, and the row knows which tokens
// were replaced in the latest ones: so a token stays usable for one window at
// least and two at most, at a constant size of the row.
func (s Session) Reusable(counter int64, arrived time.Time, window time.Duration) bool {
	switch later := windowOf(arrived, window) - windowOf(s.RenewedAt, window); {
	case later >= 2:
		return false
	case later == 1:
		return counter >= s.mark
	case later == 0:
		return counter >= s.floor
	default:
		// A renewal in a later window overtook this request, or the clock of
		// the replica that took it lags.
		return counter >= s.prior
	}
}

func windowOf(t time.Time, window time.Duration) int64 {
	return micros(t) / window.Microseconds()
}

const sessionColumns = `sessions.id, sessions.user_id, sessions.counter, sessions.mark, sessions.floor, sessions.prior, sessions.created_at, sessions.renewed_at, sessions.ended_at`

type sessionRow struct {
	Session
	created, renewed int64
	ended            sql.NullInt64
}

func (r *sessionRow) dest() []any {
	return []any{&r.ID, &r.UserID, &r.Counter, &r.mark, &r.floor, &r.prior, &r.created, &r.renewed, &r.ended}
}

func (r *sessionRow) session() Session {
	r.CreatedAt, r.RenewedAt, r.EndedAt = fromMicros(r.created), fromMicros(r.renewed), fromOptional(r.ended)
	return r.Session
}

func scanSession(scan scanFunc) (Session, error) {
	var row sessionRow
	err := scan(row.dest()...)
	return row.session(), err
}

// SessionByID finds a session, ended or not; ErrNotFound if there is none.
func (r Reader) SessionByID(id string) (Session, error) {
	return queryRow(r, scanSession, `SELECT `+sessionColumns+` FROM sessions WHERE sessions.id = $1`, id)
}

// OpenSession adds a session whose first refresh token is number 0. LogIn comes
// first, in the same transaction.
func (tx *Tx) OpenSession(id, userID string) error {
	_, err := tx.exec(`INSERT INTO sessions (id, user_id, counter, mark, floor, prior, created_at, renewed_at) VALUES ($1, $2, 0, 0, 0, 0, $3, $3)`,
		id, userID, micros(tx.Now))
	return err
}

// Renew replaces the token numbered counter by the next one, if it is the
// current one of a live session; ErrNotFound if not. A number above the
// current one is taken for current: the token's MAC proves that this server
// issued it, so the database has lost history. What it replaced in that time
// isn't known: the tokens between count as replaced now.
func (tx *Tx) Renew(id string, counter int64, l Lifetimes, window time.Duration) (Session, error) {
	now, this := micros(tx.Now), windowOf(tx.Now, window)
	return queryRow(tx.Reader, scanSession, `UPDATE sessions SET
			counter = $1,
			mark = CASE WHEN renewed_at / $2 >= $3 THEN mark ELSE counter END,
			floor = CASE WHEN renewed_at / $2 >= $3 THEN floor WHEN renewed_at / $2 = $4 THEN mark ELSE counter END,
			prior = CASE WHEN renewed_at / $2 >= $3 THEN prior WHEN renewed_at / $2 = $4 THEN floor
				WHEN renewed_at / $2 = $5 THEN mark ELSE counter END,
			renewed_at = CASE WHEN renewed_at > $6 THEN renewed_at ELSE $6 END
		WHERE id = $7 AND counter <= $8 AND ended_at IS NULL AND created_at > $9 AND renewed_at > $10
		RETURNING `+sessionColumns,
		counter+1, window.Microseconds(), this, this-1, this-2, now,
		id, counter, now-l.Session.Microseconds(), now-l.Idle.Microseconds())
}

// Why a session ended.
const (
	EndLogout   = "logout"
	EndReplay   = "replay"
	EndRevoked  = "revoked"
	EndPassword = "password"
	EndExcess   = "excess"
	EndCommand  = "command"
)

// EndSession ends a user's live session; false if there is none such.
func (tx *Tx) EndSession(id, userID, reason string, l Lifetimes) (bool, error) {
	now := micros(tx.Now)
	n, err := tx.exec(`UPDATE sessions SET ended_at = $1, end_reason = $2
		WHERE id = $3 AND user_id = $4 AND ended_at IS NULL AND created_at > $5 AND renewed_at > $6`,
		now, reason, id, userID, now-l.Session.Microseconds(), now-l.Idle.Microseconds())
	return n == 1, err
}

// CountSessions counts a user's live sessions.
func (r Reader) CountSessions(userID string, now time.Time, l Lifetimes) (int64, error) {
	return queryRow(r, column[int64], `SELECT COUNT(*) FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND created_at > $2 AND renewed_at > $3`,
		userID, micros(now)-l.Session.Microseconds(), micros(now)-l.Idle.Microseconds())
}

// EndSessions ends all of the user's sessions. The user's row is updated first,
// in the same transaction, so that none is opened meanwhile.
func (tx *Tx) EndSessions(userID, reason string) error { return tx.EndSessionsBut(userID, "", reason) }

// EndSessionsBut is EndSessions for all but the one named.
func (tx *Tx) EndSessionsBut(userID, but, reason string) error {
	_, err := tx.exec(`UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE user_id = $3 AND id <> $4 AND ended_at IS NULL`,
		micros(tx.Now), reason, userID, but)
	return err
}

// EndOldest ends the user's oldest live sessions beyond those to keep, a hundred
// at most, and returns their ids. The user's row is updated first.
func (tx *Tx) EndOldest(userID string, keep int) ([]string, error) {
	return queryRows(tx.Reader, column[string], `UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE id IN
		(SELECT id FROM sessions WHERE user_id = $3 AND ended_at IS NULL ORDER BY id DESC LIMIT 100 OFFSET $4) RETURNING id`,
		micros(tx.Now), EndExcess, userID, keep)
}
