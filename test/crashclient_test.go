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
	"sync/atomic"
	"time"
)

// The operations, by their endpoints.
const (
	opLogin   = "login"
	opRenew   = "access_token"
	opLogout  = "logout"
	opRecover = "recover"
	opReset   = "reset"
	opCheck   = "user"
)

// tally counts what became of the operations.
type tally struct {
	mu                     sync.Mutex
	answered, cut, checked map[string]int
}

func newTally() *tally {
	return &tally{answered: map[string]int{}, cut: map[string]int{}, checked: map[string]int{}}
}

func (y *tally) add(counts map[string]int, op string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	counts[op]++
}

// errCut says that it isn't known what became of an operation.
var errCut = errors.New("cut off")

// wire is how the clients reach the servers, all of which are one to them.
type wire struct {
	urls  []string
	app   appCredentials
	heard *logouts // by that app
	*tally
	// down is set before something is killed. From then on, until it is back,
	// requests may end as isCut says; before, none may.
	down   atomic.Bool
	isCut  func(url string, a answer, err error) bool
	finale atomic.Bool            // something is about to be killed
	still  atomic.Pointer[string] // the server that stands still: clients give it a second
}

var (
	accepted          = []int{http.StatusOK}
	refused           = []int{http.StatusUnauthorized}
	acceptedOrRefused = []int{http.StatusOK, http.StatusUnauthorized}
	// goneAtLast is what a logout may get that comes with, or after, the one before.
	goneAtLast = []int{http.StatusOK, http.StatusUnauthorized, http.StatusNotFound}
)

// session is what its holder knows of it.
type session struct {
	access, refresh string
	replaced        string // the refresh token before; or ""
	ended           string // the operation that ended it
}

// client is the owner of an account, who does one thing at a time and knows
// what was answered.
type client struct {
	*wire
	via              *http.Transport
	operator         *site // whose commands run beside the servers
	inbox            inbox
	rng              *rand.Rand
	email            string
	password         string
	retired          []string // earlier passwords
	live             []*session
	dead             []*session
	settled          int // of dead, those that were seen refused
	pages, deadPages []*pageSession
	settledPages     int
	apps, deadApps   []*appSession
	settledApps      int
	ids              []string // of recoveries, as they came by mail; some may be stale
	due              bool     // a recovery was accepted, so an id that works comes
	notices          int      // mails that say that the password was changed, at least
	// settle finds out what became of the operation that was cut off, or nil.
	settle func() error
	calm   atomic.Int64 // operations answered since anybody's was cut off
}

// send sends a request to a server.
func (c *client) send(url, bearer, form string) (answer, error) {
	return c.sendWith(url, bearerHeader(bearer), form)
}

func (c *client) sendWith(url string, header http.Header, form string) (answer, error) {
	ctx := context.Background()
	if still := c.still.Load(); still != nil && strings.HasPrefix(url, *still) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	return requestWith(ctx, c.via, url, header, form)
}

// ask does an operation that must be answered with one of the statuses, or cut
// off. Fields come in pairs.
func (c *client) ask(op, bearer string, want []int, fields ...string) (answer, error) {
	var a answer
	for _, server := range c.serversFor(want) {
		var err error
		a, err = c.send(server+api+op, bearer, form(fields...))
		if a, err = c.judge(server, op, a, err, a.Status, want); err != nil {
			return a, err
		}
	}
	return a, nil
}

// serversFor are those to ask: any, but who is refused must be refused by all.
func (c *client) serversFor(want []int) []string {
	if slices.Equal(want, refused) || slices.Equal(want, notGranted) {
		return c.urls
	}
	return []string{c.urls[rand.IntN(len(c.urls))]}
}

// judge counts what became of an operation, and says what is wrong with it.
func (c *client) judge(server, op string, a answer, err error, status int, want []int) (answer, error) {
	switch {
	case c.down.Load() && c.isCut(server, a, err):
		c.add(c.cut, op)
		return a, errCut
	case err != nil:
		return a, err
	case !slices.Contains(want, status):
		return a, fmt.Errorf("%s answered %v, which is %d, want %v", op, a, status, want)
	}
	c.add(c.answered, op)
	return a, nil
}

