package auth

import (
	"context"
	"fmt"
	"slices"
	"time"

	"kwai/internal/store"
	"kwai/internal/token"
)

const (
	// keysKept is how long an expired key is kept: a clock that was wrong by less
	// has lost none that is needed when it is put right.
	keysKept = 7 * 24 * time.Hour
	// rotateAgain is when making a key is tried again.
	rotateAgain = time.Minute
)

// Tend reads the keys as the database has them, makes new ones when it is
// time, and seals them under the first master key. A server calls it each second;
// what failed is logged, and tried again a minute later.
func (k *Keys) Tend(ctx context.Context) {
	if _, err := k.since(ctx, time.Now()); err != nil {
		return // it was logged
	}
	now := time.Now()
	if now.Before(k.tendAfter) {
		return
	}
	if err := k.tend(ctx); err != nil && ctx.Err() == nil {
		k.tendAfter = now.Add(rotateAgain)
	}
}

func (k *Keys) tend(ctx context.Context) error {
	made, err := k.RotateDue(ctx)
	if err != nil && ctx.Err() == nil {
		k.unmade.Add(1)
		k.log.Error("making the next server key; it is tried again", "error", err)
	}
	if len(made) > 0 { // apps may wait for the first ones
		_, _ = k.since(ctx, time.Now()) // it logs what fails
	}
	if err == nil && k.resealed.Load() != k.master.Load() {
		if _, err = k.Reseal(ctx); err != nil && ctx.Err() == nil {
			k.unsealed.Add(1)
			k.log.Error("sealing the server keys anew; it is tried again", "error", err)
		}
	}
	return err
}

// RotateDue makes those keys for which it is time.
func (k *Keys) RotateDue(ctx context.Context) ([]token.Key, error) {
	all, now := k.set.Load().all, k.db.Now()
	due := slices.DeleteFunc(slices.Clone(token.Purposes), func(p token.Purpose) bool {
		_, due := k.due(p, ofPurpose(all, p), now)
		return !due
	})
	if len(due) == 0 {
		return nil, nil
	}
	// Another server may have made them meanwhile.
	return k.makeNext(ctx, "by the schedule", func(tx *store.Tx, p token.Purpose, all []token.KeyStatus) (time.Time, bool, error) {
		at, due := k.due(p, all, tx.Now)
		return at, due, nil
	}, due...)
}

// due says when the next key of a purpose becomes active, and whether it is to be
// made now.
func (k *Keys) due(p token.Purpose, all []token.KeyStatus, now time.Time) (active time.Time, due bool) {
	if len(all) == 0 {
		return now, p.Optional()
	}
	latest := all[0]
	if k.Settings.Rotation == 0 || !p.Rotates() || latest.State != token.Active {
		return active, false
	}
	active = latest.ActiveAt.Add(k.Settings.Rotation)
	if earliest := now.Add(k.Settings.Lead()); active.Before(earliest) {
		return earliest, true
	}
	return active, false
}

// Rotate makes the next key of each purpose, which becomes active once
// everybody can know it (KeySettings.Lead). Conflict if there is one already.
func (k *Keys) Rotate(ctx context.Context, of ...token.Purpose) ([]token.Key, error) {
	return k.makeNext(ctx, ByCommand, func(tx *store.Tx, purpose token.Purpose, all []token.KeyStatus) (time.Time, bool, error) {
		if len(all) == 0 {
			return time.Time{}, false, nil
		}
		if next := all[0]; next.State == token.Next {
			return time.Time{}, false, refuse(Conflict, fmt.Sprintf("There is a next %s key already: %s becomes active at %s UTC.",
				purpose, next.ID, next.ActiveAt.UTC().Format(time.DateTime)))
		}
		// Where the clock was set back, not before the key's forerunner.
		return later(tx.Now, all[0].ActiveAt).Add(k.Settings.Lead()), true, nil
	}, of...)
}

