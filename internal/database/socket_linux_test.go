package database_test

import (
	"net"
	"testing"

	"kwai/internal/database"
)

// pgx may have a Read under way on a connection that is idle.
func TestAConnectionIsLookedAtWhileItIsRead(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	near, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	check(t, err)
	defer near.Close()
	far, err := l.Accept()
	check(t, err)
	defer far.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = near.Read(make([]byte, 1))
	}()
	for range 10_000 { // the Read begins meanwhile; a look that waited for it would not return
		if database.Stale(near, 0) {
			t.Fatal("a quiet connection is taken for stale")
		}
	}
	check(t, far.Close())
	<-read
	if !database.Stale(near, 0) {
		t.Error("an ended connection isn't seen to be")
	}
}
