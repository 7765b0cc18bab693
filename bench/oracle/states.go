package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"kwai/bench/internal/load"
)

// state is one in which kwai is asked, by a server of its own.
type state struct {
	name    string // as -states has it
	title   string
	flags   []string
	prepare func(ctx context.Context, s *scene, server string) error
	// others begins what others do meanwhile; stop says what they did.
	others  func(ctx context.Context, s *scene, server string) (stop func() (string, error), err error)
	login   question // or another that is asked about the same kinds of addresses
	recover question
	judge   func(b *block, s *scene, logins *series)
}

// The states. What comes first leaves the accounts fewer failures than are free,
// so that logins are refused for their passwords alone. Two passes tell whether
// the same address costs the same again, and find its class.
var states = withPages([]state{{
	name: "idle", title: "idle",
	login:   question{endpoint: login, passes: 2, want: http.StatusUnauthorized, aside: busyAnswers},
	recover: recoveries,
	judge: func(b *block, s *scene, logins *series) {
		b.Mistaken = findClasses(logins)
		b.Mixes = judgeMix(&s.subjects)
		b.Comparisons = judgeLogin(logins)
	},
}, {
	name: "load", title: "under load",
	others: func(ctx context.Context, s *scene, server string) (func() (string, error), error) {
		return s.startOthers(ctx, server)
	},
	login:   question{endpoint: login, passes: 1, want: http.StatusUnauthorized, aside: busyAnswers},
	recover: recoveries,
	judge:   func(b *block, _ *scene, logins *series) { b.Comparisons = judgeLogin(logins) },
}, {
	name: "busy", title: "logins wait for their hash in vain",
	flags:   []string{"--hash-wait=20ms"},
	others:  crowd(16),
	login:   question{endpoint: login, passes: 1, want: http.StatusServiceUnavailable, aside: hashedAnswers, late: tooLate},
	recover: recoveries,
	judge:   judgeSaturated,
}, {
	// 1,024 wait for 5 s at most, in which few of them are hashed. So each second
	// about 275 may come in, of those thousand and more that are refused after a
	// second.
	name: "full", title: "the queue for the hash is full",
	others: crowd(2000),
	login:  question{endpoint: login, passes: 1, connections: 128, want: http.StatusServiceUnavailable, aside: hashedAnswers, late: tooLate},
	judge:  judgeSaturated,
}, {
	name: "throttled", title: "all throttled",
	flags:   throttling,
	prepare: throttle,
	login:   question{endpoint: login, passes: 3, want: http.StatusTooManyRequests},
	recover: recoveries,
	judge:   judgeThrottled,
}, {
	name: "locked", title: "all locked",
	flags:   append(slices.Clone(throttling), "--limit-most=1"),
	prepare: throttle,
	login:   question{endpoint: login, passes: 3, want: http.StatusTooManyRequests},
	judge:   judgeThrottled,
}})

// withPages adds to each state one in which the login page is asked instead. What leaves
// the accounts more failures than are free by default comes later, and what has them wait
// for an hour last.
func withPages(all []state) (ordered []state) {
	for _, failed := range []bool{false, true} {
		var pages []state
		for _, st := range all {
			if failed != (st.prepare != nil) {
				continue
			}
			ordered = append(ordered, st)
			st.name, st.title = "page-"+st.name, st.title+", on the login page"
			st.login.endpoint, st.recover = loginPage, question{}
			if !failed {
				st.flags = append(slices.Clone(st.flags), "--limit-free=100")
			}
			pages = append(pages, st)
		}
		ordered = append(ordered, pages...)
	}
	return append(ordered, addressStates...)
}

// addressStates ask for each address, as that of one visitor who has just logged in.
var addressStates = []state{{
	name: "address-idle", title: "idle, the form for another address",
	flags: []string{"--limits=off"}, // else five within an hour
	login: addresses,
	judge: judgeAddresses,
}, {
	name: "address-load", title: "under load, the form for another address",
	flags: []string{"--limits=off"},
	others: func(ctx context.Context, s *scene, server string) (func() (string, error), error) {
		return s.startOthers(ctx, server)
	},
	login: addresses,
	judge: judgeAddresses,
}}

