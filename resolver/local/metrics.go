package local

import "github.com/prometheus/client_golang/prometheus"

var (
	hostsNames = prometheus.NewDesc("meibo_hosts_names", "Names that the hosts files hold.", nil, nil)
	hostsBad   = prometheus.NewDesc("meibo_hosts_bad_lines", "Lines of the hosts files that were left out.", nil, nil)
	hostsReads = prometheus.NewDesc("meibo_hosts_reads_total", "How often the hosts files were read.", nil, nil)
)

// Collector returns the zone's metrics.
func (h *Hosts) Collector() prometheus.Collector { return hostsCollector{h} }

type hostsCollector struct{ h *Hosts }

// Describe implements prometheus.Collector.
func (c hostsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- hostsNames
	ch <- hostsBad
	ch <- hostsReads
}

// Collect implements prometheus.Collector.
func (c hostsCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(hostsNames, prometheus.GaugeValue, float64(c.h.Len()))
	ch <- prometheus.MustNewConstMetric(hostsBad, prometheus.GaugeValue, float64(c.h.badLines.Load()))
	ch <- prometheus.MustNewConstMetric(hostsReads, prometheus.CounterValue, float64(c.h.reloads.Load()))
}
