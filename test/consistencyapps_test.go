package test

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/oauth2"
)

// What an app does. A request may be several operations, as on the pages.
const (
	opAuthorize = "authorize" // by a visitor
	opExchange  = "exchange"
	opRefresh   = "refresh"
	opUserInfo  = "userinfo"
	opTakeBack  = "revoke token" // the app's own
	opAppLogout = "app's logout" // by its ID token, in no browser
)

const callback = "https://wiki.example.org/callback"

// verifier is that of each code: it isn't in question here.
var verifier = oauth2.GenerateVerifier()

// appCode is a code that was given, and what came of it.
type appCode struct {
	text    string
	browser int // the session that it was made in
	tokens
	id string // the ID token; "" until an exchange was answered with one
}

// makeApp makes the app of all histories.
func (c *consistency) makeApp() {
	c.app = c.replicas[0].app("Wiki", "--redirect-uri="+callback)
	for _, s := range c.replicas {
		s.waitForAppKeys()
	}
}

// waitForAppKeys waits for the keys of apps, which are made just after the start.
func (s *site) waitForAppKeys() {
	s.tb.Helper()
	for !strings.Contains(string(s.get("/.well-known/jwks.json", "").Body), `"RSA"`) {
		pass(s.tb.Context(), time.Millisecond)
	}
}

// authorizeURL is the path of a request for a code.
func (a appCredentials) authorizeURL() string { return a.authorizeURLTo(callback) }

func (a appCredentials) authorizeURLTo(uri string) string {
	return "/oauth2/authorize?" + form("response_type", "code", "client_id", a.ID, "redirect_uri", uri, "scope", "openid email",
		"code_challenge", oauth2.S256ChallengeFromVerifier(verifier), "code_challenge_method", "S256")
}

// header is that of an app's request.
func (a appCredentials) header() http.Header {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(a.ID, a.Secret)
	return r.Header
}

// code is the code with which an answer leads to the app, "" if it leads elsewhere.
func (a answer) code() string {
	to, err := url.Parse(a.Header.Get("Location"))
	if err != nil || !strings.HasPrefix(a.Header.Get("Location"), callback+"?") {
		return ""
	}
	return to.Query().Get("code")
}

// appStep does something of the app at random.
func (h *history) appStep(client int, rng *rand.Rand) {
	h.mu.Lock()
	var fresh, live []int
	for i, c := range h.codes {
		switch {
		case c.dead && rng.IntN(10) > 0:
		case c.id == "":
			fresh = append(fresh, i)
		default:
			live = append(live, i)
		}
	}
	h.mu.Unlock()
	r := rng.IntN(100)
	switch {
	case len(live) > 0 && r >= 50:
		h.useApp(client, rng, live[rng.IntN(len(live))], r)
	case len(fresh) > 0 && r >= 25:
		h.exchange(client, rng, fresh[rng.IntN(len(fresh))])
	default: // and mostly goes on at once, as apps do
		if n := h.authorize(client, rng); n >= 0 && r >= 5 {
			h.exchange(client, rng, n)
			h.useApp(client, rng, n, 50+rng.IntN(50))
		}
	}
}

// useApp does something with what came of a code, if anything did.
func (h *history) useApp(client int, rng *rand.Rand, n, r int) {
	h.mu.Lock()
	c := h.codes[n]
	if c.id == "" {
		h.mu.Unlock()
		return
	}
	newest, replaced, access, id, cookies := last(c.refresh), pick(rng, c.refresh), pick(rng, c.access), c.id, slices.Clone(h.browsers[c.browser].cookies)
	h.mu.Unlock()
	switch {
	case r < 65:
		h.refresh(client, rng, n, newest)
	case r < 75:
		h.refresh(client, rng, n, replaced)
	case r < 90:
		a, m := h.send(client, rng, "/oauth2/userinfo", bearerHeader(access), acceptedOrRefused)
		if a.Status == http.StatusOK && a.field("email") != h.email {
			h.t.Errorf("%s: the app's token is %s's", h.email, a.field("email"))
		}
		h.looked(m, question{session: n}, opUserInfo, a.Status)
	case r < 93:
		h.exchange(client, rng, n) // which is the second
	case r < 95:
		_, m := h.send(client, rng, "/oauth2/revoke", h.app.header(), accepted, "token", newest)
		h.looked(m, question{session: n}, opTakeBack, http.StatusOK)
	case r < 98:
		_, m := h.send(client, rng, "/oauth2/logout?id_token_hint="+id, pageHeader(""), []int{http.StatusSeeOther})
		h.looked(m, question{session: c.browser}, opAppLogout, http.StatusOK)
	default:
		h.leaveByApp(client, rng, c.browser, len(cookies), last(cookies), id)
	}
}

