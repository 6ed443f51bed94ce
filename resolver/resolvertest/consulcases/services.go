package consulcases

func services() []Case {
	const srv = `NOERROR aa
		an %[1]s 0 SRV 1 1 12345 foo.node.dc1.consul.
		ar foo.node.dc1.consul. 0 A 127.0.0.1`
	srvOf := func(names ...string) (out []Ask) {
		for _, n := range names {
			out = append(out, Ask{Name: n, Type: "SRV", Want: sprintf(srv, n)})
		}
		return out
	}
	return []Case{
		{
			Name:     "SRV of a service",
			Of:       "TestDNS_ServiceLookup",
			Register: []string{on(db)},
			Asks: append(srvOf("db.service.consul.", "primary.db.service.consul."),
				append(asksFor(deny, "SRV", "nodb.service.consul."), asksFor("NOERROR aa\nan db.service.consul. 0 A 127.0.0.1", "A", "db.service.consul.")...)...),
		},
		{
			Name:     "tags with dots, and no two tags",
			Of:       "TestDNS_ServiceLookup_TagPeriod, TestDNS_ServiceLookup_ExtraTags",
			Register: []string{on(`"Service":"db","Tags":["v1.primary"],"Port":12345`)},
			Asks: append(srvOf("v1.primary.db.service.consul."),
				asksFor(deny, "SRV", "v1.primary2.db.service.consul.", "dummy.v1.primary.db.service.consul.")...),
		},
		{
			Name:       "the right end of a tag with dots is an empty non-terminal",
			Register:   []string{on(`"Service":"db","Tags":["v1.primary"],"Port":12345`)},
			Asks:       asksFor(none, "SRV", "primary.db.service.consul."),
			Difference: "Consul says NXDOMAIN although v1.primary.db exists below (RFC 8020)",
		},
		{
			Name: "tags and RFC 2782 find the instance with the tag",
			Of:   "TestDNS_ServiceAddressWithTagLookup",
			Register: []string{
				on(`"Service":"db","ID":"a","Tags":["primary"],"Address":"127.0.0.1","Port":12345`),
				on(`"Service":"db","ID":"b","Tags":["secondary"],"Address":"127.0.0.2","Port":12345`)},
			Asks: []Ask{
				{Name: "_db._primary.service.consul.", Type: "SRV", Want: "NOERROR aa\nan _db._primary.service.consul. 0 SRV 1 1 12345 7f000001.addr.dc1.consul.\nar 7f000001.addr.dc1.consul. 0 A 127.0.0.1"},
				{Name: "primary.db.service.consul.", Type: "SRV", Want: "NOERROR aa\nan primary.db.service.consul. 0 SRV 1 1 12345 7f000001.addr.dc1.consul.\nar 7f000001.addr.dc1.consul. 0 A 127.0.0.1"},
				{Name: "banana._db._primary.service.consul.", Type: "SRV", Want: deny},
			},
		},
		{
			Name:     "RFC 2782 with and without .service",
			Of:       "TestDNS_ServiceLookup_SRV_RFC, TestDNS_ServiceLookup_SRV_RFC_TCP_Default",
			Register: []string{on(db)},
			Asks: append(srvOf("_db._primary.service.dc1.consul.", "_db._primary.service.consul.", "_db._primary.dc1.consul.", "_db._primary.consul.",
				"_db._tcp.service.dc1.consul.", "_db._tcp.service.consul.", "_db._tcp.dc1.consul.", "_db._tcp.consul.", "_DB._TCP.consul."),
				append(asksFor("NOERROR aa\nan _db._tcp.service.consul. 0 A 127.0.0.1", "A", "_db._tcp.service.consul."),
					asksFor(deny, "SRV", "_db._udp.service.consul.", "_nodb._tcp.consul.", "_db._tcp.dc2.consul.")...)...),
		},
		{
			Name:       "RFC 2782 without .service asked for another type",
			Register:   []string{on(db)},
			Asks:       asksFor(none, "A", "_db._tcp.consul."),
			Difference: "Consul says NXDOMAIN for a name that has SRV records",
		},
		{
			Name: "instances on one address are one A record",
			Of:   "TestDNS_ServiceLookup_Dedup",
			Register: []string{on(`"Service":"db","ID":"db","Port":12345`), on(`"Service":"db","ID":"db2","Port":12345`),
				on(`"Service":"db","ID":"db3","Port":12346`)},
			Asks: asksFor("NOERROR aa\nan db.service.consul. 0 A 127.0.0.1", "ANY", "db.service.consul."),
		},
		{
			Name: "instances on one node are one SRV record a port",
			Of:   "TestDNS_ServiceLookup_Dedup_SRV",
			Register: []string{on(`"Service":"db","ID":"db","Port":12345`), on(`"Service":"db","ID":"db2","Port":12345`),
				on(`"Service":"db","ID":"db3","Port":12346`)},
			Asks: asksFor(`NOERROR aa
				an db.service.consul. 0 SRV 1 1 12345 foo.node.dc1.consul.
				an db.service.consul. 0 SRV 1 1 12346 foo.node.dc1.consul.
				ar foo.node.dc1.consul. 0 A 127.0.0.1`, "SRV", "db.service.consul."),
		},
		{
			Name:     "service_ttl: the exact name, the longest prefix, the star",
			Of:       "TestDNS_ServiceLookup_TTL",
			Config:   `{"dns_config":{"service_ttl":{"d*":"42s","db":"10s","db*":"66s","*":"5s"}}}`,
			Register: []string{on(db), on(`"Service":"dblb","Port":1`), on(`"Service":"dk","Port":1`), on(`"Service":"api","Port":1`)},
			Asks: []Ask{
				{Name: "db.service.consul.", Type: "SRV", Want: "NOERROR aa\nan db.service.consul. 10 SRV 1 1 12345 foo.node.dc1.consul.\nar foo.node.dc1.consul. 10 A 127.0.0.1"},
				{Name: "dblb.service.consul.", Type: "A", Want: "NOERROR aa\nan dblb.service.consul. 66 A 127.0.0.1"},
				{Name: "dk.service.consul.", Type: "A", Want: "NOERROR aa\nan dk.service.consul. 42 A 127.0.0.1"},
				{Name: "api.service.consul.", Type: "A", Want: "NOERROR aa\nan api.service.consul. 5 A 127.0.0.1"},
			},
		},
		{
			Name:       "service_ttl keys in any letter case",
			Config:     `{"dns_config":{"service_ttl":{"Db":"10s","API*":"20s"}}}`,
			Register:   []string{on(db), on(`"Service":"api-v1","Port":1`)},
			Asks:       append(asksFor("NOERROR aa\nan db.service.consul. 10 A 127.0.0.1", "A", "db.service.consul."), asksFor("NOERROR aa\nan api-v1.service.consul. 20 A 127.0.0.1", "A", "api-v1.service.consul.")...),
			Difference: "Consul compares keys with capitals to the lower-cased name and never finds them",
		},
		{
			Name:     "the other family of a service is NODATA",
			Of:       "TestDNS_NonExistentLookupEmptyAorAAAA",
			Register: []string{onNode("foov4", "127.0.0.1", `"Service":"webv4","Port":8000`), onNode("foov6", "fe80::1", `"Service":"webv6","Port":8000`)},
			Asks:     append(asksFor(none, "AAAA", "webv4.service.consul."), asksFor(none, "A", "webv6.service.consul.")...),
		},
		{
			Name:     "types that a service lacks are NODATA",
			Register: []string{`{"Node":"foo","Address":"127.0.0.1","NodeMeta":{"key":"value"},"Service":{"Service":"db","Port":1}}`},
			Asks: append(append(asksFor(none, "MX", "db.service.consul."), asksFor(none, "TXT", "db.service.consul.")...),
				append(asksFor(none, "CNAME", "db.service.consul."), asksFor(none, "HTTPS", "db.service.consul.")...)...),
			Difference: "Consul answers TXT with the addresses, records nobody asked for",
		},
		{
			Name:     "metadata beside SRV",
			Of:       "TestDNS_ServiceLookup_MetaTXT",
			Register: []string{`{"Node":"bar","Address":"127.0.0.1","NodeMeta":{"key":"value"},"Service":{"Service":"db","Port":12345}}`},
			Asks: asksFor(`NOERROR aa
				an db.service.consul. 0 SRV 1 1 12345 bar.node.dc1.consul.
				ar bar.node.dc1.consul. 0 A 127.0.0.1
				ar bar.node.dc1.consul. 0 TXT "key=value"`, "SRV", "db.service.consul."),
		},
		{
			Name:     "metadata suppressed",
			Of:       "TestDNS_ServiceLookup_SuppressTXT",
			Config:   `{"dns_config":{"enable_additional_node_meta_txt":false}}`,
			Register: []string{`{"Node":"bar","Address":"127.0.0.1","NodeMeta":{"key":"value"},"Service":{"Service":"db","Port":12345}}`},
			Asks: asksFor(`NOERROR aa
				an db.service.consul. 0 SRV 1 1 12345 bar.node.dc1.consul.
				ar bar.node.dc1.consul. 0 A 127.0.0.1`, "SRV", "db.service.consul."),
		},
		{
			Name: "weights by health",
			Register: []string{
				checked("p", "127.0.0.1", `"Service":"db","Port":1,"Weights":{"Passing":7,"Warning":3}`, `"Node":"p","CheckID":"c","Status":"passing","ServiceID":"db"`),
				checked("w", "127.0.0.2", `"Service":"db","Port":2,"Weights":{"Passing":7,"Warning":3}`, `"Node":"w","CheckID":"c","Status":"warning","ServiceID":"db"`)},
			Asks: asksFor(`NOERROR aa
				an db.service.consul. 0 SRV 1 3 2 w.node.dc1.consul.
				an db.service.consul. 0 SRV 1 7 1 p.node.dc1.consul.
				ar p.node.dc1.consul. 0 A 127.0.0.1
				ar w.node.dc1.consul. 0 A 127.0.0.2`, "SRV", "db.service.consul."),
		},
		{
			Name:     "names with underscores resolve",
			Register: []string{on(`"Service":"my_db","Port":12345`)},
			Asks:     asksFor("NOERROR aa\nan my_db.service.consul. 0 A 127.0.0.1", "A", "my_db.service.consul."),
		},
		{
			Name:     "node names that are no host names stand in SRV targets, escaped",
			Register: []string{onNode("we ird_1", "127.0.0.1", db)},
			Asks: asksFor(`NOERROR aa
				an db.service.consul. 0 SRV 1 1 12345 we\ ird_1.node.dc1.consul.
				ar we\ ird_1.node.dc1.consul. 0 A 127.0.0.1`, "SRV", "db.service.consul."),
			Difference: "the target is Consul's; it is escaped so that it is one label and can be asked for",
		},
		{
			Name:     "the same over TCP",
			Of:       "TestDNS_Over_TCP",
			Register: []string{on(db)},
			Asks: []Ask{{Name: "foo.node.consul.", Type: "A", TCP: true, Want: "NOERROR aa\nan foo.node.consul. 0 A 127.0.0.1"},
				{Name: "db.service.consul.", Type: "SRV", TCP: true, Want: sprintf(srv, "db.service.consul.")}},
		},
	}
}

