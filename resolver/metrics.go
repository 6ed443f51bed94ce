package resolver

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/resolver/wire"
)

// stats counts what happens off the hit path; hits are counted by the cache.
type stats struct {
	inPlace   atomic.Uint64 // answered by a zone on the receive loop
	flights   atomic.Uint64
	joined    atomic.Uint64
	exchanges atomic.Uint64
	stale     atomic.Uint64
	dropped   atomic.Uint64
	crowded   atomic.Uint64
	overfull  atomic.Uint64
	panics    atomic.Uint64

	servfail, refused, formerr, otherError atomic.Uint64
}

func (s *stats) refusal(rcode uint16) {
	switch rcode {
	case wire.RcodeServFail:
		s.servfail.Add(1)
	case wire.RcodeRefused:
		s.refused.Add(1)
	case wire.RcodeFormErr:
		s.formerr.Add(1)
	default:
		s.otherError.Add(1)
	}
}

var (
	descZone     = prometheus.NewDesc("meibo_resolver_zone_answers_total", "Answers made in place by a zone.", nil, nil)
	descFlights  = prometheus.NewDesc("meibo_resolver_flights_total", "Questions that had to be waited for.", nil, nil)
	descJoined   = prometheus.NewDesc("meibo_resolver_joined_total", "Clients that joined a flight under way.", nil, nil)
	descInFlight = prometheus.NewDesc("meibo_resolver_in_flight", "Questions being resolved now.", nil, nil)
	descForward  = prometheus.NewDesc("meibo_resolver_exchanges_total", "Questions asked of upstreams.", nil, nil)
	descStale    = prometheus.NewDesc("meibo_resolver_stale_total", "Expired answers given because upstreams failed or were late.", nil, nil)
	descDropped  = prometheus.NewDesc("meibo_resolver_dropped_total", "Messages that deserve no reply.", nil, nil)
	descLimited  = prometheus.NewDesc("meibo_resolver_limited_total", "Questions beyond a limit.", []string{"limit"}, nil)
	descPanics   = prometheus.NewDesc("meibo_resolver_panics_total", "Panics recovered; each is a fault to report.", nil, nil)
	descErrors   = prometheus.NewDesc("meibo_resolver_errors_total", "Error replies by response code.", []string{"rcode"}, nil)
)

// Collector exports the resolver's counters to Prometheus.
func (r *Resolver) Collector() prometheus.Collector { return collector{r} }

type collector struct{ r *Resolver }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := &c.r.stats
	count := func(d *prometheus.Desc, v *atomic.Uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	count(descZone, &s.inPlace)
	count(descFlights, &s.flights)
	count(descJoined, &s.joined)
	count(descForward, &s.exchanges)
	count(descStale, &s.stale)
	count(descDropped, &s.dropped)
	count(descLimited, &s.crowded, "waiters")
	count(descLimited, &s.overfull, "flights")
	count(descPanics, &s.panics)
	count(descErrors, &s.servfail, "SERVFAIL")
	count(descErrors, &s.refused, "REFUSED")
	count(descErrors, &s.formerr, "FORMERR")
	count(descErrors, &s.otherError, "other")
	ch <- prometheus.MustNewConstMetric(descInFlight, prometheus.GaugeValue, float64(c.r.flights.len()))
}
