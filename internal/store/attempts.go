package store

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"kwai/internal/database"
)

// Attempts is one count of attempts to log in. The migration that makes their table
// says which there are.
type Attempts struct {
	Account   string    // a hash of the folded address; "" for a network's allowance
	Network   string    // "" for all networks that the account doesn't know
	Failures  int64     // in a row
	Until     time.Time // no attempt before
	ExpiresAt time.Time // the row counts until then; so long an account knows a network
}

func scanAttempts(scan database.Scan) (a Attempts, err error) {
	var until, expires int64
	err = scan(&a.Account, &a.Network, &a.Failures, &until, &expires)
	a.Until, a.ExpiresAt = fromMicros(until), fromMicros(expires)
	return a, err
}

const attemptsColumns = `account, network, failures, until, expires_at`

// Attempts finds what counts for a login to the account from the network:
// the failures of unknown networks there, those of the network if the account
// knows it, and the network's own. Each may be missing.
func (r Reader) Attempts(account, network string) ([]Attempts, error) {
	return database.QueryRows(r.db, scanAttempts, `SELECT `+attemptsColumns+` FROM attempts WHERE account = $1 AND network IN ('', $2)
		UNION ALL SELECT `+attemptsColumns+` FROM attempts WHERE account = '' AND network = $2`, account, network)
}

// AttemptsOf lists an account's counts.
func (r Reader) AttemptsOf(account string) ([]Attempts, error) {
	return database.QueryRows(r.db, scanAttempts, `SELECT `+attemptsColumns+` FROM attempts WHERE account = $1 ORDER BY network`, account)
}

// LockedAccounts lists the accounts that have so many failures, or more, from
// networks that they don't know.
func (r Reader) LockedAccounts(most int64, now time.Time) ([]string, error) {
	return database.QueryRows(r.db, database.Column[string], `SELECT account FROM attempts WHERE network = '' AND failures >= $1 AND expires_at > $2`, most, micros(now))
}

// Waits say how failures in a row hold back the next attempt: not until there
// are Free of them, then for First, then each time for twice as long, but for
// Longest at most; and at Most of them for good.
type Waits struct {
	Free, Most     int64
	First, Longest time.Duration
}

// ClockSlack is how far the clocks of two replicas, and the times of two
// transactions that meet, may be apart. What lies further ahead than anything
// can was written by a clock that was wrong.
const ClockSlack = time.Minute

// doublings of First make Longest, or more. (More would overflow in the end.)
func (w Waits) doublings() (n int64) {
	for d := w.First; d < w.Longest && n < 62; d *= 2 {
		n++
	}
	return n
}

// afterFirst is until when the first failure has the next attempt wait.
func (w Waits) afterFirst(now time.Time) int64 {
	if w.Free > 1 {
		return 0
	}
	return micros(now.Add(w.First))
}

// args are those of waitMore and waitOver, $1 to $7.
func (w Waits) args(now time.Time, more ...any) []any {
	return append([]any{
		micros(now), w.Free, w.Most, w.First.Microseconds(), w.Longest.Microseconds(), w.doublings(),
		micros(now.Add(w.Longest + ClockSlack)),
	}, more...)
}

// What a count is after one failure more, and the condition under which one more
// may be tried. Without a wait until is 0, not now: an attempt that is counted at
// the same time must not wait for what is no wait.
const (
	failuresMore = `CASE WHEN attempts.expires_at > $1 THEN attempts.failures + 1 ELSE 1 END`
	waitMore     = `failures = ` + failuresMore + `, until = CASE
		WHEN ` + failuresMore + ` < $2 THEN 0
		WHEN ` + failuresMore + ` - $2 >= $6 THEN CAST($1 AS BIGINT) + CAST($5 AS BIGINT)
		ELSE CAST($1 AS BIGINT) + (CAST($4 AS BIGINT) << CAST(` + failuresMore + ` - $2 AS INTEGER)) END`
	waitOver = `(attempts.expires_at <= $1 OR (attempts.until <= $1 OR attempts.until > $7) AND attempts.failures < $3)`
)

