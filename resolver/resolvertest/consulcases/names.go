package consulcases

import "fmt"

// All returns every case.
func All() []Case {
	var all []Case
	for _, list := range [][]Case{invalid(), nodes(), services(), addresses(), health(), zone(), sizes()} {
		all = append(all, list...)
	}
	return all
}

// deny is the SOA that a negative answer carries by default.
const (
	soa  = "ns consul. 0 SOA ns.consul. hostmaster.consul. 1 3600 600 86400 0"
	deny = "NXDOMAIN aa\n" + soa
	none = "NOERROR aa\n" + soa
)

// asksFor puts one type to several names that are all answered alike.
func asksFor(want, qtype string, names ...string) []Ask {
	var out []Ask
	for _, n := range names {
		out = append(out, Ask{Name: n, Type: qtype, Want: want})
	}
	return out
}

// on is a registration of a service on node foo (127.0.0.1); service is what is
// inside the object.
func on(service string) string { return onNode("foo", "127.0.0.1", service) }

func onNode(node, addr, service string) string {
	return fmt.Sprintf(`{"Node":%q,"Address":%q,"Service":{%s}}`, node, addr, service)
}

// checked is a registration with one check.
func checked(node, addr, service, check string) string {
	return fmt.Sprintf(`{"Node":%q,"Address":%q,"Service":{%s},"Check":{%s}}`, node, addr, service, check)
}

const (
	db  = `"Service":"db","Tags":["primary"],"Port":12345`
	foo = `{"Node":"foo","Address":"127.0.0.1"}`
)

func invalid() []Case {
	return []Case{
		{
			Name: "names that mean nothing are denied with one SOA",
			Of:   "TestDNS_InvalidQueries",
			Asks: asksFor(deny, "SRV", "query.consul.", "foo.node.dc1.extra.more.consul.",
				"foo.service.dc1.extra.more.consul.", "foo.query.dc1.extra.more.consul.", "foo.service.dc1.extra.consul.",
				"foo.service.a.b.c.consul."),
		},
		{
			Name: "the apex and empty non-terminals are NODATA",
			Of:   "TestDNS_InvalidQueries",
			Asks: append(asksFor(none, "A", "consul.", "node.consul.", "service.consul.", "addr.consul.", "dc1.consul.",
				"dc.consul.", "dc1.dc.consul.", "service.dc1.consul.", "node.dc1.dc.consul.", "_tcp.service.consul."),
				asksFor(none, "SRV", "_tcp.consul.", "_tcp.dc1.consul.")...),
			Difference: "Consul says NXDOMAIN, which tells resolvers that minimise names or cut at NXDOMAIN (RFC 8020) that nothing is below",
		},
		{
			Name: "a name that does not exist",
			Of:   "TestDNS_NonExistentLookup",
			Asks: append(asksFor(deny, "ANY", "nonexisting.consul."), asksFor(deny, "A", "nonexisting.service.consul.",
				"nonexisting.node.consul.", "nonexisting.addr.consul.", "7f00000.addr.consul.", "zz000001.addr.consul.")...),
		},
		{
			Name: "another datacenter is denied",
			Of:   "TestDNS_NonExistentDC_Server, TestDNS_NonExistentDC_RPC",
			Asks: append(asksFor(deny, "ANY", "consul.service.dc2.consul.", "consul.service.dc2.dc.consul."),
				asksFor(deny, "A", "server1.node.dc2.consul.")...),
		},
		{
			Name:     "labels of the locality",
			Of:       "TestDNS_ParseLocality, TestDNS_EffectiveDatacenter",
			Register: []string{on(db)},
			Asks: append(
				asksFor("NOERROR aa\nan db.service.dc1.consul. 0 A 127.0.0.1", "A", "db.service.dc1.consul."),
				append(asksFor("NOERROR aa\nan db.service.dc1.dc.consul. 0 A 127.0.0.1", "A", "db.service.dc1.dc.consul."),
					asksFor(deny, "A", "db.service.one.peer.consul.", "db.service.dc1.peer.consul.", "db.service.dc1.ns.consul.",
						"db.service.dc1.ap.consul.", "db.service.default.ns.dc1.dc.consul.", "db.service.one.peer.dc1.dc.consul.")...)...),
		},
		{
			Name:     "forms of connect, gateways, virtual addresses, queries and peers are denied",
			Of:       "TestDNS_ConnectServiceLookup, TestDNS_IngressServiceLookup, TestDNS_VirtualIPLookup, TestDNS_CE_PeeredServices",
			Register: []string{on(db)},
			Asks: append(asksFor(deny, "A", "db.connect.consul.", "db.ingress.consul.", "db.ingress.dc1.consul.", "db.virtual.consul.",
				"db.virtual.frontend.consul.", "db.query.consul."), asksFor(deny, "SRV", "_db._tcp.query.consul.", "web-proxy.service.peer1.peer.consul.")...),
			Difference: "these parts of Consul don't exist here",
		},
		{
			Name:     "the question comes back letter by letter",
			Of:       "TestDNS_ServiceLookup_CaseInsensitive",
			Register: []string{on(`"Service":"Db","Tags":["Primary"],"Port":12345`)},
			Asks: []Ask{
				{Name: "dB.SeRvIcE.CoNsUl.", Type: "A", Want: "NOERROR aa\nan dB.SeRvIcE.CoNsUl. 0 A 127.0.0.1"},
				{Name: "pRIMARY.db.service.consul.", Type: "A", Want: "NOERROR aa\nan pRIMARY.db.service.consul. 0 A 127.0.0.1"},
			},
		},
	}
}

