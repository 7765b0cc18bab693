package store

import (
	"context"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what a store counts.
type metrics struct {
	transactions, retries, unavailable prometheus.Counter
	batch, commit                      prometheus.Histogram // SQLite's

	own []prometheus.Collector // what one of the engines has alone
}

func newMetrics() *metrics {
	return &metrics{
		transactions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kwai_database_transactions_total", Help: "Transactions that were committed."}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kwai_database_retries_total", Help: "Transactions that were run again, because others got in their way."}),
		unavailable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kwai_database_unavailable_total", Help: "Reads and transactions that failed because the database was away, full or too slow."}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kwai_database_batch_transactions", Help: "Transactions that were run together, for one commit.",
			Buckets: []float64{1, 4, 16, 64, maxBatch}}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kwai_database_commit_seconds", Help: "Time to bring a commit to the disk.",
			Buckets: []float64{0.0005, 0.002, 0.01, 0.05, 0.2, 1, 5}}),
	}
}

// pool is how many connections are in use and wait to be, now and so far.
type pool struct {
	inUse, idle, limit int
	waits              int64
	waited             time.Duration
}

// gauge and counter make metrics of what is known anyway.
func gauge(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
}

func counter(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
}

// ofPool are an engine's connections; a SQLite database's are those that read.
func ofPool(stats func() pool) []prometheus.Collector {
	const connections, help = "kwai_database_connections", "Connections to the database; on SQLite those that read."
	return []prometheus.Collector{
		gauge(connections, help, prometheus.Labels{"state": "in_use"}, func() float64 { return float64(stats().inUse) }),
		gauge(connections, help, prometheus.Labels{"state": "idle"}, func() float64 { return float64(stats().idle) }),
		gauge("kwai_database_connections_limit", "Connections that there may be.", nil, func() float64 { return float64(stats().limit) }),
		counter("kwai_database_connection_waits_total", "Times that somebody waited for a connection.", func() float64 { return float64(stats().waits) }),
		counter("kwai_database_connection_wait_seconds_total", "Time waited for a connection.", func() float64 { return stats().waited.Seconds() }),
	}
}

// fileSize is in bytes; 0 if the file isn't there.
func fileSize(path string) float64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return float64(info.Size())
}

func ofFiles(path string) []prometheus.Collector {
	return []prometheus.Collector{
		gauge("kwai_database_bytes", "Size of the database's file.", nil, func() float64 { return fileSize(path) }),
		gauge("kwai_database_wal_bytes", "Size of the write-ahead log beside it.", nil, func() float64 { return fileSize(path + "-wal") }),
		gauge("kwai_backup_timestamp_seconds", "When kwai backup made a backup last, in Unix time; 0 if it did not.", nil, func() float64 { return backupAt(path) }),
	}
}

// Metrics are what the store tells those who watch it. Some are asked of the
// database when they are collected, for ScrapeTimeout at most.
func (s *Store) Metrics() []prometheus.Collector {
	m := s.metrics
	writable := gauge("kwai_database_writable", "1 unless the latest write failed for want of room, or since nothing may be written.", nil, func() float64 {
		if s.writes.err() != nil {
			return 0
		}
		return 1
	})
	return append([]prometheus.Collector{m.transactions, m.retries, m.unavailable, writable, asked{s}}, m.own...)
}

// ScrapeTimeout is how long a query may take whose answer is a metric: one who
// scrapes doesn't wait for a database that is away.
const ScrapeTimeout = 2 * time.Second

// asked is what the database itself is asked for.
type asked struct{ *Store }

var (
	descUp   = prometheus.NewDesc("kwai_database_up", "1 if the database answers and is of the right version.", nil, nil)
	descKeys = prometheus.NewDesc("kwai_keys", "The server's keys, by what they are for.", []string{"purpose"}, nil)
)

// Describe is for the registry.
func (asked) Describe(ch chan<- *prometheus.Desc) {
	ch <- descUp
	ch <- descKeys
}

// Collect leaves out what the database doesn't answer.
func (s asked) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), ScrapeTimeout)
	defer cancel()
	up := 1.0
	if err := s.checkVersion(ctx); err != nil {
		up = 0
	} else if keys, err := s.Read(ctx).keyCounts(); err == nil {
		for _, k := range keys {
			ch <- prometheus.MustNewConstMetric(descKeys, prometheus.GaugeValue, float64(k.n), k.purpose)
		}
	}
	ch <- prometheus.MustNewConstMetric(descUp, prometheus.GaugeValue, up)
}

type keyCount struct {
	purpose string
	n       int64
}

func (r Reader) keyCounts() ([]keyCount, error) {
	return queryRows(r, func(scan scanFunc) (k keyCount, err error) {
		err = scan(&k.purpose, &k.n)
		return k, err
	}, `SELECT purpose, COUNT(*) FROM keys GROUP BY purpose ORDER BY purpose`)
}
