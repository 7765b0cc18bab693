package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kwai/internal/bus"
	"kwai/internal/store"
	"kwai/internal/testing/natstest"
)

const source = "https://auth.example.org"

// logged keeps a log and says when it grows.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newLogged() *logged { return &logged{more: make(chan struct{})} }

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.more)
	l.more = make(chan struct{})
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait returns when the log has n lines with the text.
func (l *logged) wait(t *testing.T, n int, text string) {
	t.Helper()
	for {
		l.mu.Lock()
		have, more := strings.Count(l.text.String(), text), l.more
		l.mu.Unlock()
		if have >= n {
			return
		}
		t.Logf("%d of %d times %q in the log", have, n, text)
		<-more
	}
}

// ages are longer than any test.
const ages = time.Hour

// newNATS reads a setting. It waits for NATS for ages, and tries it again at once.
func newNATS(t *testing.T, setting string) (*bus.NATS, *logged) {
	t.Helper()
	log := newLogged()
	n, err := bus.NewNATS(setting, bus.NATSOptions{Source: source, MaxAge: 7 * 24 * time.Hour, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	n.SetTimes(ages, ages, 20*time.Millisecond)
	return n, log
}

// connected is a NATS that is connected, if it can be.
func connected(t *testing.T, setting string) (*bus.NATS, *logged) {
	t.Helper()
	n, log := newNATS(t, setting)
	if err := n.Connect(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	return n, log
}

var event = store.Event{ID: "5b1b4b1c-0000-4000-8000-000000000001", Type: "session.opened", UserID: "u1", SessionID: "s1",
	CreatedAt: time.Date(2026, 11, 5, 20, 15, 0, 123456000, time.FixedZone("", 3600))}

func deliver(t *testing.T, n *bus.NATS, e store.Event) {
	t.Helper()
	if err := n.Deliver(t.Context(), e); err != nil {
		t.Error(err)
	}
}

func stream(t *testing.T, js jetstream.JetStream, name string) *jetstream.StreamInfo {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo()
}

// eventually asks until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	t.Log("waiting for ", what)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !so() {
		<-again.C
	}
}

func TestNATSGetsCloudEvents(t *testing.T) {
	t.Parallel()
	s := natstest.Serve(t)
	n, _ := connected(t, s.URL())
	deliver(t, n, event)
	other := event
	other.ID, other.Type, other.SessionID = "2", "user.created", ""
	deliver(t, n, other)
	messages := natstest.Messages(t, s.JetStream(), "KWAI", 2)
	for i, want := range []struct{ subject, id, body string }{
		{"kwai.session.opened", event.ID, `{"specversion":"1.0","id":"5b1b4b1c-0000-4000-8000-000000000001","source":"https://auth.example.org","type":"kwai.session.opened","subject":"u1","time":"2026-11-05T19:15:00.123456Z","datacontenttype":"application/json","data":{"user":"u1","session":"s1"}}`},
		{"kwai.user.created", "2", `{"specversion":"1.0","id":"2","source":"https://auth.example.org","type":"kwai.user.created","subject":"u1","time":"2026-11-05T19:15:00.123456Z","datacontenttype":"application/json","data":{"user":"u1"}}`},
	} {
		m := messages[i]
		got := []string{m.Subject(), m.Headers().Get("Nats-Msg-Id"), m.Headers().Get("Content-Type"), string(m.Data())}
		if diff := cmp.Diff([]string{want.subject, want.id, "application/cloudevents+json", want.body}, got); diff != "" {
			t.Errorf("message %d (-want +got):\n%s", i, diff)
		}
	}
	c := stream(t, s.JetStream(), "KWAI").Config
	got := []any{c.Subjects, c.Retention, c.Storage, c.Discard, c.MaxAge, c.Duplicates, c.Replicas, c.MaxMsgs, c.MaxBytes}
	want := []any{[]string{"kwai.>"}, jetstream.LimitsPolicy, jetstream.FileStorage, jetstream.DiscardNew, 7 * 24 * time.Hour, 10 * time.Minute, 1, int64(-1), int64(-1)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the stream was made otherwise (-want +got):\n%s", diff)
	}
}

// limits is a stream that kwai can use.
func limits(change func(*jetstream.StreamConfig)) func(*testing.T, jetstream.JetStream) {
	return func(t *testing.T, js jetstream.JetStream) {
		t.Helper()
		c := jetstream.StreamConfig{Name: "KWAI", Subjects: []string{"kwai.>"}}
		change(&c)
		if _, err := js.CreateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
}

// What NATS says no to ends the start, with a line that says what to do.
func TestNATSThatRefusesIsToldAtTheStart(t *testing.T) {
	t.Parallel()
	password := func(o *server.Options) { o.Username, o.Password = "kwai", "unspoken" }
	tests := []struct {
		name    string
		server  func(*server.Options)
		prepare func(*testing.T, jetstream.JetStream)
		setting string // $ is the server's address
		want    string
		silent  bool // NATS doesn't answer: it is refused when the time for that is up
	}{
		{"no JetStream", func(o *server.Options) { o.JetStream = false }, nil, "nats://$", "JetStream is not enabled", false},
		{"no password", password, nil, "nats://$", "authorization violation: look at the user and password", false},
		{"a wrong password", password, nil, "nats://kwai:unspoken2@$", "authorization violation", false},
		{"a wrong token", password, nil, "nats://unspoken2@$", "authorization violation", false},
		{"no TLS", nil, nil, "tls://$", "NATS has no TLS here", false},
		{"no permission", func(o *server.Options) {
			o.Users = []*server.User{{Username: "kwai", Password: "unspoken", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"kwai.>"}}}}}
		}, nil, "nats://kwai:unspoken@$", "give the user the permissions that docs/events.md lists", true},
		{"too many replicas", nil, nil, "nats://$?replicas=3", "replicas > 1 not supported in non-clustered mode", false},
		{"other subjects", nil, limits(func(c *jetstream.StreamConfig) { c.Subjects = []string{"kwai.user.*"} }), "nats://$", "does not take the subjects kwai.>", false},
		{"a name of another", nil, limits(func(c *jetstream.StreamConfig) { c.Name = "OTHER" }), "nats://$", "another stream takes subjects of kwai.>: change its subjects, or choose another name with stream=NAME", false},
		{"a work queue", nil, limits(func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }), "nats://$", "it must be limits", false},
		{"interest", nil, limits(func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }), "nats://$", "it must be limits", false},
		{"memory", nil, limits(func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }), "nats://$", "its storage must be file", false},
		{"a short window", nil, limits(func(c *jetstream.StreamConfig) { c.Duplicates = time.Second }), "nats://$", "its duplicate window must be 1m0s at least", false},
		{"no acknowledgement", nil, limits(func(c *jetstream.StreamConfig) { c.NoAck = true }), "nats://$", "no_ack must be off", false},
		{"small messages", nil, limits(func(c *jetstream.StreamConfig) { c.MaxMsgSize = 200 }), "nats://$", "takes messages of 200 bytes only", false},
		{"changed subjects", nil, limits(func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "kwai.>", Destination: "other.>"}
		}), "nats://$", "subject_transform", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var changes []func(*server.Options)
			if tt.server != nil {
				changes = append(changes, tt.server)
			}
			s := natstest.Serve(t, changes...)
			if tt.prepare != nil {
				tt.prepare(t, s.JetStream())
			}
			connect := func(answer time.Duration) (*logged, error) {
				n, log := newNATS(t, strings.ReplaceAll(tt.setting, "$", s.Address()))
				n.SetTimes(answer, ages, ages)
				defer n.Close()
				return log, n.Connect(t.Context(), func() {})
			}
			answer := ages
			if tt.silent {
				answer = 100 * time.Millisecond
			}
			log, err := connect(answer)
			for err == nil && answer < ages { // NATS had not yet said why
				answer *= 2
				log, err = connect(answer)
			}
			if !errors.Is(err, bus.ErrRefused) {
				t.Fatalf("Connect says %v, which doesn't wrap ErrRefused", err)
			}
			if text := err.Error(); !strings.Contains(text, tt.want) || strings.Contains(text, "\n") {
				t.Errorf("Connect says %q, want one line with %q", text, tt.want)
			}
			if text := fmt.Sprint(log, err); strings.Contains(text, "unspoken") {
				t.Errorf("it shows a secret: %s", text)
			}
		})
	}
}

