// Package natstest gives tests a real NATS server with JetStream, in this
// process, on loopback.
package natstest

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Server is a NATS server that can be ended and started again: at the same
// address, with what it has stored.
type Server struct {
	Options *server.Options

	tb      testing.TB
	mu      sync.Mutex
	running *server.Server
}

// Serve starts a server until the end of the test. change may alter its options.
func Serve(tb testing.TB, change ...func(*server.Options)) *Server {
	tb.Helper()
	s := New(tb, change...)
	s.Start()
	return s
}

// New is Serve without starting it.
func New(tb testing.TB, change ...func(*server.Options)) *Server {
	tb.Helper()
	s := &Server{tb: tb, Options: &server.Options{
		Host: "127.0.0.1", Port: freePort(tb), NoLog: true, NoSigs: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: tb.TempDir(), JetStreamMaxMemory: 16 << 20, JetStreamMaxStore: 256 << 20,
	}}
	for _, c := range change {
		c(s.Options)
	}
	tb.Cleanup(s.Stop)
	return s
}

// Start starts it, again after Stop.
func (s *Server) Start() {
	s.tb.Helper()
	running, err := server.NewServer(s.Options.Clone())
	if err != nil {
		s.tb.Fatal(err)
	}
	s.mu.Lock()
	s.running = running
	s.mu.Unlock()
	go running.Start()
	if !running.ReadyForConnections(time.Minute) {
		s.tb.Fatal("the NATS server doesn't start")
	}
}

// Stop ends it.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		s.running.Shutdown()
		s.running.WaitForShutdown()
		s.running = nil
	}
}

// Address is HOST:PORT.
func (s *Server) Address() string { return fmt.Sprintf("%s:%d", s.Options.Host, s.Options.Port) }

// URL is that of a server that asks for nothing.
func (s *Server) URL() string { return "nats://" + s.Address() }

// JetStream is a client of the server until the end of the test.
func (s *Server) JetStream(options ...nats.Option) jetstream.JetStream {
	s.tb.Helper()
	options = append(options, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if s.Options.TLSConfig != nil {
		options = append(options, nats.Secure(&tls.Config{InsecureSkipVerify: true})) //nolint:gosec // a test's own server
	}
	conn, err := nats.Connect(s.URL(), options...)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		s.tb.Fatal(err)
	}
	return js
}

// Messages are the first n messages of a stream, in its order, waited for.
func Messages(tb testing.TB, js jetstream.JetStream, stream string, n int) []jetstream.Msg {
	tb.Helper()
	var messages []jetstream.Msg
	for deadline := time.Now().Add(time.Minute); len(messages) < n; {
		// Begun anew after any error: NATS may be away for a time.
		consumer, err := js.OrderedConsumer(tb.Context(), stream, jetstream.OrderedConsumerConfig{})
		if err == nil {
			messages = messages[:0]
			for len(messages) < n && err == nil {
				var m jetstream.Msg
				if m, err = consumer.Next(jetstream.FetchMaxWait(5 * time.Second)); err == nil {
					messages = append(messages, m)
				}
			}
		}
		if err != nil && time.Now().After(deadline) {
			tb.Fatalf("%d of %d messages: %v", len(messages), n, err)
		}
	}
	return messages
}

// freePort is a port on loopback below those that Linux gives to outgoing
// connections: one of these could take it while the server is down.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(22_000) //nolint:gosec // any will do
		l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			l.Close()
			return port
		}
	}
	tb.Fatal("no port is free")
	return 0
}
