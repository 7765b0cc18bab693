package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"kwai/bench/internal/load"
)

// endpoint is what is asked about an address.
type endpoint struct {
	name  string
	path  string
	form  func(email string) url.Values
	kinds []kind
}

var (
	login = endpoint{"login", "/api/v1/auth/login", func(email string) url.Values {
		return url.Values{"username": {email}, "password": {"wrong " + load.Password}}
	}, []kind{known, unknown, revoked, invited}}
	recovery = endpoint{"recover", "/api/v1/auth/recover", func(email string) url.Values {
		return url.Values{"email": {email}}
	}, []kind{known, unknown, revoked, malformed}}
)

// checkPath is that of the request that follows each: a check, with the valid token of
// somebody who has nothing to do with it. It comes by the two things that work
// left over from an answer could hold up, the process's scheduler and the
// database, and costs little more than one to /healthz, which would miss the
// second.
const checkPath = "/api/v1/auth/user"

// sample is an address asked for once.
type sample struct {
	subject *subject
	pass    int     // of how many times it had been asked for before, in this series
	took    float64 // by the answer, in µs
	after   float64 // by that to the next request on the connection, in µs
}

// series is what was seen of an endpoint in one state of the server.
type series struct {
	endpoint endpoint
	samples  []sample
	answers  map[string]map[kind]int // how often each answer was given, but those that were refused
	refused  map[kind]int            // 503: too much to do
}

func newSeries(e endpoint) *series {
	return &series{endpoint: e, answers: make(map[string]map[kind]int), refused: make(map[kind]int)}
}

// warmUp is how many requests come before those that count.
const warmUp = 20

// ask asks for each subject once in each pass, in an order that is tossed for
// anew: whatever else the machine does meets all kinds alike.
func ask(ctx context.Context, c *client, e endpoint, subjects *[kinds][]*subject, passes int, token string) (*series, error) {
	s := newSeries(e)
	check := c.get(checkPath, token)
	for pass := -1; pass < passes; pass++ {
		var all []*subject
		if pass < 0 {
			for range warmUp {
				all = append(all, &subject{kind: unknown, email: address()})
			}
		} else {
			for _, k := range e.kinds {
				all = append(all, subjects[k]...)
			}
			shuffle(all)
		}
		for _, u := range all {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			took, err := c.exchange(c.post(e.path, e.form(u.email)))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
			status, answer := c.status, string(c.answer)
			after, err := c.exchange(check)
			if err != nil || c.status != http.StatusOK {
				return nil, fmt.Errorf("the check after %s: status %d, %w", e.name, c.status, err)
			}
			if pass >= 0 {
				s.add(sample{u, pass, microseconds(took), microseconds(after)}, status, answer)
			}
		}
	}
	return s, nil
}

func (s *series) add(x sample, status int, answer string) {
	if status == http.StatusServiceUnavailable {
		s.refused[x.subject.kind]++
		return
	}
	if s.answers[answer] == nil {
		s.answers[answer] = make(map[kind]int)
	}
	s.answers[answer][x.subject.kind]++
	s.samples = append(s.samples, x)
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
