package consul

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// stats count answers when they are made; cached ones are given many times.
type stats struct {
	lastResort, stale, unknown, neighbour atomic.Uint64
}

var (
	lastResortDesc = prometheus.NewDesc("meibo_catalog_last_resort_answers_total",
		"Answers made with instances on hosts that are said to be dead, because no others are left.", nil, nil)
	staleDesc = prometheus.NewDesc("meibo_catalog_stale_answers_total",
		"Answers made from a catalog that no server confirms.", nil, nil)
	unknownDesc = prometheus.NewDesc("meibo_catalog_unknown_contents_total",
		"Questions failed because neither servers nor neighbours told what a service holds.", nil, nil)
	neighbourDesc = prometheus.NewDesc("meibo_catalog_neighbour_questions_total",
		"Questions for which neighbours were asked what a service holds.", nil, nil)
)

// Collector returns the zone's metrics.
func (z *Zone) Collector() prometheus.Collector { return collector{&z.stats} }

type collector struct{ stats *stats }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	count := func(desc *prometheus.Desc, n *atomic.Uint64) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n.Load()))
	}
	count(lastResortDesc, &c.stats.lastResort)
	count(staleDesc, &c.stats.stale)
	count(unknownDesc, &c.stats.unknown)
	count(neighbourDesc, &c.stats.neighbour)
}
