package store

import (
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"kwai/internal/database"
)

// AppSession is a browser session's child at an app. Its refresh tokens are numbered as
// those of a Session.
type AppSession struct {
	ID       string // that of its code
	UserID   string
	ParentID string // the browser session
	AppID    string
	SID      string // one for a browser session at an app
	Scopes   []string
	Offline  bool // it may outlive its parent
	AMR      string
	AuthTime time.Time
	Counter  int64
	// As a Session's.
	CreatedAt, RenewedAt, EndedAt time.Time
	mark, floor, prior            int64
}

// Reusable is Session's.
func (s AppSession) Reusable(counter int64, arrived time.Time, window time.Duration) bool {
	return reusable(s.RenewedAt, s.mark, s.floor, s.prior, counter, arrived, window)
}

const appSessionColumns = `app_sessions.id, app_sessions.user_id, app_sessions.parent_id, app_sessions.app_id, app_sessions.sid, app_sessions.scopes, app_sessions.offline, app_sessions.amr, app_sessions.auth_time,
	app_sessions.counter, app_sessions.mark, app_sessions.floor, app_sessions.prior, app_sessions.created_at, app_sessions.renewed_at, app_sessions.ended_at`

type appSessionRow struct {
	AppSession
	scopes  string
	offline sql.NullInt64
}

func (r *appSessionRow) dest() []any {
	return []any{&r.ID, &r.UserID, &r.ParentID, &r.AppID, &r.SID, &r.scopes, &r.offline, &r.AMR, (*instant)(&r.AuthTime),
		&r.Counter, &r.mark, &r.floor, &r.prior, (*instant)(&r.CreatedAt), (*instant)(&r.RenewedAt), (*instant)(&r.EndedAt)}
}

func (r *appSessionRow) session() AppSession {
	r.Scopes, r.Offline = strings.Fields(r.scopes), r.offline.Valid
	if !r.Offline { // its app may have been let ask for it before
		r.Scopes = slices.DeleteFunc(r.Scopes, func(scope string) bool { return scope == ScopeOffline })
	}
	return r.AppSession
}

func scanAppSession(scan database.Scan) (AppSession, error) {
	var row appSessionRow
	err := scan(row.dest()...)
	return row.session(), err
}

// logoutPending is the condition that the end of an app session's sid still causes a
// logout token: the session is live, or its chain of tokens alone has ended.
const logoutPending = `(app_sessions.ended_at IS NULL OR app_sessions.end_reason IN ('` + EndByApp + `', '` + EndCodeTwice + `', '` + EndAppReplay + `'))`

// parentLives is the condition that an app session goes on: with its parent, or offline
// after the parent's expiry. An offline one lives from its own times, any other from its
// parent's, which its app's renewals don't prolong. Its parameters are those of appLives,
// from $7 on.
const parentLives = `app_sessions.ended_at IS NULL AND (app_sessions.offline IS NOT NULL AND app_sessions.created_at > $7 AND app_sessions.renewed_at > $8
	OR EXISTS (SELECT 1 FROM sessions WHERE sessions.id = app_sessions.parent_id AND sessions.kind = 'browser' AND sessions.ended_at IS NULL
		AND sessions.created_at > $7 AND sessions.renewed_at > $8 AND (sessions.ends_at IS NULL OR sessions.ends_at > $9)))`

func appLives(now time.Time, l Lifetimes) []any {
	return []any{micros(now) - l.Session.Microseconds(), micros(now) - l.Idle.Microseconds(), micros(now)}
}

// fromFirst numbers the parameters of parentLives from $1 on.
func fromFirst(condition string) string {
	return strings.NewReplacer("$7", "$1", "$8", "$2", "$9", "$3").Replace(condition)
}

// AppSession finds a live app session, its user and its app; ErrNotFound if it isn't one,
// or [App.Has] denies it.
func (r Reader) AppSession(id string, now time.Time, l Lifetimes) (s AppSession, u User, a App, err error) {
	var session appSessionRow
	var app appRow
	_, err = database.QueryRow(r.db, func(scan database.Scan) (struct{}, error) {
		return struct{}{}, scan(slices.Concat(session.dest(), u.dest(), app.dest())...)
	}, `SELECT `+appSessionColumns+`, `+userColumns+`, `+appColumns+` FROM app_sessions
		JOIN users ON users.id = app_sessions.user_id JOIN apps ON apps.id = app_sessions.app_id
		WHERE `+fromFirst(parentLives)+` AND app_sessions.id = $4`, append(appLives(now, l), id)...)
	if s, a = session.session(), app.app(); err == nil && !a.Has(s) {
		err = ErrNotFound
	}
	return s, u, a, err
}

