package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kwai/internal/store"
)

// newRegistry has what is known of the process.
func newRegistry(s *Settings) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kwai_build_info", Help: "1, and what runs here.",
		ConstLabels: prometheus.Labels{"version": version(), "revision": revision(), "goversion": runtime.Version(), "engine": store.EngineOf(s.Database)},
	})
	build.Set(1)
	registry.MustRegister(
		build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// watchable is a part of the server that has something to tell.
type watchable interface {
	Metrics() []prometheus.Collector
}

func watch(registry *prometheus.Registry, parts ...watchable) {
	for _, p := range parts {
		registry.MustRegister(p.Metrics()...)
	}
}

// A scrape takes some milliseconds. Whoever scrapes slowly or often takes
// nothing from others: so many at the same time, each in so much time.
const (
	maxScrapes  = 4
	scrapeAfter = 2 * store.ScrapeTimeout // until it is given up
	scrapeWrite = 10 * time.Second        // until it must have been read
	maxWatchers = 64                      // connections
)

// metrics is a server for those who watch this one: Prometheus' metrics, and
// Go's profiles. It listens apart from the other, for it tells what users must
// not see; and a profile has no time-out, since it takes as long as was asked.
func metrics(registry *prometheus.Registry) *http.Server {
	scrape := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		// What can be told is told.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeAfter,
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", scrape)
	// Not pprof's cmdline: an argument may hold a password.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var deadline time.Time // also if the last answer had one
			if _, pattern := mux.Handler(r); pattern == "GET /metrics" {
				deadline = time.Now().Add(scrapeWrite)
			}
			_ = http.NewResponseController(w).SetWriteDeadline(deadline) // each connection can have one
			mux.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: readHeaders,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaders,
	}
}

// serveMetrics serves them until stop is called.
func serveMetrics(ctx context.Context, address string, registry *prometheus.Registry, log *slog.Logger) (stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &usageError{"--metrics-listen", err}
	}
	server := metrics(registry)
	watchers := bound(listener, maxWatchers, log)
	server.ConnState = watchers.follow
	go func() { _ = server.Serve(watchers) }()
	log.Info("serving metrics", "address", listener.Addr().String())
	return func() { _ = server.Close() }, nil
}
