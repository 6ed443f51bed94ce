package config

import "time"

// under puts keys below a block.
func under(block string, keys ...Key) []Key {
	for i := range keys {
		keys[i].Path = block + "." + keys[i].Path
	}
	return keys
}

// topKeys returns the keys of a configuration file in the order of the manual.
func topKeys() []Key {
	var keys []Key
	for _, part := range [][]Key{
		ownKeys(), nodeKeys, addressKeys(), dnsKeys(), httpKeys(), definitionKeys, checkRunKeys,
		clusterKeys, tuningKeys(), aclKeys(), tlsKeys(), logKeys, telemetryKeys(), otherKeys(), ignoredKeys, legacyKeys(),
	} {
		keys = append(keys, part...)
	}
	return keys
}

// ownKeys are the few that Consul does not have.
func ownKeys() []Key {
	keys := []Key{
		{Path: "allow_recursion", Type: Strings, Reload: true, check: checkCIDRs, Goes: "resolver",
			Doc: "Networks whose questions are forwarded; others get REFUSED for names that aren't this host's own. Loopback always may; unset, so may the networks that this host is attached to."},
		{Path: "listen", Type: Strings, check: checkListen, Goes: "resolver/listen",
			Doc: "Addresses that DNS listens on, each IP:port or IP (port 53). Takes the place of client_addr, addresses.dns and ports.dns for DNS."},
		{Path: "cache_dir", Goes: "cluster/view",
			Doc: "Directory that keeps the last known good view and the cache over a restart. Unset: the directory \"view\" in data_dir."},
		{Path: "resolv_file", Default: "/etc/resolv.conf", Reload: true, Goes: "resolver/resolvconf",
			Doc: "File that names the recursors where none are configured; followed as it changes. Where it names this host alone, the files of systemd-resolved and NetworkManager are read in its place."},
		{Path: "forward", Type: Named, Of: "forward", Reload: true, Goes: "forwarder",
			Doc: "forward \"suffix\" { … } sends the names below the suffix to servers of their own; a network such as 10.0.0.0/8 stands for its reverse names. \"consul\" takes the place of the own zone, \".\" of the recursors."},
	}
	keys = append(keys, under("cache",
		Key{Path: "max_bytes", Type: Size, Default: "16MiB", Range: "64KiB..", Goes: "cache", Doc: "Memory of the cache of answers."},
		Key{Path: "max_entries", Type: Int, Default: "0", Range: "0..", Goes: "cache", Doc: "Most answers in the cache; 0 leaves the built-in bound."},
		Key{Path: "min_ttl", Type: Duration, Default: "0s", Range: "0s..1h", Goes: "resolver", Doc: "Forwarded answers with a shorter TTL are kept this long. TTL 0 is never kept."},
		Key{Path: "max_ttl", Type: Duration, Default: "24h", Range: "1s..168h", Goes: "resolver", Doc: "Forwarded answers are kept at most this long."},
		Key{Path: "negative_max_ttl", Type: Duration, Default: "300s", Range: "0s..3h", Goes: "resolver", Doc: "Forwarded answers that a name or type does not exist are kept at most this long (RFC 2308); 0s: not at all."},
		Key{Path: "negative_ttl", Type: Duration, Default: "0s", Range: "0s..3h", Goes: "resolver", Doc: "How long such an answer is kept that does not say it itself, by an SOA record; 0s: not at all, as RFC 2308 advises."},
		Key{Path: "max_client_ttl", Type: Duration, Default: "0s", Range: "0s..168h", Goes: "resolver", Doc: "Most that clients are shown of the TTL of forwarded answers, which are kept for their own time; 0s sets no bound."},
		Key{Path: "stale", Type: Duration, Default: "24h", Range: "0s..168h", Goes: "resolver", Doc: "While upstreams fail, an answer stands in for so long past its end (RFC 8767); 0s never."},
		Key{Path: "persist", Type: Bool, Default: "false", Goes: "cmd/meibo", Doc: "Keep forwarded answers over a restart: written at stop and read at start, in cache_dir."},
	)...)
	keys = append(keys, under("hosts",
		Key{Path: "files", Type: Strings, Reload: true, Goes: "resolver/local", Doc: "Hosts files, and directories of them, read again when they change. Unset: /etc/hosts."},
		Key{Path: "records", Type: Strings, Reload: true, check: checkRecords, Goes: "resolver/local", Doc: "Static records, each \"NAME [TTL] TYPE DATA\"."},
		Key{Path: "domain", Reload: true, check: checkDomain, Goes: "resolver/local", Doc: "Domain of names without a dot in hosts files; they have both names then."},
		Key{Path: "type_transparent", Type: Bool, Default: "false", Reload: true, Goes: "resolver/local", Doc: "Ask upstreams for types that a name of hosts files and records has none of, as dnsmasq does; that they don't know the name counts as no data. false: it has no others."},
		Key{Path: "ttl", Type: Duration, Default: "10s", Range: "1s..596523h", Reload: true, Goes: "resolver/local", Doc: "TTL of names in hosts files, of records that have none, and of addresses in forward blocks."},
	)...)
	keys = append(keys, under("filter",
		Key{Path: "types", Type: Strings, Reload: true, check: checkTypes, Goes: "resolver", Doc: "Types that upstreams aren't asked for, such as AAAA on a host without IPv6: the names have none."},
		Key{Path: "domain_needed", Type: Bool, Default: "false", Reload: true, Goes: "resolver", Doc: "Don't ask the default route for addresses of names without a dot: they don't exist."},
		Key{Path: "bogus_priv", Default: "auto", Choices: []string{"auto", "on", "off", "reverse"}, Reload: true, Goes: "resolver/local", Doc: "Deny reverse names of private networks that nobody here knows, and names below local, test and home.arpa, in place of asking the default route; auto: where all its servers have public addresses; reverse: PTR questions alone and not for 100.64.0.0/10, as dnsmasq's bogus-priv does."},
		Key{Path: "bogus_nxdomain", Type: Strings, Reload: true, check: checkNetworks, Goes: "resolver", Doc: "Addresses or networks that stand for a name that does not exist: answers with them are NXDOMAIN."},
		Key{Path: "stop_dns_rebind", Type: Bool, Default: "false", Reload: true, Goes: "resolver", Doc: "Drop answers of the default route with addresses of private networks: DNS rebinding."},
		Key{Path: "rebind_domain_ok", Type: Strings, Reload: true, check: checkName, Goes: "resolver", Doc: "Domains that may have such addresses; those with a forward block may anyway."},
		Key{Path: "rebind_localhost_ok", Type: Bool, Default: "false", Reload: true, Goes: "resolver", Doc: "Let addresses of this host pass, 127.0.0.0/8 and ::1, as lists of blocked names have them."},
	)...)
	keys = append(keys, under("view",
		Key{Path: "whole_below", Type: Size, Default: "1MiB", Range: "0..", Goes: "cluster/view", Doc: "Hold the whole catalog while its encoding is smaller than this; 0 subscribes to single names only."},
		Key{Path: "keep", Type: Duration, Default: "720h", Range: "1h..", Goes: "cluster/view", Doc: "Contents that nobody asked for are kept on disk this long."},
		Key{Path: "max_stale", Type: Duration, Default: "0s", Range: "0s..", Reload: true, Goes: "resolver/consul", Doc: "Answers that no server has confirmed for longer than this are what stale_answer says; 0s: however old, they are answered as ever."},
		Key{Path: "stale_answer", Type: String, Default: "ttl", Choices: []string{"ttl", "servfail"}, Reload: true, Goes: "resolver/consul", Doc: "What becomes of answers staler than max_stale: \"ttl\" gives them with a TTL of 5 s at most, \"servfail\" fails them."},
	)...)
	keys = append(keys, under("http_config",
		Key{Path: "allowed_hosts", Type: Strings, Reload: true, check: checkAllowedHost, Goes: "cluster/httpapi",
			Doc: "Further names that a request's Host or Origin may have; addresses, localhost, this host's names and names below the domain always may."},
		Key{Path: "operator", Default: "socket", Choices: []string{"socket", "open"}, Reload: true, Goes: "cluster/httpapi",
			Doc: "Who may see keys, change them, and take members and servers out: \"socket\", root and the daemon's user over the control socket; \"open\", whoever reaches the API, as in Consul."},
	)...)
	for i := range keys {
		keys[i].Own = true
	}
	return keys
}

