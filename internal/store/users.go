package store

import (
	"database/sql"
	"errors"
	"time"

	"kwai/internal/database"
)

// User is an account. Zero times mean: never, or not.
type User struct {
	Profile
	EmailKey      string // folded, unique
	PasswordHash  string // PHC; empty until a password is chosen
	PasswordSetAt time.Time
	RevokedAt     time.Time
	Language      string    // chosen for mails and pages, BCP 47; "": none
	EmailProvenAt time.Time // the mailbox was proven, or an operator vouched for it
	// AuthVersion is raised by all that changes what a login must show, or may come
	// to. It is read with a proof, and compared in the transaction that the proof is for.
	AuthVersion int64
	TwoStepsAt  time.Time // since when the user wants two steps at a login
}

// Profile is what users see of themselves.
type Profile struct {
	ID                  string // UUID v4
	Email               string // as given
	FirstName, LastName string
	LastLoginAt         time.Time
	CreatedAt           time.Time
}

// userColumns are those of scanUserAnd, in its order; InsertUser and UserOfSession
// name theirs themselves.
const userColumns = `users.id, users.email, users.email_key, users.first_name, users.last_name, users.password_hash,
	users.password_set_at, users.last_login_at, users.revoked_at, users.created_at, users.language, users.auth_version, users.email_proven_at, users.two_steps_at`

// dest is what userColumns are scanned into.
func (u *User) dest() []any {
	return []any{&u.ID, &u.Email, &u.EmailKey, &u.FirstName, &u.LastName, (*nullable)(&u.PasswordHash),
		(*instant)(&u.PasswordSetAt), (*instant)(&u.LastLoginAt), (*instant)(&u.RevokedAt), (*instant)(&u.CreatedAt), &u.Language, &u.AuthVersion, (*instant)(&u.EmailProvenAt), (*instant)(&u.TwoStepsAt)}
}

func scanUser(scan database.Scan) (u User, err error) { return u, scan(u.dest()...) }

// UserOfSession finds the user of a live session of the API; ErrNotFound if it isn't
// one.
func (r Reader) UserOfSession(id string, now time.Time, l Lifetimes) (Profile, error) {
	return database.QueryRow(r.db, func(scan database.Scan) (p Profile, err error) {
		return p, scan(&p.ID, &p.Email, &p.FirstName, &p.LastName, (*instant)(&p.LastLoginAt), (*instant)(&p.CreatedAt))
	}, `SELECT users.id, users.email, users.first_name, users.last_name, users.last_login_at, users.created_at
		FROM sessions JOIN users ON users.id = sessions.user_id
		WHERE sessions.id = $1 AND sessions.kind = 'api' AND sessions.ended_at IS NULL AND sessions.created_at > $2 AND sessions.renewed_at > $3`,
		id, micros(now)-l.Session.Microseconds(), micros(now)-l.Idle.Microseconds())
}

// UserByEmail finds a user by the folded address; ErrNotFound if there is none.
func (r Reader) UserByEmail(key string) (User, error) {
	return database.QueryRow(r.db, scanUser, `SELECT `+userColumns+` FROM users WHERE users.email_key = $1`, key)
}

// UserByID finds a user; ErrNotFound if there is none.
func (r Reader) UserByID(id string) (User, error) {
	return database.QueryRow(r.db, scanUser, `SELECT `+userColumns+` FROM users WHERE users.id = $1`, id)
}

// UsersAfter lists up to n users in the order of their folded addresses,
// beginning behind the one given; "" begins at the first.
func (r Reader) UsersAfter(key string, n int) ([]User, error) {
	return database.QueryRows(r.db, scanUser, `SELECT `+userColumns+` FROM users WHERE users.email_key > $1 ORDER BY users.email_key LIMIT $2`, key, n)
}

// CostCount says how many passwords are stored at a cost of hashing.
type CostCount struct {
	Cost  string
	Users int64
}

// PasswordCosts counts the stored passwords by what verifying them costs.
func (r Reader) PasswordCosts() ([]CostCount, error) {
	return database.QueryRows(r.db, func(scan database.Scan) (c CostCount, err error) {
		return c, scan(&c.Cost, &c.Users)
	}, `SELECT password_cost, COUNT(*) FROM users WHERE password_cost IS NOT NULL GROUP BY password_cost ORDER BY password_cost`)
}

// Password is a password as it is stored.
type Password struct {
	Hash string // PHC
	Cost string // what verifying it costs
}

// InsertUser adds a user, created now unless u says when; with a password unless
// it is zero. False if the address or the id is taken.
func (tx *Tx) InsertUser(u User, p Password) (bool, error) {
	if u.CreatedAt.IsZero() {
		u.CreatedAt = tx.Now
	}
	set := time.Time{}
	if p.Hash != "" {
		set = u.CreatedAt
	}
	n, err := tx.Exec(`INSERT INTO users (id, email, email_key, first_name, last_name, password_hash, password_cost, password_set_at, revoked_at, created_at, language, email_proven_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING`,
		u.ID, u.Email, u.EmailKey, u.FirstName, u.LastName, text(p.Hash), text(p.Cost), optional(set), optional(u.RevokedAt), micros(u.CreatedAt), u.Language, optional(u.EmailProvenAt))
	return n == 1, err
}

