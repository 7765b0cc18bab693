package bus

import (
	"context"
	"sync/atomic"

	"kwai/internal/database"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count what this process delivered, and what waits, whichever process
// delivers it.
func (b *Bus) Metrics() []prometheus.Collector {
	labels := prometheus.Labels{"subscriber": b.subscriber.Name()}
	counter := func(name, help string, n *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(n.Load()) })
	}
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, labels) }
	return []prometheus.Collector{
		counter("kwai_events_delivered_total", "Events that the subscriber accepted.", &b.delivered),
		counter("kwai_events_failed_total", "Attempts at delivering an event that failed.", &b.failed),
		counter("kwai_events_dropped_total", "Events that were given up as too old; those for mail are kept as dead letters.", &b.dropped),
		&outbox{
			bus:     b,
			waiting: desc("kwai_outbox_waiting", "Events that wait for the subscriber."),
			dead:    desc("kwai_outbox_dead", "Events that were given up and are kept."),
			oldest:  desc("kwai_outbox_oldest_seconds", "Age of the event that has waited longest, but for those refused for a reason of their own; 0 if none waits."),
		},
	}
}

// outbox asks the database what waits.
type outbox struct {
	bus                   *Bus
	waiting, dead, oldest *prometheus.Desc
}

// Describe is for the registry.
func (o *outbox) Describe(ch chan<- *prometheus.Desc) {
	ch <- o.waiting
	ch <- o.dead
	ch <- o.oldest
}

// Collect sends nothing if the database doesn't answer in time; kwai_database_up
// shows that.
func (o *outbox) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), database.ScrapeTimeout)
	defer cancel()
	db := o.bus.store
	now, err := db.Read(ctx).Outbox(o.bus.subscriber.Name())
	if err != nil {
		return
	}
	age := 0.0
	if !now.OldestAt.IsZero() {
		age = max(0, db.Now().Sub(now.OldestAt).Seconds())
	}
	for desc, value := range map[*prometheus.Desc]float64{o.waiting: float64(now.Waiting), o.dead: float64(now.Dead), o.oldest: age} {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
}
