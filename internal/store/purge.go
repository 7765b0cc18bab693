package store

import (
	"time"

	"kwai/internal/database"
)

// Cutoffs says which rows are no longer of use.
type Cutoffs struct {
	Ended     time.Time // what ended by then: sessions, recoveries, counts of attempts
	Recorded  time.Time // what was recorded by then: the audit log; and events given up by then
	Lifetimes Lifetimes // of sessions
}

// Purge removes from one table what is over, some rows at a time: Look finds
// the next, Remove removes those of them that still are over then. Look changes
// nothing, so that a table in which nothing is over costs no write.
type Purge struct {
	Table  string
	Look   func(r Reader, after string, n int, o Cutoffs) (Page, error)
	Remove func(tx *Tx, after string, p Page, o Cutoffs) (int64, error)
}

// Page is some rows of a table, in the order in which it is looked through.
type Page struct {
	Last string // the next page begins behind it
	Over int    // rows that are over
	More bool   // there may be another page in which some are
}

// Purges are those of all tables that would only grow. No index is there for
// them that a renewal had to maintain: sessions are gone through by their ids.
var Purges = [...]Purge{
	byKey("sessions", "id", "created_at, renewed_at, ended_at, ends_at", "ended_at <= $3 OR ends_at <= $3 OR created_at <= $4 OR renewed_at <= $5", false, func(o Cutoffs) []any {
		ended := micros(o.Ended)
		return []any{ended, ended - o.Lifetimes.Session.Microseconds(), ended - o.Lifetimes.Idle.Microseconds()}
	}),
	// Those of a browser session go when it is gone, and can't be live without it. An
	// offline one lives with it, too, and on its own after it. The last one of a sid whose
	// logout is pending stays until the browser session's.
	byKey("app_sessions", "id", "created_at, renewed_at, ended_at, end_reason, offline, parent_id, sid", `ended_at <= $3 AND NOT (`+logoutPending+`
		AND EXISTS (SELECT 1 FROM sessions WHERE sessions.id = app_sessions.parent_id AND sessions.ended_at IS NULL)
		AND NOT EXISTS (SELECT 1 FROM app_sessions AS newer WHERE newer.sid = app_sessions.sid AND newer.id > app_sessions.id)) OR created_at <= $3 AND (offline IS NULL OR created_at <= $4 OR renewed_at <= $5)
		AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.id = parent_id)`, false, func(o Cutoffs) []any {
		ended := micros(o.Ended)
		return []any{ended, ended - o.Lifetimes.Session.Microseconds(), ended - o.Lifetimes.Idle.Microseconds()}
	}),
	// Their ids are those of sessions: not in the order of the ends.
	byKey("logouts", "id", "created_at", "created_at <= $3", false, func(o Cutoffs) []any { return []any{micros(o.Recorded)} }),
	// Used and replaced ones stay for as long as the others.
	byKey("recoveries", "request_id", "expires_at", "expires_at <= $3", false, func(o Cutoffs) []any { return []any{micros(o.Ended)} }),
	byKey("email_changes", "user_id", "expires_at", "expires_at <= $3", false, func(o Cutoffs) []any { return []any{micros(o.Ended)} }),
	{"attempts", lookAtAttempts, removeAttempts},
	byKey("audit_log", "id", "at", "at <= $3", true, func(o Cutoffs) []any { return []any{micros(o.Recorded)} }),
	{"deliveries", lookAtDead, removeDead},
}

// byKey goes through a table by its primary key. sorted: the rows that are over
// come first. over's parameters are those of args, from $3 on.
func byKey(table, key, columns, over string, sorted bool, args func(Cutoffs) []any) Purge {
	look := `SELECT COALESCE(MAX(` + key + `), ''), COUNT(*), COUNT(CASE WHEN ` + over + ` THEN 1 END)
		FROM (SELECT ` + key + `, ` + columns + ` FROM ` + table + ` WHERE ` + key + ` > $1 ORDER BY ` + key + ` LIMIT $2) AS ` + table
	remove := `DELETE FROM ` + table + ` WHERE ` + key + ` > $1 AND ` + key + ` <= $2 AND (` + over + `)`
	return Purge{
		Table: table,
		Look: func(r Reader, after string, n int, o Cutoffs) (Page, error) {
			return lookAt(r, n, sorted, look, append([]any{after, n}, args(o)...)...)
		},
		Remove: func(tx *Tx, after string, p Page, o Cutoffs) (int64, error) {
			return tx.Exec(remove, append([]any{after, p.Last}, args(o)...)...)
		},
	}
}

// lookAt queries for a page of n rows: its last key, its rows, and those that are over.
func lookAt(r Reader, n int, sorted bool, query string, args ...any) (Page, error) {
	return database.QueryRow(r.db, func(scan database.Scan) (p Page, err error) {
		var rows int
		err = scan(&p.Last, &rows, &p.Over)
		p.More = rows == n && (!sorted || p.Over == n)
		return p, err
	}, query, args...)
}

// lookAtAttempts takes the first rows of the index by time.
func lookAtAttempts(r Reader, _ string, n int, o Cutoffs) (Page, error) {
	return lookAt(r, n, true, `SELECT '', COUNT(*), COUNT(*) FROM (SELECT 1 FROM attempts WHERE expires_at <= $1 LIMIT $2) AS page`, micros(o.Ended), n)
}

// removeAttempts has the condition twice: on PostgreSQL a row that was changed
// meanwhile is looked at again by the outer one.
func removeAttempts(tx *Tx, _ string, p Page, o Cutoffs) (int64, error) {
	return tx.Exec(`DELETE FROM attempts WHERE (account, network) IN
		(SELECT account, network FROM attempts WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2) AND expires_at <= $1`, micros(o.Ended), p.Over)
}

// lookAtDead looks for events that were given up; all events go by as they wait.
func lookAtDead(r Reader, after string, n int, o Cutoffs) (Page, error) {
	return lookAt(r, n, false, `SELECT COALESCE(MAX(id), ''), COUNT(*), CAST(COALESCE(SUM(dead), 0) AS BIGINT)
		FROM (SELECT id, (SELECT COUNT(*) FROM deliveries WHERE event_id = events.id AND dead_at <= $3) AS dead
			FROM events WHERE id > $1 ORDER BY id LIMIT $2) AS page`, after, n, micros(o.Recorded))
}

// removeDead removes deliveries that were given up, unless they are tried anew,
// and their events.
func removeDead(tx *Tx, after string, p Page, o Cutoffs) (int64, error) {
	ids, err := database.QueryRows(tx.db, database.Column[string], `DELETE FROM deliveries WHERE event_id > $1 AND event_id <= $2 AND dead_at <= $3 RETURNING event_id`,
		after, p.Last, micros(o.Recorded))
	for _, id := range ids {
		if err == nil {
			err = tx.forgetEvent(id)
		}
	}
	return int64(len(ids)), err
}