// AppSessionByID finds an app session, ended or not; ErrNotFound if there is none.
func (r Reader) AppSessionByID(id string) (AppSession, error) {
	return database.QueryRow(r.db, scanAppSession, `SELECT `+appSessionColumns+` FROM app_sessions WHERE app_sessions.id = $1`, id)
}

// AppSessionsOfUserAfter lists up to n of the user's app sessions, live and ended, in the
// order of their ids, beginning behind the one given.
func (r Reader) AppSessionsOfUserAfter(userID, id string, n int) ([]AppSession, error) {
	return database.QueryRows(r.db, scanAppSession, `SELECT `+appSessionColumns+` FROM app_sessions WHERE app_sessions.user_id = $1 AND app_sessions.id > $2 ORDER BY app_sessions.id LIMIT $3`, userID, id, n)
}

// LiveApps lists what a user's live app sessions are of, by apps and scopes: each once,
// however many there are. The ids of sessions aren't there.
func (r Reader) LiveApps(userID string, now time.Time, l Lifetimes) ([]AppSession, error) {
	return database.QueryRows(r.db, func(scan database.Scan) (AppSession, error) {
		var row appSessionRow
		err := scan(&row.AppID, &row.scopes, &row.offline)
		return row.session(), err
	}, `SELECT app_sessions.app_id, app_sessions.scopes, MAX(app_sessions.offline) FROM app_sessions JOIN apps ON apps.id = app_sessions.app_id AND apps.created_at <= app_sessions.created_at
		WHERE `+fromFirst(parentLives)+` AND app_sessions.user_id = $4
		GROUP BY app_sessions.app_id, app_sessions.scopes`, append(appLives(now, l), userID)...)
}

// LockProven keeps the user's row as it is until the transaction ends, and returns it.
// ErrNotFound where something has changed what a login must show since that version, or
// the user is revoked or deleted.
func (tx *Tx) LockProven(userID string, version int64) (User, error) {
	return database.QueryRow(tx.db, scanUser, `UPDATE users SET auth_version = auth_version WHERE id = $1 AND auth_version = $2 AND revoked_at IS NULL
		RETURNING `+userColumns, userID, version)
}

// OpenAppSession adds an app session; false if there is one of its id: its code was used
// before. LockProven and LockSession of the parent come first, in the same transaction.
// Of the parent's sessions at the app, those beyond the newest most end; nobody hears of
// that, since the sid goes on.
func (tx *Tx) OpenAppSession(s AppSession, most int) (bool, error) {
	offline := sql.NullInt64{Int64: micros(tx.Now), Valid: s.Offline}
	live, err := database.QueryRow(tx.db, database.Column[int], `INSERT INTO app_sessions (id, user_id, parent_id, app_id, sid, scopes, offline, amr, auth_time, counter, floor, mark, prior, created_at, renewed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, 0, 0, $10, $10) ON CONFLICT DO NOTHING
		RETURNING (SELECT COUNT(*) FROM app_sessions AS a WHERE a.sid = app_sessions.sid AND a.ended_at IS NULL)`,
		s.ID, s.UserID, s.ParentID, s.AppID, s.SID, strings.Join(s.Scopes, " "), offline, s.AMR, micros(s.AuthTime), micros(tx.Now))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	// PostgreSQL counts without the new one, SQLite with it.
	if err != nil || live < most {
		return err == nil, err
	}
	_, err = tx.Exec(`UPDATE app_sessions SET ended_at = $1, end_reason = $2 WHERE ended_at IS NULL AND sid = $3 AND id NOT IN
		(SELECT id FROM app_sessions WHERE sid = $3 AND ended_at IS NULL ORDER BY created_at DESC, id DESC LIMIT $4)`,
		micros(tx.Now), EndExcess, s.SID, most)
	return true, err
}

// RenewAppSession replaces the token numbered counter by the next one, as Renew does, in
// a live session of the app; ErrNotFound if there is none such, or [App.Has] denies it.
// Of the user it returns what an app may see: id, address, names, language.
func (tx *Tx) RenewAppSession(id string, a App, counter int64, l Lifetimes, window time.Duration) (s AppSession, u User, err error) {
	args := append(renewal(counter, tx.Now, window), appLives(tx.Now, l)...)
	var row appSessionRow
	_, err = database.QueryRow(tx.db, func(scan database.Scan) (struct{}, error) {
		return struct{}{}, scan(append(row.dest(), &u.ID, &u.Email, (*instant)(&u.EmailProvenAt), &u.FirstName, &u.LastName, &u.Language)...)
	}, `UPDATE app_sessions SET `+renewed+`
		WHERE `+parentLives+` AND id = $10 AND app_id = $11 AND created_at >= $12 AND counter <= $13 AND (offline IS NULL OR $14)
		RETURNING `+appSessionColumns+`, user_id, `+ofUser("email", "email_proven_at", "first_name", "last_name", "language"),
		append(args, id, a.ID, micros(a.CreatedAt), counter, a.Offline)...)
	return row.session(), u, err
}

