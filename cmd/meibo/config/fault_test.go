package config

import (
	"strings"
	"testing"
	"time"
)

func TestLoad_NamesEachFault(t *testing.T) {
	tests := []struct{ name, hcl, want string }{
		{"unknown key", "\nrecursrs = []", `a.hcl:2: key "recursrs": unknown key; did you mean "recursors"?`},
		{"unknown key in a block", "ports {\n  htpp = 1\n}", `a.hcl:2: key "ports.htpp": unknown key; did you mean "ports.http"?`},
		{"unknown block", "dns_confg { node_ttl = \"1s\" }", `a.hcl:1: key "dns_confg": unknown key; did you mean "dns_config"?`},
		{"key at the wrong place", `node_ttl = "1s"`, `a.hcl:1: key "node_ttl": unknown key; did you mean "dns_config.node_ttl"?`},
		{"key like no other", `zzyzzxq = 1`, `a.hcl:1: key "zzyzzxq": unknown key`},
		{"unknown key of a service", "service {\n name = \"a\"\n prot = 1 }", `a.hcl:3: key "service.prot": unknown key; did you mean "service.port"?`},
		{"unknown key of a service's check", "service {\n name = \"a\"\n check { tcp = \"a:1\"\n intervall = \"1s\" } }", `a.hcl:4: key "service.check.intervall": unknown key; did you mean "service.check.interval"?`},
		{"unknown key of a forward", "forward \"a\" {\n server = [\"10.0.0.1\"] }", `a.hcl:2: key "forward.server": unknown key; did you mean "forward.servers"?`},
		{"string for a number", `ports { dns = "53" }`, `a.hcl:1: key "ports.dns": expected an integer from -1 to 65535, got the string "53"; did you mean 53?`},
		{"port out of range", `ports { dns = 65536 }`, `a.hcl:1: key "ports.dns": expected an integer from -1 to 65535, got the number 65536`},
		{"fraction for an integer", `bootstrap_expect = 1.5`, `a.hcl:1: key "bootstrap_expect": expected an integer of at least 0, got the number 1.5`},
		{"string for a boolean", `server = "yes"`, `a.hcl:1: key "server": expected true or false, got the string "yes"`},
		{"number for a string", `datacenter = 1`, `a.hcl:1: key "datacenter": expected a string, got the number 1`},
		{"number for a duration", `default_query_time = 300`, `a.hcl:1: key "default_query_time": expected a duration such as "10s", got the number 300; did you mean "300s"?`},
		{"no duration", `dns_config { node_ttl = "soon" }`, `a.hcl:1: key "dns_config.node_ttl": expected a duration such as "10s", got the string "soon"`},
		{"negative duration", `dns_config { node_ttl = "-1s" }`, `a.hcl:1: key "dns_config.node_ttl": expected a duration such as "10s" from 0s to 596523h, got the string "-1s"`},
		{"string for a list", `recursors = "10.0.0.1"`, `a.hcl:1: key "recursors": expected a list of strings, got the string "10.0.0.1"; did you mean ["10.0.0.1"]?`},
		{"list for a string", `datacenter = ["a", "b"]`, `a.hcl:1: key "datacenter": expected a string, got a list of 2`},
		{"string for a block", `ports = "none"`, `a.hcl:1: key "ports": expected a block, got another string`},
		{"string for a map", `node_meta = "a"`, `a.hcl:1: key "node_meta": expected a map of strings, got the string "a"`},
		{"element of a map", "dns_config { service_ttl {\n web = 3 } }", `a.hcl:2: key "dns_config.service_ttl.web": expected a duration such as "10s", got the number 3; did you mean "3s"?`},
		{"element of a list", "recursors = [\"10.0.0.1\",\n \"dns.example\"]", `a.hcl:2: key "recursors": expected an IP address, IP:port or a template, and not 0.0.0.0 or ::, got the string "dns.example"`},
		{"unspecified recursor", `recursors = ["0.0.0.0"]`, `a.hcl:1: key "recursors": expected an IP address, IP:port or a template, and not 0.0.0.0 or ::, got the string "0.0.0.0"`},
		{"no choice", `log_level = "loud"`, `a.hcl:1: key "log_level": expected one of TRACE, DEBUG, INFO, WARN, ERROR, got the string "loud"`},
		{"raft_multiplier", `performance { raft_multiplier = 11 }`, `a.hcl:1: key "performance.raft_multiplier": expected an integer from 1 to 10, got the number 11`},
		{"datacenter", `datacenter = "eu west"`, `a.hcl:1: key "datacenter": expected a name of letters, digits, - and _, got the string "eu west"`},
		{"node_id", `node_id = "7"`, `a.hcl:1: key "node_id": expected a UUID such as 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0, got the string "7"`},
		{"node_meta reserved", `node_meta { consul-x = "1" }`, `a.hcl:1: key "node_meta": expected no key that begins with "consul-" (reserved), got a block`},
		{"bind_addr", `bind_addr = "eth0"`, `a.hcl:1: key "bind_addr": expected an IP address or a template, got the string "eth0"`},
		{"advertise unspecified", `advertise_addr = "0.0.0.0"`, `a.hcl:1: key "advertise_addr": other hosts cannot reach 0.0.0.0`},
		{"family", `advertise_addr_ipv6 = "10.0.0.1"`, `a.hcl:1: key "advertise_addr_ipv6": expected an IPv6 address or a template, got the string "10.0.0.1"`},
		{"template without address", `client_addr = "{{ GetInterfaceIP \"eth9\" }}"`, `a.hcl:1: key "client_addr": the template yields no address on this host`},
		{"DNS on a unix socket", `client_addr = "unix:///x"`, `a.hcl:1: key "client_addr": DNS cannot listen on a unix socket: set listen, or addresses.dns`},
		{"listen", `listen = ["localhost"]`, `a.hcl:1: key "listen": expected an address such as "127.0.0.1:53" or "[::1]:53", got the string "localhost"`},
		{"CIDR", `serf_lan_allowed_cidrs = ["10.0.0.0"]`, `a.hcl:1: key "serf_lan_allowed_cidrs": expected a network such as 10.0.0.0/8, got the string "10.0.0.0"`},
		{"domain", `domain = "a..b"`, `a.hcl:1: key "domain": expected a domain of at most 253 characters, in labels of 1 to 63, got the string "a..b"`},
		{"alt_domain", `alt_domain = "Service.corp"`, `a.hcl:1: key "alt_domain": cannot begin with "service", which names are made of`},
		{"encrypt", `encrypt = "c2VjcmV0"`, `a.hcl:1: key "encrypt": expected base64 of 16, 24 or 32 bytes (meibo keygen makes one), or "none", got another string`},
		{"size", `cache { max_bytes = "lots" }`, `a.hcl:1: key "cache.max_bytes": expected a number of bytes or a size such as "16MiB" of at least 64KiB, got the string "lots"`},
		{"TTLs crossed", `cache { min_ttl = "1h" max_ttl = "1m" }`, `a.hcl:1: key "cache.min_ttl": 1h0m0s is above cache.max_ttl, 1m0s`},
		{"forward without label", `forward { servers = ["10.0.0.1"] }`, `a.hcl:1: key "forward": expected a block with a label, forward "…" { … }, got "servers" without one`},
		{"forward without servers", `forward "a" { }`, "a.hcl:1: key `forward \"a\"`: servers is not set: name at least one, as in servers = [\"192.0.2.53\"]; or give the names addresses = [\"192.0.2.7\"], or none at all with local = true"},
		{"forward two ways", `forward "a" { servers = ["10.0.0.1"] local = true }`, "a.hcl:1: key `forward \"a\"`: local says that there are no names, and excludes servers and addresses: leave it or them"},
		{"forward to an address of no kind", `forward "a" { addresses = ["nxdomain"] }`, `a.hcl:1: key "forward.addresses": expected an IP address, got the string "nxdomain"`},
		{"filter type", `filter { types = ["IPv6"] }`, `a.hcl:1: key "filter.types": expected a type of record such as AAAA, got the string "IPv6"`},
		{"filter of no address", `filter { bogus_nxdomain = ["isp.example"] }`, `a.hcl:1: key "filter.bogus_nxdomain": expected an address or a network such as 10.0.0.0/8, got the string "isp.example"`},
		{"rebinding of all", `filter { rebind_domain_ok = ["."] }`, `a.hcl:1: key "filter.rebind_domain_ok": expected a domain, got the string "."`},
		{"alias beside data", `hosts { records = ["a.lan CNAME b.lan", "a.lan A 192.0.2.7"] }`, `a.hcl:1: key "hosts.records": hosts.records: a.lan. has a CNAME and 1 other records; a CNAME stands alone (RFC 2181 section 10.1)`},
		{"forward of no domain", `forward "a..b" { servers = ["10.0.0.1"] }`, "a.hcl:1: key `forward \"a..b\"`: expected a domain or a network such as 10.0.0.0/8 as the label"},
		{"forward of a pattern", `forward "*.corp.example" { servers = ["10.0.0.1"] }`, "a.hcl:1: key `forward \"*.corp.example\"`: expected a domain or a network such as 10.0.0.0/8 (\"corp.example\": the names below a domain go with it) as the label"},
		{"forward of a pattern's end", `forward "corp.*" { servers = ["10.0.0.1"] }`, "a.hcl:1: key `forward \"corp.*\"`: expected a domain or a network such as 10.0.0.0/8 (a * stands for nothing here: names are whole) as the label"},
		{"forward as dnsmasq writes it", `forward "/corp/" { servers = ["10.0.0.1"] }`, "a.hcl:1: key `forward \"/corp/\"`: expected a domain or a network such as 10.0.0.0/8 (no domain name has '/' in it) as the label"},
		{"forward of an address", `forward "10.0.0.1" { servers = ["10.0.0.1"] }`, "a.hcl:1: key `forward \"10.0.0.1\"`: expected a domain or a network such as 10.0.0.0/8 (one address is the network 10.0.0.1/32) as the label"},
		{"forward of letters that are encoded", `forward "bücher.corp" { servers = ["10.0.0.1"] }`, "a.hcl:1: key `forward \"bücher.corp\"`: expected a domain or a network such as 10.0.0.0/8 (programs ask for the encoded form of such letters: write that, xn--...) as the label"},
		{"domain of a pattern", `domain = "*.consul"`, `a.hcl:1: key "domain": expected a domain that can be asked for (a * stands for nothing here: names are whole), got the string "*.consul"`},
		{"forward with one server, no list", `forward "a" { servers = "10.0.0.1" }`, "a.hcl:1: key \"forward.servers\": expected a list of strings, got the string \"10.0.0.1\"; did you mean [\"10.0.0.1\"]?"},
		{"forward over TLS by an empty name", `forward "a" { servers = ["10.0.0.1"] tls_name = "" }`, "a.hcl:1: key `forward \"a\"`: tls_name is empty, and would have the servers asked in the clear: name what is in their certificate, or leave it out"},
		{"forward over TLS by no pin", `forward "a" { servers = ["10.0.0.1"] tls_pins = [] }`, "a.hcl:1: key `forward \"a\"`: tls_pins is empty, and would have the servers asked in the clear: name what is in their certificate, or leave it out"},
		{"forward over TLS two ways", `forward "a" { servers = ["10.0.0.1"] tls_name = "b" tls_opportunistic = true }`, "a.hcl:1: key `forward \"a\"`: tls_opportunistic and tls_name or tls_pins exclude one another: leave one of them"},
		{"forward over TLS to nobody", `forward "a" { local = true tls_name = "b" }`, "a.hcl:1: key `forward \"a\"`: nobody is asked about these names: leave out fallback and what begins with tls_"},
		{"forward over TLS to those in the clear", `forward "a" { servers = ["#"] tls_name = "b" }`, "a.hcl:1: key `forward \"a\"`: \"#\" in servers stands for servers that are asked in the clear: name those that speak TLS"},
		{"pin", `forward "a" { servers = ["10.0.0.1"] tls_pins = ["sha256/AAEC"] }`, `a.hcl:1: key "forward.tls_pins": expected a pin such as "sha256/…", 32 octets in base64, got the string "sha256/AAEC"`},
		{"short form of a list", `servce { name = "a" }`, `a.hcl:1: key "servce": unknown key; did you mean "service"?`},
		{"allowed host", `http_config { allowed_hosts = ["https://ui.example"] }`, `a.hcl:1: key "http_config.allowed_hosts": expected a host name without scheme and port, or *.name, got the string "https://ui.example"`},
		{"record", `hosts { records = ["nas A 300"] }`, `a.hcl:1: key "hosts.records": expected a record such as "nas.home A 192.0.2.7" (dns: bad A A: "300" at line: 1:9), got the string "nas A 300"`},
		{"forward mode", `forward "a" { servers = ["10.0.0.1"] mode = "fast" }`, `a.hcl:1: key "forward.mode": expected one of fastest, strict, all, random, got the string "fast"`},
		{"bootstrap of a client", `bootstrap_expect = 3`, `a.hcl:1: key "bootstrap_expect": needs server = true`},
		{"bootstrap twice", "server = true\nbootstrap = true\nbootstrap_expect = 3", `a.hcl:3: key "bootstrap_expect": cannot be set together with bootstrap`},
		{"hold-down above its most", `gossip_lan { hold_down = "10s" hold_down_max = "6s" }`, `a.hcl:1: key "gossip_lan.hold_down_max": 6s is less than hold_down, 10s`},
		{"hold-down of nothing", `gossip_lan { hold_down = "0s" }`, `a.hcl:1: key "gossip_lan.hold_down": expected a duration such as "10s" from 1s to 1h, got the string "0s"`},
		{"service without name", "service { port = 1 }", `a.hcl:1: key "service.name": not set: a service needs a name`},
		{"service with a label", `service "db" { port = 1 }`, `a.hcl:1: key "service": expected a block without a label, got the label "db"; did you mean service { name = "db" … }?`},
		{"service port", `service { name = "a" port = 70000 }`, `a.hcl:1: key "service.port": expected an integer from 0 to 65535, got the number 70000`},
		{"service weight", `service { name = "a" weights { passing = 0 } }`, `a.hcl:1: key "service.weights.passing": expected an integer from 1 to 65535, got the number 0`},
		{"service address", `service { name = "a" address = "::" }`, `a.hcl:1: key "service.address": expected an address that can be reached, or none for the node's, got the string "::"`},
		{"tagged address", `service { name = "a" tagged_addresses { lan_ipv4 { address = "fd00::1" } } }`, `a.hcl:1: key "service.tagged_addresses.lan_ipv4.address": expected an IPv4 address, got "fd00::1"`},
		{"check without a kind", `check { name = "a" interval = "10s" }`, `a.hcl:1: key "check": nothing to check: set one of args, http, tcp, udp, grpc, h2ping, os_service, ttl, alias_service, alias_node`},
		{"check without interval", `check { name = "a" http = "http://a/" }`, `a.hcl:1: key "check.interval": not set: the http check needs one, as in interval = "10s"`},
		{"check with both", `check { name = "a" ttl = "1m" interval = "10s" }`, `a.hcl:1: key "check.ttl": cannot be set together with interval`},
		{"check without name", `check { ttl = "1m" }`, `a.hcl:1: key "check": a check outside a service needs a name`},
		{"check status", `check { name = "a" ttl = "1m" status = "ok" }`, `a.hcl:1: key "check.status": expected one of passing, warning, critical, got the string "ok"`},
		{"broken HCL", "a = [1\nb = }", `a.hcl:2: parse HCL: error parsing list, expected comma or list end, got: IDENT`},
		{"all of them", "a = 1\nb = 2", "a.hcl:1: key \"a\": unknown key\na.hcl:2: key \"b\": unknown key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := load(t, tt.hcl)
			if err == nil {
				t.Fatalf("loads; want %s", tt.want)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestLoad_NamesFaultsOfJSON(t *testing.T) {
	tests := []struct{ name, json, want string }{
		{"unknown key", "{\n  \"recursrs\": []\n}", `a.json:2: key "recursrs": unknown key; did you mean "recursors"?`},
		{"type", "{\n  \"ports\":\n    {\n  \"dns\": true}\n}", `a.json:4: key "ports.dns": expected an integer from -1 to 65535, got true`},
		{"deep", "{\"services\": [\n{\"name\": \"a\"},\n{\"name\": \"b\",\n\"checks\": [{\n\"http\": 1}]}]}", `a.json:5: key "service.check.http": expected a string, got the number 1`},
		{"cut short", "{\n \"a\": {\n", `a.json:3: parse JSON: the file ends within an object, list or string`},
		{"comma", "{\n \"domain\": \"a\"\n \"server\": true}", `a.json:3: parse JSON: invalid character '"' after object key:value pair`},
		{"no object", "[]", `a.json:1: expected a JSON object, got a list of 0`},
		{"two objects", "{}\n{}", `a.json:2: parse JSON: text after the closing brace`},
		{"too deep", strings.Repeat(`{"connect":`, 100), `a.json:1: parse JSON: nested deeper than 64`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, "a.json", tt.json)
			_, _, err := loadAll(Sources{Paths: []string{dir}, Host: host, Partial: true})
			if err = relative(err, dir); err == nil {
				t.Fatalf("loads; want %s", tt.want)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestLoad_NeedsDataDir(t *testing.T) {
	_, _, err := Load(Sources{Host: host})
	want := `key "data_dir": not set: name a directory for the agent's state, or use -dev to keep everything in memory`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, _, err := Load(Sources{Host: host, Dev: true}); err != nil {
		t.Errorf("-dev: %v", err)
	}
}

func TestLoad_KeepsSecretsOutOfFaults(t *testing.T) {
	for _, hcl := range []string{
		`encrypt = "s3cr3t"`, `encrypt = ["s3cr3t", "s3cr3t"]`, `encrypt "s3cr3t"`, "encrypt = \"s3cr3t", `acl { tokens { agent = 53 agent = "s3cr3t" nonsense = 1 } }`,
		`acl { tokens { agent { "a" = "s3cr3t" } } }`, `service { name = "a" token = ["s3cr3t", "b"] }`, `check { name = "a" header { Authorization = "s3cr3t" } }`,
		"encrypt = \"s3cr3t\"\nencrypt = ${", `"s3cr3t" "encrypt" = }`, `encrypt s3cr3t`, "encrypt\ns3cr3t",
	} {
		_, _, err := load(t, hcl)
		if err == nil {
			t.Errorf("%s: loads", hcl)
		} else if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", hcl, err)
		}
	}
}

func TestLoad_BoundsWhatItSaysOfNonsense(t *testing.T) {
	start := time.Now()
	_, _, err := load(t, strings.Repeat("recursrs = 1\n", 50_000))
	fs, ok := err.(Faults)
	if !ok || len(fs) != maxFaults+1 || fs[maxFaults].Error() != "and 49000 more" {
		t.Errorf("%d faults", len(fs))
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestLoad_RefusesWhatTheAgentRefuses(t *testing.T) {
	_, _, err := load(t, "\nservice { name = \"a\" id = \"consul\" }")
	want := `a.hcl:2: key "service": Service ID "consul" is kept for the servers themselves: choose another`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
