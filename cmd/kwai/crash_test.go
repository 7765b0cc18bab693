package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kwai/internal/mail/mailtest"
	"kwai/internal/pgtest"
	"kwai/internal/store/storetest"
)

const (
	crashClients = 16
	// crashWait bounds what must happen by itself: a mail after the lease of
	// the process that was killed (10 s), a database that starts again.
	crashWait = time.Minute
)

// kills is how often something is killed: few times in a usual run of the
// tests, KWAI_CRASH_KILLS times by hand. KWAI_CRASH_SEED makes the same choices
// again, as far as clients that run at the same time can.
func kills(tb testing.TB, usual int) int {
	tb.Helper()
	text := os.Getenv("KWAI_CRASH_KILLS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		tb.Fatal("KWAI_CRASH_KILLS: ", err)
	}
	return n
}

// What was answered stands, and what was cut off can go on, however often the
// server is killed.
func TestCrashOfTheServer(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		killServer(newCrash(t, "sqlite://"+t.TempDir()+"/kwai.db"), 20)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		killServer(newCrash(t, storetest.Postgres(t)), 8)
	})
}

func killServer(c *crash, usual int) {
	c.isCut = func(_ string, _ answer, err error) bool { return err != nil }
	c.run(kills(c.t, usual), func(under *load) {
		c.server.kill()
		under.wait(c.t)
		c.http.CloseIdleConnections()
		c.server.start()
		c.down.Store(false)
	})
}

