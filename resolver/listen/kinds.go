package listen

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/resolver/wire"
)

// Replies are counted by the type that was asked for and the response code, in a fixed table: the loops add up in it
// without looking anything up.
const (
	badVers = 16 // the slot of the one response code of ours that the header has no room for
	rcodes  = badVers + 1
	kinds   = len(counted) * rcodes
)

// counted are the types that are counted by themselves; the first stands for all others.
var counted = [...]wire.Type{
	wire.TypeNone, wire.TypeA, wire.TypeAAAA, wire.TypeSRV, wire.TypePTR, wire.TypeCNAME, wire.TypeMX, wire.TypeNS, wire.TypeSOA,
	wire.TypeTXT, wire.TypeHTTPS, wire.TypeSVCB, wire.TypeDS, wire.TypeDNSKEY, wire.TypeCAA, wire.TypeANY,
}

// places is where in counted each type is.
var places = func() (p [258]uint8) {
	for i, t := range counted {
		p[t] = uint8(i)
	}
	return p
}()

// kindOf is the place in the table of a reply to q, of which the parser said v.
func kindOf(q *wire.Query, v wire.Verdict, reply []byte) int {
	if len(reply) < 4 {
		return 0 // no DNS
	}
	place, rcode := 0, int(reply[3]&0xf)
	switch {
	case v == wire.BadVers:
		rcode = badVers
	case v == wire.OK && int(q.Type) < len(places):
		place = int(places[q.Type])
	}
	return place*rcodes + rcode
}

// kindTable counts replies by kind.
type kindTable [kinds]atomic.Uint64

var answersDesc = prometheus.NewDesc("meibo_dns_answers_total", "DNS queries that were answered, by the type asked for and the response code.", []string{"type", "rcode"}, nil)

// collectKinds sums over all sockets. What never happened is left out.
func (l *Listener) collectKinds(ch chan<- prometheus.Metric) {
	var sums [kinds]uint64
	add := func(c *counters) {
		for i := range c.kinds {
			sums[i] += c.kinds[i].Load()
		}
	}
	for _, u := range l.udp {
		add(&u.loop)
		add(&u.late)
	}
	add(&l.tcp.opened)
	for i, n := range sums {
		if n == 0 {
			continue
		}
		typ, rcode := "other", wire.RcodeString(uint16(i%rcodes))
		if place := i / rcodes; place > 0 {
			typ = wire.TypeString(counted[place])
		}
		ch <- prometheus.MustNewConstMetric(answersDesc, prometheus.CounterValue, float64(n), typ, rcode)
	}
}
