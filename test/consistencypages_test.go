package test

import (
	"context"
	"encoding/binary"
	"html"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"

	"kwai/internal/auth"
)

// What is done on the pages. A request may be several operations: who sends it is
// looked at first.
const (
	opPage      = "login by page"
	opVisit     = "visit"    // of a page that asks for a fresh proof
	opVisitor   = "visitor"  // a visit that doesn't
	opProve     = "prove"    // by a visitor
	opChoose    = "choose"   // a password, by a visitor with a fresh proof
	opLeave     = "leave"    // by a visitor
	opEndOthers = "others"   // ended by a visitor
	opDelete    = "deletion" // by command
)

// unfresh is the status of a visit that must prove first.
const unfresh = http.StatusForbidden

// browser is a session of the pages.
type browser struct {
	cookies []string // by their numbers; "": one that wasn't given, as far as answers tell
	dead    bool     // as far as answers tell
}

// cookieOf takes the value of a cookie apart.
func cookieOf(tb testing.TB, value string) (session string, number int) {
	tb.Helper()
	raw := decode(tb, value)
	if len(raw) < 29 {
		tb.Fatalf("not a cookie: %s", value)
	}
	return string(raw[5:21]), int(binary.BigEndian.Uint64(raw[21:29]))
}

var sealIn = regexp.MustCompile(`name="form" value="([^"]+)"`)

// seal is what a page seals its forms with, "" if it has none.
func (a answer) seal() string {
	if m := sealIn.FindSubmatch(a.Body); m != nil {
		return html.UnescapeString(string(m[1]))
	}
	return ""
}

// cookie is the value of the cookie that an answer sets, "" if it sets none.
func (a answer) cookie() string {
	for _, c := range (&http.Response{Header: a.Header}).Cookies() {
		if c.Name == "kwai-dev" {
			return c.Value
		}
	}
	return ""
}

// leads says where a page leads to: a path below the public URL.
func (a answer) leads() string { return strings.ReplaceAll(a.Header.Get("Location"), "../", "") }

// visits says what a page that asks for a fresh proof says of a visitor.
func (a answer) visits() int {
	switch to := a.leads(); {
	case strings.HasPrefix(to, "login?next="):
		return http.StatusUnauthorized
	case to == "login?prompt=login&next=account%2Fpassword": // with a plain slash it is a change that came too late
		return unfresh
	}
	return http.StatusOK
}

// page sends a request to a page at any replica; a form without fields is a GET.
func (h *history) page(client int, rng *rand.Rand, path, cookie string, fields ...string) (answer, moment) {
	return h.send(client, rng, path, pageHeader(cookie), []int{http.StatusOK, http.StatusSeeOther, http.StatusUnauthorized}, fields...)
}

// keep notes the cookie of an answer, if it has one; the caller holds mu.
func (h *history) keep(a answer) (r reply) {
	if a.cookie() == "" {
		return reply{status: http.StatusUnauthorized}
	}
	id, number := cookieOf(h.t, a.cookie())
	session, known := h.pages[id]
	if !known {
		session = len(h.browsers)
		h.pages[id] = session
		h.browsers = append(h.browsers, &browser{})
	}
	b := h.browsers[session]
	for len(b.cookies) <= number {
		b.cookies = append(b.cookies, "")
	}
	b.cookies[number] = a.cookie()
	return reply{http.StatusOK, session, number + 1}
}

// room takes the place of a session that may be opened, or says that there is none.
func (h *history) room() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pageLogins == mostBrowsers {
		return false
	}
	h.pageLogins++
	return true
}

func (h *history) pageLogin(client int, rng *rand.Rand, n int) {
	if !h.room() {
		return
	}
	a, m := h.page(client, rng, "/login", "", "username", h.email, "password", numbered(n))
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.keep(a)
	if r.status != http.StatusOK {
		h.pageLogins--
	}
	h.record(m, question{op: opPage, password: n}, r)
}