var nodeKeys = []Key{
	{Path: "node_name", Flag: "node", check: checkNodeName, Goes: "cluster/agent", Doc: "Name of this node, unique in the datacenter. Unset: the host name."},
	{Path: "node_id", Flag: "node-id", check: checkNodeID, Goes: "cluster/agent", Doc: "UUID of this node. Unset: made at the first start and kept in data_dir."},
	{Path: "node_meta", Type: StringMap, Flag: "node-meta", Reload: true, check: checkNodeMeta, Goes: "cluster/agent", Doc: "Pairs shown with the node, as TXT records too; at most 64, keys to 128 bytes, values to 512. The flag takes key:value."},
	{Path: "datacenter", Default: "dc1", Flag: "datacenter", check: checkDatacenter, Goes: "cluster", Doc: "Name of the datacenter: letters, digits, - and _."},
	{Path: "primary_datacenter", check: checkDatacenter, Status: Waiting, Goes: "cluster/acl", Doc: "Datacenter that holds tokens and policies. Unset: datacenter."},
	{Path: "data_dir", Flag: "data-dir", Goes: "cluster", Doc: "Directory of the agent's state. Needed unless -dev."},
	{Path: "pid_file", Flag: "pid-file", Goes: "cmd/meibo", Doc: "File that gets the process ID."},
	{Path: "auto_reload_config", Type: Bool, Default: "false", Flag: "auto-reload-config", Goes: "cmd/meibo", Doc: "Read the files again when one is changed, added or removed, as after SIGHUP."},
	{Path: "enable_debug", Type: Bool, Default: "false", Goes: "cluster/httpapi", Doc: "Serve profiles below /debug/pprof."},
	{Path: "disable_host_node_id", Type: Bool, Default: "true", Flag: "disable-host-node-id", Status: Ignored, quiet: isTrue, Note: "node IDs are always random", Doc: "Make no node ID of what the host is."},
	{Path: "locality.region", Status: Planned, Note: "answers are not sorted by locality", Doc: "Region of this host."},
	{Path: "locality.zone", Status: Planned, Note: "answers are not sorted by locality", Doc: "Zone of this host."},
}

