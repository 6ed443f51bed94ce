package consulcases

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

var sprintf = fmt.Sprintf

// taggedServices turns tagged addresses of a node into those of a service.
func taggedServices(tagged string) string {
	var out []string
	for _, pair := range strings.Split(tagged, ",") {
		key, addr, _ := strings.Cut(pair, `":"`)
		out = append(out, key+`":{"Address":"`+addr+`,"Port":80}`)
	}
	return strings.Join(out, ",")
}

// oneCNAME checks for one CNAME, and the A record of its target.
func oneCNAME(m *dns.Msg, _ int) string {
	if len(m.Answer) != 2 {
		return fmt.Sprintf("%d answers, want a CNAME and its address:\n%s", len(m.Answer), Text(m))
	}
	c, ok := m.Answer[0].(*dns.CNAME)
	if !ok || m.Answer[1].Header().Name != c.Target {
		return "the address is not the CNAME's:\n" + Text(m)
	}
	return ""
}

// endsInCNAME checks for a chain that is given up.
func endsInCNAME(m *dns.Msg, _ int) string {
	if len(m.Answer) == 0 || m.Answer[len(m.Answer)-1].Header().Rrtype != dns.TypeCNAME {
		return "not a chain of CNAMEs:\n" + Text(m)
	}
	return ""
}

func health() []Case {
	inst := func(node, addr, service, check string) string {
		return checked(node, addr, service, `"Node":"`+node+`",`+check)
	}
	four := []string{
		inst("foo", "127.0.0.1", `"Service":"db","Port":1`, `"CheckID":"serf","Status":"critical"`),
		inst("bar", "127.0.0.2", `"Service":"db","Port":1`, `"CheckID":"serf","Status":"critical"`),
		inst("baz", "127.0.0.3", `"Service":"db","Port":1`, `"CheckID":"db","ServiceID":"db","Status":"critical"`),
		onNode("ok", "127.0.0.4", `"Service":"db","Port":1`),
		inst("warn", "127.0.0.5", `"Service":"db","Port":1`, `"CheckID":"db","ServiceID":"db","Status":"warning"`),
	}
	return []Case{
		{
			Name:     "critical instances are left out, others not",
			Of:       "TestDNS_ServiceLookup_FilterCritical",
			Register: four,
			Asks:     asksFor("NOERROR aa\nan db.service.consul. 0 A 127.0.0.4\nan db.service.consul. 0 A 127.0.0.5", "ANY", "db.service.consul."),
		},
		{
			Name:     "nothing left is NXDOMAIN",
			Of:       "TestDNS_ServiceLookup_OnlyFailing",
			Register: four[:3],
			Asks:     asksFor(deny, "ANY", "db.service.consul."),
		},
		{
			Name:     "only_passing leaves out warnings",
			Of:       "TestDNS_ServiceLookup_OnlyPassing",
			Config:   `{"dns_config":{"only_passing":true}}`,
			Register: four,
			Asks:     asksFor("NOERROR aa\nan db.service.consul. 0 A 127.0.0.4", "ANY", "db.service.consul."),
		},
		{
			Name:     "another service's check on the node changes nothing",
			Register: []string{on(db), checked("foo", "127.0.0.1", `"Service":"other","Port":1`, `"Node":"foo","CheckID":"o","ServiceID":"other","Status":"critical"`)},
			Asks:     asksFor("NOERROR aa\nan db.service.consul. 0 A 127.0.0.1", "A", "db.service.consul."),
		},
	}
}

