package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kwai/internal/store"
)

// natsTimes are the time-outs and intervals of a NATS.
type natsTimes struct {
	answer  time.Duration // for one answer of NATS
	connect time.Duration // to one server
	retry   time.Duration // between two attempts to connect
	ping    time.Duration
}

var defaultNATSTimes = natsTimes{answer: 5 * time.Second, connect: 2 * time.Second, retry: time.Second, ping: 10 * time.Second}

var errAway = errors.New("there is no connection to NATS")

// NATS is a subscriber that publishes events to a stream of NATS JetStream, as
// CloudEvents. docs/events.md says what its readers can rely on.
//
// It connects in the background, for as long as it takes: accounts must not depend
// on NATS. What it can't publish stays in the outbox.
type NATS struct {
	setting *natsSetting
	prefix  string // of subjects
	times   natsTimes
	o       NATSOptions
	log     *slog.Logger
	wake    func()

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup

	first   chan error // how the first connection went, for Connect
	started atomic.Bool
	warned  atomic.Bool           // that the stream drops events
	denied  atomic.Pointer[error] // NATS's latest error about permissions

	checking sync.Mutex // one look at the stream at a time

	mu      sync.Mutex
	conn    *connection // nil while there is no connection
	away    error       // why there is none
	refusal string      // that was logged
}

// connection is a connection while it stands.
type connection struct {
	ctx   context.Context // ends with it
	down  context.CancelFunc
	js    jetstream.JetStream
	ready bool // the stream is there and fit; under NATS.checking
}

// NATSOptions are those of NATS.
type NATSOptions struct {
	Source string        // of the events: the public URL
	MaxAge time.Duration // of events in a stream that is made
	Log    *slog.Logger
}

// NewNATS reads a setting:
//
//	nats://[USER:PASSWORD@ or TOKEN@]HOST:PORT[,HOST:PORT…][?PARAMETERS]
//
// or the same with tls://. The parameters are credentials=FILE, ca=FILE,
// cert=FILE and key=FILE, handshake_first=true, stream=NAME, replicas=N and
// max_bytes=N. Its errors hold nothing secret. It doesn't connect yet.
func NewNATS(setting string, o NATSOptions) (*NATS, error) {
	parsed, err := parseNATS(setting)
	if err != nil {
		return nil, err
	}
	n := &NATS{setting: parsed, prefix: strings.ToLower(parsed.stream), times: defaultNATSTimes, o: o, log: o.Log, wake: func() {}, first: make(chan error, 1)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	if n.setting.remote && !n.setting.tls {
		n.log.Warn("events go to NATS without TLS: anybody on the way can read which user logs in when", "servers", n.Servers())
	}
	return n, nil
}

// Name is the name of its deliveries.
func (n *NATS) Name() string { return "nats" }

// Servers are the servers' URLs, without anything secret.
func (n *NATS) Servers() string { return strings.Join(n.setting.servers, ",") }

// Stream is the name of the stream.
func (n *NATS) Stream() string { return n.setting.stream }

// Connect begins to connect, and returns when NATS has answered or can't be
// reached. If it can't be reached, and after each lost connection, Connect goes on
// by itself; it calls wake whenever events can be published again. An error says
// what NATS refuses; then nothing goes on. Call Close at the end.
func (n *NATS) Connect(ctx context.Context, wake func()) error {
	n.wake = wake
	options := append(n.setting.login(),
		nats.Name("kwai"),
		nats.NoReconnect(),
		nats.Timeout(n.times.connect),
		nats.SetCustomDialer(dialer{n.ctx, n.times.connect}),
		nats.SkipHostLookup(),
		nats.PingInterval(n.times.ping),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				n.denied.Store(&err)
			}
		}),
	)
	n.work.Go(func() { n.keepConnected(options) })
	var err error
	select {
	case err = <-n.first:
	case <-ctx.Done():
		n.Close()
		return ctx.Err()
	}
	switch {
	case errors.Is(err, ErrRefused):
		n.Close()
		return err
	case err != nil:
		n.log.Warn("NATS can't be reached: it is tried again, and events wait", "servers", n.Servers(), "error", err)
	}
	return nil
}

// Close ends the connection. A publication under way fails.
func (n *NATS) Close() {
	n.stop()
	n.work.Wait()
}

// Deliver publishes an event and returns when the stream has stored it. Its
// error wraps ErrRefused if NATS says no.
func (n *NATS) Deliver(ctx context.Context, e store.Event) error {
	l, err := n.connected()
	if l == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, n.times.answer)
	defer cancel()
	err = n.publish(ctx, l, e)
	n.logRefusal(err)
	return err
}