func addressKeys() []Key {
	port := func(name, flag, def, goes, doc string, status Status) Key {
		return Key{Path: name, Type: Int, Flag: flag, Default: def, Range: "-1..65535", Goes: goes, Doc: doc, Status: status}
	}
	keys := []Key{
		{Path: "bind_addr", Default: "0.0.0.0", Flag: "bind", check: checkAddr, Goes: "cluster", Doc: "Address for cluster traffic. Unspecified (0.0.0.0, ::): all, and the host's private address is advertised. May be a go-sockaddr template."},
		{Path: "advertise_addr", Flag: "advertise", check: checkAddr, Goes: "cluster", Doc: "Address that other hosts reach this one by. Unset: bind_addr."},
		{Path: "advertise_addr_ipv4", check: checkAddr4, Goes: "cluster", Doc: "The same, IPv4."},
		{Path: "advertise_addr_ipv6", check: checkAddr6, Goes: "cluster", Doc: "The same, IPv6."},
		{Path: "advertise_addr_wan", Flag: "advertise-wan", check: checkAddr, Goes: "cluster", Doc: "The same, for other datacenters. Unset: advertise_addr."},
		{Path: "advertise_addr_wan_ipv4", check: checkAddr4, Goes: "cluster", Doc: "The same, IPv4."},
		{Path: "advertise_addr_wan_ipv6", check: checkAddr6, Goes: "cluster", Doc: "The same, IPv6."},
		{Path: "tagged_addresses", Type: StringMap, Goes: "cluster/agent", Doc: "Further addresses of the node by name."},
		{Path: "translate_wan_addrs", Type: Bool, Default: "false", Goes: "cluster/httpapi", Status: Planned, Note: noWAN, Doc: "Show WAN addresses of nodes and services of other datacenters."},
		{Path: "client_addr", Default: "127.0.0.1", Flag: "client", check: checkClientAddr, Goes: "resolver/listen", Doc: "Addresses for DNS and HTTP, separated by spaces. May hold go-sockaddr templates; unix:// for HTTP."},
		{Path: "serf_lan", Flag: "serf-lan-bind", check: checkAddr, Goes: "cluster/gossip", Doc: "Address for gossip. Unset: bind_addr."},
		{Path: "serf_wan", Flag: "serf-wan-bind", check: checkAddr, Status: Planned, Note: noWAN, Goes: "cluster/gossip", Doc: "Address for gossip with other datacenters. Unset: bind_addr."},
	}
	keys = append(keys, under("addresses",
		Key{Path: "dns", check: checkDNSAddr, Goes: "resolver/listen", Doc: "Addresses for DNS. Unset: client_addr."},
		Key{Path: "http", check: checkClientAddr, Goes: "cluster/httpapi", Doc: "Addresses for HTTP, or unix:///path. Unset: client_addr."},
		Key{Path: "https", check: checkClientAddr, Status: Planned, Note: noHTTPS, Goes: "cluster/httpapi", Doc: "Addresses for HTTPS. Unset: client_addr."},
		Key{Path: "grpc", Status: Ignored, Note: noGRPC, Doc: "Address for gRPC."},
		Key{Path: "grpc_tls", Status: Ignored, Note: noGRPC, Doc: "Address for gRPC over TLS."},
	)...)
	keys = append(keys, under("ports",
		port("dns", "dns-port", "8600", "resolver/listen", "Port for DNS; -1 switches it off.", Used),
		port("http", "http-port", "8500", "cluster/httpapi", "Port for HTTP; -1 switches it off.", Used),
		Key{Path: "https", Type: Int, Default: "-1", Range: "-1..65535", Flag: "https-port", Status: Planned, Note: noHTTPS, Goes: "cluster/httpapi", Doc: "Port for HTTPS; -1 switches it off.", quiet: isOff},
		port("server", "server-port", "8300", "cluster/link", "Port for traffic between hosts.", Used),
		port("serf_lan", "serf-lan-port", "8301", "cluster/gossip", "Port for gossip.", Used),
		Key{Path: "serf_wan", Type: Int, Default: "8302", Range: "-1..65535", Flag: "serf-wan-port", Status: Planned, Note: noWAN, Goes: "cluster/gossip", Doc: "Port for gossip with other datacenters; -1 switches it off.", quiet: isOffOr(8302)},
		Key{Path: "grpc", Type: Int, Default: "-1", Range: "-1..65535", Flag: "grpc-port", Status: Ignored, Note: noGRPC, Doc: "Port for gRPC.", quiet: isOff},
		Key{Path: "grpc_tls", Type: Int, Default: "-1", Range: "-1..65535", Flag: "grpc-tls-port", Status: Ignored, Note: noGRPC, Doc: "Port for gRPC over TLS.", quiet: isOff},
	)...)
	for _, name := range []string{"proxy_min_port", "proxy_max_port", "sidecar_min_port", "sidecar_max_port", "expose_min_port", "expose_max_port"} {
		keys = append(keys, Key{Path: "ports." + name, Type: Int, Status: Ignored, Note: noMesh, Doc: "Ports of sidecar proxies."})
	}
	return append(keys, Key{Path: "ports.rpc", Type: Any, Status: Ignored, Note: "Consul took this port away in 0.8", Doc: "Port of a protocol that is gone."})
}

