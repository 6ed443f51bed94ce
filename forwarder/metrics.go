package forwarder

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descQueries    = prometheus.NewDesc("meibo_upstream_queries_total", "Questions sent, repeats included.", []string{"upstream"}, nil)
	descReplies    = prometheus.NewDesc("meibo_upstream_replies_total", "Replies that belonged to a question.", []string{"upstream"}, nil)
	descFailures   = prometheus.NewDesc("meibo_upstream_failures_total", "Questions without a usable answer, by reason.", []string{"upstream", "reason"}, nil)
	descMismatches = prometheus.NewDesc("meibo_upstream_mismatches_total", "Packets that belonged to no question: late, broken or forged.", []string{"upstream"}, nil)
	descTCP        = prometheus.NewDesc("meibo_upstream_tcp_total", "Questions asked over TCP.", []string{"upstream"}, nil)
	descSRTT       = prometheus.NewDesc("meibo_upstream_srtt_seconds", "Smoothed round trip time, 0 when unknown.", []string{"upstream"}, nil)
	descUp         = prometheus.NewDesc("meibo_upstream_up", "1 while questions are sent there first.", []string{"upstream"}, nil)
)

// Collector exports what is known of each upstream to Prometheus.
func (f *Forwarder) Collector() prometheus.Collector { return collector{f} }

type collector struct{ f *Forwarder }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descQueries, descReplies, descFailures, descMismatches, descTCP, descSRTT, descUp} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.f.snapshot() {
		addr := s.name
		count := func(d *prometheus.Desc, v *atomic.Uint64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), append([]string{addr}, labels...)...)
		}
		count(descQueries, &s.queries)
		count(descReplies, &s.replies)
		count(descFailures, &s.losses, "silent")
		count(descFailures, &s.netErrors, "network")
		count(descFailures, &s.badRcodes, "rcode")
		count(descFailures, &s.faults, "unusable")
		count(descMismatches, &s.mismatches)
		count(descTCP, &s.overTCP)
		s.mu.Lock()
		srtt, up := s.srtt.Seconds(), 0.0
		if !s.dead && !s.looped {
			up = 1
		}
		s.mu.Unlock()
		ch <- prometheus.MustNewConstMetric(descSRTT, prometheus.GaugeValue, srtt, addr)
		ch <- prometheus.MustNewConstMetric(descUp, prometheus.GaugeValue, up, addr)
	}
}