func addresses() []Case {
	const google = `"Service":"search","Port":80,"Address":"www.google.com"`
	googleUp := []string{"www.google.com. 60 IN CNAME google.com.", "google.com. 60 IN A 1.2.3.4"}
	return []Case{
		{
			Name:     "a service with an address of its own",
			Of:       "TestDNS_ServiceLookup_ServiceAddress_A, _ServiceAddressIPV6",
			Register: []string{on(`"Service":"db","Port":12345,"Address":"127.0.0.2"`), on(`"Service":"db6","Port":12345,"Address":"2607:20:4005:808::200e"`)},
			Asks: []Ask{
				{Name: "db.service.consul.", Type: "SRV", Want: "NOERROR aa\nan db.service.consul. 0 SRV 1 1 12345 7f000002.addr.dc1.consul.\nar 7f000002.addr.dc1.consul. 0 A 127.0.0.2"},
				{Name: "db6.service.consul.", Type: "SRV", Want: "NOERROR aa\nan db6.service.consul. 0 SRV 1 1 12345 2607002040050808000000000000200e.addr.dc1.consul.\nar 2607002040050808000000000000200e.addr.dc1.consul. 0 AAAA 2607:20:4005:808::200e"},
			},
		},
		{
			Name:     "a service whose address is a name, SRV",
			Of:       "TestDNS_ServiceLookup_ServiceAddress_SRV",
			Register: []string{on(google)},
			Upstream: googleUp,
			Asks: asksFor(`NOERROR aa
				an search.service.consul. 0 SRV 1 1 80 www.google.com.
				ar google.com. 60 A 1.2.3.4
				ar www.google.com. 60 CNAME google.com.`, "SRV", "search.service.consul."),
			Difference: "what was found upstream keeps its TTL; Consul shows the service's",
		},
		{
			Name:     "a service whose address is a name, ANY",
			Of:       "TestDNS_ServiceLookup_CNAME, TestDNS_ServiceLookup_ServiceAddress_CNAME",
			Register: []string{on(google), onNode("google", "www.google.com", `"Service":"other","Port":80`)},
			Upstream: googleUp,
			Asks: []Ask{
				{Name: "search.service.consul.", Type: "ANY", UDPSize: 4096, Want: "NOERROR aa\nan google.com. 60 A 1.2.3.4\nan search.service.consul. 0 CNAME www.google.com.\nan www.google.com. 60 CNAME google.com."},
				{Name: "other.service.consul.", Type: "ANY", UDPSize: 4096, Want: "NOERROR aa\nan google.com. 60 A 1.2.3.4\nan other.service.consul. 0 CNAME www.google.com.\nan www.google.com. 60 CNAME google.com."},
				{Name: "search.service.consul.", Type: "CNAME", Want: "NOERROR aa\nan search.service.consul. 0 CNAME www.google.com."},
			},
			Difference: "what was found upstream keeps its TTL; Consul shows the service's",
		},
		{
			Name:     "the AAAA of a service whose address is a name",
			Register: []string{on(`"Service":"search","Port":80,"Address":"www.google.com"`)},
			Upstream: []string{"www.google.com. 60 IN A 1.2.3.4", "www.google.com. 60 IN AAAA 2001:db8::1"},
			Asks: append(asksFor("NOERROR aa\nan search.service.consul. 0 CNAME www.google.com.\nan www.google.com. 60 AAAA 2001:db8::1", "AAAA", "search.service.consul."),
				asksFor("NOERROR aa\nan search.service.consul. 0 CNAME www.google.com.\nan www.google.com. 60 A 1.2.3.4", "A", "search.service.consul.")...),
			Difference: "Consul asks upstream for A whatever was asked",
		},
		{
			Name:       "the end of a chain decides the rcode",
			Register:   []string{on(`"Service":"search","Port":80,"Address":"gone.example.com"`)},
			Upstream:   []string{"www.google.com. 60 IN A 1.2.3.4"},
			Asks:       asksFor("NXDOMAIN aa\nan search.service.consul. 0 CNAME gone.example.com.\nns . 60 SOA ns.test-upstream. root.test-upstream. 1 2 3 4 60", "A", "search.service.consul."),
			Difference: "RFC 6604 section 2.1; Consul says NOERROR",
		},
		{
			Name:     "an external service without a recursor",
			Of:       "TestDNS_ExternalServiceLookup",
			Register: []string{onNode("foo", "www.google.com", `"Service":"db","Port":12345`)},
			Asks: append(asksFor("NOERROR aa\nan db.service.consul. 0 SRV 1 1 12345 www.google.com.", "SRV", "db.service.consul."),
				asksFor("NOERROR aa\nan db.service.consul. 0 CNAME www.google.com.", "A", "db.service.consul.")...),
		},
		{
			Name:   "an alias of a service inside",
			Of:     "TestDNS_ExternalServiceToConsulCNAMELookup",
			Config: `{"domain":"CONSUL."}`,
			Register: []string{onNode("web", "127.0.0.1", `"Service":"web","Port":12345`),
				onNode("alias", "web.service.consul", `"Service":"alias","Port":12345`)},
			Asks: []Ask{
				{Name: "alias.service.consul.", Type: "SRV", Want: "NOERROR aa\nan alias.service.consul. 0 SRV 1 1 12345 web.service.consul.\nar web.service.consul. 0 A 127.0.0.1"},
				{Name: "alias.service.CoNsUl.", Type: "A", Want: "NOERROR aa\nan alias.service.CoNsUl. 0 CNAME web.service.CoNsUl.\nan web.service.CoNsUl. 0 A 127.0.0.1"},
			},
		},
		{
			Name: "an alias of an alias",
			Of:   "TestDNS_ExternalServiceToConsulCNAMENestedLookup",
			Register: []string{onNode("web", "127.0.0.1", `"Service":"web","Port":12345`),
				onNode("alias", "web.service.consul", `"Service":"alias","Port":12345`),
				onNode("alias2", "alias.service.consul", `"Service":"alias2","Port":12345`)},
			Asks: asksFor(`NOERROR aa
				an alias2.service.consul. 0 SRV 1 1 12345 alias.service.consul.
				ar alias.service.consul. 0 CNAME web.service.consul.
				ar web.service.consul. 0 A 127.0.0.1`, "SRV", "alias2.service.consul."),
		},
		{
			Name: "never two CNAMEs",
			Of:   "TestDNS_ServiceLookupNoMultiCNAME",
			Register: []string{onNode("foo", "198.18.0.1", `"Service":"db","Port":12345,"Address":"foo.node.consul"`),
				onNode("bar", "198.18.0.3", `"Service":"db","Port":12345,"Address":"bar.node.consul"`)},
			Asks: []Ask{{Name: "db.service.consul.", Type: "A", UDPSize: 4096, Check: oneCNAME}},
		},
		{
			Name: "addresses go before CNAMEs",
			Of:   "TestDNS_ServiceLookupPreferNoCNAME, TestDNS_ServiceLookupMultiAddrNoCNAME",
			Register: []string{onNode("foo", "198.18.0.1", `"Service":"db","Port":12345,"Address":"198.18.0.1"`),
				onNode("bar", "198.18.0.2", `"Service":"db","Port":12345,"Address":"bar.node.consul"`),
				onNode("baz", "198.18.0.3", `"Service":"db","Port":12345,"Address":"198.18.0.3"`)},
			Asks: asksFor("NOERROR aa\nan db.service.consul. 0 A 198.18.0.1\nan db.service.consul. 0 A 198.18.0.3", "ANY", "db.service.consul."),
		},
		{
			Name:     "a service that gives its own name for an address",
			Of:       "TestDNS_ServiceLookupWithInternalServiceAddress",
			Register: []string{onNode("my.test-node", "198.18.0.1", `"Service":"db","Port":12345,"Address":"db.service.consul"`)},
			Asks:     asksFor("NOERROR aa\nan db.service.consul. 0 SRV 1 1 12345 my.test-node.node.dc1.consul.\nar my.test-node.node.dc1.consul. 0 A 198.18.0.1", "SRV", "db.service.consul."),
		},
		{
			Name:     "a loop of names ends",
			Of:       "TestDNS_InifiniteRecursion",
			Register: []string{onNode("test", "web.service.consul", `"Service":"web","Port":12345,"Address":"web.service.consul"`)},
			Asks:     asksFor("NOERROR aa\nan web.service.consul. 0 CNAME web.service.consul.", "A", "web.service.consul."),
		},
		{
			Name:       "a longer loop of names ends",
			Register:   []string{onNode("a", "b.node.consul", `"Service":"x","Port":1`), onNode("b", "a.node.consul", `"Service":"y","Port":1`)},
			Asks:       []Ask{{Name: "a.node.consul.", Type: "A", Check: endsInCNAME}},
			Difference: "Consul cuts at a depth of 3, here the loop is seen",
		},
		taggedAddresses(),
	}
}