// makeNext makes a key of each of the purposes for which when says so, given its keys,
// the latest first. There may be none.
func (k *Keys) makeNext(ctx context.Context, how string, when func(*store.Tx, token.Purpose, []token.KeyStatus) (time.Time, bool, error), of ...token.Purpose) (made []token.Key, err error) {
	if slices.Contains(of, token.ID) {
		if err := k.prepare(); err != nil {
			return nil, err
		}
	}
	err = k.db.InTx(ctx, func(tx *store.Tx) error {
		made = nil
		all, err := lockKeys(tx)
		if err != nil {
			return err
		}
		statuses := token.KeyStatuses(all, tx.Now, k.Settings.Lifetimes)
		for _, p := range of {
			at, due, err := when(tx, p, ofPurpose(statuses, p))
			if err == nil && due {
				var key token.Key
				key, err = k.makeKey(tx, all, p, at, how)
				made = append(made, key)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, key := range made {
		k.log.Info("made a server key", "key", key.ID, "purpose", string(key.Purpose), "active_at", key.ActiveAt)
	}
	return made, nil
}

func ofPurpose(all []token.KeyStatus, purpose token.Purpose) []token.KeyStatus {
	return slices.DeleteFunc(slices.Clone(all), func(key token.KeyStatus) bool { return key.Purpose != purpose })
}

// makeKey adds a key that becomes active then. However the clock was set
// meanwhile, it is made later than all others: the oldest stays the oldest.
func (k *Keys) makeKey(tx *store.Tx, all []token.Key, purpose token.Purpose, active time.Time, how string) (token.Key, error) {
	created := tx.Now
	for _, key := range all {
		if !created.After(key.CreatedAt) {
			created = key.CreatedAt.Add(time.Microsecond)
		}
	}
	for {
		key, err := k.newKey(purpose, created)
		if err != nil {
			return key, err
		}
		if slices.ContainsFunc(all, func(other token.Key) bool { return other.ID == key.ID }) {
			continue
		}
		key.ActiveAt = active
		err = tx.InsertKey(store.Key{ID: key.ID, Purpose: string(purpose), Sealed: key.Sealed, CreatedAt: created, ActiveAt: active})
		if err == nil {
			err = recordKey(tx, AuditKeyMade, string(purpose), key.ID, how)
		}
		return key, err
	}
}

// prepare makes a key of ID tokens, whose primes are looked for for a second at times:
// not while a transaction keeps all others waiting.
func (k *Keys) prepare() error {
	if k.prepared.Load() != nil {
		return nil
	}
	key, err := k.master.Load().NewKey(token.ID, time.Time{})
	if err == nil {
		k.prepared.Store(&key)
	}
	return err
}

// newKey makes a key, or takes the one that was prepared.
func (k *Keys) newKey(purpose token.Purpose, created time.Time) (token.Key, error) {
	if purpose == token.ID {
		if prepared := k.prepared.Swap(nil); prepared != nil {
			// The master key may have changed since.
			if key, err := k.master.Load().Reseal(*prepared); err == nil {
				key.CreatedAt, key.ActiveAt = created, created
				return key, nil
			}
		}
	}
	return k.master.Load().NewKey(purpose, created)
}

// Revoked is what became of a key's revocation.
type Revoked struct {
	token.KeyStatus            // as it was
	Replacement     *token.Key // what is active in its place, if it was active
	Recoveries      int64      // that were ended, since their links could be worked out
}

// Revoke removes a key. KeysFollow later no server accepts what was made with it:
// SettleRevoked waits for that. An active key is replaced at once, by the next one or
// else a new one. That gets the revoked key's time, so that nothing changes for the
// others. NotFound if there is no such key.
func (k *Keys) Revoke(ctx context.Context, id string) (r Revoked, err error) {
	if len(id) > len("01020304") { // of a key that signs
		if err := k.prepare(); err != nil {
			return r, err
		}
	}
	err = k.db.InTx(ctx, func(tx *store.Tx) error {
		r = Revoked{}
		all, err := lockKeys(tx)
		if err != nil {
			return err
		}
		statuses := token.KeyStatuses(all, tx.Now, k.Settings.Lifetimes)
		at := slices.IndexFunc(statuses, func(key token.KeyStatus) bool { return key.ID == id })
		if at < 0 {
			return refuse(NotFound, fmt.Sprintf("There is no server key %q.", id))
		}
		r.KeyStatus = statuses[at]
		if err := tx.DeleteKey(id); err != nil {
			return err
		}
		if err := recordKey(tx, AuditKeyRevoked, string(r.Purpose), id, ByCommand); err != nil {
			return err
		}
		switch {
		case r.State == token.Active:
			r.Replacement, err = k.replace(tx, all, statuses, at)
		case r.State != token.Next && at+1 < len(statuses) && statuses[at+1].Purpose == r.Purpose:
			// Until when the one before it is accepted follows from this one's time:
			// another, with which nothing was made, keeps its place.
			_, err = k.makeKey(tx, all, r.Purpose, r.ActiveAt, ByCommand)
		}
		if err != nil {
			return err
		}
		if r.Purpose == token.MAC {
			r.Recoveries, err = tx.EndRecoveriesUnder(id, SubscriberMail)
		}
		return err
	})
	if err != nil {
		return Revoked{}, err
	}
	k.log.Info("revoked a server key", "key", id, "purpose", string(r.Purpose))
	return r, nil
}

// replace makes another key active in the place of one.
func (k *Keys) replace(tx *store.Tx, all []token.Key, statuses []token.KeyStatus, at int) (*token.Key, error) {
	revoked := statuses[at]
	if at > 0 && statuses[at-1].Purpose == revoked.Purpose {
		next := statuses[at-1].Key
		next.ActiveAt = revoked.ActiveAt
		return &next, tx.ActivateKey(next.ID, next.ActiveAt)
	}
	key, err := k.makeKey(tx, all, revoked.Purpose, revoked.ActiveAt, ByCommand)
	return &key, err
}

// SettleRevoked returns when no server accepts what was made with the key, and ends the
// recoveries that were made with it in the meantime.
func (k *Keys) SettleRevoked(ctx context.Context, r Revoked) error {
	select {
	case <-time.After(KeysFollow + time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.Purpose != token.MAC {
		return nil
	}
	return k.db.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.EndRecoveriesUnder(r.ID, SubscriberMail)
		return err
	})
}

// Purge removes keys that expired more than a week ago, and returns how many:
// a clock that jumped forward by less, and is put right, has lost none.
func (k *Keys) Purge(ctx context.Context) (purged int, err error) {
	err = k.db.InTx(ctx, func(tx *store.Tx) error {
		purged = 0
		all, err := lockKeys(tx)
		if err != nil {
			return err
		}
		for _, key := range token.KeyStatuses(all, tx.Now.Add(-keysKept), k.Settings.Lifetimes) {
			if key.State != token.Expired {
				continue
			}
			if err := tx.DeleteKey(key.ID); err != nil {
				return err
			}
			purged++
		}
		return nil
	})
	return purged, err
}

// lockKeys locks the keys for the transaction, and reads them.
func lockKeys(tx *store.Tx) ([]token.Key, error) {
	if err := tx.Serialize("keys"); err != nil {
		return nil, err
	}
	rows, err := tx.Keys()
	return keysOf(rows), err
}
