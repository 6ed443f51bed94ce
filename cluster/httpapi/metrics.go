package httpapi

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are this package's own. Labels are routes, never what a client sends.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	refused  prometheus.Counter
	panics   prometheus.Counter
	tooMany  prometheus.Counter
	blocking prometheus.Gauge
	conns    prometheus.Gauge
	connsCut prometheus.Counter
}

func newMetrics() *metrics {
	const ns, sub = "meibo", "http"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "requests_total",
			Help: "HTTP requests by route and status."}, []string{"route", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "request_duration_seconds",
			Help:    "Time to answer by route, the wait of blocking queries included.",
			Buckets: []float64{.0005, .001, .005, .025, .1, .5, 2.5, 10, 60, 300}}, []string{"route"}),
		refused:  counter("refused_total", "Requests refused for their Host, Origin, path or source."),
		panics:   counter("panics_total", "Handlers that panicked; each is a bug."),
		tooMany:  counter("blocking_refused_total", "Blocking queries refused because too many were waiting."),
		blocking: gauge("blocking_queries", "Blocking queries waiting now."),
		conns:    gauge("connections", "Client connections open now."),
		connsCut: counter("connections_refused_total", "Connections closed at once because their client had too many."),
	}
}

func (m *metrics) observe(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.duration, m.refused, m.panics, m.tooMany, m.blocking, m.conns, m.connsCut}
}

func (m *metrics) describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

func (m *metrics) collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}
