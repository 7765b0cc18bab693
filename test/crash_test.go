package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgtest"
)

// crashClients is how many clients there are.
func crashClients() int { return need.Rounds(8, 16) }

// What was answered stands, and what was cut off can go on, however often the
// server is killed.
func TestCrashOfTheServer(t *testing.T) {
	eachOfAll(t, func(t *testing.T, k cluster.Kwai) {
		c := newCrash(t, k)
		c.isCut = func(_ string, _ answer, err error) bool { return err != nil }
		all := 20
		if k.Database != "" {
			all = 8
		}
		c.run(need.Rounds(1, all), func(under *load) {
			c.servers[0].server.Kill()
			under.wait(c.t)
			for _, k := range c.clients {
				k.via.CloseIdleConnections()
			}
			c.servers[0].restart()
			c.down.Store(false)
		})
	})
}

// While PostgreSQL is away the server says so, and afterwards it goes on by
// itself, with nothing lost.
func TestCrashOfPostgreSQL(t *testing.T) {
	t.Parallel()
	need.Time(t)
	pgtest.Require(t)
	postgres := durable(t)
	c := newCrash(t, install(t, patient(postgres.URL("postgres"))))
	c.isCut = func(_ string, a answer, err error) bool {
		return err == nil && a.Status == http.StatusServiceUnavailable
	}
	in := c.servers[0].post("login", "", "username", "client0@example.org", "password", firstPassword) // perhaps no client has a session just then
	c.run(4, func(under *load) {
		if err := postgres.Kill(); err != nil {
			t.Fatal(err)
		}
		under.wait(t)
		c.unavailable(in.field("access_token"), in.field("refresh_token"))
		if err := postgres.Restart(); err != nil {
			t.Fatal(err)
		}
		// Connections that broke may each cost a 503 still.
		c.each(func(k *client) error {
			for {
				if err := k.verify(); !errors.Is(err, errCut) {
					return err
				}
			}
		})
		c.down.Store(false)
	})
}

// durable is a PostgreSQL of the test's own, which keeps what it has committed.
func durable(t *testing.T) *pgtest.Cluster {
	t.Helper()
	postgres, err := pgtest.Start(pgtest.Options{Fsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := postgres.Stop(); err != nil {
			t.Error(err)
		}
	})
	return postgres
}

// crash is a server that is killed, or whose database is, or several, and its
// clients.
type crash struct {
	wire
	t       *testing.T
	kwai    cluster.Kwai
	servers []*site
	mail    *mailtest.Server
	rng     *rand.Rand
	clients []*client
	added   []*client // accounts made under load; they only log in
	removed []*client // of them, deleted under load
}

func newCrash(t *testing.T, k cluster.Kwai) *crash {
	t.Helper()
	c := newStage(t, k)
	c.serve(start(t, k, c.flags()...))
	c.populate()
	return c
}

// newStage is a crash without servers and clients.
func newStage(t *testing.T, k cluster.Kwai) *crash {
	t.Helper()
	return &crash{t: t, kwai: k, rng: rand.New(rand.NewPCG(rand.Uint64(), 0)), mail: mailtest.Serve(t), wire: wire{tally: newTally()}}
}

// flags are those of a server. A slow machine must not make a repeated renewal
// come too late.
func (c *crash) flags() []string { return []string{"--smtp=" + c.mail.URL(), "--reuse-window=10m"} }

func (c *crash) serve(servers ...*site) {
	c.servers = servers
	for _, s := range servers {
		c.urls = append(c.urls, s.URL)
	}
}

// populate makes the clients and their accounts.
func (c *crash) populate() {
	c.heard = hearLogouts(c.t)
	c.app = c.servers[0].app("Wiki", "--redirect-uri="+callback, "--backchannel-logout-uri="+c.heard.URL)
	for _, s := range c.servers {
		s.waitForAppKeys()
	}
	for i := range crashClients() {
		email := fmt.Sprintf("client%d@example.org", i)
		c.servers[0].user(email, firstPassword)
		c.clients = append(c.clients, c.owner(email))
	}
	go c.sort(c.t.Context())
}

