package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	netmail "net/mail"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"kwai/internal/auth"
	"kwai/internal/testing/cluster"
	"kwai/internal/testing/natstest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgtest"
)

const (
	// calm is how long everything runs undisturbed before and after something
	// fails, and calmly how many operations of each client are answered in a row
	// until it counts as over.
	calm   = 1500 * time.Millisecond
	calmly = 20
	// think is what each client waits between operations: the test is about what
	// happens, not about rates.
	think = 10 * time.Millisecond
	// long is longer than all that a server or others wait for: a delivery (30 s),
	// an answer (30 s), NATS (20 s), the leases (10 s), transactions and statements
	// (10 s), packets (4 s), the keys (3 s).
	long = 35 * time.Second
	// brief is shorter than what a lease has left at least (7 s): meanwhile no
	// other replica delivers.
	brief = 5 * time.Second
)

// Three replicas on one PostgreSQL, their clocks 30 s apart, each by a way of its
// own; 16 clients talk to one of them at random each time. Parts fail one after
// the other. While one is away, requests may fail as the part explains; soon after
// it is back none may. What was answered must hold on every replica.
func TestReplicas(t *testing.T) {
	t.Parallel()
	need.Time(t)
	pgtest.Require(t)
	f := newFleet(t)
	// Which replica delivers mail, and which one events, is chance: each is among
	// those that fail.
	f.disturb("two replicas are killed", disturbance{
		isCut: f.lost(0, 1),
		begin: func() { f.servers[0].server.Kill(); f.servers[1].server.Kill() },
		end:   func() { f.servers[0].restart(); f.servers[1].restart() },
		twice: true,
	})
	f.disturb("a replica stands still", disturbance{
		isCut: f.lost(0),
		still: f.urls[0],
		begin: func() { f.must(f.servers[0].server.Pause()) },
		away:  3 * time.Second,
		end:   func() { f.must(f.servers[0].server.Continue()) },
	})
	f.disturb("a replica stands still for long", disturbance{
		isCut: f.lost(1),
		still: f.urls[1],
		begin: func() { f.must(f.servers[1].server.Pause()) },
		away:  long,
		end:   func() { f.must(f.servers[1].server.Continue()) },
		twice: true,
	})
	f.disturb("PostgreSQL is restarted", disturbance{
		isCut: unavailable,
		begin: func() { f.must(f.postgres.Restart()) },
	})
	f.disturb("PostgreSQL is killed", disturbance{
		isCut: unavailable,
		begin: func() { f.must(f.postgres.Kill()) },
		away:  3 * time.Second,
		end:   func() { f.must(f.postgres.Restart()) },
	})
	f.disturb("a replica is cut from PostgreSQL", disturbance{
		isCut: unavailable,
		begin: f.ways[2].Cut,
		away:  12 * time.Second, // longer than the leases
		end:   f.ways[2].Mend,
		twice: true, // it can't note what it mailed, and another one delivers
	})
	f.disturb("answers of PostgreSQL get lost", disturbance{
		isCut: unavailable,
		begin: func() { f.lose(20) },
		away:  5 * time.Second,
		end:   func() { f.lose(0) },
		twice: true,
	})
	f.disturb("NATS is restarted", disturbance{
		isCut: func(string, answer, error) bool { return false },
		begin: f.queue.Stop,
		away:  3 * time.Second,
		end:   f.queue.Start,
	})
	f.finish()
	f.published()
}

// unavailable says that a request got a 503 that says when to come again.
func unavailable(_ string, a answer, err error) bool {
	return err == nil && a.Status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") != ""
}

