package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"kwai/internal/auth"
	"kwai/internal/testing/need"
)

// history is of one user: what all clients know, and what they were answered.
type history struct {
	*consistency
	id              uint64
	email, recovery string

	mu         sync.Mutex
	sessions   []*tokens
	numbers    map[string]int // of refresh tokens
	logins     int            // sessions that there may be
	browsers   []*browser     // sessions of the pages
	pages      map[string]int // their numbers by their ids
	pageLogins int            // of them that there may be
	codes      []*appCode
	passwords  int  // that were set, or will be
	password   int  // that was set last, as far as answers tell
	revoked    bool // as far as answers tell
	deletion   bool // the account is deleted at the end
	operations []porcupine.Operation
	via        [1 + consistencyClients]*http.Transport // of the clients
}

// tokens are those of a session that were seen, the newest last.
type tokens struct {
	access, refresh []string
	dead            bool // as far as answers tell
}

// run does all of a history: two logins, what the clients do at once, and a
// look at what is left.
func (h *history) run(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, h.id<<8))
	for range 2 {
		h.login(0, rng, 0)
		h.pageLogin(0, rng, 0)
	}
	var wg sync.WaitGroup
	for i := range consistencyClients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, h.id<<8+uint64(i)+1))
			steps := need.Rounds(8, consistencyMost)
			for step := range steps {
				if h.deletion && i < 2 && step == steps-2 { // of two that meet, one finds nothing
					h.delete(i+1, h.rules[i])
				}
				h.step(i+1, rng)
			}
		})
	}
	wg.Wait()
	for i, s := range h.sessions {
		h.renew(0, rng, i, last(s.refresh))
		h.check(0, rng, i, last(s.access))
	}
	for i, b := range h.browsers {
		q := question{session: i, token: len(b.cookies)}
		a, m := h.page(0, rng, "/account/password", last(b.cookies))
		h.looked(m, q, opVisit, a.visits())
	}
	for i, c := range h.codes {
		if c.id != "" {
			h.refresh(0, rng, i, last(c.refresh))
		}
	}
	h.login(0, rng, 0)
	h.login(0, rng, h.password)
	h.pageLogin(0, rng, h.password)
}

func last(tokens []string) string { return tokens[len(tokens)-1] }

// step does something at random, mostly with sessions that may be live.
func (h *history) step(client int, rng *rand.Rand) {
	h.mu.Lock()
	var live []int
	for i, s := range h.sessions {
		if !s.dead || rng.IntN(10) == 0 {
			live = append(live, i)
		}
	}
	r := rng.IntN(100)
	if len(live) == 0 {
		live = []int{rng.IntN(len(h.sessions))}
		r += r % 2 * (79 - r) // every other time a login
	}
	if h.revoked && rng.IntN(3) == 0 {
		r = 90 + rng.IntN(2)*9 // a reset, which is refused, or enact
	}
	n, other := live[rng.IntN(len(live))], rng.IntN(len(h.sessions))
	s := h.sessions[n]
	access, newest, replaced, others := pick(rng, s.access), last(s.refresh), pick(rng, s.refresh), pick(rng, h.sessions[other].refresh)
	known := h.password
	if rng.IntN(4) == 0 {
		known = rng.IntN(h.passwords + 1)
	}
	h.mu.Unlock()
	rules := h.rules[rng.IntN(len(h.rules))]
	switch rng.IntN(10) {
	case 0, 1, 2:
		h.pageStep(client, rng, known)
		return
	case 3, 4, 5:
		h.appStep(client, rng)
		return
	}
	switch {
	case r < 30:
		h.renew(client, rng, n, newest)
	case r < 45:
		h.renew(client, rng, n, replaced)
	case r < 69:
		h.check(client, rng, n, access)
	case r < 73:
		h.logout(client, rng, n, access, n, replaced)
	case r < 79:
		h.logout(client, rng, n, access, other, others)
	case r < 89:
		h.login(client, rng, known)
	case r < 93:
		h.reset(client, rng)
	case r < 95:
		h.setPassword(client, rules)
	case r < 98:
		h.command(client, question{op: opRevoke}, func(ctx context.Context) error { return rules.Revoke(ctx, h.email) })
	default:
		h.command(client, question{op: opEnact}, func(ctx context.Context) error { return rules.Reinstate(ctx, h.email) })
	}
}

func pick(rng *rand.Rand, tokens []string) string { return tokens[rng.IntN(len(tokens))] }

// ask sends an operation of the API to any replica.
func (h *history) ask(client int, rng *rand.Rand, op, bearer string, want []int, fields ...string) (answer, moment) {
	a, m := h.send(client, rng, api+op, bearerHeader(bearer), want, fields...)
	if op == opCheck && a.Status == http.StatusOK && a.field("email") != h.email {
		h.t.Errorf("%s: the access token is %s's", h.email, a.field("email"))
	}
	return a, m
}

// send sends a request to any replica; one without fields is a GET.
func (h *history) send(client int, rng *rand.Rand, path string, header http.Header, want []int, fields ...string) (answer, moment) {
	replica := rng.IntN(len(h.replicas))
	m := moment{client: client, where: fmt.Sprint("at replica ", replica), call: time.Since(h.start)}
	a, err := requestWith(h.t.Context(), h.via[client], h.replicas[replica].URL+path, header, form(fields...))
	m.end = time.Since(h.start)
	if err != nil || !slices.Contains(want, a.Status) {
		h.t.Errorf("%s: %s answered %v, %v, want one of %v", h.email, path, a, err, want)
	}
	return a, m
}

