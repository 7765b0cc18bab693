package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	netmail "net/mail"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"kwai/internal/auth"
	"kwai/internal/bus/natstest"
	"kwai/internal/pgtest"
)

const (
	// back is how long after a part's return all must go on.
	back = 5 * time.Second
	// calm is how long everything runs undisturbed before something fails.
	calm = 1500 * time.Millisecond
	// think is what each client waits between operations: the test is about what
	// happens, not about rates.
	think = 10 * time.Millisecond
)

// Three replicas on one PostgreSQL, their clocks 30 s apart, each by a way of its
// own; 16 clients talk to one of them at random each time. Parts fail one after
// the other. While one is away, requests may fail as the part explains; soon after
// it is back none may. What was answered must hold on every replica.
func TestReplicas(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	f := newFleet(t)
	// Which replica delivers mail is chance: all have their turn at failing.
	for i, s := range f.servers {
		f.disturb(fmt.Sprintf("replica %d is killed", i+1), disturbance{
			isCut: f.lostBy(i),
			begin: func() { s.kill() },
			end:   s.start,
			twice: true,
		})
	}
	f.disturb("a replica stands still", disturbance{
		isCut: f.lostBy(0),
		still: f.urls[0],
		begin: func() { f.signal(0, syscall.SIGSTOP) },
		away:  5 * time.Second,
		end:   func() { f.signal(0, syscall.SIGCONT) },
	})
	f.disturb("a replica stands still for long", disturbance{
		isCut: f.lostBy(1),
		still: f.urls[1],
		begin: func() { f.signal(1, syscall.SIGSTOP) },
		away:  f.long(90 * time.Second),
		end:   func() { f.signal(1, syscall.SIGCONT) },
		twice: true,
	})
	f.disturb("PostgreSQL is restarted", disturbance{
		isCut: unavailable,
		begin: func() {
			if err := f.cluster.Restart(); err != nil {
				t.Error(err)
			}
		},
	})
	f.disturb("PostgreSQL is killed", disturbance{
		isCut: unavailable,
		begin: func() {
			if err := f.cluster.Kill(); err != nil {
				t.Error(err)
			}
		},
		away: 3 * time.Second,
		end: func() {
			if err := f.cluster.Restart(); err != nil {
				t.Error(err)
			}
		},
	})
	f.disturb("a replica is cut from PostgreSQL", disturbance{
		isCut: unavailable,
		begin: f.ways[2].Cut,
		away:  15 * time.Second,
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
	cluster *pgtest.Cluster
	ways    []*pgtest.Path
	queue   *natstest.Server

	last atomic.Int64 // when something was last cut off, in Unix nanoseconds
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	cluster, err := pgtest.Start(pgtest.Options{Fsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	database := cluster.URL("postgres")
	f := &fleet{crash: newStage(t, database), cluster: cluster, queue: natstest.Serve(t)}
	folder := t.TempDir()
	var servers []*process
	for i, skew := range []string{"-30s", "0s", "30s"} {
		program := filepath.Join(folder, fmt.Sprint("kwai", i))
		if err := build(program, "-ldflags=-X kwai/internal/store.clockSkew="+skew); err != nil {
			t.Fatal(err)
		}
		way := pgtest.NewPath(t, database)
		f.ways = append(f.ways, way)
		servers = append(servers, launchProgram(t, []string{program},
			append(f.flags(way.URL(database)), "--bus="+f.queue.URL())...))
	}
	f.serve(servers...)
	f.populate()
	return f
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

// lostBy says that a request to one replica wasn't answered, or that another one
// says that it can't: it may have to wait for what the lost one holds.
func (f *fleet) lostBy(i int) func(string, answer, error) bool {
	lost := f.urls[i]
	return func(url string, a answer, err error) bool {
		return url == lost && err != nil || unavailable(url, a, err)
	}
}

func (f *fleet) signal(i int, s syscall.Signal) {
	if err := f.servers[i].cmd.Process.Signal(s); err != nil {
		f.t.Error(err)
	}
}

func (f *fleet) lose(every int) {
	for _, w := range f.ways {
		w.LoseAnswers(every)
	}
}

// long is a time that a short run of the tests has no patience for.
func (f *fleet) long(d time.Duration) time.Duration {
	if testing.Short() {
		return d / 5
	}
	return d
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
		return true
	}
	f.still = d.still
	f.last.Store(0)
	answered := f.total()
	running := f.start(ctx)
	pass(ctx, calm)
	f.down.Store(true)
	d.begin()
	pass(ctx, d.away)
	if d.end != nil {
		d.end()
	}
	returned := time.Now()
	f.settleDown(ctx, returned)
	f.down.Store(false)
	pass(ctx, calm) // in which nothing may be cut off
	stop()
	running.Wait()
	if t.Failed() {
		t.Fatalf("%s: the servers warned: %s", what, f.warnings())
	}
	f.each(func(_ context.Context, k *client) error { return k.verify() })
	if t.Failed() {
		t.Fatalf("after this: %s", what)
	}
	f.once(what, mails, d.twice)
	slowest := "nothing was cut off"
	if last := f.last.Load(); last != 0 {
		slowest = fmt.Sprintf("the last request was cut off %v after the return", time.Unix(0, last).Sub(returned).Round(time.Millisecond))
	}
	t.Logf("%s: %d operations answered in %v; %s", what, f.total()-answered, time.Since(begun).Round(time.Second), slowest)
}

// settleDown returns once nothing has been cut off for a second, and at the latest
// when nothing may be any more.
func (f *fleet) settleDown(ctx context.Context, returned time.Time) {
	for time.Since(returned) < back {
		pass(ctx, 100*time.Millisecond)
		quiet := max(f.last.Load(), returned.UnixNano())
		if time.Since(time.Unix(0, quiet)) > time.Second {
			return
		}
	}
}

func (f *fleet) total() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, answered := range f.answered {
		n += answered
	}
	return n
}

func pass(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// start has all clients do everything until ctx ends. What is cut off they try
// again, at whichever replica it may be.
func (f *fleet) start(ctx context.Context) *sync.WaitGroup {
	all := new(sync.WaitGroup)
	for _, k := range f.clients {
		all.Go(func() {
			for ctx.Err() == nil {
				pass(ctx, think)
				if err := f.next(k); err != nil && !errors.Is(err, errCut) {
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
	if k.late && f.down.Load() {
		return nil
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
	f.each(func(ctx context.Context, k *client) error { return k.finish(ctx) })
	var unused []string
	for _, op := range []string{opLogin, opRenew, opLogout, opRecover, opReset, opCheck} {
		f.t.Logf("%-12s answered %6d, cut off %4d, found in force %6d", op, f.answered[op], f.cut[op], f.checked[op])
		if f.answered[op] == 0 || f.checked[op] == 0 && op != opCheck {
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
	ctx, cancel := context.WithTimeout(t.Context(), crashWait)
	defer cancel()
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
	consumer, err := f.queue.JetStream().OrderedConsumer(ctx, "KWAI", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for len(missing) > 0 {
		m, err := consumer.Next(jetstream.FetchContext(ctx))
		if err != nil {
			t.Fatalf("%d of %d events are missing in the stream: %v", len(missing), expected, err)
		}
		e := readEvent(t, m.Data())
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

// sessionOf is the session that an access token belongs to.
func sessionOf(t *testing.T, access string) string {
	t.Helper()
	_, claims := partsOf(t, access)
	return fmt.Sprint(claims["sid"])
}
