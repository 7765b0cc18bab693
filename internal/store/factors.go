package store

import (
	"time"

	"kwai/internal/database"
)

// Demands are what an account asks for beside a password, and what it has for that.
type Demands struct {
	TwoSteps      bool // by the user's own will
	Group         bool // by a group that the user is in
	Authenticator bool // there is an authenticator app
	Passkey       bool // there is a passkey for the host of today
}

// demands are read with the user's row. All that changes them raises auth_version, in the
// same transaction. $1 is the host that passkeys are for: those for another are no way in.
const demands = `CASE WHEN users.two_steps_at IS NULL THEN 0 ELSE 1 END,
	` + groupsDemand + `,
	(SELECT COUNT(*) FROM authenticators WHERE authenticators.user_id = users.id),
	(SELECT COUNT(*) FROM passkeys WHERE passkeys.user_id = users.id AND passkeys.rp_id = $1)`

// groupsDemand counts the user's groups that require two steps.
const groupsDemand = `(SELECT COUNT(*) FROM group_members JOIN user_groups ON user_groups.name = group_members.group_name WHERE group_members.user_id = users.id AND user_groups.two_steps = 1)`

func scanDemands(scan database.Scan) (d Demands, err error) {
	var own, groups, authenticators, passkeys int64
	err = scan(&own, &groups, &authenticators, &passkeys)
	return Demands{own > 0, groups > 0, authenticators > 0, passkeys > 0}, err
}

// Demands reads what an account asks for, where passkeys are for that host; ErrNotFound
// if there is none.
func (r Reader) Demands(userID, host string) (Demands, error) {
	return database.QueryRow(r.db, scanDemands, `SELECT `+demands+` FROM users WHERE users.id = $2`, host, userID)
}

// Authenticator is an authenticator app of a user.
type Authenticator struct {
	UserID            string
	Secret            string // sealed
	LastStep          int64  // of the latest code that was used
	CreatedAt, UsedAt time.Time
}

// Authenticator finds a user's authenticator app; ErrNotFound if there is none.
func (r Reader) Authenticator(userID string) (Authenticator, error) {
	return database.QueryRow(r.db, func(scan database.Scan) (a Authenticator, err error) {
		return a, scan(&a.UserID, &a.Secret, &a.LastStep, (*instant)(&a.CreatedAt), (*instant)(&a.UsedAt))
	}, `SELECT user_id, secret, last_step, created_at, used_at FROM authenticators WHERE user_id = $1`, userID)
}

// PutAuthenticator gives a user an authenticator app, instead of the one before, after
// LockUser or LogIn. The code of that step has been used.
func (tx *Tx) PutAuthenticator(userID, secret string, step int64) error {
	_, err := tx.Exec(`INSERT INTO authenticators (user_id, secret, last_step, created_at, used_at) VALUES ($1, $2, $3, $4, NULL)
		ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret, last_step = excluded.last_step, created_at = excluded.created_at, used_at = NULL`,
		userID, secret, step, micros(tx.Now))
	return err
}

// UseStep uses up the code of a step, and of those before it; false if one of that step,
// or of a later one, was used before.
func (tx *Tx) UseStep(userID string, step int64) (bool, error) {
	n, err := tx.Exec(`UPDATE authenticators SET last_step = $1, used_at = $2 WHERE user_id = $3 AND last_step < $1`, step, micros(tx.Now), userID)
	return n == 1, err
}

// DropAuthenticator removes a user's authenticator app; false if there was none.
func (tx *Tx) DropAuthenticator(userID string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM authenticators WHERE user_id = $1`, userID)
	return n == 1, err
}

// PutRecoveryCodes gives a user recovery codes, by their hashes, instead of all before.
func (tx *Tx) PutRecoveryCodes(userID string, hashes [][]byte) error {
	if _, err := tx.Exec(`DELETE FROM recovery_codes WHERE user_id = $1`, userID); err != nil {
		return err
	}
	for _, hash := range hashes {
		if _, err := tx.Exec(`INSERT INTO recovery_codes (user_id, hash, created_at) VALUES ($1, $2, $3)`, userID, hash, micros(tx.Now)); err != nil {
			return err
		}
	}
	return nil
}

// UseRecoveryCode uses a recovery code up; false if the user has none such left.
func (tx *Tx) UseRecoveryCode(userID string, hash []byte) (bool, error) {
	n, err := tx.Exec(`UPDATE recovery_codes SET used_at = $1 WHERE user_id = $2 AND hash = $3 AND used_at IS NULL`, micros(tx.Now), userID, hash)
	return n == 1, err
}

// HasRecoveryCode says whether a recovery code is one of the user's, used or not.
func (r Reader) HasRecoveryCode(userID string, hash []byte) (bool, error) {
	n, err := database.QueryRow(r.db, database.Column[int64], `SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1 AND hash = $2`, userID, hash)
	return n > 0, err
}

// RecoveryCodesLeft counts the recovery codes of a user that weren't used.
func (r Reader) RecoveryCodesLeft(userID string) (int64, error) {
	return database.QueryRow(r.db, database.Column[int64], `SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1 AND used_at IS NULL`, userID)
}

// SetTwoSteps switches a user's two steps on or off, and raises AuthVersion.
func (tx *Tx) SetTwoSteps(userID string, on bool) error {
	var at any
	if on {
		at = micros(tx.Now)
	}
	_, err := tx.Exec(`UPDATE users SET two_steps_at = $1, auth_version = auth_version + 1 WHERE id = $2`, at, userID)
	return err
}

// RaiseAuthVersion has logins of the user that are under way end in nothing.
func (tx *Tx) RaiseAuthVersion(userID string) error {
	_, err := tx.Exec(`UPDATE users SET auth_version = auth_version + 1 WHERE id = $1`, userID)
	return err
}

// RequireTwoSteps has the members of a group log in by two steps, or no longer, and
// raises their AuthVersion, after LockGroup.
func (tx *Tx) RequireTwoSteps(group string, on bool) error {
	value := 0
	if on {
		value = 1
	}
	if _, err := tx.Exec(`UPDATE user_groups SET two_steps = $1 WHERE name = $2`, value, group); err != nil {
		return err
	}
	_, err := tx.Exec(`UPDATE users SET auth_version = auth_version + 1 WHERE id IN (SELECT user_id FROM group_members WHERE group_name = $1)`, group)
	return err
}

// ShareNetworks has one account of the counts know the networks that another knows, for
// as long.
func (tx *Tx) ShareNetworks(from, to string) error {
	_, err := tx.Exec(`INSERT INTO attempts (account, network, failures, until, expires_at)
		SELECT $1, network, 0, 0, expires_at FROM attempts WHERE account = $2 AND network <> ''
		ON CONFLICT (account, network) DO UPDATE SET expires_at = `+later(`attempts.expires_at`, `excluded.expires_at`), to, from)
	return err
}

// DropFactors removes all of a user's factors, after LockUser. It leaves two steps as
// they are.
func (tx *Tx) DropFactors(userID string) error {
	for _, table := range []string{"authenticators", "recovery_codes", "passkeys"} {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE user_id = $1`, userID); err != nil {
			return err
		}
	}
	return nil
}
