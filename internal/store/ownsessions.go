package store

import "time"

// OpenedSession is a session with what its login came from.
type OpenedSession struct {
	Session
	Address, UserAgent string // as the audit log has them; empty where it doesn't
}

// LiveSessions lists up to n of the user's live sessions, the newest first. opened
// is the kind of the entries of logins.
//
// A login's trace is found by its id: that and the session's are of the same
// moment, so they have the same first half.
func (r Reader) LiveSessions(userID string, now time.Time, l Lifetimes, opened string, n int) ([]OpenedSession, error) {
	return queryRows(r, func(scan scanFunc) (s OpenedSession, err error) {
		var row sessionRow
		err = scan(append(row.dest(), &s.Address, &s.UserAgent)...)
		s.Session = row.session()
		return s, err
	}, `SELECT `+sessionColumns+`, COALESCE(audit_log.address, ''), COALESCE(audit_log.user_agent, '')
		FROM sessions LEFT JOIN audit_log ON audit_log.user_id = sessions.user_id
			AND audit_log.id BETWEEN substr(sessions.id, 1, 19) || '0000-000000000000' AND substr(sessions.id, 1, 19) || 'ffff-ffffffffffff'
			AND audit_log.session_id = sessions.id AND audit_log.kind = $5
		WHERE sessions.user_id = $1 AND sessions.ended_at IS NULL AND sessions.created_at > $2 AND sessions.renewed_at > $3
		ORDER BY sessions.created_at DESC, sessions.id DESC LIMIT $4`,
		userID, micros(now)-l.Session.Microseconds(), micros(now)-l.Idle.Microseconds(), n, opened)
}

// ChangePassword gives the user a new password, provided that the hash that was
// verified is still the user's and the user isn't revoked; it locks the user's
// row. The caller ends the other sessions and the recoveries.
func (tx *Tx) ChangePassword(userID, verified string, p Password) (bool, error) {
	n, err := tx.exec(`UPDATE users SET password_hash = $1, password_cost = $2, password_set_at = $3
		WHERE id = $4 AND password_hash = $5 AND revoked_at IS NULL`, p.Hash, p.Cost, micros(tx.Now), userID, verified)
	return n == 1, err
}

// LockUser keeps all others who would lock the user's row waiting until the
// transaction ends.
func (tx *Tx) LockUser(userID string) error {
	_, err := tx.exec(`UPDATE users SET last_login_at = last_login_at WHERE id = $1`, userID)
	return err
}

// LockSession keeps a user's session as it is until the transaction ends; false
// if it isn't live. Of those who end other sessions from one, each locks the
// user's row first.
func (tx *Tx) LockSession(id, userID string, l Lifetimes) (bool, error) {
	now := micros(tx.Now)
	n, err := tx.exec(`UPDATE sessions SET counter = counter
		WHERE id = $1 AND user_id = $2 AND ended_at IS NULL AND created_at > $3 AND renewed_at > $4`,
		id, userID, now-l.Session.Microseconds(), now-l.Idle.Microseconds())
	return n == 1, err
}
