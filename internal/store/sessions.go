package store

import (
	"database/sql"
	"time"

	"kwai/internal/database"
)

// Session is a login that goes on. Its refresh tokens are numbered; Counter is
// the number of the current one.
type Session struct {
	ID        string
	UserID    string
	Kind      Kind
	AMR       string    // what its user has shown last: RFC 8176, separated by spaces
	AuthTime  time.Time // when
	Counter   int64
	CreatedAt time.Time
	RenewedAt time.Time // when the current refresh token became current
	EndedAt   time.Time // zero: it has not been ended
	EndsAt    time.Time // its own end, where the lifetimes aren't; zero: it has none
	// The first token replaced in RenewedAt's reuse window; in that and the
	// window before; in those and the one before that.
	mark, floor, prior int64
}

// Kind is what a session is for. Each door takes its own kind alone: a token of one
// kind is worth nothing at another.
type Kind string

// The kinds there are.
const (
	KindAPI     Kind = "api"     // opened by the login API, renewed by refresh tokens
	KindBrowser Kind = "browser" // opened by the login page, held by a cookie
)

// Lifetimes bound a session.
type Lifetimes struct {
	Idle    time.Duration // since the latest renewal
	Session time.Duration // since the login
}

// Live says whether the session goes on at that time.
func (s Session) Live(now time.Time, l Lifetimes) bool {
	return s.EndedAt.IsZero() && now.Sub(s.CreatedAt) < l.Session && now.Sub(s.RenewedAt) < l.Idle && (s.EndsAt.IsZero() || now.Before(s.EndsAt))
}

// Reusable says whether the token numbered counter, no longer current, may
// still be exchanged by a request that arrived then: it was replaced less than
// a window before. Time is cut into windows, and the row knows which tokens
// were replaced in the latest ones: so a token stays usable for one window at
// least and two at most, at a constant size of the row.
func (s Session) Reusable(counter int64, arrived time.Time, window time.Duration) bool {
	return reusable(s.RenewedAt, s.mark, s.floor, s.prior, counter, arrived, window)
}

func reusable(renewed time.Time, mark, floor, prior, counter int64, arrived time.Time, window time.Duration) bool {
	switch later := windowOf(arrived, window) - windowOf(renewed, window); {
	case later >= 2:
		return false
	case later == 1:
		return counter >= mark
	case later == 0:
		return counter >= floor
	default:
		// A renewal in a later window overtook this request, or the clock of
		// the replica that took it lags.
		return counter >= prior
	}
}

func windowOf(t time.Time, window time.Duration) int64 {
	return micros(t) / window.Microseconds()
}

const sessionColumns = `sessions.id, sessions.user_id, sessions.counter, sessions.mark, sessions.floor, sessions.prior, sessions.created_at, sessions.renewed_at, sessions.ended_at, sessions.kind, sessions.amr, sessions.auth_time, sessions.ends_at`

type sessionRow struct {
	Session
	created, renewed     int64
	ended, authenticated sql.NullInt64
}

func (r *sessionRow) dest() []any {
	return []any{&r.ID, &r.UserID, &r.Counter, &r.mark, &r.floor, &r.prior, &r.created, &r.renewed, &r.ended, (*string)(&r.Kind), &r.AMR, &r.authenticated, (*instant)(&r.EndsAt)}
}

func (r *sessionRow) session() Session {
	r.CreatedAt, r.RenewedAt, r.EndedAt = fromMicros(r.created), fromMicros(r.renewed), fromOptional(r.ended)
	if r.AuthTime = r.CreatedAt; r.authenticated.Valid {
		r.AuthTime = fromMicros(r.authenticated.Int64)
	}
	return r.Session
}

func scanSession(scan database.Scan) (Session, error) {
	var row sessionRow
	err := scan(row.dest()...)
	return row.session(), err
}

// SessionByID finds a session, ended or not; ErrNotFound if there is none.
func (r Reader) SessionByID(id string) (Session, error) {
	return database.QueryRow(r.db, scanSession, `SELECT `+sessionColumns+` FROM sessions WHERE sessions.id = $1`, id)
}

