package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

func (b *builder) zone(datacenter string) Zone {
	z := Zone{
		Domain: normalDomain(b.text("domain")), AltDomain: normalDomain(b.text("alt_domain")),
		NodeTTL: b.duration("dns_config.node_ttl").Truncate(time.Second), ServiceTTL: map[string]time.Duration{},
		EnableTruncate: b.is("dns_config.enable_truncate"), OnlyPassing: b.is("dns_config.only_passing"),
		ARecordLimit: b.int("dns_config.a_record_limit"), UDPAnswerLimit: b.int("dns_config.udp_answer_limit"),
		NodeMetaTXT: b.is("dns_config.enable_additional_node_meta_txt"), NoCompression: b.is("dns_config.disable_compression"),
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
	f := Forward{Timeout: b.duration("dns_config.recursor_timeout"), Strategy: b.text("dns_config.recursor_strategy")}
	f.Recursors = b.servers("recursors", b.entries("recursors"))
	routes := map[string]Route{}
	for _, block := range b.blocks("forward") {
		if r, ok := b.route(block); ok {
			routes[r.Suffix] = r
		}
	}
	for _, r := range routes {
		f.Routes = append(f.Routes, r)
	}
	slices.SortFunc(f.Routes, func(a, b Route) int { return cmp.Compare(a.Suffix, b.Suffix) })
	return f
}

// route reads one forward block. A later block of the same suffix takes the
// place of an earlier one.
func (b *builder) route(bl *block) (Route, bool) {
	key := fmt.Sprintf("forward %q", shorten(bl.label))
	r := Route{Suffix: strings.ToLower(normalDomain(bl.label)), Mode: "fastest"}
	if r.Suffix == "" {
		r.Suffix = "."
	}
	if expected := checkDomain(strings.Trim(bl.label, ".")); expected != "" {
		b.fault(&Fault{File: bl.at.file, Line: bl.at.line, Key: key, Expected: expected, Got: fmt.Sprintf("%q", shorten(bl.label))})
		return r, false
	}
	if s := bl.set["servers"]; s == nil {
		b.fault(&Fault{File: bl.at.file, Line: bl.at.line, Key: key, Text: `servers is not set: name at least one, as in servers = ["192.0.2.53"]`})
		return r, false
	} else if list, ok := s.value.([]entry); ok && !s.bad {
		r.Servers = b.servers("forward.servers", list)
	}
	if s := bl.set["mode"]; s != nil && !s.bad {
		r.Mode = s.value.(string)
	}
	if s := bl.set["tls_name"]; s != nil && !s.bad {
		r.TLSName = s.value.(string)
	}
	if s := bl.set["trust_ad"]; s != nil && !s.bad {
		r.TrustAD = s.value.(bool)
	}
	return r, true
}

// servers reads a list of servers; those named twice count once, as in Consul.
func (b *builder) servers(path string, list []entry) []netip.AddrPort {
	var all []netip.AddrPort
	for _, e := range list {
		for _, text := range b.evaluate(path, e.text, e.at) {
			ap, ok := parseListen(text)
			if !ok || ap.Addr().IsUnspecified() {
				b.fault(&Fault{File: e.at.file, Line: e.at.line, Key: path, Expected: "an IP address or IP:port", Got: fmt.Sprintf("%q", shorten(text))})
				continue
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
		Listen: b.client("http"), ListenTLS: b.client("https"), ResponseHeaders: b.pairs("http_config.response_headers"),
		BlockEndpoints: b.texts("http_config.block_endpoints"), AllowWriteFrom: b.prefixes("http_config.allow_write_http_from"),
		MaxHeaderBytes: b.int("http_config.max_header_bytes"), MaxConnsPerHost: b.int("limits.http_max_conns_per_client"),
		HandshakeTimeout: b.duration("limits.https_handshake_timeout"), DefaultQueryTime: b.duration("default_query_time"),
		MaxQueryTime: b.duration("max_query_time"), MaxValueBytes: b.size("limits.kv_max_value_size"), MaxTxnBytes: b.size("limits.txn_max_req_len"),
		AllowStale: b.duration("discovery_max_stale"), SocketUser: b.text("unix_sockets.user"),
		SocketGroup: b.text("unix_sockets.group"), SocketMode: b.text("unix_sockets.mode"),
	}
	for _, name := range b.texts("http_config.allowed_hosts") {
		h.AllowedHosts = append(h.AllowedHosts, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	return h
}