const maxLive = 6

// step does something at random.
func (c *client) step() error {
	c.ids = append(c.ids, c.inbox.take()...)
	r := c.rng.IntN(100)
	// Recoveries are few, for their mails take time: most are kept for the
	// moment of the kill.
	seldom := 2
	if c.finale.Load() {
		seldom = 30
	}
	switch {
	case r < seldom && len(c.ids) > 0:
		return c.reset()
	case r < seldom && !c.due, r < seldom/3:
		return c.recover()
	case c.rng.IntN(4) == 0:
		return c.pageStep()
	case c.rng.IntN(3) == 0:
		return c.appStep()
	case len(c.live) == 0, len(c.live) < maxLive && r >= 90:
		return c.login()
	}
	s := c.live[c.rng.IntN(len(c.live))]
	switch {
	case r >= 80:
		return c.logout(s, accepted)
	case r >= 50:
		return c.check(s)
	default:
		return c.renew(s)
	}
}

func (c *client) login() error {
	a, err := c.ask(opLogin, "", accepted, "username", c.email, "password", c.password)
	if err != nil {
		c.settle = c.login
		return err
	}
	c.open(a)
	return nil
}

func (c *client) open(a answer) {
	c.live = append(c.live, &session{access: a.field("access_token"), refresh: a.field("refresh_token")})
}

func (c *client) check(s *session) error {
	_, err := c.ask(opCheck, s.access, accepted)
	return err
}

func (c *client) renew(s *session) error {
	a, err := c.ask(opRenew, "", accepted, "refresh_token", s.refresh)
	if err != nil {
		c.settle = func() error { return c.renew(s) }
		return err
	}
	s.replaced, s.access, s.refresh = s.refresh, a.field("access_token"), a.field("refresh_token")
	return nil
}

// logout may be refused where an earlier one was cut off: that one did it.
func (c *client) logout(s *session, want []int) error {
	if _, err := c.ask(opLogout, s.access, want, "refresh_token", s.refresh); err != nil {
		c.settle = func() error { return c.logout(s, goneAtLast) }
		return err
	}
	c.live = slices.DeleteFunc(c.live, func(l *session) bool { return l == s })
	s.ended = opLogout
	c.dead = append(c.dead, s)
	return nil
}

// recover asks for a mail; at times twice, so that the second overtakes the
// first.
func (c *client) recover() error {
	for range 1 + c.rng.IntN(5)/4 {
		if _, err := c.ask(opRecover, "", accepted, "email", c.email); err != nil {
			c.settle = c.recover
			return err
		}
		c.due = true
	}
	return nil
}

// reset uses the latest id that came, which may be stale by now.
func (c *client) reset() error {
	id, password := c.ids[len(c.ids)-1], fmt.Sprintf("a password numbered %d", len(c.retired)+1)
	still := c.still.Load() != nil
	a, err := c.ask(opReset, "", []int{http.StatusOK, http.StatusNotFound}, "uuid", id, "password", password)
	switch {
	case err != nil:
		c.settle = func() error { return c.settlePassword(nil, password) }
		if still {
			c.settle = func() error { return c.overtake(password) }
		}
		return err
	case a.Status == http.StatusNotFound:
		c.ids = c.ids[:len(c.ids)-1]
	default:
		c.changed(password)
	}
	return nil
}

// settlePassword finds out whether the password was set, perhaps in a session of the
// pages. What PostgreSQL had been
// given when kwai was killed may take until the old one was tried.
func (c *client) settlePassword(in *pageSession, password string) error {
	for _, p := range []string{password, c.password, password} {
		a, err := c.ask(opLogin, "", acceptedOrRefused, "username", c.email, "password", p)
		if err != nil {
			c.settle = func() error { return c.settlePassword(in, password) }
			return err
		}
		if a.Status == http.StatusOK {
			if p == password {
				c.changedIn(in, password)
			}
			c.open(a)
			return nil
		}
	}
	return errors.New("after a reset was cut off neither password logs in")
}

