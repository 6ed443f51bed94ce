package agent

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/cluster/catalog"
)

// counts are what only counting tells; the rest is read from Own.
type counts struct {
	fullSyncs, partialSyncs, failedSyncs atomic.Uint64
	refused, turned, unkept              atomic.Uint64
}

func (c *counts) turn(full bool, err error) {
	switch {
	case err != nil:
		c.failedSyncs.Add(1)
	case full:
		c.fullSyncs.Add(1)
	default:
		c.partialSyncs.Add(1)
	}
}

var (
	descServices = prometheus.NewDesc("meibo_agent_services", "Services registered on this host.", nil, nil)
	descChecks   = prometheus.NewDesc("meibo_agent_checks", "Checks registered on this host, by status.", []string{"status"}, nil)
	descRunning  = prometheus.NewDesc("meibo_agent_checks_running", "Checks that run at this moment, by kind.", []string{"kind"}, nil)
	descWaiting  = prometheus.NewDesc("meibo_agent_checks_waiting", "Checks that are due and wait while others of their kind begin.", []string{"kind"}, nil)
	descTurned   = prometheus.NewDesc("meibo_agent_check_changes_total", "Changes of a check's status.", nil, nil)
	descSyncs    = prometheus.NewDesc("meibo_agent_syncs_total", "Anti-entropy: syncs with the catalog by outcome. full and partial succeeded; failed ones are tried again.", []string{"result"}, nil)
	descRefused  = prometheus.NewDesc("meibo_agent_sync_refusals_total", "Registrations that the catalog refused.", nil, nil)
	descUnkept   = prometheus.NewDesc("meibo_agent_unkept_states_total", "Check states that could not be written to the data directory.", nil, nil)
)

// Describe implements prometheus.Collector.
func (a *Agent) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descServices, descChecks, descRunning, descWaiting, descTurned, descSyncs, descRefused, descUnkept} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (a *Agent) Collect(out chan<- prometheus.Metric) {
	own := a.Own()
	byStatus := map[string]int{catalog.Passing: 0, catalog.Warning: 0, catalog.Critical: 0}
	for _, c := range own.Checks {
		byStatus[c.Status]++
	}
	out <- prometheus.MustNewConstMetric(descServices, prometheus.GaugeValue, float64(len(own.Services)))
	for status, n := range byStatus {
		out <- prometheus.MustNewConstMetric(descChecks, prometheus.GaugeValue, float64(n), status)
	}
	for _, l := range a.slots.Loads() {
		out <- prometheus.MustNewConstMetric(descRunning, prometheus.GaugeValue, float64(l.Running), string(l.Kind))
		out <- prometheus.MustNewConstMetric(descWaiting, prometheus.GaugeValue, float64(l.Waiting), string(l.Kind))
	}
	count := func(d *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	count(descTurned, &a.counts.turned)
	count(descSyncs, &a.counts.fullSyncs, "full")
	count(descSyncs, &a.counts.partialSyncs, "partial")
	count(descSyncs, &a.counts.failedSyncs, "failed")
	count(descRefused, &a.counts.refused)
	count(descUnkept, &a.counts.unkept)
}