// pickCookie takes a browser session that may be live, and one of its cookies with its
// number, at random: now and then one that was replaced, as if the answer with the next
// one had been lost. The cookie is "" where none is known.
func (h *history) pickCookie(rng *rand.Rand) (session, number int, cookie string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var live []int
	for i, b := range h.browsers {
		if !b.dead || rng.IntN(10) == 0 {
			live = append(live, i)
		}
	}
	if len(live) == 0 {
		return 0, 0, ""
	}
	session = live[rng.IntN(len(live))]
	cookies := h.browsers[session].cookies
	number = len(cookies)
	switch rng.IntN(8) {
	case 0:
		number = 1 + rng.IntN(len(cookies))
	case 1, 2, 3:
		number = max(1, number-1)
	}
	return session, number, cookies[number-1]
}

// pageStep does something on the pages at random.
func (h *history) pageStep(client int, rng *rand.Rand, known int) {
	session, number, cookie := h.pickCookie(rng)
	if number == 0 {
		h.pageLogin(client, rng, known)
		return
	}
	if cookie == "" {
		return
	}
	q := question{session: session, token: number}
	switch r := rng.IntN(100); {
	case r < 40:
		a, m := h.page(client, rng, "/account/password", cookie)
		h.looked(m, q, opVisit, a.visits())
	case r < 70:
		h.prove(client, rng, q, cookie, known)
	case r < 80:
		h.pageLogin(client, rng, known)
	case r < 90:
		h.choose(client, rng, q, cookie)
	default:
		h.leave(client, rng, q, cookie, r > 96)
	}
}

// looked records what was found of a visitor, and what followed.
func (h *history) looked(m moment, q question, op string, status int, then ...func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q.op = op
	h.record(m, q, reply{status: status})
	for _, f := range then {
		f()
	}
}

// prove is a login where the cookie is dead.
func (h *history) prove(client int, rng *rand.Rand, q question, cookie string, n int) {
	if !h.room() {
		return
	}
	a, m := h.page(client, rng, "/login", cookie, "prove", "1", "username", h.email, "password", numbered(n))
	id, _ := cookieOf(h.t, cookie)
	in := strings.Contains(string(a.Body), `name="prove"`) || strings.HasPrefix(a.leads(), "login")
	if got := a.cookie(); got != "" {
		session, _ := cookieOf(h.t, got)
		in = session == id
	}
	h.looked(m, q, opVisitor, either(in, http.StatusOK, http.StatusUnauthorized), func() {
		r := h.keep(a)
		if in || r.status != http.StatusOK {
			h.pageLogins--
		}
		if strings.HasPrefix(a.leads(), "login") {
			r.status = http.StatusNotFound
		}
		if in {
			h.record(m, question{op: opProve, session: q.session, token: q.token, password: n}, r)
		} else {
			h.record(m, question{op: opPage, password: n}, r)
		}
	})
}

// sealed is what forms are sealed with for a visitor, "" for none.
func (h *history) sealed(client int, rng *rand.Rand, q question, cookie string) string {
	a, m := h.page(client, rng, "/logout", cookie)
	h.looked(m, q, opVisitor, a.visits())
	return a.seal()
}

func (h *history) choose(client int, rng *rand.Rand, q question, cookie string) {
	seal := h.sealed(client, rng, q, cookie)
	if seal == "" {
		return
	}
	n := h.newPassword()
	a, m := h.page(client, rng, "/account/password", cookie, "form", seal, "password", numbered(n))
	status := a.visits()
	h.looked(m, q, opVisit, status, func() {
		if status == http.StatusOK {
			r := h.keep(a)
			if r.status != http.StatusOK {
				r.status = http.StatusNotFound
			}
			h.record(m, question{op: opChoose, session: q.session, token: q.token, password: n}, r)
		}
	})
}

func (h *history) leave(client int, rng *rand.Rand, q question, cookie string, everywhere bool) {
	fields := []string{"form", h.sealed(client, rng, q, cookie)}
	if fields[1] == "" {
		return
	}
	if everywhere {
		fields = append(fields, "everywhere", "1")
	}
	a, m := h.page(client, rng, "/logout", cookie, fields...)
	status := a.visits()
	h.looked(m, q, opVisitor, status, func() {
		if status != http.StatusOK {
			return
		}
		if everywhere {
			h.record(m, question{op: opEndOthers, session: q.session}, reply{status: status})
		}
		h.record(m, question{op: opLeave, session: q.session}, reply{status: either(a.leads() == "out", http.StatusOK, http.StatusNotFound)})
	})
}

