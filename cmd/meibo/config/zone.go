package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meibo/resolver/wire"
)

func (b *builder) zone(datacenter string) Zone {
	z := Zone{
		Domain: normalDomain(b.text("domain")), AltDomain: normalDomain(b.text("alt_domain")),
		NodeTTL: b.duration("dns_config.node_ttl").Truncate(time.Second), ServiceTTL: map[string]time.Duration{},
		EnableTruncate: b.is("dns_config.enable_truncate"), OnlyPassing: b.is("dns_config.only_passing"),
		ARecordLimit: b.int("dns_config.a_record_limit"), UDPAnswerLimit: b.int("dns_config.udp_answer_limit"),
		NodeMetaTXT: b.is("dns_config.enable_additional_node_meta_txt"),
		SOA: SOA{
			Refresh: uint32(b.size("dns_config.soa.refresh")), Retry: uint32(b.size("dns_config.soa.retry")),
			Expire: uint32(b.size("dns_config.soa.expire")), MinTTL: uint32(b.size("dns_config.soa.min_ttl")),
		},
	}
	if z.Domain == "" {
		z.Domain = "consul."
	}
	for name, ttl := range b.get("dns_config.service_ttl").value.(map[string]time.Duration) {
		// Questions are compared in lower case; Consul never finds other keys.
		z.ServiceTTL[strings.ToLower(name)] = ttl.Truncate(time.Second)
	}
	b.alternate(z.AltDomain, datacenter)
	return z
}

// alternate refuses an alt_domain that could not be told from a name of the
// zone.
func (b *builder) alternate(domain, datacenter string) {
	first, _, _ := strings.Cut(strings.ToLower(domain), ".")
	if first != "" && slices.Contains([]string{"service", "connect", "node", "query", "addr", datacenter}, first) {
		b.wrong("alt_domain", fmt.Sprintf("cannot begin with %q, which names are made of", first))
	}
}

func (b *builder) forward() Forward {
	f := Forward{Strategy: b.text("dns_config.recursor_strategy"), ResolvFile: b.text("resolv_file")}
	if b.isSet("dns_config.recursor_timeout") {
		f.Timeout = b.duration("dns_config.recursor_timeout")
	}
	f.Recursors = b.servers("recursors", 53, b.entries("recursors"))
	routes, from := map[string]Route{}, map[string]*block{}
	for _, bl := range b.blocks("forward") {
		hidden := map[*block]bool{}
		for _, r := range b.route(bl) {
			if old := from[r.Suffix]; old != nil && !hidden[old] {
				hidden[old] = true
				b.warn(Warning{File: bl.at.file, Line: bl.at.line, Key: fmt.Sprintf("forward %q", shorten(bl.label)), Text: fmt.Sprintf(
					"takes the place of the block %q at %s, for %s: leave one of them", shorten(old.label), strings.TrimSuffix(place(old.at.file, old.at.line), ": "), r.Suffix)})
			}
			routes[r.Suffix], from[r.Suffix] = r, bl
		}
	}
	for _, r := range routes {
		f.Routes = append(f.Routes, r)
	}
	slices.SortFunc(f.Routes, func(a, b Route) int { return cmp.Compare(a.Suffix, b.Suffix) })
	return f
}

// route reads one forward block, which is several routes when its label is a
// network. A later block of the same suffix takes the place of an earlier one.
func (b *builder) route(bl *block) []Route {
	key := fmt.Sprintf("forward %q", shorten(bl.label))
	wrong := func(text string) []Route {
		b.fault(&Fault{File: bl.at.file, Line: bl.at.line, Key: key, Text: text})
		return nil
	}
	suffixes, expected := suffixesOf(bl.label)
	r := Route{Mode: at[string](bl, "forward", "mode"), TrustAD: at[bool](bl, "forward", "trust_ad"), Local: at[bool](bl, "forward", "local")}
	servers, addresses := entriesOf(bl, "servers"), entriesOf(bl, "addresses")
	some := len(servers) > 0 || len(addresses) > 0
	switch {
	case bl.bad:
		return nil
	case expected != "":
		return wrong("expected " + expected + " as the label")
	case !some && !r.Local:
		return wrong(`servers is not set: name at least one, as in servers = ["192.0.2.53"]; or give the names addresses = ["192.0.2.7"], or none at all with local = true`)
	case some && r.Local:
		return wrong("local says that there are no names, and excludes servers and addresses: leave it or them")
	}
	for _, name := range []string{"tls_name", "tls_pins"} { // a template may have had nothing to put in
		if bl.set[name] != nil && at[string](bl, "forward", "tls_name") == "" && len(entriesOf(bl, "tls_pins")) == 0 {
			return wrong(name + " is empty, and would have the servers asked in the clear: name what is in their certificate, or leave it out")
		}
	}
	r.TLS = RouteTLS{Name: strings.TrimSuffix(at[string](bl, "forward", "tls_name"), "."), Opportunistic: at[bool](bl, "forward", "tls_opportunistic")}
	for _, e := range entriesOf(bl, "tls_pins") {
		r.TLS.Pins = append(r.TLS.Pins, strings.TrimPrefix(e.text, pinPrefix))
	}
	strict := r.TLS.Name != "" || len(r.TLS.Pins) > 0
	switch {
	case strict && r.TLS.Opportunistic:
		return wrong("tls_opportunistic and tls_name or tls_pins exclude one another: leave one of them")
	case (r.TLS.IsSet() || len(entriesOf(bl, "fallback")) > 0) && len(servers) == 0:
		return wrong("nobody is asked about these names: leave out fallback and what begins with tls_")
	}
	r.Default = slices.ContainsFunc(servers, func(e entry) bool { return e.text == defaultServers })
	if r.Default && strict {
		return wrong(`"#" in servers stands for servers that are asked in the clear: name those that speak TLS`)
	}
	port := uint16(53)
	if strict {
		port = 853
	}
	r.Servers = b.servers("forward.servers", port, slices.DeleteFunc(slices.Clone(servers), func(e entry) bool { return e.text == defaultServers }))
	r.Fallback = b.servers("forward.fallback", port, entriesOf(bl, "fallback"))
	for _, e := range addresses {
		if addr, err := netip.ParseAddr(e.text); err == nil {
			r.Addresses = append(r.Addresses, addr.WithZone("").Unmap())
		}
	}
	var routes []Route
	for _, r.Suffix = range suffixes {
		routes = append(routes, r)
	}
	return routes
}

