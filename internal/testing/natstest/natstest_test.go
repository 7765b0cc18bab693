package natstest_test

import (
	"net"
	"strconv"
	"testing"
	"time"

	"kwai/internal/testing/natstest"
)

// A port that somebody else has taken is waited for.
func TestStartWaitsForThePort(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(s.Options.Host, strconv.Itoa(s.Options.Port)))
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	go func() {
		defer close(started)
		s.Start()
	}()
	select {
	case <-started:
		t.Error("it has started at a port that is taken")
	case <-time.After(50 * time.Millisecond): // it has tried by now, or tries later
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-started
	s.JetStream()
}