// Allowance lets a network fail Burst times at once, and then once each Every.
type Allowance struct {
	Burst int64
	Every time.Duration
}

// Whole is how long an allowance that was used up takes to be whole again.
func (a Allowance) Whole() time.Duration { return time.Duration(a.Burst) * a.Every }

// Limits are what attempts are counted by.
type Limits struct {
	Waits     Waits
	Allowance Allowance
	Remember  time.Duration // how long an unknown network's failures count after the last
}

// Attempt is a try of a password or a code for an account, from a network.
type Attempt struct {
	Account string // as the counts name it; "" has no count
	Network string // "" where it isn't known
	Known   bool   // the account knows the network

	// What CountAttempt has done.
	Counted bool
	Until   time.Time     // that the account's next attempt must wait
	Took    time.Duration // of the network's allowance
}

// ErrAllowance says that a network has used up its allowance.
var ErrAllowance = errors.New("the network has used up its allowance")

// Each counts an attempt for the account, unless it must wait, and returns until when
// the next one must: countUnknown in the count of all networks that the account doesn't
// know, countKnown in that of a network that it still knows.
var (
	countUnknown = `INSERT INTO attempts (account, network, failures, until, expires_at) VALUES ($8, '', 1, $9, $10)
		ON CONFLICT (account, network) DO UPDATE SET expires_at = ` + later(`attempts.expires_at`, `excluded.expires_at`) + `, ` + waitMore + `
		WHERE ` + waitOver + ` RETURNING until`
	countKnown = `UPDATE attempts SET ` + waitMore + `
		WHERE account = $8 AND network = $9 AND expires_at > $1 AND ` + waitOver + ` RETURNING until`
)

// countCode is countKnown for a code, provided that the user $10 must show one; it also
// returns the secret of the authenticator app that it must be of. It decides nothing: who
// reads a user's row first, this then, and compares auth_version at last (LogIn), has seen
// one state of the account, though this takes no lock of the user.
var countCode = strings.TrimSuffix(countKnown, ` RETURNING until`) + `
	AND EXISTS (SELECT 1 FROM users WHERE users.id = $10 AND (users.two_steps_at IS NOT NULL OR ` + groupsDemand + ` > 0))
	RETURNING until, COALESCE((SELECT secret FROM authenticators WHERE authenticators.user_id = $10), '')`

// countNetwork takes one from the allowance of a network, if one is left. Only the time
// is kept by when the allowance is whole again (the generic cell rate algorithm of
// ITU-T I.371), which a clock that was ahead can't prolong.
const countNetwork = `INSERT INTO attempts (account, network, failures, until, expires_at) VALUES ('', $1, 1, CAST($2 AS BIGINT) + CAST($3 AS BIGINT), CAST($2 AS BIGINT) + CAST($3 AS BIGINT))
	ON CONFLICT (account, network) DO UPDATE SET failures = attempts.failures + 1,
		until = $3 + CASE WHEN attempts.until > $2 AND attempts.until <= $2 + $4 THEN attempts.until ELSE $2 END,
		expires_at = $3 + CASE WHEN attempts.until > $2 AND attempts.until <= $2 + $4 THEN attempts.until ELSE $2 END
	WHERE attempts.until <= $2 + $4 - $3 OR attempts.until > $2 + $4 + $5`

// CountAttempt counts an attempt as a failure. In a known network it counts for the
// account there, which is a single statement; in any other for the account, and
// against the network's allowance. It isn't Counted if it must wait, or if the
// network is no longer known. After ErrAllowance the transaction must be undone.
func (tx *Tx) CountAttempt(a Attempt, l Limits) (Attempt, error) {
	a.Counted, a.Took = true, 0
	if a.Account != "" {
		var query string
		var args []any
		if a.Known {
			query, args = countKnown, l.Waits.args(tx.Now, a.Account, a.Network)
		} else {
			query, args = countUnknown, l.Waits.args(tx.Now, a.Account, l.Waits.afterFirst(tx.Now), micros(tx.Now.Add(l.Remember)))
		}
		until, err := database.QueryRow(tx.db, database.Column[int64], query, args...)
		if a.Counted, err = found(err); err != nil || !a.Counted {
			return a, err
		}
		a.Until = fromMicros(until)
	}
	if a.Known || a.Network == "" {
		return a, nil
	}
	n, err := tx.Exec(countNetwork, a.Network, micros(tx.Now), l.Allowance.Every.Microseconds(), l.Allowance.Whole().Microseconds(), ClockSlack.Microseconds())
	if err == nil && n == 0 {
		err = ErrAllowance
	}
	a.Counted, a.Took = err == nil, l.Allowance.Every
	return a, err
}