func dnsKeys() []Key {
	keys := []Key{
		{Path: "domain", Default: "consul.", Flag: "domain", check: checkDomain, Goes: "resolver/consul", Doc: "Domain of the own zone. Its letter case is kept in answers."},
		{Path: "alt_domain", Flag: "alt-domain", check: checkDomain, Goes: "resolver/consul", Doc: "A second domain for the same names."},
		{Path: "recursors", Type: Strings, Flag: "recursor", Reload: true, check: checkRecursors, Goes: "forwarder", Doc: "Servers for names outside the own zones, each IP, IP:port or a go-sockaddr template. Unset: those of /etc/resolv.conf."},
	}
	seconds := func(name, def, doc string) Key {
		return Key{Path: "soa." + name, Type: Int, Default: def, Range: "0..2147483647", Reload: true, Goes: "resolver/consul", Doc: doc}
	}
	return append(keys, under("dns_config",
		Key{Path: "node_ttl", Type: Duration, Default: "0s", Range: "0s..596523h", Reload: true, Goes: "resolver/consul", Doc: "TTL of nodes' addresses."},
		Key{Path: "service_ttl", Type: DurationMap, Range: "0s..596523h", Reload: true, Goes: "resolver/consul", Doc: "TTL by name of service; a name may end in *, the longest match counts."},
		Key{Path: "only_passing", Type: Bool, Default: "false", Reload: true, Goes: "resolver/consul", Doc: "Leave out instances with a warning too."},
		Key{Path: "enable_truncate", Type: Bool, Default: "false", Reload: true, Goes: "resolver/consul", Doc: "Set TC on an answer cut for size, so that clients ask again over TCP."},
		Key{Path: "a_record_limit", Type: Int, Default: "0", Range: "0..", Reload: true, Goes: "resolver/consul", Doc: "Most A, AAAA records of an answer; 0 sets no limit."},
		Key{Path: "udp_answer_limit", Type: Int, Default: "0", Range: "0..", Reload: true, Goes: "resolver/consul", Doc: "Most records of an answer over UDP to a client without EDNS. Consul's default is 3; here as many as fit (0)."},
		Key{Path: "enable_additional_node_meta_txt", Type: Bool, Default: "true", Reload: true, Goes: "resolver/consul", Doc: "Add a node's meta as TXT records."},
		Key{Path: "disable_compression", Type: Bool, Default: "false", Reload: true, Status: Ignored, Note: "names are always compressed", Doc: "Write names in full."},
		Key{Path: "recursor_strategy", Choices: []string{"sequential", "random"}, Reload: true, Goes: "forwarder", Doc: "Order in which recursors are asked. Unset: the fastest first."},
		Key{Path: "recursor_timeout", Type: Duration, Default: "2s", Range: "1ms..", Reload: true, Goes: "forwarder", Doc: "Time for one exchange with one recursor."},
		seconds("refresh", "3600", "Refresh of the SOA record, in seconds."),
		seconds("retry", "600", "Retry of the SOA record, in seconds."),
		seconds("expire", "86400", "Expire of the SOA record, in seconds."),
		seconds("min_ttl", "0", "Minimum and TTL of the SOA record, in seconds: how long others may keep a negative answer."),
		Key{Path: "allow_stale", Type: Bool, Default: "true", Status: Ignored, quiet: isTrue, Note: ownView, Doc: "Answers may come from any server."},
		Key{Path: "max_stale", Type: Duration, Default: "87600h", Status: Ignored, quiet: isDefault(87600 * time.Hour), Note: ownView, Doc: "Answers that are older are asked for again."},
		Key{Path: "use_cache", Type: Bool, Default: "false", Status: Moot, Doc: "Answers always come from this host's view."},
		Key{Path: "cache_max_age", Type: Duration, Default: "0s", Status: Moot, Doc: "Answers always come from this host's view."},
		Key{Path: "prefer_namespace", Type: Bool, Status: Ignored, Note: enterprise, Doc: "Namespaces."},
	)...)
}