// leaveByApp has the app lead the browser to kwai, to log out.
func (h *history) leaveByApp(client int, rng *rand.Rand, browser, number int, cookie, id string) {
	if cookie == "" {
		return
	}
	a, m := h.send(client, rng, "/oauth2/logout?id_token_hint="+id, pageHeader(cookie), []int{http.StatusSeeOther})
	left := slices.ContainsFunc((&http.Response{Header: a.Header}).Cookies(), func(c *http.Cookie) bool { return c.MaxAge < 0 })
	h.looked(m, question{session: browser, token: number}, opVisitor, either(left, http.StatusOK, http.StatusUnauthorized), func() {
		op := opAppLogout
		if left {
			op = opLeave
		}
		h.record(m, question{op: op, session: browser}, reply{status: http.StatusOK})
	})
}

// authorize has a visitor go to the app, as pageStep, and returns which code that gave;
// less than 0 for none.
func (h *history) authorize(client int, rng *rand.Rand) (n int) {
	session, number, cookie := h.pickCookie(rng)
	if cookie == "" {
		return -1
	}
	a, m := h.send(client, rng, h.app.authorizeURL(), pageHeader(cookie), []int{http.StatusSeeOther})
	code := a.code()
	if code == "" && a.visits() != http.StatusUnauthorized {
		h.t.Errorf("%s: authorize led to %q", h.email, a.leads())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r := reply{status: http.StatusUnauthorized}
	n = -1
	if code != "" {
		n = len(h.codes)
		r = reply{status: http.StatusOK, session: n}
		h.codes = append(h.codes, &appCode{text: code, browser: session})
	}
	h.record(m, question{op: opAuthorize, session: session, token: number}, r)
	return n
}

// answeredGrant are the statuses of /oauth2/token.
var answeredGrant = []int{http.StatusOK, http.StatusBadRequest}

func (h *history) exchange(client int, rng *rand.Rand, n int) {
	h.mu.Lock()
	text := h.codes[n].text
	h.mu.Unlock()
	a, m := h.send(client, rng, "/oauth2/token", h.app.header(), answeredGrant,
		"grant_type", "authorization_code", "code", text, "redirect_uri", callback, "code_verifier", verifier)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.record(m, question{op: opExchange, session: n}, h.givenToApp(n, a))
}

func (h *history) refresh(client int, rng *rand.Rand, n int, refresh string) {
	a, m := h.send(client, rng, "/oauth2/token", h.app.header(), answeredGrant, "grant_type", "refresh_token", "refresh_token", refresh)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.record(m, question{op: opRefresh, session: n, token: h.numbers[refresh]}, h.givenToApp(n, a))
}

// givenToApp notes the tokens that an app got; the caller holds mu.
func (h *history) givenToApp(n int, a answer) reply {
	if a.Status != http.StatusOK {
		if a.field("error") != "invalid_grant" {
			h.t.Errorf("%s: an app was answered %v", h.email, a)
		}
		return reply{status: a.Status}
	}
	c := h.codes[n]
	c.id = a.field("id_token")
	return reply{http.StatusOK, n, h.keepTokens(&c.tokens, a)}
}

// The app, in the account's model.

// mostCodes is how many a history may have: each step makes one at most.
const mostCodes = consistencyClients * consistencyMost

// chain is what came of a code.
type chain struct {
	browser int8 // the session that the code was made in, from 1; 0: there is no code yet
	choices int8 // of passwords, before it
	current int  // refresh token; 0 before the exchange, ended after the end
}

// live says whether a browser session is.
func (a account) live(session int) bool { return a.browsers[session].newest > 0 }

// afterApp is after for what an app does.
func (a account) afterApp(q question, r reply) (account, bool) {
	switch q.op {
	case opAuthorize:
		after, visits := a.visit(q.session, q.token)
		if visits == http.StatusUnauthorized || r.status != http.StatusOK {
			return a, visits == http.StatusUnauthorized && r.status == visits
		}
		c := &after.codes[r.session]
		isNew := c.browser == 0
		*c = chain{browser: int8(q.session + 1), choices: a.choices}
		return after, isNew
	case opAppLogout:
		for i := range a.codes {
			if c := &a.codes[i]; int(c.browser) == q.session+1 && c.current > 0 {
				c.current = ended
			}
		}
		return a, r.status == http.StatusOK
	}
	c := &a.codes[q.session]
	parent := c.browser > 0 && a.live(int(c.browser)-1)
	live := parent && c.current > 0
	switch q.op {
	case opExchange:
		if !parent || c.choices != a.choices { // the code is from before a new password
			return a, r.status == http.StatusBadRequest
		}
		if c.current != 0 {
			c.current = ended
			return a, r.status == http.StatusBadRequest
		}
		c.current = r.token
	case opRefresh:
		if !live || r.status != http.StatusOK {
			return a, !live && r.status == http.StatusBadRequest
		}
		if q.token != c.current {
			return a, a.issued[q.token] && r.token == c.current
		}
		c.current = r.token
	case opUserInfo:
		return a, r.status == either(live, http.StatusOK, http.StatusUnauthorized)
	case opTakeBack:
		if c.current > 0 {
			c.current = ended
		}
		return a, r.status == http.StatusOK
	}
	// The token is new.
	if r.status != http.StatusOK || r.token <= 0 || a.issued[r.token] {
		return a, false
	}
	a.issued[r.token] = true
	return a, true
}

// TestTheCheckerFindsInconsistency, of apps.
func TestTheCheckerKnowsApps(t *testing.T) {
	t.Parallel()
	type op = porcupine.Operation
	do := func(from, to int64, q question, r reply) op {
		return op{Call: from, Return: to, Input: q, Output: r}
	}
	login := do(1, 2, question{op: opPage}, reply{200, 0, 1})
	authorize := func(from, to int64, code int) op {
		return do(from, to, question{op: opAuthorize, token: 1}, reply{status: 200, session: code})
	}
	exchange := func(from, to int64, code, got int) op {
		return do(from, to, question{op: opExchange, session: code}, reply{either(got > 0, 200, 400), code, got})
	}
	refresh := func(from, to int64, token, got int) op {
		return do(from, to, question{op: opRefresh, token: token}, reply{either(got > 0, 200, 400), 0, got})
	}
	said := func(from, to int64, what string, status int) op {
		return do(from, to, question{op: what, token: 1, password: 1}, reply{status: status})
	}
	choose := do(7, 8, question{op: opChoose, token: 1, password: 1}, reply{200, 0, 2})
	in := func(more ...op) []op { return append([]op{login, authorize(3, 4, 0)}, more...) }
	for name, c := range map[string]struct {
		want    porcupine.CheckResult
		history []op
	}{
		"a session's life":                     {porcupine.Ok, in(exchange(5, 6, 0, 1), said(7, 8, opUserInfo, 200), refresh(9, 10, 1, 2), refresh(11, 12, 1, 2), said(13, 14, opTakeBack, 200), said(15, 16, opUserInfo, 401), refresh(17, 18, 2, 0))},
		"two exchanges of a code":              {porcupine.Illegal, in(exchange(5, 9, 0, 1), exchange(6, 8, 0, 2))},
		"a second exchange":                    {porcupine.Ok, in(exchange(5, 6, 0, 1), exchange(7, 8, 0, 0), said(9, 10, opUserInfo, 401), refresh(11, 12, 1, 0))},
		"a second exchange that ends nothing":  {porcupine.Illegal, in(exchange(5, 6, 0, 1), exchange(7, 8, 0, 0), said(9, 10, opUserInfo, 200))},
		"an exchange refused for no reason":    {porcupine.Illegal, in(exchange(5, 6, 0, 0))},
		"an exchange after the logout":         {porcupine.Illegal, in(said(5, 6, opLeave, 200), exchange(7, 8, 0, 1))},
		"an exchange during the logout":        {porcupine.Ok, in(said(5, 10, opLeave, 200), exchange(7, 8, 0, 1), said(11, 12, opUserInfo, 401))},
		"an app that outlives the logout":      {porcupine.Illegal, in(exchange(5, 6, 0, 1), said(7, 8, opLeave, 200), said(9, 10, opUserInfo, 200))},
		"a refresh after a reset":              {porcupine.Illegal, in(exchange(5, 6, 0, 1), said(7, 8, opReset, 200), refresh(9, 10, 1, 2))},
		"a refresh after a revocation":         {porcupine.Illegal, in(exchange(5, 6, 0, 1), said(7, 8, opRevoke, 200), refresh(9, 10, 1, 2))},
		"a refresh after the app's logout":     {porcupine.Illegal, in(exchange(5, 6, 0, 1), said(7, 8, opAppLogout, 200), refresh(9, 10, 1, 2))},
		"the browser after the app's logout":   {porcupine.Ok, in(exchange(5, 6, 0, 1), said(7, 8, opAppLogout, 200), authorize(9, 10, 1), exchange(11, 12, 1, 2))},
		"a code from before the app's logout":  {porcupine.Ok, in(said(5, 6, opAppLogout, 200), exchange(7, 8, 0, 1))},
		"an app after its user's new password": {porcupine.Ok, in(exchange(5, 6, 0, 1), choose, refresh(9, 10, 1, 2))},
		"a code from before a new password":    {porcupine.Illegal, in(choose, exchange(9, 10, 0, 1))},
		"two successors of a token":            {porcupine.Illegal, in(exchange(5, 6, 0, 1), refresh(7, 9, 1, 2), refresh(8, 10, 1, 3))},
		"a refresh refused for no reason":      {porcupine.Illegal, in(exchange(5, 6, 0, 1), refresh(7, 8, 1, 0))},
		"a code after the logout":              {porcupine.Illegal, in(said(5, 6, opLeave, 200), authorize(7, 8, 1))},
		"one code for two":                     {porcupine.Illegal, in(authorize(5, 6, 0))},
		"an app after the deletion":            {porcupine.Illegal, in(exchange(5, 6, 0, 1), said(7, 8, opDelete, 200), said(9, 10, opUserInfo, 200))},
	} {
		if got := oneByOne(c.history); got != c.want {
			t.Errorf("%s is %s, want %s:\n%s", name, got, c.want, written(c.history))
		}
	}
}
