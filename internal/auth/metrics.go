package auth

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/password"
	"kwai/internal/token"
)

// outcome is how a use case ended, as it is counted. None reveals whether an account
// exists.
type outcome int

const (
	succeeded outcome = iota
	halfway           // a right password that a second step belongs to
	renewed
	reused      // a token that was replaced a moment ago: the same tokens again
	replayed    // one that was replaced before: its session was ended
	throttled   // nothing was looked at
	refused     // wrong, not valid or no longer valid, revoked
	invalid     // the new password breaks the policy
	busy        // too many at once
	unavailable // the database is away
	abandoned   // the client has disconnected
	failed      // a fault in kwai
	outcomes
)

var outcomeNames = [outcomes]string{"ok", "more", "renewed", "reused", "replayed", "throttled", "refused", "invalid", "busy", "unavailable", "abandoned", "error"}

// outcomeOf is the outcome of a use case that ended with an error.
func outcomeOf(err error) outcome {
	switch {
	case isHalfway(err):
		return halfway
	case errors.Is(err, ErrSecret): // nothing was looked at
		return failed
	}
	switch code := CodeOf(err); {
	case errors.Is(err, password.ErrBusy) || errors.Is(err, ErrBusy):
		return busy
	case errors.Is(err, context.Canceled):
		return abandoned
	case errors.Is(err, errReplay):
		return replayed
	case errors.Is(err, ErrPassword):
		return refused // the current one is wrong; Invalid is for a new one
	case code == Unavailable:
		return unavailable
	case code == Invalid:
		return invalid
	case code == Throttled:
		return throttled
	case code != 0:
		return refused
	}
	return failed
}

// operation is a use case that is counted.
type operation int

const (
	logins operation = iota
	secondSteps
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
	logins:      {"kwai_logins_total", "Logins, by their outcome; more is a right password that a second step belongs to.", []outcome{succeeded, halfway, refused, throttled, busy, unavailable, abandoned, failed}},
	secondSteps: {"kwai_second_steps_total", "Codes behind a right password, by their outcome.", []outcome{succeeded, refused, throttled, busy, unavailable, abandoned, failed}},
	renewals:    {"kwai_renewals_total", "Renewals, by their outcome; replayed is a token that may have been stolen.", []outcome{renewed, reused, replayed, refused, busy, unavailable, abandoned, failed}},
	logouts:     {"kwai_logouts_total", "Logouts of clients that were logged in, and ends of their other sessions, by their outcome.", []outcome{succeeded, refused, unavailable, abandoned, failed}},
	recoveries:  {"kwai_recovery_requests_total", "Requests for a recovery, by their outcome, for whatever address.", []outcome{succeeded, busy, unavailable, abandoned, failed}},
	resets:      {"kwai_resets_total", "Resets of a password, by their outcome.", []outcome{succeeded, refused, invalid, busy, unavailable, abandoned, failed}},
	changes:     {"kwai_password_changes_total", "Changes of a password by who was logged in, by their outcome; more is one without the code that it takes.", []outcome{succeeded, halfway, refused, invalid, throttled, busy, unavailable, abandoned, failed}},
}

// counts is how often each ended in which way. The zero value is ready.
type counts struct {
	ended [operations][outcomes]atomic.Int64
	made  atomic.Int64 // recoveries
}

// count counts the end of a use case: as this success, or by its error.
func (c *counts) count(op operation, success outcome, err error) {
	if err != nil {
		success = outcomeOf(err)
	}
	c.ended[op][success].Add(1)
}

// Metrics are the metrics of the rules and of the keys.
func (s *Service) Metrics() []prometheus.Collector {
	all := []prometheus.Collector{counter("kwai_recoveries_total", "Recoveries that were made for an account, invitations included.", nil, &s.counts.made)}
	for op, c := range counted {
		for _, o := range c.outcomes {
			all = append(all, counter(c.name, c.help, prometheus.Labels{"outcome": outcomeNames[o]}, &s.counts.ended[op][o]))
		}
	}
	return slices.Concat(all, s.Keys.metrics(), s.purged.metrics())
}

// metrics are those of the keys.
func (k *Keys) metrics() (all []prometheus.Collector) {
	for _, p := range token.Purposes {
		if !p.Rotates() {
			continue
		}
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kwai_key_active_timestamp_seconds", Help: "Since when the server key in use has been active.",
			ConstLabels: prometheus.Labels{"purpose": string(p)},
		}, func() float64 { return k.activeSince(p) }))
	}
	const changes, help = "kwai_key_changes_failed_total", "Tries at making the next server key, and at sealing the keys under the first master key, that failed."
	return append(all,
		counter("kwai_key_reads_failed_total", "Readings of the server keys that failed.", nil, &k.failed),
		counter(changes, help, prometheus.Labels{"step": "make"}, &k.unmade),
		counter(changes, help, prometheus.Labels{"step": "seal"}, &k.unsealed))
}

func counter(name, help string, labels prometheus.Labels, n *atomic.Int64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
		func() float64 { return float64(n.Load()) })
}