// warnings are those of all servers.
func (c *crash) warnings() string {
	var b strings.Builder
	for _, s := range c.servers {
		b.WriteString(s.log.String())
	}
	return b.String()
}

// operations are all those of clients.
var operations = []string{
	opLogin, opRenew, opLogout, opRecover, opReset, opCheck, opPage, opVisit, opProve, opChoose, opLeave,
	opAuthorize, opExchange, opRefresh, opUserInfo, opTakeBack, opAppLogout, opHear,
}

// leavesNothing are the operations of which there is nothing to be found afterwards.
var leavesNothing = []string{opCheck, opVisit, opAuthorize, opUserInfo}

const firstPassword = "a password numbered 0"

func (c *crash) owner(email string) *client {
	return &client{
		wire: &c.wire, via: newTransport(c.t), operator: c.servers[0], email: email, password: firstPassword,
		rng: rand.New(rand.NewPCG(c.rng.Uint64(), 0)), inbox: inbox{arrived: make(chan struct{}, 1)},
	}
}

// add makes an account by a command, under load. The command may find no gap
// between the server's transactions before its timeout, and says so.
func (c *crash) add(email string) {
	c.t.Helper()
	_, stderr, code := c.servers[0].command(firstPassword, "user", "create", email, "--first-name=Ann", "--last-name=Other", "--password-stdin")
	switch {
	case code == 0:
		c.added = append(c.added, c.owner(email))
	case !mayBeBusy(stderr):
		c.t.Errorf("kwai user create: exit code %d: %s", code, stderr)
	}
}

// mayBeBusy says whether a command found no gap between a server's transactions.
func mayBeBusy(stderr string) bool { return strings.Contains(stderr, "can't do this now") }

// verifyAdded holds that the accounts made last are there.
func (c *crash) verifyAdded(n int) {
	c.t.Helper()
	for _, k := range c.added[max(0, len(c.added)-n):] {
		if err := k.login(); err != nil {
			c.t.Errorf("an account made by a command: %v", err)
		}
	}
}

// sort hands the mails to the clients as they come.
func (c *crash) sort(ctx context.Context) {
	inboxes := map[string]*inbox{}
	for _, k := range c.clients {
		inboxes[k.email] = &k.inbox
	}
	for have := 0; ; {
		mails, err := c.mail.Wait(ctx, have+1)
		if err != nil {
			return // the test is over
		}
		for _, m := range mails[have:] {
			if inboxes[m.To] == nil && strings.Contains(m.Subject, "was deleted") {
				continue
			}
			id := m.RecoveryID()
			if id == "" && !strings.Contains(m.Subject, "was changed") {
				c.t.Errorf("an honest client was mailed %q", m.Subject)
			}
			inboxes[m.To].put(id)
		}
		have = len(mails)
	}
}

// run has everybody do everything while something is killed again and again,
// and verifies what was answered each time it is back, and at the end.
func (c *crash) run(kills int, kill func(under *load)) {
	c.t.Helper()
	c.each(func(k *client) error {
		if err := k.recover(); err != nil {
			return err
		}
		k.mailed() // the first resets come before the first kill or with it
		return nil
	})
	for i := range kills {
		load := c.load()
		c.add(fmt.Sprintf("added%d@example.org", i))
		if i%2 == 1 && len(c.added) > 1 {
			c.remove(c.added[0])
		}
		c.pause(300*time.Millisecond, load)
		c.finale.Store(true)
		c.pause(50*time.Millisecond, load)
		c.down.Store(true)
		kill(load)
		c.finale.Store(false)
		c.each((*client).verify)
		c.verifyAdded(3)
		c.verifyRemoved()
		if c.t.Failed() {
			c.t.Fatalf("after %d kills; the server warned: %s", i+1, c.warnings())
		}
	}
	c.each((*client).finish)
	c.verifyAdded(len(c.added))
	c.t.Logf("%d kills, %d accounts made by a command meanwhile", kills, len(c.added))
	if len(c.added) == 0 {
		c.t.Error("no account was made under load")
	}
	for _, op := range operations {
		answered, cut, checked := c.answered[op], c.cut[op], c.checked[op]
		c.t.Logf("%-12s answered %6d, cut off %4d, found in force %6d", op, answered, cut, checked)
		// A check leaves nothing behind to be found; that something of each kind
		// is cut off takes more luck.
		if need.All() && (answered == 0 || checked == 0 && !slices.Contains(leavesNothing, op)) {
			c.t.Errorf("%s was not put to the test", op)
		}
	}
}

