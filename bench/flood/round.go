package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"kwai/bench/internal/load"
)

// Operations of honest clients.
const (
	renew  = "renew"
	check  = "check"
	logout = "logout"
	login  = "login"
)

const (
	// promisedUpTo is from how many connections a flood may come for the promise
	// of rates to hold.
	promisedUpTo = 64
	// othersPromisedUpTo is the same for logins beside one that logs in.
	othersPromisedUpTo = 500
	// promisedRounds is how often such a flood is repeated: the median decides,
	// not noise.
	promisedRounds = 3
	// loginsLonger is how many times as long logins are measured: there are few.
	loginsLonger = 5
	// settle is how long a flood has before it is measured.
	settle = 500 * time.Millisecond
	// warmUp is how long kwai has to fill its caches before all measurements.
	warmUp = 3 * time.Second
	// backWithin is how soon all must be as before.
	backWithin = 2 * time.Second
	// lookBack is how long it is waited for.
	lookBack = backWithin + 500*time.Millisecond
	// backWindow is for how long renewals must have backRate of their rate alone.
	backWindow = 250 * time.Millisecond
	backRate   = 0.9
	// logoutMeasures is how often logouts are measured: beside seven floods at most.
	logoutMeasures = 7 * (2*promisedRounds + 1)
)

// logoutsAtATime is how many sessions a measurement of logouts may end: if
// kwai is quicker than that, it is measured for less long.
func logoutsAtATime(d time.Duration) int { return max(honestConnections, int(1500*d.Seconds())) }

// round is one flood, once.
type round struct {
	Before  map[string]figures `json:"before"`
	Flooded map[string]figures `json:"flooded"`
	After   map[string]figures `json:"after"`
	Start   state              `json:"start"`
	Peak    state              `json:"peak"`
	End     state              `json:"end"`
	Answers map[int]int        `json:"answers"` // to the flood
	Seconds float64            `json:"seconds"` // that it lasted
	Clients float64            `json:"client_cores"`
	Back    back               `json:"back"`
}

// back is what happened after a flood.
type back struct {
	// Renewals is when they were back, in seconds after the flood's end;
	// negative: not in time.
	Renewals float64 `json:"renewals_seconds"`
	// Near is when kwai used no more than near says; negative: not in time.
	Near    float64     `json:"near_seconds"`
	Late    string      `json:"late,omitempty"` // what was above that last
	Answers map[int]int `json:"answers"`        // to the renewals

	samples []sample
}

// siege measures one kwai beside one flood after the other.
type siege struct {
	target   *target
	duration time.Duration
	alone    map[string]figures // the latest of each
	logouts  int                // sessions ended so far
	rest     state              // before the first flood
}

// begin measures what there is before the first flood. First it reads each
// session for a while: the database's caches fill, and kwai opens as many
// connections to it as it ever does. They are no flood's doing.
func (s *siege) begin(ctx context.Context) (err error) {
	const enough = 64 // twice as many as kwai's to PostgreSQL
	everyone := load.Check(enough, slices.Concat(s.target.sessions, s.target.logouts))
	drive(ctx, s.target, everyone, warmUp, &record{began: time.Now()})
	if _, err = s.before(ctx, []string{renew, check, login}); err != nil {
		return err
	}
	sleep(ctx, settle)
	s.rest, err = s.target.observe(ctx)
	return err
}