// taggedAddresses is the matrix of addresses tagged for a family.
func taggedAddresses() Case {
	svc := func(name, addr, tagged string) string {
		return `{"Node":"` + name + `","Address":"` + addr + `","TaggedAddresses":{` + tagged + `},"Service":{"Service":"` + name + `","Port":80,"Address":"` + addr +
			`","TaggedAddresses":{` + taggedServices(tagged) + `}}}`
	}
	a := func(name, addr string) string { return "NOERROR aa\nan " + name + " 0 A " + addr }
	aaaa := func(name, addr string) string { return "NOERROR aa\nan " + name + " 0 AAAA " + addr }
	c := Case{
		Name: "addresses tagged for a family",
		Of:   "TestDNS_Lookup_TaggedIPAddresses",
		Register: []string{
			svc("v4", "127.0.0.1", `"lan_ipv4":"127.0.0.1"`),
			svc("v6", "::1", `"lan_ipv6":"::1"`),
			svc("both46", "127.0.0.1", `"lan_ipv4":"127.0.0.1","lan_ipv6":"::1"`),
			svc("both64", "::1", `"lan_ipv4":"127.0.0.1","lan_ipv6":"::1"`),
		},
	}
	for _, kind := range []string{"service", "node"} {
		for name, want := range map[string][2]bool{"v4": {true, false}, "v6": {false, true}, "both46": {true, true}, "both64": {true, true}} {
			full := name + "." + kind + ".consul."
			wantA, wantAAAA := none, none
			if want[0] {
				wantA = a(full, "127.0.0.1")
			}
			if want[1] {
				wantAAAA = aaaa(full, "::1")
			}
			c.Asks = append(c.Asks, Ask{Name: full, Type: "A", Want: wantA}, Ask{Name: full, Type: "AAAA", Want: wantAAAA})
		}
	}
	return c
}