// pause waits for a random time up to most.
func (c *crash) pause(most time.Duration, under *load) {
	select {
	case <-time.After(time.Duration(c.rng.Int64N(int64(most)))):
	case <-under.done:
	}
}

// load is what all clients do until they are cut off.
type load struct {
	done chan struct{}
	errs []error // of the clients; to be read after done
}

func (c *crash) load() *load {
	l := &load{done: make(chan struct{}), errs: make([]error, len(c.clients))}
	var wg sync.WaitGroup
	for i, k := range c.clients {
		wg.Go(func() {
			for l.errs[i] == nil {
				l.errs[i] = k.step()
			}
		})
	}
	go func() {
		wg.Wait()
		close(l.done)
	}()
	return l
}

// wait waits until all are cut off.
func (l *load) wait(t *testing.T) {
	t.Helper()
	<-l.done
	for _, err := range l.errs {
		if !errors.Is(err, errCut) {
			t.Errorf("under load: %v", err)
		}
	}
}

// each has all clients do something at the same time.
func (c *crash) each(do func(*client) error) {
	c.t.Helper()
	var wg sync.WaitGroup
	for _, k := range c.clients {
		wg.Go(func() {
			if err := do(k); err != nil {
				c.t.Errorf("%s: %v", k.email, err)
			}
		})
	}
	wg.Wait()
	if c.t.Failed() {
		c.t.Fatalf("the server warned: %s", c.warnings())
	}
}

// mailed waits for the id of a recovery.
func (c *client) mailed() {
	for {
		if c.ids = append(c.ids, c.inbox.take()...); len(c.ids) > 0 {
			return
		}
		<-c.inbox.arrived
	}
}

// finish verifies all of it once more, and that the recovery accepted last,
// perhaps just before a kill, was mailed with an id that works.
func (c *client) finish() error {
	c.settled = 0
	if err := c.verify(); err != nil {
		return err
	}
	if !c.due {
		if err := c.recover(); err != nil {
			return err
		}
	}
	for c.due {
		c.mailed()
		if err := c.reset(); err != nil {
			return err
		}
	}
	c.add(c.checked, opRecover)
	for c.inbox.noticed() < c.notices {
		<-c.inbox.arrived
	}
	c.awaitLogouts()
	return c.verify()
}

// unavailable holds that every endpoint answers 503 while the database is away, also to
// a session's tokens.
func (c *crash) unavailable(access, refresh string) {
	c.t.Helper()
	for _, r := range []struct{ path, form string }{
		{"/api/v1/auth/login", "username=client0@example.org&password=wrong"},
		{"/api/v1/auth/access_token", "refresh_token=" + refresh},
		{"/api/v1/auth/logout", "refresh_token=" + refresh},
		{"/api/v1/auth/recover", "email=client0@example.org"},
		{"/api/v1/auth/recover", "email=nobody@example.org"},
		{"/api/v1/auth/reset", "uuid=6f1c1f0e-5b0a-4f9e-8f0e-3a2b1c0d9e8f&password=a+good+long+one"},
		{"/api/v1/auth/user", ""},
		{"/readyz", ""},
	} {
		a, err := c.clients[0].send(c.servers[0].URL+r.path, access, r.form)
		if err != nil || a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			c.t.Errorf("%s while the database is away: %v, %v, want 503 and Retry-After", r.path, a, err)
		}
	}
	if a, err := c.clients[0].send(c.servers[0].URL+"/healthz", "", ""); err != nil || a.Status != http.StatusOK {
		c.t.Errorf("/healthz while the database is away: %v, %v, want 200", a, err)
	}
}