// OpenSession adds a session that is authenticated now, whose first token is number 0.
// LogIn comes first, in the same transaction. If the user then has more live sessions than most,
// the oldest end, a hundred at once; their ids are returned.
func (tx *Tx) OpenSession(s Session, most int) (ended []string, err error) {
	_, err = tx.Exec(`INSERT INTO sessions (id, user_id, kind, amr, auth_time, ends_at, counter, mark, floor, prior, created_at, renewed_at) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, 0, $5, $5)`,
		s.ID, s.UserID, string(s.Kind), s.AMR, micros(tx.Now), optional(s.EndsAt))
	if err != nil {
		return nil, err
	}
	ended, err = database.QueryRows(tx.db, database.Column[string], `UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE id IN
		(SELECT id FROM sessions WHERE user_id = $3 AND ended_at IS NULL ORDER BY id DESC LIMIT 100 OFFSET $4) RETURNING id`,
		micros(tx.Now), EndExcess, s.UserID, most)
	if err == nil && len(ended) > 0 {
		err = tx.endOrphans(s.UserID, EndExcess)
	}
	return ended, err
}

// Renew replaces the token numbered counter by the next one, if it is the
// current one of a live session; ErrNotFound if not. A number above the
// current one is taken for current: the token's MAC proves that this server
// issued it, so the database has lost history. What it replaced in that time
// isn't known: the tokens between count as replaced now.
func (tx *Tx) Renew(id string, counter int64, l Lifetimes, window time.Duration) (Session, error) {
	now := micros(tx.Now)
	return database.QueryRow(tx.db, scanSession, renew,
		append(renewal(counter, tx.Now, window), id, counter, now-l.Session.Microseconds(), now-l.Idle.Microseconds())...)
}

// renewed is what a renewal sets, in sessions and in app_sessions. Its parameters are
// those of renewal, $1 to $6.
const renewed = `
			counter = $1,
			mark = CASE WHEN renewed_at / $2 >= $3 THEN mark ELSE counter END,
			floor = CASE WHEN renewed_at / $2 >= $3 THEN floor WHEN renewed_at / $2 = $4 THEN mark ELSE counter END,
			prior = CASE WHEN renewed_at / $2 >= $3 THEN prior WHEN renewed_at / $2 = $4 THEN floor
				WHEN renewed_at / $2 = $5 THEN mark ELSE counter END,
			renewed_at = CASE WHEN renewed_at > $6 THEN renewed_at ELSE $6 END`

const renew = `UPDATE sessions SET ` + renewed + `
		WHERE id = $7 AND kind = 'api' AND counter <= $8 AND ended_at IS NULL AND created_at > $9 AND renewed_at > $10
		RETURNING ` + sessionColumns

func renewal(counter int64, now time.Time, window time.Duration) []any {
	this := windowOf(now, window)
	return []any{counter + 1, window.Microseconds(), this, this - 1, this - 2, micros(now)}
}

// Why a session ended.
const (
	EndLogout   = "logout"
	EndReplay   = "replay"
	EndRevoked  = "revoked"
	EndPassword = "password"
	EndExcess   = "excess"
	EndCommand  = "command"
	EndTwoSteps = "two steps"
)

// Why a chain of an app's tokens ended alone.
const (
	EndCodeTwice = "its code came a second time"
	EndAppReplay = "a replaced refresh token came back"
	EndByApp     = "by the app"
)

// EndSession ends a user's live session; false if there is none such.
func (tx *Tx) EndSession(id, userID, reason string, l Lifetimes) (bool, error) {
	now := micros(tx.Now)
	kind, err := database.QueryRow(tx.db, database.Column[string], `UPDATE sessions SET ended_at = $1, end_reason = $2
		WHERE id = $3 AND user_id = $4 AND ended_at IS NULL AND created_at > $5 AND renewed_at > $6 AND (ends_at IS NULL OR ends_at > $1) RETURNING kind`,
		now, reason, id, userID, now-l.Session.Microseconds(), now-l.Idle.Microseconds())
	if ended, err := found(err); err != nil || !ended {
		return false, err
	}
	if Kind(kind) == KindBrowser {
		err = tx.endOrphans(userID, reason)
	}
	return true, err
}

// CountSessions counts a user's live sessions.
func (r Reader) CountSessions(userID string, now time.Time, l Lifetimes) (int64, error) {
	return database.QueryRow(r.db, database.Column[int64], `SELECT COUNT(*) FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND created_at > $2 AND renewed_at > $3 AND (ends_at IS NULL OR ends_at > $4)`,
		userID, micros(now)-l.Session.Microseconds(), micros(now)-l.Idle.Microseconds(), micros(now))
}

