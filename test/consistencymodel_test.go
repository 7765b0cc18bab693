package test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
)

// What is done to an account from outside, by commands.
const (
	opRevoke   = "revoke"
	opEnact    = "enact"
	opPassword = "password"
)

// question is an operation on an account, as its client asked for it. Sessions,
// refresh tokens and passwords are numbered; tokens from 1.
type question struct {
	op                       string
	session, token, password int
}

// reply is its answer; a command that succeeded has 200.
type reply struct {
	status         int
	session, token int // that it gave
}

// The bounds of a history that account can hold.
const (
	mostSessions = 24
	mostTokens   = 256
	mostBrowsers = 12
)

// account is all that there is to know of a user and its sessions, were one
// operation done after the other. It is a value, for porcupine compares them.
type account struct {
	password int
	revoked  bool
	deleted  bool
	recovery bool              // it can be used
	issued   [mostTokens]bool  // refresh tokens
	current  [mostSessions]int // tokens; 0 before the login, ended after the end
	browsers [mostBrowsers]pages
	choices  int8 // of passwords on the pages
	codes    [mostCodes]chain
}

const ended = -1

// after is the account after an operation, and whether that may be answered so.
func (a account) after(q question, r reply) (account, bool) {
	switch q.op {
	case opAuthorize, opExchange, opRefresh, opUserInfo, opTakeBack, opAppLogout:
		return a.afterApp(q, r)
	case opVisit, opVisitor:
		after, status := a.visit(q.session, q.token)
		if q.op == opVisitor && status == unfresh {
			status = http.StatusOK
		}
		return after, r.status == status
	case opPage, opProve, opChoose, opEndOthers, opLeave:
		return a.afterPage(q, r)
	}
	current := a.current[q.session]
	switch q.op {
	case opCheck:
		return a, r.status == either(current > 0, http.StatusOK, http.StatusUnauthorized)
	case opRenew:
		if current <= 0 || r.status != http.StatusOK {
			return a, current <= 0 && r.status == http.StatusUnauthorized
		}
		if q.token == current {
			return a.issue(q.session, r.token)
		}
		return a, a.issued[q.token] && r.token == current
	case opLogout: // by someone whose access token is good
		if current <= 0 {
			return a, r.status == http.StatusNotFound
		}
		a.current[q.session] = ended
		return a, r.status == http.StatusOK
	case opLogin:
		right := !a.revoked && !a.deleted && q.password == a.password
		if !right || r.status != http.StatusOK {
			return a, !right && r.status == http.StatusUnauthorized
		}
		if a.current[r.session] != 0 {
			return a, false
		}
		return a.issue(r.session, r.token)
	}
	if a.deleted { // there is nothing to do it to
		return a, r.status == http.StatusNotFound
	}
	switch q.op {
	case opReset:
		if a.revoked || !a.recovery {
			return a, a.revoked && r.status == http.StatusForbidden || !a.recovery && r.status == http.StatusNotFound
		}
		a.password = q.password
		a.recovery = false
		a.end()
	case opPassword:
		a.password = q.password
		a.recovery = false
		a.end()
	case opRevoke:
		a.revoked = true
		a.end()
	case opEnact:
		a.revoked = false
	case opDelete:
		a.deleted = true
		a.end()
	}
	return a, r.status == http.StatusOK
}

// issue makes a token the session's current one, which none was before.
func (a account) issue(session, token int) (account, bool) {
	if token <= 0 || a.issued[token] {
		return a, false
	}
	a.issued[token], a.current[session] = true, token
	return a, true
}

// end ends all sessions.
func (a *account) end() {
	for i, current := range a.current {
		if current > 0 {
			a.current[i] = ended
		}
	}
	for i := range a.browsers {
		if b := &a.browsers[i]; b.newest > 0 {
			b.newest = ended
		}
	}
}

func either(is bool, yes, no int) int {
	if is {
		return yes
	}
	return no
}

// oneByOne says whether the operations on an account could have been done one
// after the other, each at a moment between its call and its return.
func oneByOne(history []porcupine.Operation) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(porcupine.Model{
		Init: func() any { return account{recovery: true} },
		Step: func(state, input, output any) (bool, any) {
			next, ok := state.(account).after(input.(question), output.(reply))
			return ok, next
		},
	}, history, 0) // however long it takes
}