func judgeAddresses(b *block, _ *scene, asked *series) {
	b.Comparisons = judgeAlike(asked, loginPairs, true)
}

var (
	addresses = question{endpoint: addressForm, passes: 3, want: http.StatusSeeOther}

	recoveries = question{endpoint: recovery, passes: 3, want: http.StatusOK, aside: busyAnswers}

	busyAnswers   = []int{http.StatusServiceUnavailable}
	hashedAnswers = []int{http.StatusUnauthorized}

	// throttling makes each failure, and each recovery, the last for an hour: it is
	// the same as by default, but sooner there.
	throttling = []string{"--limit-free=1", "--limit-first-wait=1h", "--limit-longest-wait=1h", "--limit-mail-hour=1"}
)

// tooLate is longer than a login takes that the queue refuses because it is full,
// and shorter than one that it refuses after having waited for the default time.
const tooLate = 2 * time.Second

func judgeSaturated(b *block, _ *scene, logins *series) {
	b.Mixes = judgeParts(logins)
	b.Comparisons = append(judgeAlike(logins, loginPairs, false), judgeRetry(logins)...)
}

func judgeThrottled(b *block, _ *scene, logins *series) {
	b.Comparisons = append(judgeAlike(logins, loginPairs, true), judgeRetry(logins)...)
}

// measure asks in one state.
func (s *scene) measure(ctx context.Context, engine string, st state) (b *block, err error) {
	say := func(what string) { progress("%s, %s: %s", engine, st.title, what) }
	// With access tokens that outlive the measurement; all else is as it is run.
	flags := slices.Concat(load.TrustClients, []string{"--access-life=24h"}, st.flags)
	server, err := s.kwai.Start(ctx, flags...)
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	conn := load.NewConn(server.Address)
	defer conn.Close()
	session, err := conn.LogIn(s.emails()[0], load.Password)
	if err != nil {
		return nil, err
	}
	if st.prepare != nil {
		say("preparing")
		if err := st.prepare(ctx, s, server.Address); err != nil {
			return nil, err
		}
	}
	b = &block{Engine: engine, State: st.title}
	stop := func() (string, error) { return "", nil }
	if st.others != nil {
		if stop, err = st.others(ctx, s, server.Address); err != nil {
			return nil, err
		}
	}
	say(st.login.name)
	logins, err := ask(ctx, server.Address, st.login, &s.subjects, session.Access, s.emails()[0])
	var recovered *series
	if err == nil && st.recover.passes > 0 {
		say("recover")
		recovered, err = ask(ctx, server.Address, st.recover, &s.subjects, session.Access, "")
	}
	others, failed := stop()
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	b.Others = others
	b.see(logins)
	st.judge(b, s, logins)
	if recovered != nil {
		b.see(recovered)
		b.Comparisons = append(b.Comparisons, judgeRecover(recovered)...)
	}
	return b, nil
}

// throttle has each address fail, and recover, so often that it is held back.
func throttle(ctx context.Context, s *scene, server string) error {
	if s.failed {
		return nil
	}
	for _, q := range []question{
		{endpoint: recovery, want: http.StatusOK},
		{endpoint: login, want: http.StatusUnauthorized, aside: []int{http.StatusTooManyRequests}},
	} {
		all := q.order(0, &s.subjects)
		var turn atomic.Int64
		if err := load.InParallel(ctx, 8, func(int) error {
			c := load.NewConn(server)
			defer c.Close()
			for at := int(turn.Add(1)) - 1; at < len(all) && ctx.Err() == nil; at = int(turn.Add(1)) - 1 {
				c.From = load.NewNetwork()
				status, err := c.Post(q.path, "", q.form(all[at].email).Encode())
				for err == nil && status == http.StatusServiceUnavailable && ctx.Err() == nil { // more recoveries than it takes at a time
					time.Sleep(100 * time.Millisecond)
					status, err = c.Post(q.path, "", q.form(all[at].email).Encode())
				}
				if err == nil && status != q.want && !slices.Contains(q.aside, status) {
					err = fmt.Errorf("%s: status %d", q.name, status)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	s.failed = true
	return nil
}