// EndSessions ends all of the user's sessions. The user's row is updated first,
// in the same transaction, so that none is opened meanwhile.
func (tx *Tx) EndSessions(userID, reason string) error { return tx.EndSessionsBut(userID, "", reason) }

// EndSessionsBut is EndSessions for all but the one named.
func (tx *Tx) EndSessionsBut(userID, but, reason string) error {
	_, err := tx.Exec(`UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE user_id = $3 AND id <> $4 AND ended_at IS NULL`,
		micros(tx.Now), reason, userID, but)
	if err != nil {
		return err
	}
	return tx.EndAppSessionsBut(userID, but, reason)
}

// DeleteSessions removes all of the user's sessions, after LockUser. An end or a
// renewal at the same time comes before, or finds none.
func (tx *Tx) DeleteSessions(userID string) error {
	// These first: a logout locks its session, and then what came of that.
	if _, err := tx.Exec(`DELETE FROM sessions WHERE user_id = $1`, userID); err != nil {
		return err
	}
	return tx.deleteAppSessions(userID)
}

// OpenedSession is a session with what its login came from.
type OpenedSession struct {
	Session
	Address, UserAgent string // as the audit log has them; empty where it doesn't
}

// SessionsOfUserAfter lists up to n of the user's sessions, live and ended, in the order
// of their ids, beginning behind the one given.
func (r Reader) SessionsOfUserAfter(userID, id string, n int) ([]Session, error) {
	return database.QueryRows(r.db, scanSession, `SELECT `+sessionColumns+` FROM sessions WHERE sessions.user_id = $1 AND sessions.id > $2 ORDER BY sessions.id LIMIT $3`, userID, id, n)
}

// LiveSessions lists up to n of the user's live sessions, the newest first. opened
// is the kind of the entries of logins.
//
// A login's trace is found by its id: that and the session's are of the same
// moment, so they have the same first half.
func (r Reader) LiveSessions(userID string, now time.Time, l Lifetimes, opened string, n int) ([]OpenedSession, error) {
	return database.QueryRows(r.db, func(scan database.Scan) (s OpenedSession, err error) {
		var row sessionRow
		err = scan(append(row.dest(), &s.Address, &s.UserAgent)...)
		s.Session = row.session()
		return s, err
	}, `SELECT `+sessionColumns+`, COALESCE(audit_log.address, ''), COALESCE(audit_log.user_agent, '')
		FROM sessions LEFT JOIN audit_log ON audit_log.user_id = sessions.user_id
			AND audit_log.id BETWEEN substr(sessions.id, 1, 19) || '0000-000000000000' AND substr(sessions.id, 1, 19) || 'ffff-ffffffffffff'
			AND audit_log.session_id = sessions.id AND audit_log.kind = $5
		WHERE sessions.user_id = $1 AND sessions.ended_at IS NULL AND sessions.created_at > $2 AND sessions.renewed_at > $3
			AND (sessions.ends_at IS NULL OR sessions.ends_at > $6)
		ORDER BY sessions.created_at DESC, sessions.id DESC LIMIT $4`,
		userID, micros(now)-l.Session.Microseconds(), micros(now)-l.Idle.Microseconds(), n, opened, micros(now))
}

// ChangePassword gives the user a new password on the same condition as LogIn; it
// locks the user's row. The caller ends the other sessions and the recoveries.
func (tx *Tx) ChangePassword(userID string, version int64, p Password) (bool, error) {
	n, err := tx.Exec(`UPDATE users SET password_hash = $1, password_cost = $2, password_set_at = $3, auth_version = auth_version + 1
		WHERE id = $4 AND auth_version = $5 AND revoked_at IS NULL`, p.Hash, p.Cost, micros(tx.Now), userID, version)
	return n == 1, err
}

// LockSession keeps a user's session as it is until the transaction ends; false
// if it isn't live. Of those who end other sessions from one, each locks the
// user's row first.
func (tx *Tx) LockSession(id, userID string, l Lifetimes) (bool, error) {
	now := micros(tx.Now)
	n, err := tx.Exec(`UPDATE sessions SET counter = counter
		WHERE id = $1 AND user_id = $2 AND ended_at IS NULL AND created_at > $3 AND renewed_at > $4 AND (ends_at IS NULL OR ends_at > $5)`,
		id, userID, now-l.Session.Microseconds(), now-l.Idle.Microseconds(), now)
	return n == 1, err
}
