package database

import (
	"context"
	"database/sql"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what a database counts.
type metrics struct {
	reads, transactions, statements, retries, unavailable prometheus.Counter
	batch, commit                                         prometheus.Histogram // SQLite's

	own []prometheus.Collector // what one of the engines has alone
}

func newMetrics() *metrics {
	return &metrics{
		reads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kwai_database_reads_total", Help: "Queries outside of transactions."}),
		transactions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kwai_database_transactions_total", Help: "Transactions that were committed."}),
		statements: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kwai_database_statements_total", Help: "Statements in transactions."}),
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

// gauge and counter make metrics of what is known anyway.
func gauge(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
}

func counter(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
}

// ofPool are an engine's connections; a SQLite database's are those that read.
func ofPool(stats func() sql.DBStats) []prometheus.Collector {
	const connections, help = "kwai_database_connections", "Connections to the database; on SQLite those that read."
	return []prometheus.Collector{
		gauge(connections, help, prometheus.Labels{"state": "in_use"}, func() float64 { return float64(stats().InUse) }),
		gauge(connections, help, prometheus.Labels{"state": "idle"}, func() float64 { return float64(stats().Idle) }),
		gauge("kwai_database_connections_limit", "Connections that there may be.", nil, func() float64 { return float64(stats().MaxOpenConnections) }),
		counter("kwai_database_connection_waits_total", "Times that somebody waited for a connection.", func() float64 { return float64(stats().WaitCount) }),
		counter("kwai_database_connection_wait_seconds_total", "Time waited for a connection.", func() float64 { return stats().WaitDuration.Seconds() }),
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
	}
}

// Metrics are what a database counts, and what it is asked when they are
// collected, for ScrapeTimeout at most.
func (db *DB) Metrics() []prometheus.Collector {
	m := db.metrics
	return append([]prometheus.Collector{m.reads, m.transactions, m.statements, m.retries, m.unavailable,
		flag("kwai_database_writable", "1 unless the latest write failed for want of room, or since nothing may be written.", func() bool { return db.writes.err() == nil }),
		flag("kwai_database_up", "1 if the database answers and is of the right version.", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), ScrapeTimeout)
			defer cancel()
			return db.CheckVersion(ctx) == nil
		}),
	}, m.own...)
}

func flag(name, help string, value func() bool) prometheus.Collector {
	return gauge(name, help, nil, func() float64 {
		if value() {
			return 1
		}
		return 0
	})
}

// ScrapeTimeout is how long a query may take whose answer is a metric: one who
// scrapes doesn't wait for a database that is away.
const ScrapeTimeout = 2 * time.Second
