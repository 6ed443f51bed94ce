package resolver

import (
	"sync/atomic"
	"time"

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
	refreshes atomic.Uint64
	bogus     atomic.Uint64
	rebinds   atomic.Uint64

	servfail, refused, formerr, otherError atomic.Uint64

	atOnce atomic.Uint64 // answered without waiting, though not from the cache
	waited latencies
}

// latencyBounds are the upper bounds of the histogram of latencies, in seconds.
var latencyBounds = [...]float64{0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5}

// latencies count how long questions took that had to be waited for.
type latencies struct {
	counts [len(latencyBounds) + 1]atomic.Uint64 // by the first bound that is not below; last what is beyond all
	sum    atomic.Int64                          // nanoseconds
}

func (l *latencies) observe(d time.Duration) {
	at, seconds := 0, d.Seconds()
	for at < len(latencyBounds) && seconds > latencyBounds[at] {
		at++
	}
	l.counts[at].Add(1)
	l.sum.Add(int64(d))
}

// metric is the histogram of what was waited for and of as many answers that were there at once: those take microseconds,
// so that they are below the first bound without being timed, which would cost each of them a look at the clock.
func (l *latencies) metric(atOnce uint64) prometheus.Metric {
	buckets := make(map[float64]uint64, len(latencyBounds))
	count := atOnce
	for i := range l.counts {
		count += l.counts[i].Load()
		if i < len(latencyBounds) {
			buckets[latencyBounds[i]] = count
		}
	}
	return prometheus.MustNewConstHistogram(descLatency, count, time.Duration(l.sum.Load()).Seconds(), buckets)
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
	descRefresh  = prometheus.NewDesc("meibo_resolver_refreshes_total", "Answers asked for anew at the end of their time since many ask for them.", nil, nil)
	descDropped  = prometheus.NewDesc("meibo_resolver_dropped_total", "Messages that deserve no reply.", nil, nil)
	descLimited  = prometheus.NewDesc("meibo_resolver_limited_total", "Questions beyond a limit.", []string{"limit"}, nil)
	descPanics   = prometheus.NewDesc("meibo_resolver_panics_total", "Panics recovered; each is a fault to report.", nil, nil)
	descFiltered = prometheus.NewDesc("meibo_resolver_filtered_total", "Answers of upstreams that were dropped, by the key of the filter.", []string{"key"}, nil)
	descErrors   = prometheus.NewDesc("meibo_resolver_errors_total", "Error replies by response code.", []string{"rcode"}, nil)
	descLatency  = prometheus.NewDesc("meibo_dns_request_duration_seconds",
		"Time from a question to its answer, this host's own questions included. Answers that are there at once are not timed: they count below the first bound, and as 0 in the sum.", nil, nil)
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
	count(descRefresh, &s.refreshes)
	count(descDropped, &s.dropped)
	count(descLimited, &s.crowded, "waiters")
	count(descLimited, &s.overfull, "flights")
	count(descPanics, &s.panics)
	count(descFiltered, &s.bogus, "bogus_nxdomain")
	count(descFiltered, &s.rebinds, "stop_dns_rebind")
	count(descErrors, &s.servfail, "SERVFAIL")
	count(descErrors, &s.refused, "REFUSED")
	count(descErrors, &s.formerr, "FORMERR")
	count(descErrors, &s.otherError, "other")
	ch <- s.waited.metric(s.atOnce.Load() + c.r.cfg.Cache.Stats().Hits)
	ch <- prometheus.MustNewConstMetric(descInFlight, prometheus.GaugeValue, float64(c.r.flights.len()))
}
