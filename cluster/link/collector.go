package link

import "github.com/prometheus/client_golang/prometheus"

// metrics are the counters of one Link.
type metrics struct {
	conns        *prometheus.GaugeVec
	accepted     prometheus.Counter
	shut         *prometheus.CounterVec
	failed       *prometheus.CounterVec
	dialFailures *prometheus.CounterVec
	cut          prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		conns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "meibo_link_connections", Help: "Open connections to other hosts.",
		}, []string{"direction", "protocol"}),
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "meibo_link_accepted_total", Help: "Connections of other hosts that proved who they are.",
		}),
		shut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meibo_link_dropped_total", Help: "Connections dropped before their handshake, by the limit that was reached.",
		}, []string{"limit"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meibo_link_refused_total", Help: "Handshakes that came to nothing, by reason.",
		}, []string{"reason"}),
		dialFailures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meibo_link_dial_failures_total", Help: "Connections to other hosts that failed, by reason.",
		}, []string{"reason"}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "meibo_link_cut_total", Help: "Connections cut because their key left the keyring.",
		}),
	}
}

// Collector returns the metrics of this Link.
func (l *Link) Collector() prometheus.Collector { return l.metrics }

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.conns, m.accepted, m.shut, m.failed, m.dialFailures, m.cut}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}
