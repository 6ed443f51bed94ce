package feed

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are what a server counts.
type counters struct {
	refused, slow, resets, updates, bytes atomic.Uint64
}

// Descriptions of the metrics. All have a fixed number of series.
var (
	descStreams = prometheus.NewDesc("meibo_feed_streams", "Hosts that this server tells of the catalog, itself included.", nil, nil)
	descRefused = prometheus.NewDesc("meibo_feed_refused_total", "Streams refused because there were too many.", nil, nil)
	descSlow    = prometheus.NewDesc("meibo_feed_slow_total", "Streams cut off because their host did not read.", nil, nil)
	descResets  = prometheus.NewDesc("meibo_feed_resets_total", "How often a host was told everything anew.", nil, nil)
	descUpdates = prometheus.NewDesc("meibo_feed_updates_total", "Updates sent to hosts, heartbeats included.", nil, nil)
	descSize    = prometheus.NewDesc("meibo_feed_catalog_bytes", "Size of the catalog as hosts are told of it.", nil, nil)
	descWhole   = prometheus.NewDesc("meibo_feed_whole", "1 while every host is told the whole catalog, 0 while hosts subscribe by name.", nil, nil)
	descBytes   = prometheus.NewDesc("meibo_feed_sent_bytes_total", "Bytes sent to hosts, before encryption.", nil, nil)
)

// Collector returns the server's metrics.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

type collector struct{ s *Server }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descStreams, descRefused, descSlow, descResets, descUpdates, descBytes, descSize, descWhole} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	size, whole := c.s.snapshot.measure()
	gauge(descStreams, float64(c.s.streamCount()))
	gauge(descSize, float64(size))
	gauge(descWhole, map[bool]float64{true: 1}[whole])
	counter := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	n := &c.s.counts
	counter(descRefused, n.refused.Load())
	counter(descSlow, n.slow.Load())
	counter(descResets, n.resets.Load())
	counter(descUpdates, n.updates.Load())
	counter(descBytes, n.bytes.Load())
}