func (h *history) delete(client int, rules *auth.Service) {
	h.command(client, question{op: opDelete}, func(ctx context.Context) error { return rules.DeleteUser(ctx, h.email) })
}

// The pages, in the account's model.

// pages is a browser session of an account: a number above 0 is the newest cookie's.
type pages struct {
	newest int8 // 0 before the login, ended after the end
	seen   bool // it came back
	chose  bool // a password
}

// visit is the account after a visit by the cookie with a number, and what is answered.
func (a account) visit(session, number int) (account, int) {
	b := &a.browsers[session]
	switch {
	case b.newest > 0 && number == int(b.newest):
		b.seen = true
		return a, http.StatusOK
	case number > 0 && number == int(b.newest)-1 && !b.seen:
		return a, unfresh
	}
	return a, http.StatusUnauthorized
}

// afterPage is after for what is done on the pages.
func (a account) afterPage(q question, r reply) (account, bool) {
	b := &a.browsers[q.session]
	right := !a.revoked && !a.deleted && q.password == a.password
	switch q.op {
	case opPage:
		if !right || r.status != http.StatusOK {
			return a, !right && r.status == http.StatusUnauthorized
		}
		b = &a.browsers[r.session]
		fits := b.newest == 0 && r.token == 1
		*b = pages{newest: 1, seen: true}
		return a, fits
	case opProve:
		_, visits := a.visit(q.session, q.token)
		if in := visits != http.StatusUnauthorized; !right || !in {
			return a, !right && r.status == http.StatusUnauthorized || !in && r.status == http.StatusNotFound
		}
		if visits == http.StatusOK { // else the answer with the newest was lost
			b.newest++
			b.seen = false
		}
		return a, r.status == http.StatusOK && r.token == int(b.newest)
	case opChoose:
		_, visits := a.visit(q.session, q.token)
		in := visits != http.StatusUnauthorized
		if r.status == http.StatusNotFound { // perhaps the password was changed since the visit
			return a, !in || b.chose
		}
		next := pages{b.newest, b.seen, true}
		if visits == http.StatusOK { // else the answer with the newest was lost
			next.newest, next.seen = next.newest+1, false
		}
		a.password, a.recovery = q.password, false
		a.end()
		*b = next
		a.choices++
		return a, in && r.status == http.StatusOK && r.token == int(b.newest)
	case opEndOthers: // which ends none where this one ended meanwhile
		if kept := *b; kept.newest > 0 {
			a.end()
			*b = kept
		}
	case opLeave:
		if b.newest > 0 {
			b.newest = ended
		}
	}
	return a, r.status == http.StatusOK
}

