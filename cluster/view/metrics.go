package view

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	servicesDesc  = prometheus.NewDesc("meibo_view_services", "Service names in the view.", nil, nil)
	instancesDesc = prometheus.NewDesc("meibo_view_instances", "Service instances in the view.", nil, nil)
	nodesDesc     = prometheus.NewDesc("meibo_view_nodes", "Nodes in the view.", nil, nil)
	freshDesc     = prometheus.NewDesc("meibo_view_fresh",
		"1 while a server that has a leader confirms the view, else 0.", nil, nil)
	confirmedDesc = prometheus.NewDesc("meibo_view_confirmed_age_seconds",
		"Time since a server that has a leader confirmed the view; absent if none ever did.", nil, nil)
	indexDesc    = prometheus.NewDesc("meibo_view_index", "Catalog index up to which the view is complete.", nil, nil)
	subsDesc     = prometheus.NewDesc("meibo_view_subscriptions", "Services that are subscribed to by name.", nil, nil)
	rememberDesc = prometheus.NewDesc("meibo_view_remembered_nodes",
		"Nodes of which something is remembered from earlier histories.", nil, nil)
	publishedDesc = prometheus.NewDesc("meibo_view_states_total", "States published.", nil, nil)
)

// Collector returns the view's metrics.
func (v *View) Collector() prometheus.Collector { return collector{v} }

type collector struct{ v *View }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		servicesDesc, instancesDesc, nodesDesc, freshDesc, confirmedDesc, indexDesc, subsDesc, rememberDesc, publishedDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
	s := c.v.Load()
	services, instances, nodes := s.Len()
	gauge(servicesDesc, float64(services))
	gauge(instancesDesc, float64(instances))
	gauge(nodesDesc, float64(nodes))
	gauge(indexDesc, float64(s.Index()))
	c.v.mu.Lock()
	subs, remembered := len(c.v.subs), len(c.v.remembered)
	c.v.mu.Unlock()
	gauge(subsDesc, float64(subs))
	gauge(rememberDesc, float64(remembered))
	fresh := 0.0
	if s.Fresh() {
		fresh = 1
	}
	gauge(freshDesc, fresh)
	if at := c.v.Confirmed(); !at.IsZero() {
		gauge(confirmedDesc, time.Since(at).Seconds())
	}
	ch <- prometheus.MustNewConstMetric(publishedDesc, prometheus.CounterValue, float64(c.v.published.Load()))
}
