package consulcases

import (
	"fmt"

	"github.com/miekg/dns"
)

// shape is what an answer of a large service must be like.
type shape struct {
	answers, atLeast int // exactly, when not 0; at least
	atMost           int // octets
	tc               bool
	glue             bool // each SRV with its address, and no address without its SRV
}

func (s shape) check(m *dns.Msg, size int) string {
	switch n := len(m.Answer); {
	case s.answers > 0 && n != s.answers:
		return fmt.Sprintf("%d answers, want %d", n, s.answers)
	case n < s.atLeast:
		return fmt.Sprintf("%d answers, want at least %d", n, s.atLeast)
	case s.atMost > 0 && size > s.atMost:
		return fmt.Sprintf("%d octets, want at most %d", size, s.atMost)
	case m.Truncated != s.tc:
		return fmt.Sprintf("tc is %v, want %v", m.Truncated, s.tc)
	case s.glue:
		return checkGlue(m)
	}
	return ""
}

func checkGlue(m *dns.Msg) string {
	targets := make(map[string]bool)
	for _, rr := range m.Answer {
		targets[rr.(*dns.SRV).Target] = true
	}
	have := make(map[string]bool)
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeA {
			continue
		}
		if !targets[rr.Header().Name] {
			return "address of " + rr.Header().Name + " without its SRV record"
		}
		have[rr.Header().Name] = true
	}
	if len(have) != len(targets) {
		return fmt.Sprintf("%d of %d targets have their address", len(have), len(targets))
	}
	return ""
}

func sizes() []Case {
	hundred := many(100, "web")
	meta := `{"Node":"foo","Address":"127.0.0.1","NodeMeta":{"a":"` + fill(200) + `","b":"` + fill(200) + `","c":"` + fill(200) + `"},"Service":{"Service":"db","Port":1}}`
	web := func(qtype string, tcp bool, edns uint16, s shape) Ask {
		return Ask{Name: "web.service.consul.", Type: qtype, TCP: tcp, UDPSize: edns, Check: s.check}
	}
	return []Case{
		{
			Name:     "as many records as fit, without TC",
			Of:       "TestDNS_EDNS_Truncate_AgentSource, TestDNS_TCP_and_UDP_Truncate",
			Register: hundred,
			Asks: []Ask{
				web("A", false, 0, shape{atLeast: 29, atMost: 512}),
				web("A", false, 2048, shape{answers: 100, atMost: 2048}),
				web("A", true, 0, shape{answers: 100}),
				web("ANY", false, 8192, shape{answers: 100, atMost: 8192}),
				web("SRV", false, 0, shape{atLeast: 5, atMost: 512, glue: true}),
				web("SRV", false, 2048, shape{atLeast: 20, atMost: 2048, glue: true}),
				web("SRV", false, 65535, shape{answers: 100, glue: true}),
				web("SRV", true, 0, shape{answers: 100, glue: true}),
			},
			Difference: "Consul gives three records to clients without EDNS",
		},
		{
			Name:     "enable_truncate sets TC",
			Of:       "TestDNS_ServiceLookup_Truncate, TestDNS_ServiceLookup_LargeResponses",
			Config:   `{"dns_config":{"enable_truncate":true}}`,
			Register: hundred,
			Asks: []Ask{
				web("A", false, 0, shape{atLeast: 29, atMost: 512, tc: true}),
				web("SRV", false, 0, shape{atLeast: 5, atMost: 512, tc: true, glue: true}),
				web("SRV", false, 65535, shape{answers: 100, glue: true}),
				web("A", true, 0, shape{answers: 100}),
			},
		},
		{
			Name:     "udp_answer_limit holds for clients of 512 octets and never sets TC",
			Of:       "TestDNS_ServiceLookup_AnswerLimits",
			Config:   `{"dns_config":{"udp_answer_limit":3,"enable_truncate":true}}`,
			Register: many(12, "web"),
			Asks: []Ask{
				web("A", false, 0, shape{answers: 3, atMost: 512}),
				web("SRV", false, 0, shape{answers: 3, atMost: 512, glue: true}),
				web("A", false, 512, shape{answers: 3, atMost: 512}),
				web("A", false, 1232, shape{answers: 12}),
				web("A", true, 0, shape{answers: 12}),
			},
		},
		{
			Name:     "udp_answer_limit is at most eight",
			Of:       "TestDNS_ServiceLookup_AnswerLimits",
			Config:   `{"dns_config":{"udp_answer_limit":30}}`,
			Register: many(12, "web"),
			Asks:     []Ask{web("A", false, 0, shape{answers: 8, atMost: 512})},
		},
		{
			Name:     "a_record_limit holds on any transport, and not for SRV",
			Of:       "TestDNS_ServiceLookup_ARecordLimits",
			Config:   `{"dns_config":{"a_record_limit":5,"enable_truncate":true}}`,
			Register: many(20, "web"),
			Asks: []Ask{
				web("A", false, 0, shape{answers: 5}),
				web("A", false, 4096, shape{answers: 5}),
				web("A", true, 0, shape{answers: 5}),
				web("ANY", true, 0, shape{answers: 5}),
				web("SRV", true, 0, shape{answers: 20, glue: true}),
				web("SRV", false, 4096, shape{answers: 20, glue: true}),
			},
		},
		{
			Name:     "answers come in another order each time",
			Of:       "TestDNS_ServiceLookup_Randomize",
			Register: many(20, "web"),
			Asks:     []Ask{{Name: "web.service.consul.", Type: "A", Check: newOrders(2), Times: 10}},
		},
		{
			Name:     "metadata is the first to go",
			Register: []string{meta},
			Asks: []Ask{
				{Name: "db.service.consul.", Type: "SRV", Check: shape{answers: 1, atMost: 512, glue: true}.check},
				{Name: "foo.node.consul.", Type: "A", Check: shape{answers: 1, atMost: 512}.check},
			},
			Difference: "Consul drops metadata and OPT from every answer that it trims",
		},
		{
			Name:     "thousands of instances fill a message and no more",
			Of:       "TestDNS_TCP_and_UDP_Truncate",
			Register: many(5000, "web"),
			Asks: []Ask{
				web("A", true, 0, shape{atLeast: 3500, atMost: 65535}),
				web("A", false, 8192, shape{atLeast: 450, atMost: 8192}),
				web("SRV", true, 0, shape{atLeast: 500, atMost: 65535, glue: true}),
				web("SRV", false, 8192, shape{atLeast: 80, atMost: 8192, glue: true}),
			},
		},
		{
			Name:     "an OPT record comes back with ours, whatever is cut",
			Of:       "TestDNS_EDNS0",
			Register: hundred,
			Asks: []Ask{
				{Name: "web.service.consul.", Type: "SRV", UDPSize: 1232, Check: shape{atLeast: 10, atMost: 1232, glue: true}.check},
				{Name: "nofoo.node.consul.", Type: "A", UDPSize: 12345, Want: deny},
			},
			Difference: "Consul sends the client's size back; RFC 6891 section 6.2.4 wants the responder's own",
		},
	}
}

func fill(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'x'
	}
	return string(b)
}

// newOrders checks, over the last of ten answers, that there were several
// orders.
func newOrders(want int) func(*dns.Msg, int) string {
	seen, asked := make(map[string]bool), 0
	return func(m *dns.Msg, _ int) string {
		asked++
		order := ""
		for _, rr := range m.Answer {
			order += rr.String()
		}
		seen[order] = true
		if asked == 10 && len(seen) < want {
			return "ten answers, all in one order"
		}
		return ""
	}
}
