package password

import "github.com/prometheus/client_golang/prometheus"

// kind is what computes a hash.
type kind int

const (
	argon2id kind = iota
	bcrypted
	kinds
)

func (t task) kind() kind {
	if t.Bcrypt != "" {
		return bcrypted
	}
	return argon2id
}

// metrics is what a pool counts.
type metrics struct {
	busy                                 prometheus.Gauge
	limit                                int // of busy
	wait                                 prometheus.Histogram
	seconds                              [kinds]prometheus.Observer
	queueFull, waitedTooLong, workerLost prometheus.Counter

	hashes  *prometheus.HistogramVec
	refused *prometheus.CounterVec
}

func newMetrics(workers int) *metrics {
	m := &metrics{
		limit: workers,
		busy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kwai_hashing_workers_busy", Help: "Workers that hash a password."}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kwai_hashing_wait_seconds", Help: "Time that a password waited for a worker which then took it.",
			Buckets: []float64{0.001, 0.05, 0.2, 1, 2.5, 5}}),
		hashes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kwai_hashing_seconds", Help: "Time that a worker took to hash a password.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 1, 5}}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kwai_hashing_refused_total", Help: "Passwords that were not hashed, by why."}, []string{"reason"}),
	}
	m.seconds[argon2id] = m.hashes.WithLabelValues("argon2id")
	m.seconds[bcrypted] = m.hashes.WithLabelValues("bcrypt")
	m.queueFull = m.refused.WithLabelValues("queue_full")
	m.waitedTooLong = m.refused.WithLabelValues("waited_too_long")
	m.workerLost = m.refused.WithLabelValues("worker_lost")
	return m
}

// Metrics are those of the queue, the workers and the hashes.
func (p *Pool) Metrics() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	return []prometheus.Collector{
		gauge("kwai_hashing_waiting", "Passwords that wait for a worker.", func() float64 { return float64(p.queue.length()) }),
		gauge("kwai_hashing_workers", "Workers that there are.", func() float64 { return float64(p.metrics.limit) }),
		p.metrics.busy, p.metrics.wait, p.metrics.hashes, p.metrics.refused,
	}
}