// fleet is several replicas and their clients.
type fleet struct {
	*crash
	postgres *pgtest.Cluster
	ways     []*pgtest.Path
	queue    *natstest.Server

	last atomic.Int64 // when something was last cut off, in Unix nanoseconds
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	postgres := durable(t)
	database := postgres.URL("postgres")
	kwai := install(t, database)
	f := &fleet{crash: newStage(t, kwai), postgres: postgres, queue: natstest.Serve(t)}
	var servers []*site
	for _, skew := range []string{"-30s", "0s", "30s"} {
		replica := kwai
		var err error
		replica.Program, err = cluster.Build(t.Context(), t.TempDir(), append(buildFlags, "-ldflags=-X kwai/internal/database.clockSkew="+skew)...)
		if err != nil {
			t.Fatal(err)
		}
		way := pgtest.NewPath(t, database)
		f.ways = append(f.ways, way)
		replica.Database = way.URL(database)
		s := start(t, replica, append(f.flags(), "--bus="+f.queue.URL())...)
		// Commands take the straight way, and have the right time.
		s.kwai.Database, s.kwai.Program = patient(database), kwai.Program
		servers = append(servers, s)
	}
	f.serve(servers...)
	f.populate()
	return f
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Error(err)
	}
}

// disturbance is something that fails.
type disturbance struct {
	isCut func(url string, a answer, err error) bool // how requests may end meanwhile
	still string                                     // the server that answers nothing, for which nobody waits long
	begin func()
	away  time.Duration
	end   func()
	twice bool // mails may come twice
}

// lost says that a request to one of the replicas wasn't answered, or that another
// one says that it can't: it may have to wait for what the lost one holds.
func (f *fleet) lost(which ...int) func(string, answer, error) bool {
	var lost []string
	for _, i := range which {
		lost = append(lost, f.urls[i])
	}
	return func(url string, a answer, err error) bool {
		return err != nil && slices.Contains(lost, url) || unavailable(url, a, err)
	}
}

func (f *fleet) lose(every int) {
	for _, w := range f.ways {
		w.LoseAnswers(every)
	}
}

// disturb has the clients do everything while something fails, and verifies what
// was answered.
func (f *fleet) disturb(what string, d disturbance) {
	t := f.t
	t.Helper()
	begun := time.Now()
	mails := len(f.mail.Mails())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	f.isCut = func(url string, a answer, err error) bool {
		if !d.isCut(url, a, err) {
			return false
		}
		f.last.Store(time.Now().UnixNano())
		f.stirred()
		return true
	}
	f.last.Store(0)
	answered := f.total()
	running := f.start(ctx)
	pass(ctx, calm)
	f.down.Store(true)
	if d.still != "" {
		f.still.Store(&d.still)
	}
	failed := time.Now()
	d.begin()
	pass(ctx, d.away)
	if d.end != nil {
		d.end()
	}
	f.still.Store(nil)
	returned := time.Now()
	f.stirred()
	for f.stirring() && ctx.Err() == nil && !t.Failed() {
		pass(ctx, 10*time.Millisecond)
	}
	f.down.Store(false)
	pass(ctx, calm) // in which nothing may be cut off
	stop()
	running.Wait()
	if t.Failed() {
		t.Fatalf("%s: the servers warned: %s", what, f.warnings())
	}
	f.each((*client).verify)
	if t.Failed() {
		t.Fatalf("after this: %s", what)
	}
	// On a slow machine it may have been away for longer than a lease.
	f.once(what, mails, d.twice || returned.Sub(failed) > brief)
	slowest := "nothing was cut off"
	if last := f.last.Load(); last != 0 {
		slowest = fmt.Sprintf("the last request was cut off %v after the return", time.Unix(0, last).Sub(returned).Round(time.Millisecond))
	}
	t.Logf("%s: %d operations answered in %v; %s", what, f.total()-answered, time.Since(begun).Round(time.Second), slowest)
}

// stirred notes that something was cut off, or has just returned.
func (f *fleet) stirred() {
	for _, k := range f.clients {
		k.calm.Store(0)
	}
}