// While PostgreSQL is away the server says so, and afterwards it goes on by
// itself, with nothing lost.
func TestCrashOfPostgreSQL(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	cluster, err := pgtest.Start(pgtest.Options{Fsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	c := newCrash(t, cluster.URL("postgres"))
	c.isCut = func(_ string, a answer, err error) bool {
		return err == nil && a.Status == http.StatusServiceUnavailable
	}
	c.run(kills(t, 5), func(under *load) {
		if err := cluster.Kill(); err != nil {
			t.Fatal(err)
		}
		under.wait(t)
		c.unavailable()
		if err := cluster.Restart(); err != nil {
			t.Fatal(err)
		}
		// Connections that broke may each cost a 503 still.
		c.each(func(ctx context.Context, k *client) error {
			for {
				if err := k.verify(); !errors.Is(err, errCut) || ctx.Err() != nil {
					return err
				}
			}
		})
		c.down.Store(false)
	})
}

// crash is a server that is killed, or whose database is, and its clients.
type crash struct {
	wire
	t       *testing.T
	server  *process // the first of servers
	servers []*process
	mail    *mailtest.Server
	command *site // for commands beside the server
	seed    uint64
	rng     *rand.Rand
	clients []*client
	added   []*client // accounts made under load; they only log in
}

func newCrash(t *testing.T, database string) *crash {
	t.Helper()
	c := newStage(t, database)
	c.serve(launch(t, nil, c.flags(database)...))
	c.populate()
	return c
}

// newStage is a crash without servers and clients.
func newStage(t *testing.T, database string) *crash {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("KWAI_CRASH_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal("KWAI_CRASH_SEED: ", err)
		}
	}
	t.Logf("KWAI_CRASH_SEED=%d", seed)
	c := &crash{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), mail: mailtest.Serve(t)}
	c.command = &site{tb: t, Database: database, flags: append([]string{"--database=" + database}, quick...)}
	transport := &http.Transport{MaxIdleConnsPerHost: 2 * crashClients, DisableCompression: true,
		// The server closes a connection on which nothing comes for five seconds.
		IdleConnTimeout: time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	c.wire = wire{http: &http.Client{Transport: transport, Timeout: crashWait}, tally: newTally()}
	return c
}

// flags are those of a server on a database, or on another way to it.
func (c *crash) flags(database string) []string {
	return []string{
		"--database=" + database, "--data=" + c.t.TempDir(), "--smtp=" + c.mail.URL(), "--limits=off",
		"--public-url=http://127.0.0.1:8080", "--master-key-file=" + masterKeyOf(c.t, c.command.Database),
		// A slow machine must not make a repeated renewal come too late.
		"--reuse-window=10m",
	}
}

func (c *crash) serve(servers ...*process) {
	c.server, c.servers = servers[0], servers
	for _, s := range servers {
		c.urls = append(c.urls, s.URL)
	}
}

// populate makes the clients and their accounts.
func (c *crash) populate() {
	for i := range crashClients {
		email := fmt.Sprintf("client%d@example.org", i)
		c.command.user(email, firstPassword)
		c.clients = append(c.clients, c.owner(email, rand.NewPCG(c.seed, uint64(i+1))))
	}
	go c.sort(c.t.Context())
}

// warnings are those of all servers.
func (c *crash) warnings() string {
	var b strings.Builder
	for _, s := range c.servers {
		b.WriteString(s.warnings())
	}
	return b.String()
}

const firstPassword = "a password numbered 0"

func (c *crash) owner(email string, seed rand.Source) *client {
	return &client{wire: &c.wire, email: email, password: firstPassword, rng: rand.New(seed), inbox: inbox{arrived: make(chan struct{}, 1)}}
}

// add makes an account by a command, under load. The command may find no gap
// between the server's transactions within its patience, and says so.
func (c *crash) add(email string) {
	c.t.Helper()
	_, stderr, code := c.command.command(firstPassword, "user", "create", email, "--first-name=Ann", "--last-name=Other", "--password-stdin")
	switch {
	case code == 0:
		c.added = append(c.added, c.owner(email, c.rng))
	case !strings.Contains(stderr, "can't do this now"):
		c.t.Errorf("kwai user create: exit code %d: %s", code, stderr)
	}
}

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
	c.each(func(ctx context.Context, k *client) error {
		if err := k.recover(); err != nil {
			return err
		}
		return k.mailed(ctx) // the first resets come before the first kill or with it
	})
	for i := range kills {
		load := c.load()
		c.add(fmt.Sprintf("added%d@example.org", i))
		c.pause(300*time.Millisecond, load)
		c.finale.Store(true)
		c.pause(50*time.Millisecond, load)
		c.down.Store(true)
		kill(load)
		c.finale.Store(false)
		c.each(func(_ context.Context, k *client) error { return k.verify() })
		c.verifyAdded(3)
		if c.t.Failed() {
			c.t.Fatalf("after %d kills; the server warned: %s", i+1, c.warnings())
		}
	}
	c.each(func(ctx context.Context, k *client) error { return k.finish(ctx) })
	c.verifyAdded(len(c.added))
	c.t.Logf("%d kills, %d accounts made by a command meanwhile", kills, len(c.added))
	if len(c.added) == 0 {
		c.t.Error("no account was made under load")
	}
	for _, op := range []string{opLogin, opRenew, opLogout, opRecover, opReset, opCheck} {
		answered, cut, checked := c.answered[op], c.cut[op], c.checked[op]
		c.t.Logf("%-12s answered %6d, cut off %4d, found in force %6d", op, answered, cut, checked)
		// That something of each kind is cut off takes luck in few kills; a
		// check leaves nothing behind to be found.
		if answered == 0 || cut == 0 && kills >= 100 || checked == 0 && op != opCheck {
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
func (c *crash) each(do func(context.Context, *client) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), crashWait)
	defer cancel()
	var wg sync.WaitGroup
	for _, k := range c.clients {
		wg.Go(func() {
			if err := do(ctx, k); err != nil {
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
func (c *client) mailed(ctx context.Context) error {
	for {
		if c.ids = append(c.ids, c.inbox.take()...); len(c.ids) > 0 {
			return nil
		}
		select {
		case <-c.inbox.arrived:
		case <-ctx.Done():
			return errors.New("a recovery was accepted and not mailed")
		}
	}
}

// finish verifies all of it once more, and that the recovery accepted last,
// perhaps just before a kill, was mailed with an id that works.
func (c *client) finish(ctx context.Context) error {
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
		if err := c.mailed(ctx); err != nil {
			return err
		}
		if err := c.reset(); err != nil {
			return err
		}
	}
	c.add(c.checked, opRecover)
	for c.inbox.noticed() < c.notices {
		select {
		case <-c.inbox.arrived:
		case <-ctx.Done():
			return fmt.Errorf("%d passwords were changed, and %d mails tell it", c.notices, c.inbox.noticed())
		}
	}
	return c.verify()
}

// unavailable holds that every endpoint answers 503 while the database is away.
func (c *crash) unavailable() {
	c.t.Helper()
	access, refresh := "", ""
	for _, k := range c.clients {
		if len(k.live) > 0 {
			access, refresh = k.live[0].access, k.live[0].refresh
		}
	}
	for _, r := range []struct{ method, path, form string }{
		{"POST", "/api/v1/auth/login", "username=client0@example.org&password=wrong"},
		{"POST", "/api/v1/auth/access_token", "refresh_token=" + refresh},
		{"POST", "/api/v1/auth/logout", "refresh_token=" + refresh},
		{"POST", "/api/v1/auth/recover", "email=client0@example.org"},
		{"POST", "/api/v1/auth/recover", "email=nobody@example.org"},
		{"POST", "/api/v1/auth/reset", "uuid=6f1c1f0e-5b0a-4f9e-8f0e-3a2b1c0d9e8f&password=a+good+long+one"},
		{"GET", "/api/v1/auth/user", ""},
		{"GET", "/readyz", ""},
	} {
		a, err := c.send(r.method, c.server.URL+r.path, access, r.form)
		if err != nil || a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			c.t.Errorf("%s %s while the database is away: %v, %v, want 503 and Retry-After", r.method, r.path, a, err)
		}
	}
	if a, err := c.send("GET", c.server.URL+"/healthz", "", ""); err != nil || a.Status != http.StatusOK {
		c.t.Errorf("/healthz while the database is away: %v, %v, want 200", a, err)
	}
}
