// Package natstest gives tests a real NATS server with JetStream, in this process, on
// loopback:
//
//	s := natstest.Serve(t)
//	// … start kwai with --bus s.URL() …
//	messages := natstest.Messages(t, s.JetStream(), "KWAI", 1)
package natstest

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Server is a NATS server that can be stopped and started again, with the same address
// and streams.
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
		// A client that is not connected after two seconds is sent a ping, which it
		// takes for a failure.
		AuthTimeout: timeout.Seconds(), TLSTimeout: timeout.Seconds(), DisableShortFirstPing: true,
	}}
	for _, c := range change {
		c(s.Options)
	}
	tb.Cleanup(s.Stop)
	return s
}

// timeout is longer than any test: a busy machine may be slow.
const timeout = time.Hour

// Start starts the server, also after Stop. If another test's server has taken its port
// meanwhile, it waits until that has gone.
func (s *Server) Start() {
	s.tb.Helper()
	for s.start() != nil {
		time.Sleep(10 * time.Millisecond)
	}
}

// start returns an error if the port is taken.
func (s *Server) start() error {
	s.tb.Helper()
	running, err := server.NewServer(s.Options.Clone())
	if err != nil {
		s.tb.Fatal(err)
	}
	var log failures
	running.SetLoggerV2(&log, false, false, false)
	s.mu.Lock()
	s.running = running
	s.mu.Unlock()
	running.Start()
	switch text := log.text(); {
	case running.Addr() != nil:
		return nil
	case strings.Contains(text, syscall.EADDRINUSE.Error()):
		running.Shutdown()
		return syscall.EADDRINUSE
	default:
		s.tb.Fatalf("the NATS server doesn't start: %s", text)
		return nil
	}
}

// failures is a log of what keeps a server from starting; it reports that nowhere else.
type failures struct {
	mu   sync.Mutex
	said []string
}

func (f *failures) Fatalf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func (f *failures) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.said, "; ")
}

func (*failures) Errorf(string, ...any)  {}
func (*failures) Warnf(string, ...any)   {}
func (*failures) Noticef(string, ...any) {}
func (*failures) Debugf(string, ...any)  {}
func (*failures) Tracef(string, ...any)  {}

// Stop ends the server.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		s.running.Shutdown()
		s.running.WaitForShutdown()
		s.running = nil
	}
}

// Connections counts connections since the start, with refused ones.
func (s *Server) Connections() uint64 {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.running.Varz(nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	return v.TotalConnections
}

// Address is HOST:PORT.
func (s *Server) Address() string { return fmt.Sprintf("%s:%d", s.Options.Host, s.Options.Port) }

// URL is the server's URL, without a login.
func (s *Server) URL() string { return "nats://" + s.Address() }

// JetStream is a client of the server until the end of the test.
func (s *Server) JetStream(options ...nats.Option) jetstream.JetStream {
	s.tb.Helper()
	options = append(options, nats.Timeout(timeout), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if s.Options.TLSConfig != nil {
		options = append(options, nats.Secure(&tls.Config{InsecureSkipVerify: true})) //nolint:gosec // a test's own server
	}
	conn, err := nats.Connect(s.URL(), options...)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(conn.Close)
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(timeout))
	if err != nil {
		s.tb.Fatal(err)
	}
	return js
}

// Messages waits for the first n messages of a stream, and returns them in its order.
func Messages(tb testing.TB, js jetstream.JetStream, stream string, n int) []jetstream.Msg {
	tb.Helper()
	// Begun anew after any error, since NATS may be away for a time, and with twice
	// the time, since the machine may be busy.
	for wait := time.Second; ; wait *= 2 {
		messages, err := firstMessages(tb.Context(), js, stream, n, wait)
		if err == nil && len(messages) == n {
			return messages
		}
		tb.Logf("%d of %d messages within %v (%v)", len(messages), n, wait, err)
	}
}

func firstMessages(ctx context.Context, js jetstream.JetStream, stream string, n int, wait time.Duration) (messages []jetstream.Msg, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	consumer, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	batch, err := consumer.Fetch(n, jetstream.FetchMaxWait(wait))
	if err != nil {
		return nil, err
	}
	for m := range batch.Messages() {
		messages = append(messages, m)
	}
	return messages, batch.Error()
}

var given sync.Map // ports that servers of this process have

// freePort is a port on loopback below those that Linux gives to outgoing
// connections: one of these could take it while the server is down.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(22_000) //nolint:gosec // any will do
		l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			continue
		}
		l.Close()
		if _, taken := given.LoadOrStore(port, true); !taken {
			return port
		}
	}
	tb.Fatal("no port is free")
	return 0
}
