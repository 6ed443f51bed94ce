package cache

import "github.com/prometheus/client_golang/prometheus"

// Stats is a snapshot of what the cache holds and has done. Its parts are read
// one after another, not at one moment.
type Stats struct {
	Entries    int
	Bytes      int
	MaxBytes   int
	MaxEntries int
	Hits       uint64
	Misses     uint64
	Expired    uint64 // lookups that found only an expired entry
	Inserted   uint64
	Evicted    uint64
	Refused    uint64 // too large, to another question, or dropped while being made
}

// Stats sums over the shards.
func (c *Cache) Stats() Stats {
	st := Stats{MaxBytes: c.max}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		st.Entries += len(s.held)
		st.Bytes += s.bytes
		s.mu.RUnlock()
		st.MaxEntries += s.maxEntries
		st.Hits += s.hits.Load()
		st.Misses += s.misses.Load()
		st.Expired += s.expired.Load()
		st.Inserted += s.inserted.Load()
		st.Evicted += s.evictions.Load()
		st.Refused += s.refused.Load()
	}
	return st
}

var (
	descLookups = prometheus.NewDesc("meibo_cache_lookups_total", "Cache lookups by result.", []string{"result"}, nil)
	descInserts = prometheus.NewDesc("meibo_cache_inserts_total", "Answers stored.", nil, nil)
	descEvicted = prometheus.NewDesc("meibo_cache_evictions_total", "Answers evicted to make room.", nil, nil)
	descRefused = prometheus.NewDesc("meibo_cache_refused_total", "Answers not stored: too large, to another question, or dropped while being made.", nil, nil)
	descEntries = prometheus.NewDesc("meibo_cache_entries", "Answers held.", nil, nil)
	descBytes   = prometheus.NewDesc("meibo_cache_bytes", "Memory of the answers held.", nil, nil)
	descLimit   = prometheus.NewDesc("meibo_cache_limit_bytes", "Memory the cache may use.", nil, nil)
)

// Collector exports the statistics to Prometheus.
func (c *Cache) Collector() prometheus.Collector { return collector{c} }

type collector struct{ c *Cache }

// Describe implements prometheus.Collector.
func (k collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLookups, descInserts, descEvicted, descRefused, descEntries, descBytes, descLimit} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (k collector) Collect(ch chan<- prometheus.Metric) {
	st := k.c.Stats()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	counter(descLookups, st.Hits, "hit")
	counter(descLookups, st.Misses, "miss")
	counter(descLookups, st.Expired, "expired")
	counter(descInserts, st.Inserted)
	counter(descEvicted, st.Evicted)
	counter(descRefused, st.Refused)
	gauge(descEntries, st.Entries)
	gauge(descBytes, st.Bytes)
	gauge(descLimit, st.MaxBytes)
}