func nodes() []Case {
	const meta = `{"Node":"foo","Address":"127.0.0.1","NodeMeta":{"key":"value"}}`
	const meta2 = `{"Node":"bar","Address":"127.0.0.1","NodeMeta":{"rfc1035-00":"value0","key0":"value1"}}`
	return []Case{
		{
			Name:     "a node",
			Of:       "TestDNS_NodeLookup, TestDNS_NodeLookup_ANY",
			Register: []string{meta},
			Asks: []Ask{
				{Name: "foo.node.consul.", Type: "ANY", Want: "NOERROR aa\nan foo.node.consul. 0 A 127.0.0.1\nan foo.node.consul. 0 TXT \"key=value\""},
				{Name: "foo.node.consul.", Type: "A", Want: "NOERROR aa\nan foo.node.consul. 0 A 127.0.0.1\nar foo.node.consul. 0 TXT \"key=value\""},
				{Name: "foo.node.dc1.consul.", Type: "ANY", Want: "NOERROR aa\nan foo.node.dc1.consul. 0 A 127.0.0.1\nan foo.node.dc1.consul. 0 TXT \"key=value\""},
				{Name: "nofoo.node.dc1.consul.", Type: "ANY", Want: deny},
			},
		},
		{
			Name:     "types and families that a node lacks are NODATA with the SOA",
			Of:       "TestDNS_NodeLookup",
			Register: []string{foo},
			Asks: append(append(asksFor(none, "AAAA", "foo.node.consul."), asksFor(none, "MX", "foo.node.consul.")...),
				append(asksFor(none, "TXT", "foo.node.consul."), asksFor(deny, "MX", "nofoo.node.consul.")...)...),
			Difference: "Consul leaves out the SOA, so that nothing may remember the absence, and says NOERROR for nodes that don't exist",
		},
		{
			Name:     "node names in any letter case",
			Of:       "TestDNS_NodeLookup_CaseInsensitive",
			Register: []string{`{"Node":"Foo","Address":"127.0.0.1"}`},
			Asks:     asksFor("NOERROR aa\nan fOO.node.dc1.consul. 0 A 127.0.0.1", "ANY", "fOO.node.dc1.consul."),
		},
		{
			Name:     "node names with dots",
			Of:       "TestDNS_NodeLookup_PeriodName",
			Register: []string{`{"Node":"foo.bar","Address":"127.0.0.1"}`},
			Asks:     asksFor("NOERROR aa\nan foo.bar.node.consul. 0 A 127.0.0.1", "ANY", "foo.bar.node.consul."),
		},
		{
			Name:     "a node by its ID or the beginning of it",
			Register: []string{`{"Node":"foo","Address":"127.0.0.1","ID":"40e4a748-2192-161a-0510-9bf59fe950b5"}`},
			Asks: append(asksFor("NOERROR aa\nan 40e4a748-2192-161a-0510-9bf59fe950b5.node.consul. 0 A 127.0.0.1", "A",
				"40e4a748-2192-161a-0510-9bf59fe950b5.node.consul."),
				append(asksFor("NOERROR aa\nan 40e4A748.node.consul. 0 A 127.0.0.1", "A", "40e4A748.node.consul."),
					asksFor(deny, "A", "40e4a749.node.consul.", "4.node.consul.")...)...),
		},
		{
			Name:     "a node with an IPv6 address",
			Of:       "TestDNS_NodeLookup_AAAA",
			Register: []string{`{"Node":"bar","Address":"::4242:4242"}`},
			Asks: append(asksFor("NOERROR aa\nan bar.node.consul. 0 AAAA ::4242:4242", "AAAA", "bar.node.consul."),
				append(asksFor("NOERROR aa\nan bar.node.dc1.consul. 0 AAAA ::4242:4242", "ANY", "bar.node.dc1.consul."), asksFor(none, "A", "bar.node.consul.")...)...),
		},
		{
			Name:     "a node whose address is a name",
			Of:       "TestDNS_NodeLookup_CNAME",
			Register: []string{`{"Node":"google","Address":"www.google.com","NodeMeta":{"key":"value"}}`},
			Upstream: []string{"www.google.com. 60 IN CNAME google.com.", "google.com. 60 IN A 1.2.3.4", "google.com. 60 IN TXT \"ignored\""},
			Asks: []Ask{{Name: "google.node.consul.", Type: "ANY", UDPSize: 8192, Want: `NOERROR aa
				an google.com. 60 A 1.2.3.4
				an google.node.consul. 0 CNAME www.google.com.
				an google.node.consul. 0 TXT "key=value"
				an www.google.com. 60 CNAME google.com.`}},
		},
		{
			Name:     "metadata as TXT",
			Of:       "TestDNS_NodeLookup_TXT, TestDNS_NodeLookup_TXT_DontSuppress, TestDNS_NodeLookup_ANY_DontSuppressTXT",
			Config:   `{"dns_config":{"enable_additional_node_meta_txt":false}}`,
			Register: []string{meta2},
			Asks: []Ask{
				{Name: "bar.node.consul.", Type: "TXT", Want: "NOERROR aa\nan bar.node.consul. 0 TXT \"key0=value1\"\nan bar.node.consul. 0 TXT \"value0\""},
				{Name: "bar.node.consul.", Type: "ANY", Want: "NOERROR aa\nan bar.node.consul. 0 A 127.0.0.1\nan bar.node.consul. 0 TXT \"key0=value1\"\nan bar.node.consul. 0 TXT \"value0\""},
				{Name: "bar.node.consul.", Type: "A", Want: "NOERROR aa\nan bar.node.consul. 0 A 127.0.0.1"},
			},
		},
		{
			Name:   "node_ttl on A, AAAA and CNAME",
			Of:     "TestDNS_NodeLookup_TTL",
			Config: `{"dns_config":{"node_ttl":"10s"}}`,
			Register: []string{foo, `{"Node":"bar","Address":"::4242:4242"}`,
				`{"Node":"google","Address":"www.google.com"}`},
			Upstream: []string{"www.google.com. 60 IN A 1.2.3.4"},
			Asks: []Ask{
				{Name: "foo.node.consul.", Type: "ANY", Want: "NOERROR aa\nan foo.node.consul. 10 A 127.0.0.1"},
				{Name: "bar.node.consul.", Type: "ANY", Want: "NOERROR aa\nan bar.node.consul. 10 AAAA ::4242:4242"},
				{Name: "google.node.consul.", Type: "A", Want: "NOERROR aa\nan google.node.consul. 10 CNAME www.google.com.\nan www.google.com. 60 A 1.2.3.4"},
			},
		},
		{
			Name:     "an encoded address",
			Of:       "TestDNS_AddressLookup, TestDNS_AddressLookupANY, TestDNS_AddressLookupIPV6",
			Register: []string{foo},
			Asks: append(append(asksFor("NOERROR aa\nan 7f000001.addr.dc1.consul. 0 A 127.0.0.1", "A", "7f000001.addr.dc1.consul."),
				asksFor("NOERROR aa\nan 7f000001.addr.dc1.consul. 0 A 127.0.0.1", "ANY", "7f000001.addr.dc1.consul.")...),
				append(asksFor("NOERROR aa\nan 2607002040050808000000000000200e.addr.consul. 0 AAAA 2607:20:4005:808::200e", "AAAA", "2607002040050808000000000000200e.addr.consul."),
					asksFor("NOERROR aa\nan 7F000001.addr.what.ever.consul. 0 A 127.0.0.1", "A", "7F000001.addr.what.ever.consul.")...)...),
		},
		{
			Name:       "an encoded address asked for another type",
			Of:         "TestDNS_AddressLookupInvalidType, TestDNS_AddressLookupIPV6InvalidType",
			Asks:       append(asksFor(none, "SRV", "7f000001.addr.dc1.consul.", "2607002040050808000000000000200e.addr.consul."), asksFor(none, "AAAA", "7f000001.addr.dc1.consul.")...),
			Difference: "Consul puts the address into the additional section and no SOA, so that nothing may remember the absence",
		},
	}
}

// many registers n instances of a service, each on a node of its own.
func many(n int, service string) []string {
	var out []string
	for i := range n {
		out = append(out, onNode(fmt.Sprintf("node%d", i), fmt.Sprintf("10.%d.%d.%d", 1+i>>16, i>>8&255, i&255),
			fmt.Sprintf(`"Service":%q,"Port":%d`, service, 8000)))
	}
	return out
}