// ofUser reads columns of an app session's user in RETURNING, where SQLite has no joins.
func ofUser(columns ...string) string {
	for i, column := range columns {
		columns[i] = `(SELECT users.` + column + ` FROM users WHERE users.id = app_sessions.user_id)`
	}
	return strings.Join(columns, ", ")
}

// DropOffline has all sessions of an app end with their parents: those whose parents are
// over have ended.
func (tx *Tx) DropOffline(appID string) error {
	_, err := tx.Exec(`UPDATE app_sessions SET offline = NULL WHERE app_id = $1 AND offline IS NOT NULL`, appID)
	return err
}

// EndAppSession ends a chain of tokens; false if it had ended. Nobody hears of it: the
// browser session goes on, and its end causes a logout token, see logoutPending.
func (tx *Tx) EndAppSession(id, reason string) (bool, error) {
	n, err := tx.Exec(`UPDATE app_sessions SET ended_at = $1, end_reason = $2 WHERE id = $3 AND ended_at IS NULL`, micros(tx.Now), reason, id)
	return n == 1, err
}

// EndAppSessions ends all chains of a sid, or, with "", all of a user's at an app. Their
// app hears of it if it is told.
func (tx *Tx) EndAppSessions(userID, appID, sid, reason string, tell bool) (int64, error) {
	// Their browser sessions first, as a logout does, which ends several at once, too.
	if _, err := tx.Exec(`UPDATE sessions SET counter = counter WHERE id IN
		(SELECT parent_id FROM app_sessions WHERE user_id = $1 AND app_id = $2 AND ($3 = '' OR sid = $3) AND ended_at IS NULL)`, userID, appID, sid); err != nil {
		return 0, err
	}
	which := `user_id = $3 AND app_id = $4 AND ($5 = '' OR sid = $5) AND ended_at IS NULL`
	if tell {
		which = `user_id = $3 AND app_id = $4 AND ($5 = '' OR sid = $5) AND ` + logoutPending
		if err := tx.enqueueLogouts(`app_sessions.user_id = $2 AND app_sessions.app_id = $3 AND ($4 = '' OR app_sessions.sid = $4)`, userID, appID, sid); err != nil {
			return 0, err
		}
	}
	return tx.Exec(`UPDATE app_sessions SET ended_at = COALESCE(ended_at, $1), end_reason = $2 WHERE `+which, micros(tx.Now), reason, userID, appID, sid)
}

// endOrphans ends the app sessions of a user whose parents have ended, and writes down
// which apps are to hear of it. What ends browser sessions one by one comes here, after
// it has.
func (tx *Tx) endOrphans(userID, reason string) error {
	return tx.endChildren(`EXISTS (SELECT 1 FROM sessions WHERE sessions.id = app_sessions.parent_id AND sessions.ended_at IS NOT NULL)`, userID, "", reason)
}

// EndAppSessionsBut is endOrphans for what ends all sessions of a user but one; also
// those end whose parents have expired: an offline one would go on.
func (tx *Tx) EndAppSessionsBut(userID, but, reason string) error {
	return tx.endChildren(`app_sessions.parent_id <> $3`, userID, but, reason)
}

// endChildren takes a condition in which $3 is the parent that is left.
func (tx *Tx) endChildren(which, userID, but, reason string) error {
	if err := tx.enqueueLogouts(`app_sessions.user_id = $2 AND CAST($3 AS TEXT) IS NOT NULL AND `+which, userID, but); err != nil {
		return err
	}
	_, err := tx.Exec(`UPDATE app_sessions SET ended_at = COALESCE(ended_at, $1), end_reason = $4 WHERE user_id = $2 AND `+logoutPending+` AND CAST($3 AS TEXT) IS NOT NULL AND `+which,
		micros(tx.Now), userID, but, reason)
	return err
}

// deleteAppSessions removes a user's app sessions. Their apps hear of it.
func (tx *Tx) deleteAppSessions(userID string) error {
	if err := tx.enqueueLogouts(`app_sessions.user_id = $2`, userID); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM app_sessions WHERE user_id = $1`, userID)
	return err
}
