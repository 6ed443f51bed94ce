package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"meibo/bench/hosttest"
	"meibo/bench/report"
)

// dnsPeer is a server that is measured. All forward to the same upstreams, on one thread, have room for all names, and give
// expired answers when upstreams fail, those that can.
type dnsPeer struct {
	name    string
	program string // in the peers' root; empty: meibo
	version string // the flag that tells it
	start   func(b *dnsBench, upstreams ...string) *exec.Cmd
}

// listed writes something for each upstream.
func listed(upstreams []string, format string) string {
	var s strings.Builder
	for _, u := range upstreams {
		fmt.Fprintf(&s, format, u)
	}
	return s.String()
}

// caches is true of what has a cache, answers of what answers at once what it was asked before, isConsul of what answers .consul, pipelines of what answers more than a hundred
// queries of a TCP connection, which dnsmasq, a process for each, doesn't.
func forwards(s *dnsPeer) bool  { return s.name != "nsd" }
func caches(s *dnsPeer) bool    { return forwards(s) && s.name != "consul" }
func answers(s *dnsPeer) bool   { return s.name != "consul" }
func pipelines(s *dnsPeer) bool { return answers(s) && s.name != "dnsmasq" }
func isConsul(s *dnsPeer) bool  { return s.program == "" || s.name == "consul" }

// peers are meibo and those of its peers that were fetched, in the order that they are measured in.
func (b *dnsBench) peers() []*dnsPeer {
	all := []*dnsPeer{
		{name: "meibo", start: startMeibo},
		{name: "unbound", program: "/usr/sbin/unbound", version: "-V", start: func(b *dnsBench, upstreams ...string) *exec.Cmd {
			return b.on(0, true, "/usr/sbin/unbound", "-d", "-c", b.file("unbound.conf", unboundConf+listed(upstreams, "  forward-addr: %s@"+dnsPort+"\n")))
		}},
		{name: "dnsmasq", program: "/usr/sbin/dnsmasq", version: "--version", start: func(b *dnsBench, upstreams ...string) *exec.Cmd {
			return b.on(0, true, "/usr/sbin/dnsmasq", "-k", "-C", b.file("dnsmasq.conf", dnsmasqConf+listed(upstreams, "server=%s#"+dnsPort+"\n")))
		}},
		{name: "BIND", program: "/usr/sbin/named", version: "-v", start: func(b *dnsBench, upstreams ...string) *exec.Cmd {
			return b.on(0, true, "/usr/sbin/named", "-f", "-n", "1", "-c", b.file("named.conf", fmt.Sprintf(namedConf, listed(upstreams, " %s port "+dnsPort+";"))))
		}},
		{name: "Knot Resolver", program: "/usr/sbin/kresd", version: "--version", start: func(b *dnsBench, upstreams ...string) *exec.Cmd {
			dir := filepath.Join(b.root, "tmp/kresd")
			os.RemoveAll(dir) // its cache is a file
			os.MkdirAll(dir, 0o755)
			return b.on(0, true, "/usr/sbin/kresd", "-n", "-c", b.file("kresd.conf", fmt.Sprintf(kresdConf, listed(upstreams, "'%s@"+dnsPort+"', "))), "/tmp/kresd")
		}},
		{name: "pdns-recursor", program: "/usr/sbin/pdns_recursor", version: "--version", start: func(b *dnsBench, upstreams ...string) *exec.Cmd {
			os.MkdirAll(filepath.Join(b.root, "tmp/pdns"), 0o755)
			b.file("pdns/recursor.conf", pdnsConf+"forward-zones-recurse=.="+strings.TrimSuffix(listed(upstreams, "%s:"+dnsPort+";"), ";")+"\n")
			return b.on(0, true, "/usr/sbin/pdns_recursor", "--config-dir=/tmp/pdns", "--daemon=no")
		}},
		{name: "CoreDNS", program: "/usr/bin/coredns", version: "-version", start: func(b *dnsBench, upstreams ...string) *exec.Cmd {
			return b.on(0, true, "/usr/bin/coredns", "-quiet", "-conf", b.file("Corefile", fmt.Sprintf(coreConf, listed(upstreams, " %s:"+dnsPort))))
		}},
		{name: "consul", program: onPath("consul"), version: "version", start: startConsul},
		{name: "nsd", program: "/usr/sbin/nsd", version: "-v", start: func(b *dnsBench, _ ...string) *exec.Cmd {
			return b.on(0, true, "/usr/sbin/nsd", "-d", "-c", b.file("nsd0.conf", nsdConf(dnsServer)))
		}},
	}
	var here []*dnsPeer
	for _, s := range all {
		file := filepath.Join(b.root, s.program)
		if s.name == "consul" {
			file = s.program
		}
		if _, err := os.Stat(file); err == nil && chosen("MEIBO_BENCH_DNS_PEERS", s.name) {
			here = append(here, s)
		}
	}
	return here
}

var versionNumber = regexp.MustCompile(`[0-9]+\.[0-9]+[0-9A-Za-z.+~-]*`)