// A stream that its operator made is used as it is.
func TestNATSUsesTheStreamThatIsThere(t *testing.T) {
	t.Parallel()
	s := natstest.Serve(t)
	limits(func(c *jetstream.StreamConfig) {
		c.Name, c.Subjects, c.MaxAge, c.MaxMsgs, c.Description = "Events", []string{"other", "events.*.*"}, time.Hour, 10, "mine"
	})(t, s.JetStream())
	before := stream(t, s.JetStream(), "Events").Config
	n, log := connected(t, s.URL()+"?stream=Events&replicas=3")
	deliver(t, n, event)
	after := stream(t, s.JetStream(), "Events")
	if diff := cmp.Diff(before, after.Config); diff != "" || after.State.Msgs != 1 {
		t.Errorf("%d messages, settings changed:\n%s", after.State.Msgs, diff)
	}
	if !strings.Contains(log.String(), "drops the oldest events when it is full") {
		t.Errorf("the log lacks a warning: %s", log)
	}
}

func TestNATSThatIsAwayDoesNotStopTheStart(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	n, log := newNATS(t, s.URL())
	woken := make(chan struct{}, 1)
	if err := n.Connect(t.Context(), func() { woken <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	err := n.Deliver(t.Context(), event)
	if err == nil || errors.Is(err, bus.ErrRefused) || !strings.Contains(err.Error(), "no servers available") {
		t.Errorf("without NATS the delivery ends with %v", err)
	}
	s.Start()
	<-woken
	deliver(t, n, event)
	s.Stop()
	log.wait(t, 1, "lost the connection to NATS")
	s.Start()
	<-woken
	deliver(t, n, event) // again, but the stream has it
	if got := stream(t, s.JetStream(), "KWAI").State.Msgs; got != 1 {
		t.Errorf("the stream has %d messages", got)
	}
	for _, once := range []string{"NATS can't be reached", "made a stream for events", "lost the connection"} {
		if strings.Count(log.String(), once) != 1 {
			t.Errorf("%q is not logged once:\n%s", once, log)
		}
	}
}

// What is wrong is logged once, not each second, and mends itself.
func TestNATSThatBeginsToRefuse(t *testing.T) {
	t.Parallel()
	s := natstest.Serve(t, func(o *server.Options) { o.Username, o.Password = "kwai", "unspoken" })
	n, log := connected(t, "nats://kwai:unspoken@"+s.Address())
	s.Stop()
	s.Options.Password = "another"
	s.Start()
	log.wait(t, 1, "authorization violation")
	eventually(t, "another try", func() bool { return s.Connections() >= 3 })
	s.Stop()
	s.Options.Password = "unspoken"
	s.Start()
	log.wait(t, 1, "connected to NATS")
	deliver(t, n, event)
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || strings.Contains(text, "unspoken") {
		t.Errorf("the log is\n%s", text)
	}
}

func TestNATSStreamThatIsDeletedIsMadeAnew(t *testing.T) {
	t.Parallel()
	s := natstest.Serve(t)
	n, _ := connected(t, s.URL())
	deliver(t, n, event)
	js := s.JetStream()
	if err := js.DeleteStream(t.Context(), "KWAI"); err != nil {
		t.Fatal(err)
	}
	deliver(t, n, event)
	if got := stream(t, js, "KWAI"); got.State.Msgs != 1 || got.Config.Discard != jetstream.DiscardNew {
		t.Errorf("the stream is %+v", got)
	}
}

func TestNATSStreamThatIsFullRefuses(t *testing.T) {
	t.Parallel()
	s := natstest.Serve(t)
	limits(func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 1, jetstream.DiscardNew })(t, s.JetStream())
	n, log := connected(t, s.URL())
	deliver(t, n, event)
	next := event
	next.ID = "2"
	for range 3 {
		if err := n.Deliver(t.Context(), next); !errors.Is(err, bus.ErrRefused) || !strings.Contains(err.Error(), "the stream KWAI can't take more: maximum messages exceeded") {
			t.Errorf("a full stream is reported as %v", err)
		}
	}
	st, err := s.JetStream().Stream(t.Context(), "KWAI")
	if err == nil {
		err = st.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	deliver(t, n, next)
	if strings.Count(log.String(), "NATS refuses events") != 1 || strings.Count(log.String(), "NATS takes events again") != 1 {
		t.Errorf("the log is\n%s", log)
	}
}

// A NATS that hangs holds up neither a delivery nor the end for long.
func TestNATSThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	s := natstest.Serve(t)
	n, _ := connected(t, s.URL())
	js := s.JetStream()
	if err := js.DeleteStream(t.Context(), "KWAI"); err != nil {
		t.Fatal(err)
	}
	// Somebody who takes the subject and never answers.
	taken := make(chan struct{}, 3)
	sub, err := js.Conn().Subscribe("kwai.>", func(*nats.Msg) { taken <- struct{}{} })
	if err == nil {
		err = js.Conn().Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()

	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-taken; cancel() }()
	if err := n.Deliver(ctx, event); err == nil {
		t.Error("a caller's end is no error")
	}
	n.SetAnswerTime(50 * time.Millisecond)
	if err := n.Deliver(t.Context(), event); err == nil || !strings.Contains(err.Error(), "has not answered within 50ms") {
		t.Errorf("it ends with %v", err)
	}
	<-taken
	n.SetAnswerTime(ages)
	go func() { <-taken; s.Stop() }()
	if err := n.Deliver(t.Context(), event); err == nil {
		t.Error("a connection's end is no error")
	}
}

func TestNATSIsWaitedForAFewSeconds(t *testing.T) {
	t.Parallel()
	n, err := bus.NewNATS("nats://127.0.0.1:1", bus.NATSOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	answer, connect, retry := n.Times()
	if answer != 5*time.Second {
		t.Errorf("an answer may take %v, want 5s", answer)
	}
	if connect != 2*time.Second {
		t.Errorf("a connection may take %v, want 2s", connect)
	}
	if retry != time.Second {
		t.Errorf("it is tried again after %v, want 1s", retry)
	}
}

func decode(t *testing.T, m jetstream.Msg) (e struct {
	ID, Type, Subject string
	Data              struct{ User, Session string }
}) {
	t.Helper()
	if err := json.Unmarshal(m.Data(), &e); err != nil {
		t.Fatal(err)
	}
	return e
}
