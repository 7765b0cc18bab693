package store

import (
	"database/sql"
	"time"

	"kwai/internal/database"
)

// AuditEntry is something that happened, as it is recorded.
type AuditEntry struct {
	ID        string // UUID v7 of At; the event's where one is published
	At        time.Time
	Kind      string
	Reason    string // why, or what of; may be empty
	UserID    string // may be empty
	SessionID string // may be empty
	AppID     string // may be empty
	Address   string // of the client; empty for a command
	UserAgent string

	Email   string // of the user; only AuditLogAfter reads it
	AppName string // as long as there is the app; only RecentAuditLog reads it
}

func scanAuditEntry(scan database.Scan) (t AuditEntry, err error) {
	var at int64
	var user, session, app sql.NullString
	err = scan(&t.ID, &at, &t.Kind, &t.Reason, &user, &session, &app, &t.Address, &t.UserAgent)
	t.At, t.UserID, t.SessionID, t.AppID = fromMicros(at), user.String, session.String, app.String
	return t, err
}

const auditColumns = `audit_log.id, audit_log.at, audit_log.kind, audit_log.reason, audit_log.user_id, audit_log.session_id, audit_log.app_id, audit_log.address, audit_log.user_agent`

// Record adds to the audit log.
func (tx *Tx) Record(t AuditEntry) error {
	_, err := tx.Exec(`INSERT INTO audit_log (id, at, kind, reason, user_id, session_id, app_id, address, user_agent) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		t.ID, micros(t.At), t.Kind, t.Reason, text(t.UserID), text(t.SessionID), text(t.AppID), t.Address, t.UserAgent)
	return err
}

// RecordRefusal is Record for what no transaction of the user's row comes with. If the
// user was deleted meanwhile, it doesn't say where the client was.
func (tx *Tx) RecordRefusal(t AuditEntry) error {
	_, err := tx.Exec(`INSERT INTO audit_log (id, at, kind, reason, user_id, session_id, address, user_agent)
		SELECT $1, $2, $3, $4, $5, $6, CASE WHEN known THEN $7 ELSE '' END, CASE WHEN known THEN $8 ELSE '' END
		FROM (SELECT CAST($5 AS TEXT) IS NULL OR EXISTS (SELECT 1 FROM users WHERE id = $5) AS known) AS client`,
		t.ID, micros(t.At), t.Kind, t.Reason, text(t.UserID), text(t.SessionID), t.Address, t.UserAgent)
	return err
}

// ForgetClients removes from a user's entries where the clients were.
func (tx *Tx) ForgetClients(userID string) error {
	_, err := tx.Exec(`UPDATE audit_log SET address = '', user_agent = '' WHERE user_id = $1 AND (address <> '' OR user_agent <> '')`, userID)
	return err
}

// AuditEntryByID finds an entry; ErrNotFound if there is none, or it was purged.
func (r Reader) AuditEntryByID(id string) (AuditEntry, error) {
	return database.QueryRow(r.db, scanAuditEntry, `SELECT `+auditColumns+` FROM audit_log WHERE audit_log.id = $1`, id)
}

// AuditLogAfter lists up to n entries, and whom they are about, in the order of their
// ids, beginning behind the one given.
func (r Reader) AuditLogAfter(id string, n int) ([]AuditEntry, error) {
	return database.QueryRows(r.db, func(scan database.Scan) (t AuditEntry, err error) {
		var email string
		t, err = scanAuditEntry(func(dest ...any) error { return scan(append(dest, &email)...) })
		t.Email = email
		return t, err
	}, `SELECT `+auditColumns+`, COALESCE(users.email, '') FROM audit_log LEFT JOIN users ON users.id = audit_log.user_id
		WHERE audit_log.id > $1 ORDER BY audit_log.id LIMIT $2`, id, n)
}

// AuditLogOfUserAfter is AuditLogAfter for those about a user.
func (r Reader) AuditLogOfUserAfter(userID, id string, n int) ([]AuditEntry, error) {
	return database.QueryRows(r.db, scanAuditEntry, `SELECT `+auditColumns+` FROM audit_log WHERE audit_log.user_id = $1 AND audit_log.id > $2 ORDER BY audit_log.id LIMIT $3`, userID, id, n)
}

// RecentAuditLog lists the latest n entries about a user whose ids are before the one
// given, the latest first; "" is after all.
func (r Reader) RecentAuditLog(userID, before string, n int) ([]AuditEntry, error) {
	if before == "" {
		before = "g" // above every UUID
	}
	return database.QueryRows(r.db, func(scan database.Scan) (t AuditEntry, err error) {
		var app string
		t, err = scanAuditEntry(func(dest ...any) error { return scan(append(dest, &app)...) })
		t.AppName = app
		return t, err
	}, `SELECT `+auditColumns+`, COALESCE(apps.name, '') FROM audit_log LEFT JOIN apps ON apps.id = audit_log.app_id
		WHERE audit_log.user_id = $1 AND audit_log.id < $2 ORDER BY audit_log.id DESC LIMIT $3`, userID, before, n)
}

// CountAuditEntries counts a user's entries of a kind between two ids.
func (r Reader) CountAuditEntries(userID, kind, after, before string) (int64, error) {
	return database.QueryRow(r.db, database.Column[int64], `SELECT COUNT(*) FROM audit_log WHERE user_id = $1 AND id > $2 AND id < $3 AND kind = $4`, userID, after, before, kind)
}