// CountCode is CountAttempt for a code, in a network that the account knows. It isn't
// Counted if the user must show none either. The secret is that of the user's
// authenticator app, sealed; "" if there is none.
func (tx *Tx) CountCode(a Attempt, userID string, l Limits) (counted Attempt, secret string, err error) {
	var until int64
	_, err = database.QueryRow(tx.db, func(scan database.Scan) (bool, error) { return true, scan(&until, &secret) },
		countCode, l.Waits.args(tx.Now, a.Account, a.Network, userID)...)
	a.Counted, err = found(err)
	a.Until = fromMicros(until)
	return a, secret, err
}

// refundNetwork gives back what countNetwork took.
const refundNetwork = `UPDATE attempts SET failures = failures - 1, until = until - $2, expires_at = expires_at - $2
	WHERE account = '' AND network = $1 AND failures > 0`

// RefundAttempt takes back the count of an attempt that was no failure: what it took
// of the network's allowance, and the account's wait if this attempt began it; one
// that a later failure began stays.
func (tx *Tx) RefundAttempt(a Attempt) error {
	network := ""
	var gone int64
	var err error
	if a.Known {
		network = a.Network
	} else {
		// With its only failure the row goes: who gives each attempt up must not
		// be able to leave one for each address there could be.
		gone, err = tx.Exec(`DELETE FROM attempts WHERE account = $1 AND network = '' AND failures <= 1`, a.Account)
	}
	if err == nil && gone == 0 {
		_, err = tx.Exec(`UPDATE attempts SET failures = failures - 1, until = CASE WHEN until = $3 THEN 0 ELSE until END
			WHERE account = $1 AND network = $2 AND failures > 0`, a.Account, network, micros(a.Until))
	}
	if err == nil && a.Took > 0 {
		_, err = tx.Exec(refundNetwork, a.Network, a.Took.Microseconds())
	}
	return err
}

// failuresLeft are those that a success leaves: of the other attempts under way, so many
// as are counted already.
func failuresLeft(underWay string) string {
	return `CASE WHEN attempts.failures > ` + underWay + ` THEN ` + underWay + ` WHEN attempts.failures > 0 THEN attempts.failures - 1 ELSE 0 END`
}

// Success is an attempt that is no failure after all, beside so many others that are
// under way.
type Success struct {
	Attempt
	UnderWay int
}

// SucceedAttempts clears the counts that the attempts were added to, but for the others
// that are under way, and has the accounts know their networks until then. It says
// whether the first one's account knew any network before.
func (tx *Tx) SucceedAttempts(until time.Time, all ...Success) (knew bool, err error) {
	var known []Success
	for i, a := range all {
		if a.Known {
			known = append(known, a)
			knew = knew || i == 0
			continue
		}
		knows, err := tx.succeedUnknown(a, until)
		if err != nil {
			return false, err
		}
		knew = knew || i == 0 && knows
	}
	return knew, tx.noteNetworks(until, known...)
}

// succeedUnknown is SucceedAttempts for a network that the account doesn't know.
func (tx *Tx) succeedUnknown(a Success, until time.Time) (knew bool, err error) {
	if a.UnderWay > 0 {
		_, err = tx.Exec(`UPDATE attempts SET failures = `+failuresLeft(`$2`)+`, until = 0 WHERE account = $1 AND network = ''`, a.Account, a.UnderWay)
	} else {
		_, err = tx.Exec(forgetUnknown, a.Account)
	}
	if err == nil && a.Took > 0 {
		_, err = tx.Exec(refundNetwork, a.Network, a.Took.Microseconds())
	}
	if err != nil {
		return false, err
	}
	return tx.KnowNetwork(a.Account, a.Network, until)
}

