package store_test

import (
	"context"
	"sync"
	"testing"

	"kwai/internal/store"
	"kwai/internal/store/storetest"
)

// A command's store beside one that writes without a pause gets its turn, each
// time.
func TestCommandsGetTheirTurnBesideABusyServer(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	server := storetest.Open(t, url, nil)
	command, err := store.Open(t.Context(), store.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer command.Close()
	write := func(tx *store.Tx) error { return tx.Serialize("x") }

	busy, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for range 32 {
		writers.Go(func() {
			for busy.Err() == nil {
				if err := server.One(context.WithoutCancel(busy), write); err != nil {
					t.Errorf("the server: %v", err)
					return
				}
			}
		})
	}
	for range 10 {
		if err := command.One(t.Context(), write); err != nil {
			t.Errorf("the command: %v", err)
		}
	}
	stop()
	writers.Wait()
}