// overtake settles a reset that a server may have in its hands which merely stands
// still: it could happen at any time. A password set by a command ends the recovery;
// from then on the one of the reset must be as wrong as the one before.
func (c *client) overtake(password string) error {
	next := fmt.Sprintf("a password numbered %d", len(c.retired)+2)
	_, log, code := c.operator.command(next, "user", "password", c.email, "--password-stdin")
	switch {
	case code == 0:
		c.retired = append(c.retired, password)
		c.changed(next)
		return nil
	case !strings.Contains(log, "can't do this now"): // the server holds the user's row
		return fmt.Errorf("kwai user password: exit code %d: %s", code, log)
	}
	c.settle = func() error { return c.overtake(password) }
	return errCut
}

func (c *client) changed(password string) { c.changedIn(nil, password) }

// changedIn is changed where the password was chosen in a session of the pages, which
// stays.
func (c *client) changedIn(in *pageSession, password string) {
	op := opReset
	if in != nil {
		op = opChoose
	}
	c.endAll(op, in)
	c.retired, c.password = append(c.retired, c.password), password
	c.ids, c.due = nil, false
	c.notices++
}

// verify holds what was answered against what the server says now. Of what has
// been verified before it takes some at random.
func (c *client) verify() error {
	for c.settle != nil {
		settle := c.settle
		c.settle = nil
		if err := settle(); err != nil {
			return err
		}
	}
	for _, s := range slices.Clone(c.live) {
		if err := c.check(s); err != nil {
			return fmt.Errorf("the newest access token of a live session: %w", err)
		}
		c.add(c.checked, opLogin)
		if s.replaced != "" {
			a, err := c.ask(opRenew, "", accepted, "refresh_token", s.replaced)
			if err != nil {
				return fmt.Errorf("the refresh token replaced last: %w", err)
			}
			if a.field("refresh_token") != s.refresh {
				return errors.New("the refresh token replaced last got another one than the current")
			}
			c.add(c.checked, opRenew)
		}
		if err := c.renew(s); err != nil {
			return fmt.Errorf("the newest refresh token of a live session: %w", err)
		}
	}
	for i, s := range c.dead {
		if i < c.settled && c.rng.IntN(len(c.dead)) > 10 {
			continue
		}
		if _, err := c.ask(opCheck, s.access, refused); err != nil {
			return fmt.Errorf("the access token of a session that was ended by %s: %w", s.ended, err)
		}
		if _, err := c.ask(opRenew, "", refused, "refresh_token", s.refresh); err != nil {
			return fmt.Errorf("the refresh token of a session that was ended by %s: %w", s.ended, err)
		}
		c.add(c.checked, s.ended)
	}
	c.settled = len(c.dead)
	if err := c.verifyPages(); err != nil {
		return err
	}
	if err := c.verifyApps(); err != nil {
		return err
	}
	for _, old := range c.retired[max(0, len(c.retired)-3):] {
		if _, err := c.ask(opLogin, "", refused, "username", c.email, "password", old); err != nil {
			return fmt.Errorf("a password that was replaced: %w", err)
		}
		c.add(c.checked, opReset)
	}
	if err := c.login(); err != nil {
		return fmt.Errorf("the password set last: %w", err)
	}
	return c.logout(c.live[0], accepted)
}

// inbox is a client's mail.
type inbox struct {
	mu      sync.Mutex
	ids     []string
	notices int
	arrived chan struct{} // of one place: something has
}

func (b *inbox) put(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id == "" {
		b.notices++
	} else {
		b.ids = append(b.ids, id)
	}
	select {
	case b.arrived <- struct{}{}:
	default:
	}
}

func (b *inbox) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := b.ids
	b.ids = nil
	return ids
}

func (b *inbox) noticed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.notices
}
