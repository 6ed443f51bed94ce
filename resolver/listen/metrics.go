package listen

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters count what one loop, or all TCP connections, did. The padding keeps loops on different CPUs from sharing a cache line.
type counters struct {
	_        [64]byte
	queries  atomic.Uint64
	replies  atomic.Uint64
	drops    atomic.Uint64
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64
	kinds    kindTable // of replies
	_        [64]byte
}

// Stats is what a Listener did over one transport since it was made.
type Stats struct {
	Queries    uint64 // messages received
	Replies    uint64 // messages sent
	Drops      uint64 // queries without a reply, and replies that could not be sent
	QueryBytes uint64
	ReplyBytes uint64
}

func (s *Stats) add(c *counters) {
	s.Queries += c.queries.Load()
	s.Replies += c.replies.Load()
	s.Drops += c.drops.Load()
	s.QueryBytes += c.bytesIn.Load()
	s.ReplyBytes += c.bytesOut.Load()
}

// UDP returns the sums over all UDP sockets. Safe for concurrent use.
func (l *Listener) UDP() (s Stats) {
	for _, u := range l.udp {
		s.add(&u.loop)
		s.add(&u.late)
	}
	return s
}

// TCP returns the sums over all TCP connections. Safe for concurrent use.
func (l *Listener) TCP() (s Stats) {
	s.add(&l.tcp.opened)
	return s
}

var (
	queriesDesc = prometheus.NewDesc("meibo_dns_queries_total", "DNS messages received.", []string{"transport"}, nil)
	repliesDesc = prometheus.NewDesc("meibo_dns_replies_total", "DNS messages sent.", []string{"transport"}, nil)
	dropsDesc   = prometheus.NewDesc("meibo_dns_drops_total",
		"DNS messages that got no reply: no queries at all, or the reply could not be sent.", []string{"transport"}, nil)
	queryBytesDesc = prometheus.NewDesc("meibo_dns_query_bytes_total", "Bytes of DNS messages received.", []string{"transport"}, nil)
	replyBytesDesc = prometheus.NewDesc("meibo_dns_reply_bytes_total", "Bytes of DNS messages sent.", []string{"transport"}, nil)
	connsDesc      = prometheus.NewDesc("meibo_dns_tcp_connections", "Open DNS connections over TCP.", nil, nil)
	refusedDesc    = prometheus.NewDesc("meibo_dns_tcp_connections_refused_total",
		"DNS connections closed at once because there were too many.", nil, nil)
)

// Collector returns the Prometheus collector of the Listener; counters are summed when it is read.
func (l *Listener) Collector() prometheus.Collector { return collector{l} }

type collector struct{ l *Listener }

// Describe implements the [prometheus.Collector] interface.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queriesDesc, repliesDesc, dropsDesc, queryBytesDesc, replyBytesDesc, connsDesc, refusedDesc, answersDesc} {
		ch <- d
	}
}

// Collect implements the [prometheus.Collector] interface.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, t := range []struct {
		name string
		s    Stats
	}{{"udp", c.l.UDP()}, {"tcp", c.l.TCP()}} {
		for _, m := range []struct {
			desc *prometheus.Desc
			n    uint64
		}{
			{queriesDesc, t.s.Queries}, {repliesDesc, t.s.Replies}, {dropsDesc, t.s.Drops},
			{queryBytesDesc, t.s.QueryBytes}, {replyBytesDesc, t.s.ReplyBytes},
		} {
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.n), t.name)
		}
	}
	c.l.collectKinds(ch)
	ch <- prometheus.MustNewConstMetric(connsDesc, prometheus.GaugeValue, float64(c.l.tcp.open()))
	ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(c.l.tcp.refused.Load()))
}
