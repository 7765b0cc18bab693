package auth

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/password"
	"kwai/internal/token"
)

// outcome is how a use case ended, as it is counted. None tells whether an
// account exists.
type outcome int

const (
	done outcome = iota
	renewed
	reused      // a token that was replaced a moment ago: the same tokens again
	replayed    // one that was replaced before: its session was ended
	held        // by throttling, nothing was looked at
	refused     // wrong, not valid (any more), revoked
	invalid     // the new password breaks the policy
	busy        // too many at once
	unavailable // the database is away
	abandoned   // the client went away
	failed      // a fault in kwai
	outcomes
)

var outcomeNames = [outcomes]string{"ok", "renewed", "reused", "replayed", "throttled", "refused", "invalid", "busy", "unavailable", "abandoned", "error"}

func outcomeOf(err error) outcome {
	switch code := CodeOf(err); {
	case err == nil:
		return done
	case errors.Is(err, password.ErrBusy) || errors.Is(err, ErrBusy):
		return busy
	case errors.Is(err, context.Canceled):
		return abandoned
	case code == Unavailable:
		return unavailable
	case code == Invalid:
		return invalid
	case code == Throttled:
		return held
	case code != 0:
		return refused
	}
	return failed
}

// operation is a use case that is counted.
type operation int

const (
	logins operation = iota
	renewals
	logouts
	recoveries
	resets
	changes
	operations
)

var counted = [operations]struct {
	name, help string
	outcomes   []outcome
}{
	logins:     {"kwai_logins_total", "Logins, by their outcome.", []outcome{done, refused, held, busy, unavailable, abandoned, failed}},
	renewals:   {"kwai_renewals_total", "Renewals, by their outcome; replayed is a token that may have been stolen.", []outcome{renewed, reused, replayed, refused, busy, unavailable, abandoned, failed}},
	logouts:    {"kwai_logouts_total", "Logouts of clients that were logged in, and ends of their other sessions, by their outcome.", []outcome{done, refused, unavailable, abandoned, failed}},
	recoveries: {"kwai_recovery_requests_total", "Requests for a recovery, by their outcome, for whatever address.", []outcome{done, busy, unavailable, abandoned, failed}},
	resets:     {"kwai_resets_total", "Resets of a password, by their outcome.", []outcome{done, refused, invalid, busy, unavailable, abandoned, failed}},
	changes:    {"kwai_password_changes_total", "Changes of a password by who was logged in, by their outcome.", []outcome{done, refused, invalid, held, busy, unavailable, abandoned, failed}},
}

// counts is how often each ended in which way. The zero value is ready.
type counts struct {
	ended [operations][outcomes]atomic.Int64
	made  atomic.Int64 // recoveries
}

func (c *counts) count(op operation, o outcome) { c.ended[op][o].Add(1) }

// Metrics are what the rules tell those who watch the server.
func (s *Service) Metrics() []prometheus.Collector {
	value := func(n *atomic.Int64) func() float64 { return func() float64 { return float64(n.Load()) } }
	all := []prometheus.Collector{prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "kwai_recoveries_total", Help: "Recoveries that were made for an account, invitations included."}, value(&s.counts.made))}
	for _, p := range token.Purposes {
		if !p.Rotates {
			continue
		}
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kwai_key_active_timestamp_seconds", Help: "Since when the server key in use has been active.",
			ConstLabels: prometheus.Labels{"purpose": string(p.Purpose)},
		}, func() float64 { return s.Keys.activeSince(p.Purpose) }))
	}
	all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "kwai_key_reads_failed_total", Help: "Readings of the server keys that failed."}, value(&s.Keys.failed)))
	for step, n := range map[string]*atomic.Int64{"make": &s.Keys.unmade, "seal": &s.Keys.unsealed} {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "kwai_key_changes_failed_total", Help: "Tries at making the next server key, and at sealing the keys under the first master key, that failed.",
			ConstLabels: prometheus.Labels{"step": step},
		}, value(n)))
	}
	for op, c := range counted {
		for _, o := range c.outcomes {
			all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: c.name, Help: c.help, ConstLabels: prometheus.Labels{"outcome": outcomeNames[o]},
			}, value(&s.counts.ended[op][o])))
		}
	}
	return append(all, s.purged.metrics()...)
}
