package test

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"kwai/internal/auth"
	"kwai/internal/password"
	"kwai/internal/testing/cluster"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
)

const (
	consistencyAtOnce  = 4  // users
	consistencyClients = 8  // of a user
	consistencyMost    = 11 // steps of a client
)

// However many clients use an account at once, through whichever replicas: all
// answers are such as one server would give that does one thing at a time. So
// nothing of a session succeeds anywhere after its end was answered, no login
// outlives the password or the state it was made with, and no two renewals
// disagree.
func TestReplicasAnswerAsOne(t *testing.T) {
	each(t, func(t *testing.T, k cluster.Kwai) {
		replicas := 1 // of SQLite
		if k.Database != "" {
			replicas = need.Rounds(2, 3)
		}
		c := &consistency{t: t, mails: mailtest.Serve(t), start: time.Now(), outcomes: map[outcome]int{}, overlaps: map[string]int{}}
		for range replicas {
			// A slow machine must not make a replaced token come too late.
			c.replicas = append(c.replicas, start(t, k, "--reuse-window=10m", "--smtp="+c.mails.URL()))
		}
		c.rules = []*auth.Service{rulesOf(t, c.replicas[0]), rulesOf(t, c.replicas[0])}
		c.makeApp()
		c.run(need.Rounds(6, 40))
		c.report()
	})
}

// rulesOf are those of a command, beside the server of a site. It hashes at
// another cost, so that the next login replaces the hash.
func rulesOf(t *testing.T, s *site) *auth.Service {
	t.Helper()
	passwords := password.NewPool(password.Options{Params: password.Params{MemoryKiB: 64, Time: 2, Threads: 1}, Workers: 1, MaxWait: time.Hour})
	t.Cleanup(passwords.Close)
	rules := &auth.Service{Store: s.open(), Passwords: passwords, Settings: auth.Defaults, Log: slog.New(slog.DiscardHandler)}
	if err := rules.RefreshSubscribers(t.Context()); err != nil {
		t.Fatal(err)
	}
	return rules
}

// consistency is a server of some replicas, and what came of the histories.
type consistency struct {
	t        *testing.T
	replicas []*site
	rules    []*auth.Service // for commands, as from processes of their own
	app      appCredentials
	mails    *mailtest.Server
	seen     int       // mails
	start    time.Time // of the clock of all histories

	mu       sync.Mutex
	outcomes map[outcome]int
	overlaps map[string]int // operations during a change by another
}

// outcome is what came of an operation.
type outcome struct {
	op     string
	status int
	again  bool // a renewal gave a token that another one had given
}

func (o outcome) String() string {
	if o.again {
		return fmt.Sprint(o.op, " ", o.status, " again")
	}
	return fmt.Sprint(o.op, " ", o.status)
}

// run makes so many users and runs and checks a history of each.
func (c *consistency) run(users int) {
	c.t.Helper()
	var histories []*history
	for i := range users {
		h := &history{consistency: c, id: uint64(i), email: fmt.Sprintf("client%d@example.org", i), numbers: map[string]int{}, pages: map[string]int{}, deletion: i%3 == 0}
		for i := range h.via {
			h.via[i] = newTransport(c.t)
		}
		if _, err := c.rules[0].CreateUser(c.t.Context(), auth.NewUser{Email: h.email, Password: firstPassword}); err != nil {
			c.t.Fatal(err)
		}
		c.replicas[0].post("recover", "", "email", h.email).wants(c.t, http.StatusOK, "recover")
		histories = append(histories, h)
	}
	c.recoveries(histories)
	waiting := make(chan *history, len(histories))
	for _, h := range histories {
		waiting <- h
	}
	close(waiting)
	seed := rand.Uint64()
	var wg sync.WaitGroup
	for range consistencyAtOnce {
		wg.Go(func() {
			for h := range waiting {
				h.run(seed)
				h.judge()
			}
		})
	}
	wg.Wait()
}

// recoveries gives each history the unique id that was mailed to its user.
func (c *consistency) recoveries(histories []*history) {
	c.t.Helper()
	missing := map[string]*history{}
	for _, h := range histories {
		missing[h.email] = h
	}
	for len(missing) > 0 {
		mails := waitMails(c.t, c.mails, c.seen+1)
		for _, m := range mails[c.seen:] {
			if h := missing[m.To]; h != nil {
				h.recovery = m.RecoveryID()
				delete(missing, m.To)
			}
		}
		c.seen = len(mails)
	}
}

// judge checks a history that is over, and counts what it had.
func (h *history) judge() {
	if result := oneByOne(h.operations); result != porcupine.Ok {
		h.t.Errorf("%s: the history is %s:\n%s", h.email, result, written(h.operations))
	}
	h.consistency.mu.Lock()
	defer h.consistency.mu.Unlock()
	slices.SortFunc(h.operations, func(x, y porcupine.Operation) int { return cmp.Compare(x.Return, y.Return) })
	given := map[int]bool{}
	for _, o := range h.operations {
		q, r := o.Input.(question), o.Output.(reply)
		h.outcomes[outcome{q.op, r.status, (q.op == opRenew || q.op == opRefresh) && given[r.token]}]++
		given[r.token] = r.token != 0
		if slices.ContainsFunc(h.operations, func(e porcupine.Operation) bool {
			return changes(e) && e.Input != o.Input && e.Call <= o.Return && o.Call <= e.Return
		}) {
			h.overlaps[q.op]++
		}
	}
}

// changes says whether an operation changed the account or a session.
func changes(o porcupine.Operation) bool {
	op := o.Input.(question).op
	return !slices.Contains([]string{opCheck, opVisit, opVisitor, opAuthorize, opUserInfo}, op) && o.Output.(reply).status == http.StatusOK
}

// report holds that all that can happen did, and that each operation met
// changes under way. A few users leave that to chance.
func (c *consistency) report() {
	c.t.Helper()
	for _, o := range []outcome{
		{opLogin, 200, false}, {opLogin, 401, false},
		{opRenew, 200, false}, {opRenew, 200, true}, {opRenew, 401, false},
		{opCheck, 200, false}, {opCheck, 401, false},
		{opLogout, 200, false}, {opLogout, 404, false},
		{opReset, 200, false}, {opReset, 403, false}, {opReset, 404, false},
		{opPage, 200, false}, {opPage, 401, false}, {opProve, 200, false}, {opProve, 401, false},
		{opVisit, 200, false}, {opVisit, unfresh, false}, {opVisit, 401, false}, {opVisitor, 200, false}, {opVisitor, 401, false},
		{opChoose, 200, false}, {opEndOthers, 200, false}, {opLeave, 200, false}, {opDelete, 200, false}, {opDelete, 404, false},
		{opAuthorize, 200, false}, {opAuthorize, 401, false}, {opExchange, 200, false}, {opExchange, 400, false},
		{opRefresh, 200, false}, {opRefresh, 200, true}, {opRefresh, 400, false}, {opUserInfo, 200, false}, {opUserInfo, 401, false},
		{opTakeBack, 200, false}, {opAppLogout, 200, false},
		{opPassword, 200, false}, {opRevoke, 200, false}, {opEnact, 200, false},
	} {
		c.t.Logf("%-22v %6d", o, c.outcomes[o])
		if need.All() && c.outcomes[o] == 0 {
			c.t.Errorf("%v was not put to the test", o)
		}
		if need.All() && c.overlaps[o.op] == 0 {
			c.t.Errorf("%s was never under way during a change", o.op)
		}
	}
	c.t.Log("during a change: ", c.overlaps)
}
