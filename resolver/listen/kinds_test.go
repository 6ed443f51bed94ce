package listen

import (
	"maps"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/resolver/wire"
)

func TestCollector_CountsAnswersByTypeAndResponseCode(t *testing.T) {
	paths(t, func(t *testing.T, cfg Config) {
		cfg.Loops = 1
		// Names that begin with "late" are answered NXDOMAIN from elsewhere, others NOERROR in place.
		cfg.Handler = handlerFunc(func(q *wire.Query, v wire.Verdict, dst []byte, reply func(*wire.Query, []byte)) []byte {
			if v != wire.OK {
				return wire.AppendError(dst, q, v.Rcode(), 0, "")
			}
			if strings.HasPrefix(wire.Name(q.Name()).String(), "late") {
				own := q.Clone()
				go func() { reply(own, wire.AppendError(nil, own, wire.RcodeNXDomain, 0, "")) }()
				return nil
			}
			return wire.AppendError(dst, q, wire.RcodeSuccess, 0, "")
		})
		l := start(t, cfg)
		u, c := dial(t, "udp", l.Addrs()[0]), dial(t, "tcp", l.Addrs()[0])
		ask := func(name string, typ wire.Type) {
			n, err := wire.ParseName(name)
			if err != nil {
				t.Fatal(err)
			}
			msg := wire.AppendQuery(nil, wire.NewQuery(n, typ), 7, false)
			write(t, u, msg)
			readDatagram(t, u)
			write(t, c, frame(msg))
			readFrame(t, c)
		}
		for range 3 {
			ask("a.example.", wire.TypeA)
		}
		ask("a.example.", wire.TypeANY)
		ask("late.example.", wire.TypeSRV)
		ask("a.example.", 999)
		two := query(t, 1, "a.example.")
		two[5] = 2 // questions, it says
		write(t, u, two)
		readDatagram(t, u)
		badVersion := append(query(t, 1, "a.example."), 0, 0, 41, 4, 0, 0, 7, 0, 0, 0, 0)
		badVersion[11] = 1
		write(t, u, badVersion)
		readDatagram(t, u)

		want := map[string]float64{
			"A NOERROR": 6, "ANY NOERROR": 2, "SRV NXDOMAIN": 2, "other NOERROR": 2, "other FORMERR": 1, "other BADVERS": 1,
		}
		got := map[string]float64{}
		eventually(t, func() bool { got = answers(t, l); return maps.Equal(got, want) })
	})
}

// answers are the counted answers by type and response code.
func answers(t *testing.T, l *Listener) map[string]float64 {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(l.Collector())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "meibo_dns_answers_total" {
			continue
		}
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			got[labels["type"]+" "+labels["rcode"]] = m.GetCounter().GetValue()
		}
	}
	return got
}
