package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kwai/bench/internal/load"
	"kwai/internal/i18n"
)

// endpoint is what is asked about an address.
type endpoint struct {
	name  string
	path  string
	form  func(email string) url.Values
	kinds []kind
	page  bool // the answer shows the address as it was typed, and in words how long to wait
	visit bool // it is asked by a visitor
}

var (
	login     = endpoint{name: "login", path: "/api/v1/auth/login", form: loginForm, kinds: loginKinds}
	loginPage = endpoint{name: "login page", path: "/login", form: loginForm, kinds: loginKinds, page: true}
	recovery  = endpoint{name: "recover", path: "/api/v1/auth/recover", form: func(email string) url.Values {
		return url.Values{"email": {email}}
	}, kinds: []kind{known, unknown, revoked, stepped, malformed}}

	addressForm = endpoint{name: "address form", path: "/account/email", form: func(email string) url.Values {
		return url.Values{"email": {email}}
	}, kinds: loginKinds, visit: true}

	loginKinds = []kind{known, unknown, revoked, stepped, invited}
)

func loginForm(email string) url.Values {
	return url.Values{"username": {email}, "password": {"wrong " + load.Password}}
}

// shown is an answer without what the client knows anyway.
func (e endpoint) shown(answer, email string, retry float64) string {
	if !e.page {
		return answer
	}
	answer = strings.ReplaceAll(answer, `value="`+email+`"`, `value="*"`)
	if retry > 0 { // the page says it rounded, of a time that isn't
		for _, d := range []float64{retry, retry - 1} {
			wait := i18n.English.Duration(time.Duration(d * float64(time.Second)))
			answer = strings.ReplaceAll(answer, wait, "*")
		}
		answer = contentLength.ReplaceAllString(answer, "Content-Length: *")
	}
	return answer
}

var contentLength = regexp.MustCompile(`Content-Length: \d+`)

// checkPath is that of the request that follows each: a check, with the valid token of
// somebody who has nothing to do with it. It comes by the two things that work
// left over from an answer could hold up, the process's scheduler and the
// database, and costs little more than one to /healthz, which would miss the
// second.
const checkPath = "/api/v1/auth/user"

// question is how an endpoint is asked in one state of the server, and what it
// must answer.
type question struct {
	endpoint
	passes      int   // how often each address is asked for
	connections int   // from which it is asked at a time; 0: one
	want        int   // the status
	aside       []int // other statuses that there may be, whose answers are left out
	// late is when an answer of the wanted status is left out, too: 0 never.
	late time.Duration
}

// sample is an address asked for once.
type sample struct {
	subject *subject
	pass    int     // of how many times it had been asked for before, in this series
	took    float64 // by the answer, in µs
	after   float64 // by that to the next request on the connection, in µs
	retry   float64 // what its Retry-After says, in seconds
}

// series is what was seen of an endpoint in one state of the server.
type series struct {
	question
	mu      sync.Mutex
	samples []sample
	answers map[string]map[kind]int // how often each answer was given, but those left out
	parts   [kinds]counts           // of a kind: those wanted, those late, those of another status
}

func newSeries(q question) *series {
	return &series{question: q, answers: make(map[string]map[kind]int)}
}

// warmUp is how many requests come before those that count.
const warmUp = 20

// ask asks for each subject once in each pass, in an order that is tossed for
// anew: whatever else the machine does meets all kinds alike. Each request comes
// from a network of its own, as far as kwai knows, so that none is held back for
// what others did. A visitor is the account that logs in where the endpoint is for one.
func ask(ctx context.Context, address string, q question, subjects *[kinds][]*subject, token, visitor string) (*series, error) {
	clients := make([]*client, max(1, q.connections))
	for i := range clients {
		c, err := dial(ctx, address)
		if err != nil {
			return nil, err
		}
		defer c.close()
		if q.visit {
			if err := c.logIn(visitor, q.path); err != nil {
				return nil, err
			}
		}
		clients[i] = c
	}
	s := newSeries(q)
	for pass := -1; pass < q.passes; pass++ {
		all := q.order(pass, subjects)
		var turn atomic.Int64
		err := load.InParallel(ctx, len(clients), func(i int) error {
			for ctx.Err() == nil {
				at := int(turn.Add(1)) - 1
				if at >= len(all) {
					break
				}
				if err := s.one(clients[i], all[at], pass, token); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// order is whom a pass asks for.
func (q question) order(pass int, subjects *[kinds][]*subject) (all []*subject) {
	if pass < 0 {
		for range warmUp {
			all = append(all, &subject{kind: unknown, email: newAddress()})
		}
		return all
	}
	for _, k := range q.kinds {
		all = append(all, subjects[k]...)
	}
	shuffle(all)
	return all
}

// one asks once, and checks behind it.
func (s *series) one(c *client, u *subject, pass int, token string) error {
	took, err := c.exchange(c.post(s.path, load.NewNetwork(), c.sealed(s.form(u.email))))
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	status, retry := c.status, c.retry
	answer := s.shown(string(c.answer), u.email, retry)
	after, err := c.exchange(c.get(checkPath, token))
	if err != nil || c.status != http.StatusOK {
		return fmt.Errorf("the check after %s: status %d, %w", s.name, c.status, err)
	}
	if pass >= 0 {
		s.add(sample{u, pass, microseconds(took), microseconds(after), retry}, status, answer)
	}
	return nil
}

func (s *series) add(x sample, status int, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := &s.parts[x.subject.kind]
	switch {
	case slices.Contains(s.aside, status):
		parts[2]++
		return
	case s.late > 0 && x.took > microseconds(s.late):
		parts[1]++
		return
	}
	parts[0]++
	if s.answers[answer] == nil {
		s.answers[answer] = make(map[kind]int)
	}
	s.answers[answer][x.subject.kind]++
	s.samples = append(s.samples, x)
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