func httpKeys() []Key {
	keys := under("http_config",
		Key{Path: "response_headers", Type: StringMap, Reload: true, Goes: "cluster/httpapi", Doc: "Headers added to every response."},
		Key{Path: "block_endpoints", Type: Strings, Reload: true, Goes: "cluster/httpapi", Doc: "Path prefixes answered with 403."},
		Key{Path: "allow_write_http_from", Type: Strings, Flag: "allow-write-http-from", Reload: true, check: checkCIDRs, Goes: "cluster/httpapi", Doc: "Networks that may change something; empty lets all."},
		Key{Path: "max_header_bytes", Type: Int, Range: "0..", Goes: "cluster/httpapi", Doc: "Most bytes of a request's headers."},
		Key{Path: "use_cache", Type: Bool, Default: "true", Status: Moot, Doc: "Reads with ?cached come from this host's view."},
	)
	keys = append(keys, under("unix_sockets",
		Key{Path: "user", Goes: "cluster/httpapi", Doc: "Owner of unix sockets, by name or ID."},
		Key{Path: "group", Goes: "cluster/httpapi", Doc: "Group of unix sockets, by name or ID."},
		Key{Path: "mode", Goes: "cluster/httpapi", check: checkMode, Doc: "Permissions of unix sockets, octal."},
	)...)
	return append(keys,
		Key{Path: "default_query_time", Type: Duration, Default: "300s", Range: "1ms..", Flag: "default-query-time", Goes: "cluster/httpapi", Doc: "How long a blocking query waits that says no time."},
		Key{Path: "max_query_time", Type: Duration, Default: "600s", Range: "1ms..", Flag: "max-query-time", Goes: "cluster/httpapi", Doc: "How long a blocking query waits at most."},
		Key{Path: "discovery_max_stale", Type: Duration, Default: "0s", Goes: "cluster/httpapi", Doc: "Answer catalog and health reads from a view this old at most, without asking a server; 0s asks."},
		Key{Path: "disable_http_unprintable_char_filter", Type: Bool, Default: "false", Goes: "cluster/httpapi", Status: Planned, Note: "unprintable characters in paths are always refused", Doc: "Accept unprintable characters in paths."},
	)
}