// TestTheCheckerFindsInconsistency, of the pages.
func TestTheCheckerKnowsThePages(t *testing.T) {
	t.Parallel()
	type op = porcupine.Operation
	do := func(from, to int64, q question, r reply) op {
		return op{Call: from, Return: to, Input: q, Output: r}
	}
	login := func(from, to int64, password, session int) op {
		return do(from, to, question{op: opPage, password: password}, reply{200, session, 1})
	}
	visit := func(from, to int64, number, status int) op {
		return do(from, to, question{op: opVisit, token: number}, reply{status: status})
	}
	prove := func(from, to int64, number, got int) op {
		return do(from, to, question{op: opProve, token: number}, reply{200, 0, got})
	}
	choose := func(from, to int64, number, got int) op {
		return do(from, to, question{op: opChoose, token: number, password: 1}, reply{200, 0, got})
	}
	said := func(from, to int64, what string, status int) op {
		return do(from, to, question{op: what, token: 1, password: 1}, reply{status: status})
	}
	open := login(1, 2, 0, 0)
	for name, c := range map[string]struct {
		want    porcupine.CheckResult
		history []op
	}{
		"a session's life":                        {porcupine.Ok, []op{open, visit(3, 4, 1, 200), prove(5, 6, 1, 2), visit(7, 8, 1, unfresh), visit(9, 10, 2, 200), visit(11, 12, 1, 401), said(13, 14, opLeave, 200), visit(15, 16, 2, 401)}},
		"proofs at once":                          {porcupine.Ok, []op{open, prove(3, 9, 1, 2), prove(4, 8, 1, 2), visit(10, 11, 1, unfresh), visit(12, 13, 2, 200)}},
		"a proof by a dead cookie":                {porcupine.Illegal, []op{open, prove(3, 9, 1, 3), prove(4, 5, 1, 2), visit(6, 7, 2, 200), visit(10, 11, 3, 200)}},
		"a proof in the newest that does nothing": {porcupine.Illegal, []op{open, prove(3, 4, 1, 2), prove(5, 6, 2, 2)}},
		"two proofs in the newest, one number":    {porcupine.Illegal, []op{open, prove(3, 4, 1, 2), visit(5, 6, 2, 200), prove(7, 8, 2, 2)}},
		"a lost answer that logs out":             {porcupine.Illegal, []op{open, prove(3, 4, 1, 2), visit(5, 6, 1, 401)}},
		"a replaced cookie that is fresh":         {porcupine.Illegal, []op{open, prove(3, 4, 1, 2), visit(5, 6, 1, 200)}},
		"a replaced cookie during the proof":      {porcupine.Ok, []op{open, prove(3, 9, 1, 2), visit(4, 5, 1, 200), visit(6, 7, 1, unfresh)}},
		"a replaced cookie that doesn't die":      {porcupine.Illegal, []op{open, prove(3, 4, 1, 2), visit(5, 6, 2, 200), visit(7, 8, 1, unfresh)}},
		"a newest cookie that isn't fresh":        {porcupine.Illegal, []op{open, visit(3, 4, 1, unfresh)}},
		"a visit after the logout":                {porcupine.Illegal, []op{open, said(3, 4, opLeave, 200), visit(5, 6, 1, 200)}},
		"a proof after the logout":                {porcupine.Illegal, []op{open, said(3, 4, opLeave, 200), prove(5, 6, 1, 2)}},
		"a proof with the old password":           {porcupine.Illegal, []op{open, choose(3, 4, 1, 2), prove(5, 6, 1, 2)}},
		"a chosen password":                       {porcupine.Ok, []op{open, login(3, 4, 0, 1), choose(5, 6, 1, 2), visit(7, 8, 2, 200), visit(9, 10, 1, 401), do(9, 10, question{op: opVisit, session: 1, token: 1}, reply{status: 401}), login(11, 12, 1, 2)}},
		"a chosen password that ends nothing":     {porcupine.Illegal, []op{open, login(3, 4, 0, 1), choose(5, 6, 1, 2), do(7, 8, question{op: opVisit, session: 1, token: 1}, reply{status: 200})}},
		"a password chosen after the end":         {porcupine.Illegal, []op{open, said(3, 4, opPassword, 200), choose(5, 6, 1, 2)}},
		"a copy that outlives a choice":           {porcupine.Illegal, []op{open, choose(3, 4, 1, 2), visit(5, 6, 2, 200), visit(7, 8, 1, unfresh)}},
		"a choice whose answer got lost":          {porcupine.Ok, []op{open, choose(3, 4, 1, 2), visit(5, 6, 1, unfresh)}},
		"a choice refused for no reason":          {porcupine.Illegal, []op{open, said(3, 4, opChoose, 404)}},
		"a session that \"everywhere\" missed":    {porcupine.Illegal, []op{open, login(3, 4, 0, 1), said(5, 6, opEndOthers, 200), do(7, 8, question{op: opVisit, session: 1, token: 1}, reply{status: 200})}},
		"a visit after the deletion":              {porcupine.Illegal, []op{open, said(3, 4, opDelete, 200), visit(5, 6, 1, 200)}},
		"a login after the deletion":              {porcupine.Illegal, []op{said(1, 2, opDelete, 200), login(3, 4, 0, 0)}},
		"two deletions":                           {porcupine.Illegal, []op{said(1, 9, opDelete, 200), said(2, 8, opDelete, 200)}},
	} {
		if got := oneByOne(c.history); got != c.want {
			t.Errorf("%s is %s, want %s:\n%s", name, got, c.want, written(c.history))
		}
	}
}