// moment is who did an operation, where and when.
type moment struct {
	client    int
	where     string
	call, end time.Duration
}

// record adds to the history; the caller holds mu.
func (h *history) record(m moment, q question, r reply) {
	switch {
	case (q.op == opCheck || q.op == opRenew) && r.status == http.StatusUnauthorized, q.op == opLogout:
		h.sessions[q.session].dead = true
	case (q.op == opVisit || q.op == opVisitor) && r.status == http.StatusUnauthorized:
		b := h.browsers[q.session]
		b.dead = b.dead || q.token == len(b.cookies)
	case q.op == opLeave:
		h.browsers[q.session].dead = true
	case (q.op == opExchange || q.op == opRefresh || q.op == opUserInfo) && r.status != http.StatusOK, q.op == opTakeBack:
		h.codes[q.session].dead = true
	case (q.op == opPassword || q.op == opReset || q.op == opChoose) && r.status == http.StatusOK:
		h.password = q.password
	case q.op == opRevoke || q.op == opEnact:
		h.revoked = q.op == opRevoke
	}
	h.operations = append(h.operations, porcupine.Operation{
		ClientId: m.client, Metadata: m.where, Call: int64(m.call), Return: int64(m.end), Input: q, Output: r,
	})
}

// given notes the tokens that were given for a session; the caller holds mu.
func (h *history) given(session int, a answer) reply {
	r := reply{status: a.Status}
	if a.Status != http.StatusOK {
		return r
	}
	if session == len(h.sessions) {
		h.sessions = append(h.sessions, &tokens{})
	}
	r.session, r.token = session, h.keepTokens(h.sessions[session], a)
	return r
}

// keepTokens adds an answer's tokens to those that were seen of a session, and numbers the
// refresh token; the caller holds mu.
func (h *history) keepTokens(s *tokens, a answer) (number int) {
	refresh := a.field("refresh_token")
	number = h.numbers[refresh]
	if number == 0 {
		number = len(h.numbers) + 1
		h.numbers[refresh] = number
		s.refresh = append(s.refresh, refresh)
	}
	s.access = append(s.access, a.field("access_token"))
	return number
}

func (h *history) check(client int, rng *rand.Rand, session int, access string) {
	a, m := h.ask(client, rng, opCheck, access, acceptedOrRefused)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.record(m, question{op: opCheck, session: session}, reply{status: a.Status})
}

func (h *history) renew(client int, rng *rand.Rand, session int, refresh string) {
	a, m := h.ask(client, rng, opRenew, "", acceptedOrRefused, "refresh_token", refresh)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.record(m, question{op: opRenew, session: session, token: h.numbers[refresh]}, h.given(session, a))
}

// logout is two operations, of which each may be overtaken: who asks is looked
// at first, by an access token that may be of another session of the user.
func (h *history) logout(client int, rng *rand.Rand, bearer int, access string, session int, refresh string) {
	a, m := h.ask(client, rng, opLogout, access, []int{200, 401, 404}, "refresh_token", refresh)
	h.mu.Lock()
	defer h.mu.Unlock()
	who := question{op: opCheck, session: bearer}
	if a.Status == http.StatusUnauthorized {
		h.record(m, who, reply{status: a.Status})
		return
	}
	h.record(m, who, reply{status: http.StatusOK})
	h.record(m, question{op: opLogout, session: session}, reply{status: a.Status})
}

func (h *history) login(client int, rng *rand.Rand, n int) {
	h.mu.Lock()
	full := h.logins == mostSessions
	if !full {
		h.logins++
	}
	h.mu.Unlock()
	if full {
		return
	}
	a, m := h.ask(client, rng, opLogin, "", acceptedOrRefused, "username", h.email, "password", numbered(n))
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.Status != http.StatusOK {
		h.logins--
	}
	h.record(m, question{op: opLogin, password: n}, h.given(len(h.sessions), a))
}

func (h *history) reset(client int, rng *rand.Rand) {
	n := h.newPassword()
	a, m := h.ask(client, rng, opReset, "", []int{200, 403, 404}, "uuid", h.recovery, "password", numbered(n))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.record(m, question{op: opReset, password: n}, reply{status: a.Status})
}

func (h *history) setPassword(client int, rules *auth.Service) {
	n := h.newPassword()
	h.command(client, question{op: opPassword, password: n}, func(ctx context.Context) error {
		return rules.SetPassword(ctx, h.email, numbered(n))
	})
}

// newPassword is the number of one that nobody has had.
func (h *history) newPassword() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passwords++
	return h.passwords
}

func numbered(n int) string { return fmt.Sprintf("a password numbered %d", n) }

// command does what a command does, beside the servers.
func (h *history) command(client int, q question, do func(context.Context) error) {
	m := moment{client: client, where: "by command", call: time.Since(h.start)}
	err := do(h.t.Context())
	m.end = time.Since(h.start)
	gone := errors.Is(err, auth.ErrNoUser)
	if err != nil && !gone {
		h.t.Errorf("%s: %s: %v", h.email, q.op, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.record(m, q, reply{status: either(gone, http.StatusNotFound, http.StatusOK)})
}
