package store

import (
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

// KnowsNetworks says whether an account knows any network.
func (tx *Tx) KnowsNetworks(account string) (bool, error) {
	return found(discard(database.QueryRow(tx.db, database.Column[int64], `SELECT 1 FROM attempts WHERE account = $1 AND network <> '' AND expires_at > $2 LIMIT 1`,
		account, micros(tx.Now))))
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

// CountUnknown counts an attempt of a network that the account doesn't know as a
// failure, and returns until when the next one must wait; false if this one must.
// The count is forgotten once none was counted for that long.
func (tx *Tx) CountUnknown(account string, w Waits, forget time.Duration) (until time.Time, ok bool, err error) {
	first := int64(0)
	if w.Free <= 1 {
		first = micros(tx.Now.Add(w.First))
	}
	return tx.counted(`INSERT INTO attempts (account, network, failures, until, expires_at) VALUES ($8, '', 1, $9, $10)
		ON CONFLICT (account, network) DO UPDATE SET expires_at = `+later(`attempts.expires_at`, `excluded.expires_at`)+`, `+waitMore+`
		WHERE `+waitOver+` RETURNING until`,
		w.args(tx.Now, account, first, micros(tx.Now.Add(forget)))...)
}

func (tx *Tx) counted(query string, args ...any) (until time.Time, ok bool, err error) {
	at, err := database.QueryRow(tx.db, database.Column[int64], query, args...)
	ok, err = found(err)
	return fromMicros(at), ok, err
}

// CountKnown is CountUnknown for a network that the account knows; false, too,
// if it is no longer known.
func (tx *Tx) CountKnown(account, network string, w Waits) (until time.Time, ok bool, err error) {
	return tx.counted(`UPDATE attempts SET `+waitMore+`
		WHERE account = $8 AND network = $9 AND expires_at > $1 AND `+waitOver+` RETURNING until`,
		w.args(tx.Now, account, network)...)
}

// Allowance lets a network fail Burst times at once, and then once each Every.
type Allowance struct {
	Burst int64
	Every time.Duration
}

// Whole is how long an allowance that was used up takes to be whole again.
func (a Allowance) Whole() time.Duration { return time.Duration(a.Burst) * a.Every }

// CountNetwork takes one from the allowance of a network; false if none is left.
// Only the time is kept by when the allowance is whole again (the generic cell
// rate algorithm of ITU-T I.371), which a clock that was ahead can't prolong.
func (tx *Tx) CountNetwork(network string, a Allowance) (bool, error) {
	n, err := tx.Exec(`INSERT INTO attempts (account, network, failures, until, expires_at) VALUES ('', $1, 1, CAST($2 AS BIGINT) + CAST($3 AS BIGINT), CAST($2 AS BIGINT) + CAST($3 AS BIGINT))
		ON CONFLICT (account, network) DO UPDATE SET failures = attempts.failures + 1,
			until = $3 + CASE WHEN attempts.until > $2 AND attempts.until <= $2 + $4 THEN attempts.until ELSE $2 END,
			expires_at = $3 + CASE WHEN attempts.until > $2 AND attempts.until <= $2 + $4 THEN attempts.until ELSE $2 END
		WHERE attempts.until <= $2 + $4 - $3 OR attempts.until > $2 + $4 + $5`,
		network, micros(tx.Now), a.Every.Microseconds(), a.Whole().Microseconds(), ClockSlack.Microseconds())
	return n == 1, err
}

// RefundNetwork gives back what CountNetwork took.
func (tx *Tx) RefundNetwork(network string, a Allowance) error {
	_, err := tx.Exec(`UPDATE attempts SET failures = failures - 1, until = until - $2, expires_at = expires_at - $2
		WHERE account = '' AND network = $1 AND failures > 0`, network, a.Every.Microseconds())
	return err
}

// RefundAttempt takes back a failure of an account that was none, and the wait
// until then, which it began; one that a later failure began stays.
func (tx *Tx) RefundAttempt(account, network string, until time.Time) error {
	if network == "" {
		// With its only failure the row goes: who gives each attempt up must not
		// be able to leave one for each address there could be.
		n, err := tx.Exec(`DELETE FROM attempts WHERE account = $1 AND network = '' AND failures <= 1`, account)
		if n > 0 || err != nil {
			return err
		}
	}
	_, err := tx.Exec(`UPDATE attempts SET failures = failures - 1, until = CASE WHEN until = $3 THEN 0 ELSE until END
		WHERE account = $1 AND network = $2 AND failures > 0`, account, network, micros(until))
	return err
}

// maxKnownNetworks bounds an account's known networks: those of the latest
// logins stay.
const maxKnownNetworks = 32

// failuresLeft are those that a success leaves: of the other attempts under way, $2
// in all, so many as are counted already.
const failuresLeft = `CASE WHEN attempts.failures > $2 THEN $2 WHEN attempts.failures > 0 THEN attempts.failures - 1 ELSE 0 END`

// KnowNetwork notes a login to the account from a network, whose failures are
// forgotten but for the attempts under way. fresh says that it wasn't known.
func (tx *Tx) KnowNetwork(account, network string, fresh bool, underWay int, until time.Time) error {
	_, err := tx.Exec(`INSERT INTO attempts (account, network, failures, until, expires_at) VALUES ($1, $3, 0, 0, $4)
		ON CONFLICT (account, network) DO UPDATE SET failures = `+failuresLeft+`, until = 0, expires_at = `+later(`attempts.expires_at`, `excluded.expires_at`),
		account, underWay, network, micros(until))
	if err == nil && fresh {
		_, err = tx.Exec(`DELETE FROM attempts WHERE account = $1 AND network <> '' AND network NOT IN
			(SELECT network FROM attempts WHERE account = $1 AND network <> '' ORDER BY expires_at DESC, network LIMIT $2)`, account, maxKnownNetworks)
	}
	return err
}

// ForgetUnknown forgets the failures of networks that the account doesn't know,
// but for the attempts under way.
func (tx *Tx) ForgetUnknown(account string, underWay int) error {
	var err error
	if underWay > 0 {
		_, err = tx.Exec(`UPDATE attempts SET failures = `+failuresLeft+`, until = 0 WHERE account = $1 AND network = ''`, account, underWay)
	} else {
		_, err = tx.Exec(`DELETE FROM attempts WHERE account = $1 AND network = ''`, account)
	}
	return err
}

// ForgetFailures forgets all of an account's failures, but not its networks.
func (tx *Tx) ForgetFailures(account string) error {
	if err := tx.ForgetUnknown(account, 0); err != nil {
		return err
	}
	_, err := tx.Exec(`UPDATE attempts SET failures = 0, until = 0 WHERE account = $1 AND failures > 0`, account)
	return err
}