// written is a history for a person: an operation a line, by their calls.
func written(history []porcupine.Operation) string {
	var b strings.Builder
	for _, o := range slices.SortedFunc(slices.Values(history), func(x, y porcupine.Operation) int { return int(x.Call - y.Call) }) {
		q, r := o.Input.(question), o.Output.(reply)
		what := ""
		switch q.op {
		case opCheck, opLogout, opLeave, opEndOthers, opAppLogout:
			what = fmt.Sprintf("session %d", q.session)
		case opExchange, opUserInfo, opTakeBack:
			what = fmt.Sprintf("code %d", q.session)
		case opRefresh:
			what = fmt.Sprintf("code %d token %d", q.session, q.token)
		case opRenew, opVisit, opVisitor, opAuthorize:
			what = fmt.Sprintf("session %d token %d", q.session, q.token)
		case opProve, opChoose:
			what = fmt.Sprintf("session %d password %d", q.session, q.password)
		case opLogin, opPage, opReset, opPassword:
			what = fmt.Sprintf("password %d", q.password)
		}
		fmt.Fprintf(&b, "%10d %10d µs  client %d %v: %s %s: %d", o.Call/1000, o.Return/1000, o.ClientId, o.Metadata, q.op, what, r.status)
		switch {
		case q.op == opAuthorize && r.status == http.StatusOK:
			fmt.Fprintf(&b, " code %d", r.session)
		case r.token != 0:
			fmt.Fprintf(&b, " session %d token %d", r.session, r.token)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// A checker that finds nothing is worth what it would find.
func TestTheCheckerFindsInconsistency(t *testing.T) {
	t.Parallel()
	// An operation from one time to another.
	do := func(from, to int64, q question, r reply) porcupine.Operation {
		return porcupine.Operation{Call: from, Return: to, Input: q, Output: r}
	}
	login := func(from, to int64, password, session, token int) porcupine.Operation {
		return do(from, to, question{op: opLogin, password: password}, reply{200, session, token})
	}
	renew := func(from, to int64, session, token, got int) porcupine.Operation {
		return do(from, to, question{op: opRenew, session: session, token: token}, reply{200, session, got})
	}
	// said is an operation on session 0, or that sets or tries password 1.
	said := func(from, to int64, op string, status int) porcupine.Operation {
		return do(from, to, question{op: op, token: 1, password: 1}, reply{status: status})
	}
	open := login(1, 2, 0, 0, 1)
	for name, c := range map[string]struct {
		want    porcupine.CheckResult
		history []porcupine.Operation
	}{
		"a session's life":                            {porcupine.Ok, []porcupine.Operation{open, renew(3, 4, 0, 1, 2), renew(5, 6, 0, 1, 2), said(7, 8, opCheck, 200), said(9, 10, opLogout, 200), said(11, 12, opCheck, 401), said(13, 14, opRenew, 401), said(15, 16, opLogout, 404)}},
		"a check during the logout":                   {porcupine.Ok, []porcupine.Operation{open, said(3, 10, opLogout, 200), said(4, 5, opCheck, 200), said(6, 7, opCheck, 401)}},
		"a check after the logout":                    {porcupine.Illegal, []porcupine.Operation{open, said(3, 4, opLogout, 200), said(5, 6, opCheck, 200)}},
		"a check after one that saw the logout":       {porcupine.Illegal, []porcupine.Operation{open, said(3, 10, opLogout, 200), said(4, 5, opCheck, 401), said(6, 7, opCheck, 200)}},
		"a check refused before any end":              {porcupine.Illegal, []porcupine.Operation{open, said(3, 4, opCheck, 401), said(5, 6, opLogout, 200)}},
		"a logout that found nothing, before any end": {porcupine.Illegal, []porcupine.Operation{open, said(3, 4, opLogout, 404)}},
		"two logouts of a session":                    {porcupine.Illegal, []porcupine.Operation{open, said(3, 9, opLogout, 200), said(4, 8, opLogout, 200)}},
		"a renewal after the logout":                  {porcupine.Illegal, []porcupine.Operation{open, said(3, 4, opLogout, 200), renew(5, 6, 0, 1, 2)}},
		"a renewal refused before any end":            {porcupine.Illegal, []porcupine.Operation{open, said(3, 4, opRenew, 401)}},
		"tabs that renew at once":                     {porcupine.Ok, []porcupine.Operation{open, renew(3, 9, 0, 1, 2), renew(4, 8, 0, 1, 2), renew(5, 7, 0, 1, 2)}},
		"two successors of a token":                   {porcupine.Illegal, []porcupine.Operation{open, renew(3, 9, 0, 1, 2), renew(4, 8, 0, 1, 3)}},
		"a renewal that changes nothing":              {porcupine.Illegal, []porcupine.Operation{open, renew(3, 4, 0, 1, 1)}},
		"a renewal overtaken by the next":             {porcupine.Ok, []porcupine.Operation{open, renew(3, 4, 0, 1, 2), renew(5, 10, 0, 1, 3), renew(6, 9, 0, 2, 3)}},
		"a stale token for a replaced one":            {porcupine.Illegal, []porcupine.Operation{open, renew(3, 4, 0, 1, 2), renew(5, 6, 0, 2, 3), renew(7, 8, 0, 1, 2)}},
		"a stale token for the current one":           {porcupine.Illegal, []porcupine.Operation{open, renew(3, 4, 0, 1, 2), renew(5, 6, 0, 2, 1)}},
		"another session's token":                     {porcupine.Illegal, []porcupine.Operation{open, login(3, 4, 0, 1, 2), renew(5, 6, 1, 2, 1)}},
		"a token before it was given":                 {porcupine.Illegal, []porcupine.Operation{open, renew(3, 4, 0, 2, 1), renew(5, 6, 0, 1, 2)}},
		"a new password":                              {porcupine.Ok, []porcupine.Operation{open, said(3, 4, opReset, 200), said(5, 6, opCheck, 401), login(7, 8, 1, 1, 2), said(9, 10, opReset, 404)}},
		"the old password after a reset":              {porcupine.Illegal, []porcupine.Operation{open, said(3, 4, opReset, 200), login(5, 6, 0, 1, 2)}},
		"the old password during a reset":             {porcupine.Ok, []porcupine.Operation{said(3, 10, opReset, 200), login(4, 5, 0, 0, 1), said(11, 12, opCheck, 401)}},
		"a login during a reset that survives it":     {porcupine.Illegal, []porcupine.Operation{said(3, 10, opReset, 200), login(4, 5, 0, 0, 1), said(11, 12, opCheck, 200)}},
		"the new password before a reset":             {porcupine.Illegal, []porcupine.Operation{login(1, 2, 1, 0, 1), said(3, 4, opReset, 200)}},
		"two resets with one id":                      {porcupine.Illegal, []porcupine.Operation{said(1, 9, opReset, 200), said(2, 8, opReset, 200)}},
		"a reset after the password was set":          {porcupine.Illegal, []porcupine.Operation{said(1, 2, opPassword, 200), said(3, 4, opReset, 200)}},
		"revoked, and enacted":                        {porcupine.Ok, []porcupine.Operation{open, said(3, 4, opRevoke, 200), said(5, 6, opReset, 403), said(7, 8, opLogin, 401), said(9, 10, opEnact, 200), said(11, 12, opCheck, 401), login(13, 14, 0, 1, 2)}},
		"a login while revoked":                       {porcupine.Illegal, []porcupine.Operation{said(1, 2, opRevoke, 200), login(3, 4, 0, 0, 1)}},
		"a login refused for no reason":               {porcupine.Illegal, []porcupine.Operation{do(1, 2, question{op: opLogin}, reply{status: 401})}},
		"a reset while revoked":                       {porcupine.Illegal, []porcupine.Operation{said(1, 2, opRevoke, 200), said(3, 4, opReset, 200)}},
		"a session revived":                           {porcupine.Illegal, []porcupine.Operation{open, said(3, 4, opRevoke, 200), said(5, 6, opEnact, 200), said(7, 8, opCheck, 200)}},
		"a session that a command missed":             {porcupine.Illegal, []porcupine.Operation{open, said(3, 4, opPassword, 200), said(5, 6, opCheck, 200)}},
	} {
		if got := oneByOne(c.history); got != c.want {
			t.Errorf("%s is %s, want %s:\n%s", name, got, c.want, written(c.history))
		}
	}
}
