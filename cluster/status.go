package cluster

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/cluster/consensus"
	"meibo/cluster/server"
)

// State is how the catalog of this host is.
type State string

// The states.
const (
	Starting State = "starting"
	Running  State = "running"
	Failed   State = "failed"  // will be tried again
	Absent   State = "absent"  // this host has none
	Stopped  State = "stopped" // with the process
)

// Status is how the catalog of this host is, and why.
type Status struct {
	State State
	// Err is why it failed.
	Err error
	// Failures counts them since the start.
	Failures int
	// Since is when the state began, Retry when the next attempt is due.
	Since, Retry time.Time
}

// Status returns how the catalog of this host is.
func (n *Node) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status
}

func (n *Node) setStatus(st Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setStatusLocked(st)
}

func (n *Node) setStatusLocked(st Status) {
	st.Since = time.Now()
	st.Failures = max(st.Failures, n.status.Failures)
	n.status = st
	close(n.changed)
	n.changed = make(chan struct{})
}

// setServer makes s the running server; nil: there is none.
func (n *Node) setServer(s *server.Server, st Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server = s
	n.setStatusLocked(st)
}

// running returns the running server, nil if there is none, and a channel that
// is closed when that, or the status, has changed.
func (n *Node) running() (*server.Server, Status, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server, n.status, n.changed
}

// Leadership returns who leads, as far as this host knows.
func (n *Node) Leadership() consensus.Leadership {
	s, _, _ := n.running()
	if s == nil {
		return consensus.Leadership{}
	}
	l, _ := s.Leadership()
	return l
}

// Leader is the Raft address of the leader; empty if none is known.
func (n *Node) Leader() string { return n.Leadership().LeaderAddr }

// Peers are the Raft addresses of all servers; none are known without one here.
func (n *Node) Peers() []string {
	s, _, _ := n.running()
	if s == nil {
		return nil
	}
	var addrs []string
	for _, p := range s.Replica().Servers() {
		addrs = append(addrs, p.Addr)
	}
	return addrs
}

// Stats returns figures by subsystem, in the form of /v1/agent/self.
func (n *Node) Stats() map[string]map[string]string {
	st := n.Status()
	own := map[string]string{"catalog": string(st.State)}
	if st.Err != nil {
		own["catalog_error"] = st.Err.Error()
	}
	stats := map[string]map[string]string{"meibo": own}
	if s, _, _ := n.running(); s != nil {
		stats["raft"] = s.Replica().Stats()
	}
	return stats
}

var (
	catalogUpDesc = prometheus.NewDesc("meibo_catalog_up",
		"1 while the catalog of this host runs, 0 while it failed; absent if this host has none.", nil, nil)
	failuresDesc = prometheus.NewDesc("meibo_catalog_failures_total",
		"How often the catalog of this host failed and was opened again.", nil, nil)
	healthyDesc = prometheus.NewDesc("meibo_autopilot_healthy",
		"1 while autopilot finds every server well, else 0; only the leader tells.", nil, nil)
	toleranceDesc = prometheus.NewDesc("meibo_autopilot_failure_tolerance",
		"Servers that can fail and leave a quorum; only the leader tells.", nil, nil)
)

// Collector returns the metrics of the node and its view.
func (n *Node) Collector() prometheus.Collector { return collector{n, n.view.Collector()} }

type collector struct {
	n    *Node
	view prometheus.Collector
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	c.view.Describe(ch)
	for _, d := range []*prometheus.Desc{catalogUpDesc, failuresDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	c.view.Collect(ch)
	st := c.n.Status()
	if st.State != Absent {
		ch <- prometheus.MustNewConstMetric(catalogUpDesc, prometheus.GaugeValue, asFloat(st.State == Running))
	}
	ch <- prometheus.MustNewConstMetric(failuresDesc, prometheus.CounterValue, float64(st.Failures))
}

// PartsCollector returns the metrics of the parts that come and go with lives of
// the network and of the server. It describes nothing beforehand: what there is
// to collect changes.
func (n *Node) PartsCollector() prometheus.Collector { return partsCollector{n} }

type partsCollector struct{ n *Node }

// Describe implements prometheus.Collector.
func (partsCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c partsCollector) Collect(ch chan<- prometheus.Metric) {
	if w, _ := c.n.network(); w != nil {
		for _, part := range []prometheus.Collector{w.gossip.Collector(), w.link.Collector(), w.rpc.Collector()} {
			part.Collect(ch)
		}
	}
	if s, _, _ := c.n.running(); s != nil {
		s.Replica().Collector().Collect(ch)
		if c.n.cfg.Server {
			s.Feed().Collector().Collect(ch)
		}
		if health, err := c.n.AutopilotHealth(); err == nil {
			ch <- prometheus.MustNewConstMetric(healthyDesc, prometheus.GaugeValue, asFloat(health.Healthy))
			ch <- prometheus.MustNewConstMetric(toleranceDesc, prometheus.GaugeValue, float64(health.FailureTolerance))
		}
	}
}

func asFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