// entriesOf returns a list of a block, empty where it is not set.
func entriesOf(bl *block, name string) []entry {
	if s := bl.set[name]; s != nil && !s.bad {
		return s.value.([]entry)
	}
	return nil
}

// suffixesOf returns the suffixes that a label of a forward block stands for, or what
// is expected in its place.
func suffixesOf(label string) (suffixes []string, expected string) {
	const either = "a domain or a network such as 10.0.0.0/8"
	if p, ok := parsePrefix(label); ok {
		return reverseZones(p), ""
	}
	if addr, err := netip.ParseAddr(label); err == nil {
		return nil, fmt.Sprintf("%s (one address is the network %s/%d)", either, addr.WithZone(""), addr.BitLen())
	}
	domain := strings.Trim(label, ".")
	name, err := wire.ParseName(domain)
	switch {
	case label == ".":
		return []string{"."}, ""
	case err != nil || checkDomain(domain) != "" && name.Lower().Unasked() == "":
		return nil, either
	case strings.HasPrefix(label, "*."):
		return nil, fmt.Sprintf("%s (%q: the names below a domain go with it)", either, domain[2:])
	case name.Lower().Unasked() != "":
		return nil, fmt.Sprintf("%s (%s)", either, name.Lower().Unasked())
	}
	return []string{strings.ToLower(normalDomain(label))}, ""
}

// reverseZones returns the reverse names of a network. One that does not end at
// a label (of 8 bits, in IPv6 of 4) takes several.
func reverseZones(p netip.Prefix) []string {
	step, suffix := 8, "in-addr.arpa."
	if p.Addr().Is6() {
		step, suffix = 4, "ip6.arpa."
	}
	labels := (p.Bits() + step - 1) / step
	var zones []string
	addr := p.Addr().AsSlice()
	for n := range 1 << (labels*step - p.Bits()) {
		zone := suffix
		for i := range labels {
			digit := int(addr[i*step/8])
			if i == labels-1 {
				digit += n << (8 - step - i*step%8)
			}
			if step == 4 {
				zone = fmt.Sprintf("%x.%s", digit>>(4-i*step%8)&15, zone)
			} else {
				zone = fmt.Sprintf("%d.%s", digit, zone)
			}
		}
		zones = append(zones, zone)
	}
	return zones
}

// servers reads a list of servers, port the one that isn't written; those named twice
// count once, as in Consul.
func (b *builder) servers(path string, port uint16, list []entry) []netip.AddrPort {
	var all []netip.AddrPort
	for _, e := range list {
		for _, text := range b.evaluate(path, e.text, e.at) {
			ap, ok := parseListen(text)
			if !ok || ap.Addr().IsUnspecified() {
				b.fault(&Fault{File: e.at.file, Line: e.at.line, Key: path, Expected: "an IP address or IP:port", Got: fmt.Sprintf("%q", shorten(text))})
				continue
			}
			if _, err := netip.ParseAddr(text); err == nil {
				ap = netip.AddrPortFrom(ap.Addr(), port)
			}
			if !slices.Contains(all, ap) {
				all = append(all, ap)
			}
		}
	}
	return all
}

func (b *builder) http() HTTP {
	h := HTTP{
		OperatorOpen: b.text("http_config.operator") == "open",
		Listen:       b.client("http"), ListenTLS: b.client("https"), ResponseHeaders: b.pairs("http_config.response_headers"),
		BlockEndpoints: b.texts("http_config.block_endpoints"), AllowWriteFrom: b.prefixes("http_config.allow_write_http_from"),
		MaxHeaderBytes: b.int("http_config.max_header_bytes"), MaxConnsPerHost: b.int("limits.http_max_conns_per_client"),
		DefaultQueryTime: b.duration("default_query_time"),
		MaxQueryTime:     b.duration("max_query_time"),
		AllowStale:       b.duration("discovery_max_stale"), SocketUser: b.text("unix_sockets.user"),
		SocketGroup: b.text("unix_sockets.group"), SocketMode: b.text("unix_sockets.mode"),
	}
	for _, name := range b.texts("http_config.allowed_hosts") {
		h.AllowedHosts = append(h.AllowedHosts, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	return h
}