// versions is a table of what the peers are; the figures are medians of so many rounds.
func (b *dnsBench) versions(rounds int) report.Table {
	var r report.Table
	r.Row("server", "version")
	r.Row("rounds", fmt.Sprint(rounds))
	for _, s := range b.peers() {
		if s.version == "" {
			continue // meibo is what the section is of
		}
		out, _ := b.on(1, s.name != "consul", s.program, s.version).CombinedOutput()
		r.Row(s.name, versionNumber.FindString(string(out)))
	}
	return r
}

// onPath is where this machine has a program, or where there is none.
func onPath(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return "/nonexistent/" + name
	}
	return path
}

func startConsul(b *dnsBench, upstreams ...string) *exec.Cmd {
	conf := filepath.Join(b.t.TempDir(), "bench.hcl")
	text := fmt.Sprintf(`node_name = "bench"
bind_addr = "127.0.0.1"
client_addr = %q
recursors = [%s]
log_level = "error"
ports { dns = %s http = -1 grpc = -1 grpc_tls = -1 server = %d serf_lan = %d serf_wan = -1 }
`, dnsServer, listed(upstreams, "\"%s:"+dnsPort+"\", "), dnsPort, hosttest.FreePort(b.t), hosttest.FreePort(b.t)) + threeInstances()
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return b.on(0, false, onPath("consul"), "agent", "-dev", "-config-file", conf)
}

// threeInstances are what a row of .consul asks for.
func threeInstances() string {
	var text strings.Builder
	for i := range 3 {
		fmt.Fprintf(&text, "service { name = \"web\" id = \"web%d\" address = \"192.0.2.%d\" port = 80 }\n", i, i+1)
	}
	return text.String()
}

func startMeibo(b *dnsBench, upstreams ...string) *exec.Cmd {
	dir := b.t.TempDir()
	conf := filepath.Join(dir, "bench.hcl")
	var text strings.Builder
	fmt.Fprintf(&text, `node_name = "bench"
bind_addr = "127.0.0.1"
data_dir = %q
listen = ["%s:%s"]
recursors = [%s]
log_level = "error"
ports { http = -1 server = %d serf_lan = %d }
cache { max_bytes = 268435456 max_entries = 400000 }
`, filepath.Join(dir, "data"), dnsServer, dnsPort, listed(upstreams, "\"%s:"+dnsPort+"\", "), hosttest.FreePort(b.t), hosttest.FreePort(b.t))
	text.WriteString(threeInstances())
	if err := os.WriteFile(conf, []byte(text.String()), 0o600); err != nil {
		b.t.Fatal(err)
	}
	bin, err := hosttest.Binary()
	hosttest.Must(b.t, err)
	return b.on(0, false, bin, "agent", "-config-file", conf)
}

func nsdConf(addr string) string {
	return fmt.Sprintf(`server:
  ip-address: %s@%s
  username: ""
  chroot: ""
  zonesdir: "/tmp"
  pidfile: ""
  database: ""
  xfrdfile: ""
  xfrdir: "/tmp"
  zonelistfile: "/tmp/zone.list.%s"
  server-count: 1
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: %s
  zonefile: bench.zone
`, addr, dnsPort, addr, regexp.MustCompile(`\.$`).ReplaceAllString(dnsZone, ""))
}

const (
	unboundConf = `server:
  interface: ` + dnsServer + `@` + dnsPort + `
  access-control: 127.0.0.0/8 allow
  num-threads: 1
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "/tmp"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  do-not-query-localhost: no
  msg-cache-size: 128m
  rrset-cache-size: 256m
  serve-expired: yes
  serve-expired-client-timeout: 1800
remote-control:
  control-enable: no
forward-zone:
  name: "."
`
	dnsmasqConf = `user=root
group=root
pid-file=
no-resolv
no-hosts
no-daemon
bind-interfaces
listen-address=` + dnsServer + `
port=` + dnsPort + `
cache-size=400000
dns-forward-max=1000
use-stale-cache
`
	namedConf = `options {
  directory "/tmp";
  pid-file none;
  listen-on port ` + dnsPort + ` { ` + dnsServer + `; };
  listen-on-v6 { none; };
  recursion yes;
  allow-query { any; };
  forward only;
  forwarders {%s };
  stale-cache-enable yes;
  stale-answer-enable yes;
  dnssec-validation no;
  max-cache-size 512M;
  recursive-clients 5000;
  empty-zones-enable no;
};
controls {};
`
	kresdConf = `net.listen('` + dnsServer + `', ` + dnsPort + `, { kind = 'dns' })
cache.size = 400 * MB
trust_anchors.remove('.')
modules = { 'policy', 'serve_stale < cache' }
policy.add(policy.all(policy.FORWARD({%s})))
log_level('crit')
`
	coreConf = `.:` + dnsPort + ` {
  bind ` + dnsServer + `
  cache {
    success 400000 86400
    serve_stale 24h
  }
  forward . %s
}
`
	pdnsConf = `local-address=` + dnsServer + `
local-port=` + dnsPort + `
setuid=
setgid=
socket-dir=/tmp/pdns
threads=1
dnssec=off
dont-query=
allow-from=127.0.0.0/8
max-cache-entries=400000
max-packetcache-entries=400000
hint-file=no
security-poll-suffix=
loglevel=3
`
)