func (n *NATS) publish(ctx context.Context, l *connection, e store.Event) error {
	body, err := encode(e, n.o.Source)
	if err != nil {
		return err
	}
	m := nats.NewMsg(n.prefix + "." + e.Type)
	m.Header.Set("Content-Type", cloudEventType)
	m.Data = body
	n.denied.Store(nil)
	for again := false; ; again = true {
		if err := n.check(ctx, l, again); err != nil {
			return err
		}
		_, err := l.js.PublishMsg(ctx, m,
			jetstream.WithMsgID(e.ID), jetstream.WithExpectStream(n.setting.stream), jetstream.WithRetryAttempts(0))
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, jetstream.ErrNoStreamResponse):
			return n.explain(err)
		case again:
			return errors.New("no stream answers: its servers may be choosing a leader")
		} // else the stream may have been deleted
	}
}

// check looks at the stream, once for each connection unless again is set.
func (n *NATS) check(ctx context.Context, l *connection, again bool) error {
	n.checking.Lock()
	defer n.checking.Unlock()
	if l.ready && !again {
		return nil
	}
	err := n.ensureStream(ctx, l.js)
	l.ready = err == nil
	return err
}

// logRefusal logs what NATS refuses, once until that changes.
func (n *NATS) logRefusal(err error) {
	text := ""
	if errors.Is(err, ErrRefused) {
		text = err.Error()
	} else if err != nil {
		return // the bus logs it, or the loss of the connection was logged
	}
	n.mu.Lock()
	known := n.refusal == text
	n.refusal = text
	n.mu.Unlock()
	switch {
	case known:
	case text != "":
		n.log.Error("NATS refuses events; they wait until that is corrected (--bus)", "error", err)
	default:
		n.log.Info("NATS takes events again")
	}
}

// The connection.

// keepConnected keeps a connection until Close. The library's own reconnecting is
// not used: it reports only some of its failures, and holds a lock for which
// publishing and closing would wait.
func (n *NATS) keepConnected(options []nats.Option) {
	for {
		if conn, err := nats.Connect(n.Servers(), options...); err != nil {
			err = n.explainConnection(err)
			n.setConnection(nil, err)
			n.connectFailed(err)
		} else {
			n.use(conn)
		}
		select {
		case <-n.ctx.Done():
			return
		case <-time.After(n.times.retry + rand.N(n.times.retry/4)): //nolint:gosec // no secret
		}
	}
}

// use publishes events over a connection until it ends.
func (n *NATS) use(conn *nats.Conn) {
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		n.connectFailed(err)
		return
	}
	l := &connection{js: js}
	l.ctx, l.down = context.WithCancel(n.ctx)
	conn.SetClosedHandler(func(*nats.Conn) { l.down() })
	if conn.IsClosed() { // before it had the handler
		l.down()
	}
	n.setConnection(l, nil)
	var looking sync.WaitGroup
	looking.Go(func() { n.onConnect(l, conn) })
	<-l.ctx.Done()
	err = conn.LastError()
	if err == nil {
		err = io.EOF
	}
	n.setConnection(nil, err)
	looking.Wait()
	if n.ctx.Err() != nil {
		return
	}
	n.log.Warn("lost the connection to NATS: it is tried again, and events wait", "error", err)
}

// onConnect looks at the stream, which may be another one than before, and wakes
// the bus.
func (n *NATS) onConnect(l *connection, conn *nats.Conn) {
	ctx, cancel := context.WithTimeout(l.ctx, n.times.answer)
	defer cancel()
	n.denied.Store(nil)
	if err := n.check(ctx, l, false); err != nil {
		n.connectFailed(err)
		return
	}
	if !n.isFirst(nil) {
		n.log.Info("connected to NATS", "server", conn.ConnectedUrlRedacted())
	}
	n.logRefusal(nil)
	n.wake()
}

// connectFailed logs why events can't be published now.
func (n *NATS) connectFailed(err error) {
	if !n.isFirst(err) {
		n.logRefusal(err)
	}
}

// isFirst gives Connect the outcome of the first attempt; it is false for later ones.
func (n *NATS) isFirst(outcome error) bool {
	if n.started.Swap(true) {
		return false
	}
	n.first <- outcome
	return true
}

// setConnection stores the connection, or why there is none.
func (n *NATS) setConnection(l *connection, away error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conn, n.away = l, away
}

// connected is the connection, or an error that says why there is none. The error
// is stored with the event that waits, where an operator finds it.
func (n *NATS) connected() (*connection, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil || n.away == nil {
		return n.conn, errAway
	}
	return nil, fmt.Errorf("%w: %w", errAway, n.away)
}

// dialer connects within a time, which includes the look-up of names, and not
// after Close.
type dialer struct {
	ctx    context.Context
	within time.Duration
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: d.within}).DialContext(d.ctx, network, address)
}
