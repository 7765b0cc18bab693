package store_test

import (
	"net"
	"testing"

	"kwai/internal/store"
)

// pgx may have left a reader behind on an idle connection, which holds what a
// second reader would wait for.
func TestAConnectionIsLookedAtWithoutWaiting(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	check(t, err)
	far, err := listener.Accept()
	check(t, err)
	if store.Stale(near) {
		t.Error("a connection without a reader is stale")
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = near.Read(make([]byte, 1))
	}()
	for range 1000 { // until the reader has begun, and on
		if store.Stale(near) {
			t.Fatal("a connection with a reader is stale")
		}
	}
	check(t, far.Close())
	<-read
	if !store.Stale(near) {
		t.Error("a connection whose other end has gone isn't stale")
	}
	check(t, near.Close())
}
