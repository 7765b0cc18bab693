package auth

import (
	"context"
	"fmt"

	"kwai/internal/store"
	"kwai/internal/token"
)

// UseMaster replaces the master keys by others, if they open all of the server's keys.
// What isn't sealed under the first of them is resealed soon.
// The error is token.ErrNoMaster, or the store's.
func (k *Keys) UseMaster(ctx context.Context, master *token.Master) error {
	rows, err := k.db.Read(ctx).Keys()
	if err != nil {
		return err
	}
	if err := CheckKeys(master, rows); err != nil {
		return err
	}
	k.master.Store(master)
	return nil
}

// Reseal seals under the first master key what isn't, and returns how many keys.
// Each is replaced only as it was read, so replicas that do it at the same time
// don't undo each other's; where it is cut off, the rest is done the next time.
func (k *Keys) Reseal(ctx context.Context) (resealed int, err error) {
	master := k.master.Load()
	rows, err := k.db.Read(ctx).Keys()
	if err != nil {
		return 0, err
	}
	for _, old := range keysOf(rows) {
		if under, ok := master.Under(old); ok && under == 0 || !old.Purpose.Known() {
			continue
		}
		fresh, err := master.Reseal(old)
		if err != nil {
			return resealed, fmt.Errorf("server key %q is sealed and %w", old.ID, err)
		}
		done := false
		err = k.db.InTx(ctx, func(tx *store.Tx) (err error) {
			done, err = tx.ResealKey(old.ID, old.Sealed, fresh.Sealed)
			if err == nil && done {
				err = recordKey(tx, AuditKeyResealed, string(old.Purpose), old.ID, "under the first master key")
			}
			return err
		})
		if err != nil {
			return resealed, err
		}
		if done {
			resealed++
			k.log.Info("sealed a server key under the first master key", "key", old.ID, "purpose", string(old.Purpose))
		}
	}
	k.resealed.Store(master)
	return resealed, nil
}