// stirring says whether all may not yet be as before: some client has not had
// enough answers in a row.
func (f *fleet) stirring() bool {
	return slices.ContainsFunc(f.clients, func(k *client) bool { return k.calm.Load() < calmly })
}

func (f *fleet) total() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, answered := range f.answered {
		n += answered
	}
	return n
}

// start has all clients do everything until ctx ends. What is cut off they try
// again, at whichever replica it may be.
func (f *fleet) start(ctx context.Context) *sync.WaitGroup {
	all := new(sync.WaitGroup)
	for _, k := range f.clients {
		all.Go(func() {
			for ctx.Err() == nil {
				pass(ctx, think)
				switch err := f.next(k); {
				case err == nil:
					k.calm.Add(1)
				case !errors.Is(err, errCut):
					f.t.Errorf("%s: %v", k.email, err)
					return
				}
			}
		})
	}
	return all
}

func (f *fleet) next(k *client) error {
	if k.settle == nil {
		return k.step()
	}
	settle := k.settle
	k.settle = nil
	return settle()
}

// once verifies that no mail of the latest came twice, unless it may.
func (f *fleet) once(what string, since int, twice bool) {
	f.t.Helper()
	var ids []string
	again := 0
	for _, m := range f.mail.Mails()[since:] {
		message, err := netmail.ReadMessage(bytes.NewReader(m.Raw))
		if err != nil {
			f.t.Fatal(err)
		}
		id := message.Header.Get("Message-Id")
		if slices.Contains(ids, id) {
			again++
		}
		ids = append(ids, id)
	}
	f.t.Logf("%s: %d mails, %d of them again", what, len(ids), again)
	if again > 0 && !twice {
		f.t.Errorf("%s: %d mails came twice", what, again)
	}
}

func (f *fleet) finish() {
	f.each((*client).finish)
	var unused []string
	for _, op := range operations {
		f.t.Logf("%-12s answered %6d, cut off %4d, found in force %6d", op, f.answered[op], f.cut[op], f.checked[op])
		if f.answered[op] == 0 || f.checked[op] == 0 && !slices.Contains(leavesNothing, op) {
			unused = append(unused, op)
		}
	}
	if unused != nil {
		f.t.Errorf("not put to the test: %s", strings.Join(unused, ", "))
	}
}

// published verifies that each login and logout that was answered is in the
// stream, once, the login first.
func (f *fleet) published() {
	t := f.t
	t.Helper()
	missing := map[string]bool{}
	for _, k := range f.clients {
		for _, s := range k.live {
			missing[auth.EventOpened+" "+sessionOf(t, s.access)] = true
		}
		for _, s := range k.dead {
			missing[auth.EventOpened+" "+sessionOf(t, s.access)] = true
			if s.ended == opLogout {
				missing[auth.EventEnded+" "+sessionOf(t, s.access)] = true
			}
		}
	}
	expected := len(missing)
	consumer, err := f.queue.JetStream().OrderedConsumer(t.Context(), "KWAI", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages(jetstream.WithMessagesErrOnMissingHeartbeat(false))
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	seen := map[string]bool{}
	for len(missing) > 0 {
		m, err := messages.Next() // it waits for those that come yet
		if err != nil {
			t.Fatalf("%d of %d events are missing in the stream: %v", len(missing), expected, err)
		}
		var e struct {
			ID, Type string
			Data     struct{ Session string }
		}
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			t.Fatal(err)
		}
		what := strings.TrimPrefix(e.Type, "kwai.") + " " + e.Data.Session
		if seen[e.ID] {
			t.Errorf("%s is in the stream twice", what)
		}
		seen[e.ID] = true
		if opened := auth.EventOpened + " " + e.Data.Session; strings.HasPrefix(what, auth.EventEnded) && missing[opened] {
			t.Errorf("%s comes before %s", what, opened)
		}
		delete(missing, what)
	}
	t.Logf("the %d logins and logouts are all among the first %d events of the stream", expected, len(seen))
}
