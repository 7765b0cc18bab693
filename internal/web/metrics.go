package web

import (
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The labels that a request can be counted under. The client chooses none of
// them: its path becomes the route's pattern, and a method that it made up "other".
var (
	countedMethods  = [...]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete, http.MethodOptions, "other"}
	countedStatuses = [...]int{200, 204, 206, 303, 304, 400, 401, 403, 404, 405, 413, 415, 416, 417, 421, 422, 429, 431, 500, 501, 503, 505, 0} // 0: any other
)

var (
	descRequests = prometheus.NewDesc("kwai_http_requests_total", "Requests that were answered.", []string{"route", "method", "status"}, nil)
	descInFlight = prometheus.NewDesc("kwai_http_requests_in_flight", "Requests under way.", nil, nil)
)

// metrics is what a server counts. It is made with the handler.
type metrics struct {
	seconds  *prometheus.HistogramVec // by route
	routes   []*routeMetrics
	inFlight atomic.Int64
}

// routeMetrics is that of one path. All is made at the start: to count a request
// takes two additions and no memory.
type routeMetrics struct {
	route    string
	known    [len(countedMethods)]bool // the methods that there are
	requests [len(countedMethods)][len(countedStatuses)]atomic.Int64
	seconds  prometheus.Observer
}

func newMetrics() *metrics {
	return &metrics{seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "kwai_http_request_seconds", Help: "Time to answer a request.",
		Buckets: []float64{0.0005, 0.002, 0.01, 0.05, 0.2, 1, 3, 10},
	}, []string{"route"})}
}

func (m *metrics) route(path string, methods map[string]route) *routeMetrics {
	r := &routeMetrics{route: path, seconds: m.seconds.WithLabelValues(path)}
	for i, method := range countedMethods {
		_, r.known[i] = methods[method]
	}
	m.routes = append(m.routes, r)
	return r
}

func (r *routeMetrics) count(method string, status int, took time.Duration) {
	at := slices.Index(countedMethods[:], method)
	if at < 0 {
		at = len(countedMethods) - 1
	}
	as := slices.Index(countedStatuses[:], status)
	if as < 0 {
		as = len(countedStatuses) - 1
	}
	r.requests[at][as].Add(1)
	r.seconds.Observe(took.Seconds())
}

// Metrics are what the server tells those who watch it; Handler comes first.
func (s *Server) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.metrics, s.metrics.seconds}
}

// Describe is for the registry.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- descRequests
	ch <- descInFlight
}

// Collect tells of what there was. What an alert looks for is told before there
// was any, too: Prometheus sees an increase only from a value that it knows.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(descInFlight, prometheus.GaugeValue, float64(m.inFlight.Load()))
	for _, r := range m.routes {
		for i, method := range countedMethods {
			for j, status := range countedStatuses {
				n := r.requests[i][j].Load()
				if n == 0 && !(r.known[i] && (status == http.StatusOK || status >= http.StatusInternalServerError)) {
					continue
				}
				text := "other"
				if status != 0 {
					text = strconv.Itoa(status)
				}
				ch <- prometheus.MustNewConstMetric(descRequests, prometheus.CounterValue, float64(n), r.route, method, text)
			}
		}
	}
}
