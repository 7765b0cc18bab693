package main

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"kwai/internal/auth"
	"kwai/internal/mail/mailtest"
	"kwai/internal/store/storetest"
)

const (
	consistencyUsers   = 25 // of a round
	consistencyAtOnce  = 4  // users
	consistencyClients = 8  // of a user
	consistencySteps   = 6  // of a client
)

// However many clients use an account at once, through whichever replicas: all
// answers are such as one server would give that does one thing at a time. So
// nothing of a session succeeds anywhere after its end was answered, no login
// outlives the password or the state it was made with, and no two renewals
// disagree.
//
// KWAI_CONSISTENCY_ROUNDS runs more of it; KWAI_CONSISTENCY_SEED makes the same
// choices again, as far as clients that run at the same time can.
func TestReplicasAnswerAsOne(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		rounds, seed := number(t, "KWAI_CONSISTENCY_ROUNDS", 1), number(t, "KWAI_CONSISTENCY_SEED", rand.Uint64())
		t.Logf("KWAI_CONSISTENCY_SEED=%d", seed)
		replicas := uint64(1) // of SQLite
		if strings.HasPrefix(url, "postgres") {
			replicas = 3
		}
		c := &consistency{t: t, mails: mailtest.Serve(t), start: time.Now(), outcomes: map[outcome]int{}, overlaps: map[string]int{}}
		// The server closes a connection that says nothing in its first seconds:
		// the client must do so sooner, or a request may meet the close.
		transport := &http.Transport{MaxIdleConnsPerHost: consistencyAtOnce * consistencyClients, IdleConnTimeout: time.Second, DisableCompression: true}
		t.Cleanup(transport.CloseIdleConnections)
		for range replicas {
			// A slow machine must not make a replaced token come too late.
			s := start(t, url, "--limits=off", "--reuse-window=10m", "--smtp="+c.mails.URL())
			c.replicas = append(c.replicas, &wire{urls: []string{s.URL}, http: &http.Client{Transport: transport, Timeout: time.Minute}})
		}
		// Commands hash at another cost, so that the next login replaces the hash.
		settings := &Settings{Database: url, HashMemory: 64, HashTime: 2, HashThreads: 1, LogLevel: "WARN"}
		err := withRules(t.Context(), settings, console{nil, io.Discard, os.Stderr}, func(one *auth.Service) error {
			return withRules(t.Context(), settings, console{nil, io.Discard, os.Stderr}, func(another *auth.Service) error {
				c.rules = []*auth.Service{one, another}
				for round := range rounds {
					if c.round(round, seed); t.Failed() {
						break
					}
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		c.report()
	})
}

// number is a variable for runs by hand.
func number(t *testing.T, name string, usual uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(name, ": ", err)
	}
	return n
}

// consistency is a server of some replicas, and what came of the histories.
type consistency struct {
	t        *testing.T
	replicas []*wire
	rules    []*auth.Service // for commands, as from processes of their own
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

// round makes new users and runs and checks a history of each.
func (c *consistency) round(round, seed uint64) {
	c.t.Helper()
	var histories []*history
	for i := range uint64(consistencyUsers) {
		h := &history{consistency: c, id: round*consistencyUsers + i, numbers: map[string]int{}}
		h.email = fmt.Sprintf("client%d@example.org", h.id)
		if _, err := c.rules[0].CreateUser(c.t.Context(), auth.NewUser{Email: h.email, Password: firstPassword}); err != nil {
			c.t.Fatal(err)
		}
		if a, err := c.replicas[0].send("POST", c.replicas[0].urls[0]+"/api/v1/auth/recover", "", encodeURL("email", h.email)); err != nil || a.Status != http.StatusOK {
			c.t.Fatal(a, err)
		}
		histories = append(histories, h)
	}
	c.recoveries(histories)
	waiting := make(chan *history, len(histories))
	for _, h := range histories {
		waiting <- h
	}
	close(waiting)
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
		mails := wait(c.t, c.mails, c.seen+1)
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
		h.outcomes[outcome{q.op, r.status, q.op == opRenew && given[r.token]}]++
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
	return o.Input.(question).op != opCheck && o.Output.(reply).status == http.StatusOK
}

// report holds that all that can happen did, and that each operation met
// changes under way.
func (c *consistency) report() {
	c.t.Helper()
	for _, o := range []outcome{
		{opLogin, 200, false}, {opLogin, 401, false},
		{opRenew, 200, false}, {opRenew, 200, true}, {opRenew, 401, false},
		{opCheck, 200, false}, {opCheck, 401, false},
		{opLogout, 200, false}, {opLogout, 404, false},
		{opReset, 200, false}, {opReset, 403, false}, {opReset, 404, false},
		{opPassword, 200, false}, {opRevoke, 200, false}, {opEnact, 200, false},
	} {
		c.t.Logf("%-22v %6d", o, c.outcomes[o])
		if c.outcomes[o] == 0 || c.overlaps[o.op] == 0 {
			c.t.Errorf("%v was not put to the test", o)
		}
	}
	c.t.Log("during a change: ", c.overlaps)
}
