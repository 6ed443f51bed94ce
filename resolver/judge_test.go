package resolver

import (
	"reflect"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meibo/cache"
	"meibo/resolver/wire"
)

// What is taken for a plain answer is judged as it would be with all care.
func TestJudge_PlainAnswers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		rrs    []string
		change func(m *dns.Msg)
		plain  bool
	}{
		{name: "one set", rrs: []string{"www.example. 60 IN A 192.0.2.1", "www.example. 60 IN A 192.0.2.2"}, plain: true},
		{name: "TTLs that differ (RFC 2181 section 5.2)", rrs: []string{"www.example. 60 IN A 192.0.2.1", "www.example. 30 IN A 192.0.2.2"}, plain: true},
		{name: "TTL 0", rrs: []string{"www.example. 0 IN A 192.0.2.1"}, plain: true},
		{name: "a TTL above the limit", rrs: []string{"www.example. 604800 IN A 192.0.2.1"}},
		{name: "nothing"},
		{name: "an alias", rrs: []string{"www.example. 60 IN CNAME a.example.", "a.example. 60 IN A 192.0.2.1"}},
		{name: "off the chain", rrs: []string{"www.example. 60 IN A 192.0.2.1", "other.example. 60 IN A 192.0.2.2"}},
		{name: "another type", rrs: []string{"www.example. 60 IN TXT x"}},
		{name: "with a proof", rrs: []string{"www.example. 60 IN A 192.0.2.1", "www.example. 60 IN RRSIG A 8 2 60 20300101000000 20200101000000 1 example. AAAA"}},
		{name: "NXDOMAIN", rrs: []string{"www.example. 60 IN A 192.0.2.1"}, change: func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }},
		{name: "a proof beside", rrs: []string{"www.example. 60 IN A 192.0.2.1"}, change: func(m *dns.Msg) {
			m.Ns = append(m.Ns, &dns.NSEC{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 10}, NextDomain: "a.example."})
		}},
		{name: "a TTL above the limit beside", rrs: []string{"www.example. 60 IN A 192.0.2.1"}, change: func(m *dns.Msg) {
			m.Ns = append(m.Ns, &dns.NS{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 604800}, Ns: "ns.example."})
		}},
		{name: "cut", rrs: []string{"www.example. 60 IN A 192.0.2.1"}, change: func(m *dns.Msg) { m.Truncated = true }},
		{name: "an authority section", plain: true, rrs: []string{"www.example. 60 IN A 192.0.2.1"}, change: func(m *dns.Msg) {
			m.Ns = append(m.Ns, &dns.NS{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 10}, Ns: "ns.example."})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := new(dns.Msg).SetQuestion("www.example.", dns.TypeA)
			m.Response, m.Compress = true, true
			for _, s := range tc.rrs {
				rr, err := dns.NewRR(s)
				if err != nil {
					t.Fatal(err)
				}
				m.Answer = append(m.Answer, rr)
			}
			if tc.change != nil {
				tc.change(m)
			}
			packed, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			a, err := wire.ParseAnswer(packed)
			if err != nil {
				t.Fatal(err)
			}
			if a.IsPlain(86400) != tc.plain {
				t.Fatalf("plain: %v, want %v", a.IsPlain(86400), tc.plain)
			}
			if !tc.plain {
				return
			}
			c, err := cache.New(cache.Config{})
			if err != nil {
				t.Fatal(err)
			}
			r, err := New(Config{Cache: c})
			if err != nil {
				t.Fatal(err)
			}
			q := wire.NewQuery("\x03www\x07example\x00", wire.TypeA)
			j := r.judge(&Mount{}, q, a)
			rrs := a.RRs()
			r.capTTLs(rrs, false)
			if want := repack(q, a, rrs); !reflect.DeepEqual(j.answer.RRs(), want.RRs()) {
				t.Errorf("records %v, want %v", j.answer.RRs(), want.RRs())
			}
			ttl, _ := j.answer.MinTTL()
			if want := time.Duration(ttl) * time.Second; j.life != want || j.negative || j.bad || j.err != nil || j.alias != "" {
				t.Errorf("judged %+v, want a life of %v", j, want)
			}
		})
	}
}