// maxKnownNetworks bounds an account's known networks: those of the latest
// logins stay.
const maxKnownNetworks = 32

// KnowNetwork has an account know a network until then, from which nothing counts
// against it any longer, and says whether it knew any before. "" is no network.
func (tx *Tx) KnowNetwork(account, network string, until time.Time) (knew bool, err error) {
	if network == "" {
		return false, nil
	}
	var latest int64
	networks, err := database.QueryRow(tx.db, func(scan database.Scan) (n int64, err error) {
		err = scan(&n, &latest)
		return n, err
	}, `SELECT COUNT(*), COALESCE(MAX(expires_at), 0) FROM attempts WHERE account = $1 AND network <> ''`, account)
	if err != nil {
		return false, err
	}
	err = tx.noteNetworks(until, Success{Attempt: Attempt{Account: account, Network: network}})
	if err == nil && networks >= maxKnownNetworks {
		_, err = tx.Exec(`DELETE FROM attempts WHERE account = $1 AND network <> '' AND network NOT IN
			(SELECT network FROM attempts WHERE account = $1 AND network <> '' ORDER BY expires_at DESC, network LIMIT $2)`, account, maxKnownNetworks)
	}
	return latest > micros(tx.Now), err
}

// noteNetworks writes all of them by one statement. A network that is new to its account
// has as many failures as are under way, at most.
func (tx *Tx) noteNetworks(until time.Time, all ...Success) error {
	if len(all) == 0 {
		return nil
	}
	var rows []string
	args := []any{micros(until)}
	for _, a := range all {
		n := len(args)
		rows = append(rows, fmt.Sprintf(`($%d, $%d, $%d, 0, $1)`, n+1, n+2, n+3))
		args = append(args, a.Account, a.Network, a.UnderWay)
	}
	_, err := tx.Exec(`INSERT INTO attempts (account, network, failures, until, expires_at) VALUES `+strings.Join(rows, `, `)+`
		ON CONFLICT (account, network) DO UPDATE SET failures = `+failuresLeft(`excluded.failures`)+`, until = 0, expires_at = `+later(`attempts.expires_at`, `excluded.expires_at`),
		args...)
	return err
}

// forgetUnknown forgets the failures of networks that an account doesn't know.
const forgetUnknown = `DELETE FROM attempts WHERE account = $1 AND network = ''`

// ForgetAccount forgets all of an account's failures, and its networks.
func (tx *Tx) ForgetAccount(account string) error {
	_, err := tx.Exec(`DELETE FROM attempts WHERE account = $1`, account)
	return err
}

// MoveAttempts has an account's failures and networks count under another name. What
// was counted there was nobody's, and is forgotten. (An attempt that is counted there
// at the same time is why the row may be there all the same.)
func (tx *Tx) MoveAttempts(from, to string) error {
	if err := tx.ForgetAccount(to); err != nil {
		return err
	}
	moved, err := database.QueryRows(tx.db, scanAttempts, `DELETE FROM attempts WHERE account = $1 RETURNING `+attemptsColumns, from)
	for _, a := range moved {
		if err == nil {
			_, err = tx.Exec(`INSERT INTO attempts (account, network, failures, until, expires_at) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (account, network) DO UPDATE SET failures = excluded.failures, until = excluded.until, expires_at = excluded.expires_at`,
				to, a.Network, a.Failures, micros(a.Until), micros(a.ExpiresAt))
		}
	}
	return err
}

// ForgetFailures forgets all of an account's failures, but not its networks.
func (tx *Tx) ForgetFailures(account string) error {
	_, err := tx.Exec(forgetUnknown, account)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE attempts SET failures = 0, until = 0 WHERE account = $1 AND failures > 0`, account)
	return err
}
