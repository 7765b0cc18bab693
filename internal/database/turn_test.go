package database_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// A command's store beside one that writes without a pause gets its turn, each
// time. The server's transactions take time of the bubble, and between them none
// passes: the command, which looks each millisecond, looks in vain but in the gaps
// that the server leaves.
func TestCommandsGetTheirTurnBesideABusyServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		url := storetest.SQLite(t)
		server := storetest.Open(t, url, nil)
		command, err := store.Open(t.Context(), database.Options{URL: url})
		check(t, err)
		defer command.Close()
		// So that SQLite itself doesn't wait, for time that is none of the bubble's.
		check(t, command.InTx(t.Context(), func(tx *store.Tx) error { return discard(tx.Exec(`PRAGMA busy_timeout = 0`)) }))

		busy, stop := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				for busy.Err() == nil {
					err := server.InTx(context.WithoutCancel(busy), func(tx *store.Tx) error {
						time.Sleep(10 * time.Millisecond)
						return tx.Serialize("x")
					})
					if err != nil {
						t.Errorf("the server: %v", err)
						return
					}
				}
			})
		}
		time.Sleep(time.Millisecond / 2) // it never looks at the moment at which a transaction ends
		for range 5 {
			start := time.Now()
			if err := command.Statement(t.Context(), func(tx *store.Tx) error { return tx.Serialize("x") }); err != nil {
				t.Errorf("the command: %v", err)
			}
			if waited := time.Since(start); waited > time.Second {
				t.Errorf("the command waited for %v", waited)
			}
		}
		stop()
		writers.Wait()
	})
}
