package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"kwai/internal/database"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kwai/internal/loopback"
)

// newRegistry has the metrics of the process.
func newRegistry(s *Settings) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kwai_build_info", Help: "1, and what runs here.",
		ConstLabels: prometheus.Labels{"version": version(), "revision": revision(), "goversion": runtime.Version(), "engine": database.EngineOf(s.Database)},
	})
	build.Set(1)
	registry.MustRegister(
		build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// instrumented is a part of the server that has metrics.
type instrumented interface {
	Metrics() []prometheus.Collector
}

func register(registry *prometheus.Registry, parts ...instrumented) {
	for _, p := range parts {
		registry.MustRegister(p.Metrics()...)
	}
}

// A scrape takes some milliseconds. Slow or frequent scrapes take nothing from
// users: so many run at the same time, each for so long.
const (
	maxScrapes        = 4
	scrapeAfter       = 2 * database.ScrapeTimeout // until it is given up
	scrapeWrite       = 10 * time.Second           // until it must have been read
	maxMetricsClients = 64                         // connections
)

// metrics is a server of Prometheus' metrics and Go's profiles. It listens apart
// from the site, since users must not see them; and a profile has no time-out,
// since it takes as long as was asked. listen is the setting.
func metrics(registry *prometheus.Registry, listen string) *http.Server {
	scrape := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		// A collector that fails takes no other with it.
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
			local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			if !isMetricsHost(r.Host, listen, local) {
				http.Error(w, fmt.Sprintf("%q is not what kwai serves its metrics on: ask for %s or localhost, or name the host in --metrics-listen.", r.Host, local), http.StatusMisdirectedRequest)
				return
			}
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

// isMetricsHost reports whether a Host, with a port or without, is this machine,
// the host listened on, or the address that the connection came in on. Any other
// name may lead here by DNS rebinding: a page of another site could read all this
// through the browser of somebody on this network.
func isMetricsHost(host, listen string, local net.Addr) bool {
	host = hostOf(host)
	if loopback.Is(host) || host != "" && strings.EqualFold(host, hostOf(listen)) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	own, ok := local.(*net.TCPAddr)
	return err == nil && ok && ip.Unmap().WithZone("") == own.AddrPort().Addr().Unmap().WithZone("")
}

// serveMetrics serves them until stop is called.
func serveMetrics(ctx context.Context, address string, registry *prometheus.Registry, log *slog.Logger) (stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &usageError{"--metrics-listen", err}
	}
	server := metrics(registry, address)
	clients := limitConnections(listener, maxMetricsClients, log)
	server.ConnState = clients.track
	go func() { _ = server.Serve(clients) }()
	log.Info("serving metrics", "address", listener.Addr().String())
	return func() { _ = server.Close() }, nil
}