func zone() []Case {
	const altConfig = `{"alt_domain":"test-domain."}`
	return []Case{
		{
			Name: "NS and SOA",
			Of:   "TestDNS_NSRecords",
			Asks: []Ask{
				{Name: "consul.", Type: "NS", Want: "NOERROR aa\nan consul. 0 NS server1.node.dc1.consul.\nar server1.node.dc1.consul. 0 A 127.0.0.1"},
				{Name: "consul.", Type: "SOA", Want: "NOERROR aa\nan consul. 0 SOA ns.consul. hostmaster.consul. 1 3600 600 86400 0\nns consul. 0 NS server1.node.dc1.consul.\nar server1.node.dc1.consul. 0 A 127.0.0.1"},
			},
		},
		{
			Name:       "NS and SOA of names in the zone",
			Of:         "TestDNS_NSRecords",
			Difference: "Consul gives the zone's own records in the answer section for every name in it; they are no records of these names",
			Register:   []string{on(`"Service":"db","Port":1`)},
			Asks: []Ask{
				{Name: "something.node.consul.", Type: "NS", Want: deny},
				{Name: "foo.node.consul.", Type: "NS", Want: none},
				{Name: "foo.node.consul.", Type: "SOA", Want: none},
				{Name: "db.service.consul.", Type: "SOA", Want: none},
				{Name: "service.consul.", Type: "NS", Want: none},
				{Name: "7f000001.addr.consul.", Type: "SOA", Want: none},
			},
		},
		{
			Name:   "NS and SOA of the alternative domain",
			Of:     "TestDNS_NSRecords_AltDomain, TestDNS_AltDomains_SOA",
			Config: altConfig,
			Asks: []Ask{
				{Name: "test-domain.", Type: "SOA", Want: "NOERROR aa\nan test-domain. 0 SOA ns.test-domain. hostmaster.test-domain. 1 3600 600 86400 0\nns test-domain. 0 NS server1.node.dc1.test-domain.\nar server1.node.dc1.test-domain. 0 A 127.0.0.1"},
				{Name: "nofoo.node.test-domain.", Type: "A", Want: "NXDOMAIN aa\nns test-domain. 0 SOA ns.test-domain. hostmaster.test-domain. 1 3600 600 86400 0"},
				{Name: "nofoo.node.consul.", Type: "A", Want: deny},
			},
		},
		{
			Name:     "services under the alternative domain",
			Of:       "TestDNS_AltDomains_Service, TestDNS_ServiceLookup_AltDomain variants",
			Config:   altConfig,
			Register: []string{`{"Node":"test-node","Address":"127.0.0.1","NodeMeta":{"key":"value"},"Service":{"Service":"db","Tags":["primary"],"Port":12345}}`, on(`"Service":"own","Port":1,"Address":"127.0.0.2"`)},
			Asks: []Ask{
				{Name: "db.service.test-domain.", Type: "SRV", Want: "NOERROR aa\nan db.service.test-domain. 0 SRV 1 1 12345 test-node.node.dc1.test-domain.\nar test-node.node.dc1.test-domain. 0 A 127.0.0.1\nar test-node.node.dc1.test-domain. 0 TXT \"key=value\""},
				{Name: "db.service.dc1.consul.", Type: "SRV", Want: "NOERROR aa\nan db.service.dc1.consul. 0 SRV 1 1 12345 test-node.node.dc1.consul.\nar test-node.node.dc1.consul. 0 A 127.0.0.1\nar test-node.node.dc1.consul. 0 TXT \"key=value\""},
				{Name: "own.service.test-domain.", Type: "SRV", Want: "NOERROR aa\nan own.service.test-domain. 0 SRV 1 1 1 7f000002.addr.dc1.test-domain.\nar 7f000002.addr.dc1.test-domain. 0 A 127.0.0.2"},
			},
		},
		{
			Name:     "an alternative domain below the other",
			Of:       "TestDNS_AltDomains_Overlap",
			Config:   `{"alt_domain":"test.consul."}`,
			Register: []string{`{"Node":"test-node","Address":"127.0.0.1"}`},
			Asks: append(asksFor("NOERROR aa\nan test-node.node.consul. 0 A 127.0.0.1", "A", "test-node.node.consul."),
				append(asksFor("NOERROR aa\nan test-node.node.test.consul. 0 A 127.0.0.1", "A", "test-node.node.test.consul."),
					asksFor("NOERROR aa\nan test-node.node.dc1.test.consul. 0 A 127.0.0.1", "A", "test-node.node.dc1.test.consul.")...)...),
		},
		{
			Name:     "a datacenter that looks like the alternative domain",
			Of:       "TestDNS_AltDomain_DCName_Overlap",
			Config:   `{"datacenter":"dc-test","alt_domain":"test.consul."}`,
			Register: []string{`{"Node":"test-node","Address":"127.0.0.1"}`},
			Asks: append(asksFor("NOERROR aa\nan test-node.node.dc-test.consul. 0 A 127.0.0.1", "A", "test-node.node.dc-test.consul."),
				asksFor("NOERROR aa\nan test-node.node.dc-test.test.consul. 0 A 127.0.0.1", "A", "test-node.node.dc-test.test.consul.")...),
		},
		{
			Name:   "the SOA as configured",
			Of:     "TestDNS_SOA_Settings",
			Config: `{"dns_config":{"soa":{"min_ttl":60,"expire":43200,"refresh":1800,"retry":300}}}`,
			Asks: []Ask{
				{Name: "nofoo.node.dc1.consul.", Type: "ANY", Want: "NXDOMAIN aa\nns consul. 60 SOA ns.consul. hostmaster.consul. 1 1800 300 43200 60"},
				{Name: "consul.", Type: "A", Want: "NOERROR aa\nns consul. 60 SOA ns.consul. hostmaster.consul. 1 1800 300 43200 60"},
			},
		},
		{
			Name:   "the SOA configured in part",
			Of:     "TestDNS_SOA_Settings",
			Config: `{"dns_config":{"soa":{"min_ttl":30}}}`,
			Asks:   []Ask{{Name: "nofoo.node.dc1.consul.", Type: "ANY", Want: "NXDOMAIN aa\nns consul. 30 SOA ns.consul. hostmaster.consul. 1 3600 600 86400 30"}},
		},
		{
			Name:       "targets carry the configured spelling of the domain",
			Of:         "TestDNS_ServiceLookup",
			Config:     `{"domain":"Example.Consul."}`,
			Register:   []string{on(db)},
			Asks:       []Ask{{Name: "db.service.EXAMPLE.consul.", Type: "SRV", Want: "NOERROR aa\nan db.service.EXAMPLE.consul. 0 SRV 1 1 12345 foo.node.dc1.Example.Consul.\nar foo.node.dc1.Example.Consul. 0 A 127.0.0.1"}},
			Difference: "Consul writes the client's letter case into targets, which makes every client's answer another one",
		},
		{
			Name: "PTR of nodes and services",
			Of:   "TestDNS_ReverseLookup, _IPV6, TestDNS_ServiceReverseLookup, _IPV6, TestDNS_ServiceReverseLookupNodeAddress",
			Register: []string{`{"Node":"foo2","Address":"198.18.0.2"}`, `{"Node":"bar","Address":"::4242:4242"}`,
				onNode("svc", "198.18.0.9", `"Service":"db","Port":80,"Address":"198.18.0.3"`),
				onNode("svc", "198.18.0.9", `"Service":"db6","Port":80,"Address":"2607:20:4005:808::200e"`),
				onNode("svc", "198.18.0.9", `"Service":"same","Port":80,"Address":"198.18.0.9"`)},
			Asks: []Ask{
				{Name: "2.0.18.198.in-addr.arpa.", Type: "ANY", Want: "NOERROR aa\nan 2.0.18.198.in-addr.arpa. 0 PTR foo2.node.dc1.consul."},
				{Name: "2.0.18.198.IN-addr.arpa.", Type: "PTR", Want: "NOERROR aa\nan 2.0.18.198.IN-addr.arpa. 0 PTR foo2.node.dc1.consul."},
				{Name: "2.4.2.4.2.4.2.4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.", Type: "PTR", Want: "NOERROR aa\nan 2.4.2.4.2.4.2.4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa. 0 PTR bar.node.dc1.consul."},
				{Name: "3.0.18.198.in-addr.arpa.", Type: "PTR", Want: "NOERROR aa\nan 3.0.18.198.in-addr.arpa. 0 PTR db.service.dc1.consul."},
				{Name: "e.0.0.2.0.0.0.0.0.0.0.0.0.0.0.0.8.0.8.0.5.0.0.4.0.2.0.0.7.0.6.2.ip6.arpa.", Type: "PTR", Want: "NOERROR aa\nan e.0.0.2.0.0.0.0.0.0.0.0.0.0.0.0.8.0.8.0.5.0.0.4.0.2.0.0.7.0.6.2.ip6.arpa. 0 PTR db6.service.dc1.consul."},
				{Name: "9.0.18.198.in-addr.arpa.", Type: "PTR", Want: "NOERROR aa\nan 9.0.18.198.in-addr.arpa. 0 PTR svc.node.dc1.consul."},
			},
		},
		{
			Name:     "PTR under another domain",
			Of:       "TestDNS_ReverseLookup_CustomDomain, TestDNS_ServiceReverseLookup_CustomDomain",
			Config:   `{"domain":"custom."}`,
			Register: []string{`{"Node":"foo2","Address":"198.18.0.2"}`, onNode("svc", "198.18.0.9", `"Service":"db","Port":80,"Address":"198.18.0.3"`)},
			Asks: []Ask{
				{Name: "2.0.18.198.in-addr.arpa.", Type: "PTR", Want: "NOERROR aa\nan 2.0.18.198.in-addr.arpa. 0 PTR foo2.node.dc1.custom."},
				{Name: "3.0.18.198.in-addr.arpa.", Type: "PTR", Want: "NOERROR aa\nan 3.0.18.198.in-addr.arpa. 0 PTR db.service.dc1.custom."},
			},
		},
		{
			Name:       "an address that nobody has is asked for upstream",
			Of:         "TestDNS_ReverseLookup_NotFound",
			Upstream:   []string{"1.0.18.198.in-addr.arpa. 60 IN PTR upstream.example."},
			Asks:       []Ask{{Name: "1.0.18.198.in-addr.arpa.", Type: "PTR", Want: "NOERROR\nan 1.0.18.198.in-addr.arpa. 60 PTR upstream.example."}},
			Difference: "without a recursor Consul says NXDOMAIN for names that are not its own; here nobody does",
		},
		{
			Name:     "other names go to the recursor, its bits come along",
			Of:       "TestDNS_Recurse",
			Upstream: []string{"apple.com. 60 IN A 1.2.3.4"},
			Asks:     []Ask{{Name: "apple.com.", Type: "A", Want: "NOERROR\nan apple.com. 60 A 1.2.3.4"}},
		},
	}
}