// LockUser keeps all others who would lock the user's row waiting until the
// transaction ends, and returns the user as it is then; ErrNotFound if there is none.
func (tx *Tx) LockUser(userID string) (User, error) {
	return database.QueryRow(tx.db, scanUser, `UPDATE users SET last_login_at = last_login_at WHERE id = $1 RETURNING `+userColumns, userID)
}

// UpdateUser stores the user's names, language and address, after LockUser. Another
// address raises AuthVersion: a login by the one before ends. ErrTaken ends the
// transaction if another user has it.
func (tx *Tx) UpdateUser(u User) error {
	_, err := tx.Exec(`UPDATE users SET email = $1, first_name = $2, last_name = $3, language = $4,
			auth_version = auth_version + CASE WHEN email_key = $5 THEN 0 ELSE 1 END, email_key = $5
		WHERE id = $6`, u.Email, u.FirstName, u.LastName, u.Language, u.EmailKey, u.ID)
	if database.Duplicate(err) {
		err = errors.Join(ErrTaken, err)
	}
	return err
}

// ErrTaken says that another user has the address.
var ErrTaken = errors.New("another user has that address")

// ProveEmail notes that the user reads what is mailed to the address.
func (tx *Tx) ProveEmail(userID string) error {
	_, err := tx.Exec(`UPDATE users SET email_proven_at = $1 WHERE id = $2`, micros(tx.Now), userID)
	return err
}

// DeleteUser removes the user's row. LockUser comes first, and then all that refers to
// the row is removed: sessions and recoveries.
func (tx *Tx) DeleteUser(userID string) error {
	_, err := tx.Exec(`DELETE FROM users WHERE id = $1`, userID)
	return err
}

// LogIn stamps a login, provided that nothing has changed what it must show since
// its proof was verified, when that was the user's version, and the user isn't revoked:
// ErrNotFound otherwise. rehashed, unless zero, replaces the hash of the same password.
// Everything that opens a session goes through here first, and must then have shown what
// the account demands.
// host is the one that passkeys are for.
func (tx *Tx) LogIn(userID string, version int64, rehashed Password, host string) (Demands, error) {
	return database.QueryRow(tx.db, scanDemands, `UPDATE users SET last_login_at = `+later(`last_login_at`, `$2`)+`, password_hash = COALESCE($3, password_hash), password_cost = COALESCE($4, password_cost)
		WHERE id = $5 AND auth_version = $6 AND revoked_at IS NULL RETURNING `+demands,
		host, micros(tx.Now), text(rehashed.Hash), text(rehashed.Cost), userID, version)
}

// Rehash stores the same password with another hash, on LogIn's condition.
func (tx *Tx) Rehash(userID string, version int64, p Password) error {
	_, err := tx.Exec(`UPDATE users SET password_hash = $1, password_cost = $2 WHERE id = $3 AND auth_version = $4 AND revoked_at IS NULL`, p.Hash, p.Cost, userID, version)
	return err
}

// SetPassword gives the user a new password, none if it is zero, and returns the user, as
// it is then. The caller ends the sessions and recoveries.
func (tx *Tx) SetPassword(userID string, p Password) (User, error) {
	return database.QueryRow(tx.db, scanUser, `UPDATE users SET password_hash = $1, password_cost = $2, password_set_at = $3, auth_version = auth_version + 1
		WHERE id = $4 RETURNING `+userColumns, text(p.Hash), text(p.Cost), micros(tx.Now), userID)
}

// Revoke keeps the user from logging in; true if it was not revoked before. The
// caller ends the sessions.
func (tx *Tx) Revoke(userID string) (bool, error) {
	n, err := tx.Exec(`UPDATE users SET revoked_at = $1, auth_version = auth_version + 1 WHERE id = $2 AND revoked_at IS NULL`, micros(tx.Now), userID)
	return n == 1, err
}

// Reinstate lets a revoked user log in again; true if it was revoked before.
func (tx *Tx) Reinstate(userID string) (bool, error) {
	n, err := tx.Exec(`UPDATE users SET revoked_at = NULL WHERE id = $1 AND revoked_at IS NOT NULL`, userID)
	return n == 1, err
}

// ClaimRecovery notes that the user's latest recovery is one requested at that
// time. False if a newer one was made, the password was changed since, or the
// user is revoked: then none may be made. The password that an account was made
// with is no change: another process may have stamped it, whose clock is a
// little ahead of the one that stamped the request. Nor does a time count that
// is still to come: the clock was ahead, and has been put right.
func (tx *Tx) ClaimRecovery(userID string, requestedAt time.Time) (bool, error) {
	n, err := tx.Exec(`UPDATE users SET recovery_requested_at = $1 WHERE id = $2 AND revoked_at IS NULL
		AND (COALESCE(recovery_requested_at, 0) < $1 OR recovery_requested_at > $3)
		AND (COALESCE(password_set_at, 0) <= $1 OR password_set_at = created_at OR password_set_at > $3)`,
		micros(requestedAt), userID, micros(tx.Now.Add(time.Minute)))
	return n == 1, err
}

// text is null for "".
func text(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }
