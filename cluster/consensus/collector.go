package consensus

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Descriptions of the metrics. All have a fixed number of series.
var (
	descLeading = prometheus.NewDesc("meibo_raft_leading", "1 while this server leads.", nil, nil)
	descTerm    = prometheus.NewDesc("meibo_raft_term", "Raft's term.", nil, nil)
	descApplied = prometheus.NewDesc("meibo_raft_applied_index", "Last entry applied by the state machine.", nil, nil)
	descCommit  = prometheus.NewDesc("meibo_raft_commit_index", "Last entry committed, as far as this server knows.", nil, nil)
	descLast    = prometheus.NewDesc("meibo_raft_last_log_index", "Last entry in the log.", nil, nil)
	descSnap    = prometheus.NewDesc("meibo_raft_snapshot_index", "Last entry in the newest snapshot.", nil, nil)
	descFlight  = prometheus.NewDesc("meibo_raft_in_flight", "Writes that wait to be committed.", nil, nil)
	descRefused = prometheus.NewDesc("meibo_raft_refused_total", "Writes refused because too many waited.", nil, nil)
)

// Collector returns the replica's metrics. Raft's own go to no sink at all:
// they would pile up in memory.
func (r *Replica) Collector() prometheus.Collector { return collector{r} }

type collector struct{ r *Replica }

// newCommits is the metric of how long writes take.
func newCommits() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "meibo_raft_commit_duration_seconds", Help: "Time from a write, while this server leads, until it is committed and applied.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
	})
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	c.r.commits.Describe(ch)
	for _, d := range []*prometheus.Desc{descLeading, descTerm, descApplied, descCommit, descLast, descSnap, descFlight, descRefused} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	lead, _ := c.r.Leadership()
	leading := 0.0
	if lead.Leading {
		leading = 1
	}
	gauge(descLeading, leading)
	gauge(descTerm, float64(lead.Term))
	gauge(descApplied, float64(c.r.Applied()))
	waiting, refused := c.r.inFlight.counts()
	gauge(descFlight, float64(waiting))
	ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(refused))
	c.r.commits.Collect(ch)
	stats := c.r.Stats()
	for key, d := range map[string]*prometheus.Desc{"commit_index": descCommit, "last_log_index": descLast, "last_snapshot_index": descSnap} {
		if v, err := strconv.ParseUint(stats[key], 10, 64); err == nil {
			gauge(d, float64(v))
		}
	}
}
