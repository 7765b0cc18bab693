package web

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// methodsCounted are the methods that a request is counted under. The client
// chooses no label: its path becomes the route's pattern, and a method that it
// made up "other".
var methodsCounted = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete, http.MethodOptions}

// metrics is what a server counts. It is made with the handler.
type metrics struct {
	requests *prometheus.CounterVec   // by route, method and status
	seconds  *prometheus.HistogramVec // by route
	inFlight prometheus.Gauge
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kwai_http_requests_total", Help: "Requests that were answered.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kwai_http_request_seconds", Help: "Time to answer a request.",
			Buckets: []float64{0.0005, 0.002, 0.01, 0.05, 0.2, 1, 3, 10},
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kwai_http_requests_in_flight", Help: "Requests under way.",
		}),
	}
}

// routeMetrics are the metrics of one path.
type routeMetrics struct {
	route    string
	requests *prometheus.CounterVec // by method and status
	seconds  prometheus.Observer
}

func (m *metrics) route(path string, methods map[string]route) *routeMetrics {
	r := &routeMetrics{path, m.requests.MustCurryWith(prometheus.Labels{"route": path}), m.seconds.WithLabelValues(path)}
	// Statuses that alerts look for are there from the start, with 0: Prometheus
	// sees an increase only from a value that it knows.
	for method := range methods {
		for _, status := range []int{http.StatusOK, http.StatusInternalServerError, http.StatusServiceUnavailable} {
			r.requests.WithLabelValues(method, strconv.Itoa(status))
		}
	}
	return r
}

func (r *routeMetrics) count(method string, status int, took time.Duration) {
	if !slices.Contains(methodsCounted, method) {
		method = "other"
	}
	r.requests.WithLabelValues(method, strconv.Itoa(status)).Inc()
	r.seconds.Observe(took.Seconds())
}

// Metrics are the collectors for the registry. Handler must be called first.
func (s *Server) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.requests, s.metrics.seconds, s.metrics.inFlight}
}