var definitionKeys = []Key{
	{Path: "services", Aliases: []string{"service"}, Type: Blocks, Of: "service", Reload: true, Goes: "cluster/agent", Doc: "Services of this host."},
	{Path: "checks", Aliases: []string{"check"}, Type: Blocks, Of: "check", Reload: true, Goes: "cluster/agent", Doc: "Checks of this host, or of a service by service_id."},
	{Path: "watches", Aliases: []string{"watch"}, Type: Any, Reload: true, Status: Planned, Note: "watches do not run", Goes: "cluster/watch", Doc: "Handlers run when something changes."},
}

var checkRunKeys = []Key{
	{Path: "enable_script_checks", Type: Bool, Default: "false", Flag: "enable-script-checks", Goes: "cluster/agent", Doc: "Run scripts of checks, those registered through the API included."},
	{Path: "enable_local_script_checks", Type: Bool, Default: "false", Flag: "enable-local-script-checks", Goes: "cluster/agent", Doc: "Run scripts of checks defined in files."},
	{Path: "check_update_interval", Type: Duration, Default: "5m", Range: "0s..", Goes: "cluster/agent", Doc: "Changes of nothing but output are held back this long."},
	{Path: "check_output_max_size", Type: Int, Default: "4096", Range: "1..", Flag: "check_output_max_size", Goes: "cluster/agent", Doc: "Most bytes kept of a check's output."},
	{Path: "discard_check_output", Type: Bool, Default: "false", Reload: true, Goes: "cluster/agent", Doc: "Keep no output of checks."},
	{Path: "enable_agent_tls_for_checks", Type: Bool, Default: "false", Goes: "cluster/check", Doc: "Checks over TLS show the certificate of tls.internal_rpc (else tls.defaults), and trust its CAs."},
}

const (
	noGRPC     = "meibo has no gRPC listener"
	noMesh     = "meibo has no service mesh"
	enterprise = "a key of Consul Enterprise"
	ownView    = "answers come from this host's view, which the servers keep up to date; view.max_stale bounds their age"
)

// isOffOr is true of a default that Consul's files often repeat, and of off.
func isOffOr(standard int64) func(any) bool {
	return func(v any) bool { return v == standard || isOff(v) }
}

func isOff(v any) bool { return v == int64(-1) || v == int64(0) }