// rounds floods from n connections; largest tells that no flood comes from more.
func (s *siege) rounds(ctx context.Context, k kind, n int, largest bool) (all []round, err error) {
	operations, times, before := []string{renew, check, login}, 1, settle
	if k.promises(n) {
		times = promisedRounds
		if k.promised == requestsGoOn {
			operations = append(operations, logout)
		}
	}
	if largest && k.timeout > 0 {
		before += k.timeout
	}
	for range times {
		r, err := s.round(ctx, k, n, operations, before)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func (s *siege) round(ctx context.Context, k kind, n int, operations []string, before time.Duration) (r round, err error) {
	if r.Before, err = s.before(ctx, operations); err != nil {
		return r, err
	}
	if r.Start, err = s.target.observe(ctx); err != nil {
		return r, err
	}
	endWatch := s.target.watch(ctx)
	began := time.Now()
	endFlood := attack(ctx, n, k.client)
	cores := clientCores()
	sleep(ctx, before)
	r.Flooded = s.measure(ctx, operations)
	r.Clients = cores()
	r.Peak, err = endWatch()
	r.Seconds = time.Since(began).Seconds()
	r.Answers = endFlood()
	if err != nil {
		return r, err
	}
	if err := s.lookBack(ctx, &r); err != nil {
		return r, err
	}
	r.After = s.measure(ctx, operations)
	alone := min(r.Before[renew].PerSecond, r.After[renew].PerSecond)
	r.Back.Renewals = -1
	if at, ok := backAt(r.Back.samples, backRate*alone, backWindow); ok {
		r.Back.Renewals = at.Seconds()
	}
	maps.Copy(s.alone, r.After)
	return r, ctx.Err()
}

// before gives the latest measure of each operation alone, which was taken just
// after the flood before.
func (s *siege) before(ctx context.Context, operations []string) (map[string]figures, error) {
	var missing []string
	for _, name := range operations {
		if _, ok := s.alone[name]; !ok {
			missing = append(missing, name)
		}
	}
	for name, f := range s.measure(ctx, missing) {
		if f.PerSecond == 0 {
			return nil, fmt.Errorf("no %s succeeds without a flood: %s", name, statuses(f.Answers))
		}
		s.alone[name] = f
	}
	latest := make(map[string]figures)
	for _, name := range operations {
		latest[name] = s.alone[name]
	}
	if !slices.Contains(operations, logout) {
		delete(s.alone, logout) // it would be too old for another flood
	}
	return latest, ctx.Err()
}

// measure measures operations in turn.
func (s *siege) measure(ctx context.Context, operations []string) map[string]figures {
	all := make(map[string]figures)
	for _, name := range operations {
		r := &record{began: time.Now()}
		duration := s.duration
		if name == login {
			duration *= loginsLonger
		}
		drive(ctx, s.target, s.operation(name), duration, r)
		all[name] = sum(r.all(), duration/10)
	}
	return all
}

func (s *siege) operation(name string) load.Operation {
	t := s.target
	switch name {
	case renew:
		return load.Renew(honestConnections, t.sessions)
	case check:
		return load.Check(honestConnections, t.sessions)
	case login:
		return load.Login(honestConnections, t.logins)
	}
	from := min(s.logouts, len(t.logouts))
	s.logouts = min(from+logoutsAtATime(s.duration), len(t.logouts))
	return load.Logout(honestConnections, t.logouts[from:s.logouts])
}

// lookBack renews sessions until all is as before, or it has taken too long.
func (s *siege) lookBack(ctx context.Context, r *round) (err error) {
	seen := &record{began: time.Now()}
	renewing, enough := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		drive(renewing, s.target, s.operation(renew), lookBack, seen)
	}()
	most, need := s.rest.near(), backRate*r.Before[renew].PerSecond
	r.Back.Near = -1
	for time.Since(seen.began) < lookBack && ctx.Err() == nil {
		if r.End, err = s.target.observe(ctx); err != nil {
			break
		}
		late := r.End.exceeds(most)
		if r.Back.Near < 0 {
			r.Back.Late = late
			if late == "" {
				r.Back.Near = time.Since(seen.began).Seconds()
			}
		}
		if _, renewals := backAt(seen.all(), need, backWindow); renewals && r.Back.Near >= 0 {
			break
		}
		sleep(ctx, 50*time.Millisecond)
	}
	enough()
	<-ended
	r.Back.samples = seen.all()
	r.Back.Answers = sum(r.Back.samples, 0).Answers
	return err
}
