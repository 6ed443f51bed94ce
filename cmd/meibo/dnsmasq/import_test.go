package dnsmasq

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImport_EachForm(t *testing.T) {
	const loopback = "\nlisten-address=127.0.0.1\nno-resolv\nserver=192.0.2.1\n"
	for _, tc := range []struct {
		lines string
		want  string // a line of the result
		note  string // what is said, or nothing
	}{
		{"server=192.0.2.2#5353", `recursors = ["192.0.2.2:5353", "192.0.2.1"]`, ""},
		{"server=2001:db8::1#54 # a comment", `recursors = ["[2001:db8::1]:54", "192.0.2.1"]`, ""},
		{"server=/a.example/b.example/192.0.2.3", `forward "b.example" {`, ""},
		{"server=/a.example/192.0.2.3\nserver=/A.Example./192.0.2.4", `servers = ["192.0.2.3", "192.0.2.4"]`, ""},
		{"server=/a.example/", `local = true`, ""},
		{"local=/a.example/", `local = true`, ""},
		{"server=/a.example/#", `servers = ["#"]`, ""},
		{"server=//192.0.2.3", "", "left out: server=//192.0.2.3: names without a dot"},
		{"server=/#/192.0.2.3", `recursors = ["192.0.2.1", "192.0.2.3"]`, ""},
		{"server=192.0.2.3@eth0", `recursors = ["192.0.2.3", "192.0.2.1"]`, `changed: server=192.0.2.3@eth0: questions leave as the routing table says, not from "eth0"`},
		{"server=dns.example", "", `left out: server=dns.example: "dns.example" is no address`},
		{"server=192.0.2.3#0", "", `"0" is no port`},
		{"server=", "", "left out: server: no server"},
		{"server=/consul/127.0.0.1#8600", "", "not needed: server=/consul/127.0.0.1#8600: that is a Consul agent, whose names meibo answers itself"},
		{"rev-server=10.0.0.0/8,127.0.0.1#8600", "", "not needed: rev-server=10.0.0.0/8,127.0.0.1#8600"},
		{"address=/.a.example/192.0.2.3", `forward "a.example" {`, ""},
		{"server=/consul/10.0.0.5#8600", `forward "consul" {`, "meibo itself does not"},
		{"server=/*.a.example/192.0.2.3", `forward "a.example" {`, "changed: server=/*.a.example/192.0.2.3: a.example itself"},
		{"server=/a*.example/192.0.2.3", "", "there are no patterns"},
		{"rev-server=10.1.0.0/16,192.0.2.3", `forward "10.1.0.0/16" {`, ""},
		{"rev-server=10.1.2.3,192.0.2.3", `forward "10.1.2.3/32" {`, ""},
		{"rev-server=10.1.2.3/99,192.0.2.3", "", "is no network"},
		{"address=/a.example/192.0.2.3", `addresses = ["192.0.2.3"]`, ""},
		{"address=/a.example/192.0.2.3\naddress=/a.example/2001:db8::1", `addresses = ["192.0.2.3", "2001:db8::1"]`, ""},
		{"address=/a.example/#", `addresses = ["0.0.0.0", "::"]`, ""},
		{"address=/a.example/", `local = true`, ""},
		{"address=/#/192.0.2.3", `forward "." {`, "192.0.2.1 are asked nothing"},
		{"server=/test/127.0.0.1\naddress=/.test/127.0.0.1", `addresses = ["127.0.0.1"]`, "is this daemon itself"},
		{"server=/test/127.0.0.1", `local = true`, "is this daemon itself"},
		{"address=/192.0.2.3", "", "expected /DOMAIN/"},
		{"address=192.0.2.3", "", "expected /DOMAIN/ADDRESS"},
		{"address=/a.example/192.0.2.3\nserver=/a.example/192.0.2.9", `addresses = ["192.0.2.3"]`, "changed: forward \"a.example\""},
		{"strict-order", `mode    = "strict"`, ""},
		{"all-servers", `mode    = "all"`, ""},
		{"proxy-dnssec", `trust_ad = true`, ""},
		{"listen-address=::1,192.0.2.9", `listen    = ["[::1]:53", "192.0.2.9:53", "127.0.0.1:53"]`, ""},
		{"port=5300", `listen    = ["127.0.0.1:5300"]`, ""},
		{"port=0", "ports { dns = -1 }", "left out: port=0"},
		{"interface=br0", `addresses { dns = "127.0.0.1 ::1 {{ GetInterfaceIP \"br0\" }}" }`, "changed: interface=br0"},
		{"interface=lo", `listen    = ["127.0.0.1:53", "[::1]:53"]`, ""},
		{"except-interface=eth0", "", "left out: except-interface=eth0"},
		{"bind-interfaces", "", "not needed: bind-interfaces"},
		{"no-hosts", `files = []`, ""},
		{"addn-hosts=/etc/a", `files = ["/etc/hosts", "/etc/a"]`, ""},
		{"no-hosts\nhostsdir=/etc/h", `files = ["/etc/h"]`, ""},
		{"expand-hosts\ndomain=Lan", `domain = "Lan"`, ""},
		{"expand-hosts", "", "left out: expand-hosts"},
		{"domain=lan,192.168.0.0/24", "", "left out: domain=lan"},
		{"local-ttl=60", `ttl = "60s"`, ""},
		{"domain-needed", "domain_needed = true", ""},
		{"bogus-priv", `bogus_priv = "on"`, ""},
		{"bogus-nxdomain=198.51.100.1,198.51.100.0/24", `bogus_nxdomain = ["198.51.100.1", "198.51.100.0/24"]`, ""},
		{"stop-dns-rebind\nrebind-localhost-ok", "rebind_localhost_ok = true", ""},
		{"rebind-domain-ok=/a.example/b.example/", `rebind_domain_ok = ["a.example", "b.example"]`, ""},
		{"rebind-domain-ok=a.example", `rebind_domain_ok = ["a.example"]`, ""},
		{"filter-AAAA\nfilter-A\nfilter-rr=ANY,65", `types = ["AAAA", "A", "ANY", "TYPE65"]`, ""},
		{"cache-size=10000", "", "not needed: cache-size=10000"},
		{"cache-size=200000", `max_bytes = "58MiB"`, ""},
		{"cache-size=0", "", "left out: cache-size=0"},
		{"min-cache-ttl=60\nmax-cache-ttl=3600\nmax-ttl=300\nneg-ttl=30", `negative_ttl   = "30s"`, ""},
		{"no-negcache", `negative_max_ttl = "0s"`, ""},
		{"host-record=nas.lan,nas,192.0.2.5,2001:db8::5,60", `"nas.lan 60 A 192.0.2.5"`, ""},
		{"host-record=nas.lan,192.0.2.5", `"5.2.0.192.in-addr.arpa PTR nas.lan."`, ""},
		{"host-record=nas.lan", "", "no name has an address"},
		{"cname=a.lan,b.lan,c.lan,30", `"b.lan 30 CNAME c.lan."`, ""},
		{"cname=*.lan,c.lan", "", "there are no wildcards"},
		{"cname=a.lan,c.lan\nhost-record=a.lan,192.0.2.1", "", "mend by hand: hosts.records: a.lan. has a CNAME"},
		{"domain=lan\nsrv-host=_ldap._tcp,ldap.lan,389,1,2", `"_ldap._tcp.lan SRV 1 2 389 ldap.lan."`, ""},
		{"srv-host=_none._tcp.lan", `"_none._tcp.lan SRV 0 0 1 ."`, ""},
		{`txt-record=a.lan,"v=spf1 a, \"x\" # all",b`, `"a.lan TXT \"v=spf1 a, \\\"x\\\" # all\" \"b\""`, ""},
		{"mx-host=lan,mail.lan,10", `"lan MX 10 mail.lan."`, ""},
		{"mx-host=lan,10\nmx-target=mail.lan", `"lan MX 10 mail.lan."`, ""},
		{"mx-host=lan", "", "left out: mx-host=lan: no target"},
		{`ptr-record=_http._tcp.lan,"Box one._http._tcp.lan"`, `"_http._tcp.lan PTR Box\\032one._http._tcp.lan."`, ""},
		{"caa-record=lan,0,issue,ca.example", `"lan CAA 0 issue \"ca.example\""`, ""},
		{"dns-rr=lan,99,01:02", `"lan TYPE99 \\# 2 0102"`, ""},
		{"txt-record=a b,x", "", "left out: txt-record=a b,x"},
		{"pid-file=/run/d.pid", `pid_file  = "/run/d.pid"`, ""},
		{"log-facility=/var/log/d.log", `log_file  = "/var/log/d.log"`, ""},
		{"log-facility=local3", `syslog_facility = "LOCAL3"`, ""},
		{"log-queries", "", "left out: log-queries"},
		{"dhcp-range=192.168.0.2,192.168.0.9", "", "DHCP, TFTP and router advertisements are not meibo's"},
		{"user=dnsmasq", "", "left out: user=dnsmasq"},
		{"dnssec", "", "left out: dnssec"},
		{"frobnicate=1", "", "not an option of dnsmasq that is known here"},
		{"  # nothing", "", ""},
		{"--domain-needed", "domain_needed = true", ""},
		{"resolv-file=/run/r", "", ""},
	} {
		res := importText(t, tc.lines+loopback)
		if !strings.Contains(res.HCL, tc.want) {
			t.Errorf("%q: no %s in\n%s", tc.lines, tc.want, res.HCL)
		}
		var notes []string
		for _, n := range res.Notes {
			notes = append(notes, n.String())
		}
		if said := strings.Join(notes, "\n"); tc.note == "" && said != "" || !strings.Contains(said, tc.note) {
			t.Errorf("%q: said %q, want %q", tc.lines, said, tc.note)
		}
	}
}

// What answers nothing of its own must not deny anything.
func TestImport_WhatIsNotNeededLeavesNoBlock(t *testing.T) {
	res := importText(t, "no-resolv\nserver=192.0.2.1\nserver=/consul/127.0.0.1#8600\nrev-server=10.0.0.0/8,127.0.0.1#8600\nserver=/bad/x\nrev-server=10.0.0.0/8,x\naddress=/bad/x\n")
	if strings.Contains(res.HCL, "forward") {
		t.Errorf("a block for nobody:\n%s", res.HCL)
	}
}

func importText(t testing.TB, text string) Result {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dnsmasq.conf")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	res, err := Import(path)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestImport_WhoAnswersTheRest(t *testing.T) {
	for _, tc := range []struct{ lines, want, not string }{
		{"", "", "forward"}, // resolv.conf's, as without a word
		{"server=192.0.2.1", `servers = ["192.0.2.1", "#"]`, "recursors"}, // and resolv.conf's
		{"server=192.0.2.1\nno-resolv", `recursors = ["192.0.2.1"]`, "forward"},
		{"no-resolv", "forward \".\" {\n  local = true", "recursors"},
		{"no-resolv\nserver=/a.example/192.0.2.1", "forward \".\" {\n  local = true", "recursors"},
		{"strict-order", "servers = [\"#\"]\n  mode    = \"strict\"", "recursors"},
		{"resolv-file=/run/r", `resolv_file = "/run/r"`, "forward"},
		{"resolv-file=/run/r\nno-resolv\nserver=192.0.2.1", `recursors = ["192.0.2.1"]`, "resolv_file"},
		{"server=192.0.2.1\naddress=/#/192.0.2.9", `addresses = ["192.0.2.9"]`, "recursors"},
	} {
		res := importText(t, tc.lines)
		_, body, _ := strings.Cut(res.HCL, "\n\n")
		if !strings.Contains(body, tc.want) || tc.not != "" && strings.Contains(body, tc.not) {
			t.Errorf("%q: want %s and no %q in\n%s", tc.lines, tc.want, tc.not, body)
		}
	}
}

func TestImport_FilesThatNameFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("main", "conf-file="+dir+"/one\nconf-dir="+dir+"/only,*.conf\nconf-dir="+dir+"/all,.bak\n")
	write("one", "address=/one.example/192.0.2.1")
	for _, d := range []string{"only", "all"} {
		for _, f := range []string{"a.conf", "b", "c.bak", ".d", "e~", "#f#"} {
			write(d+"/"+f, "address=/"+strings.Trim(d+f, ".~#")+".example/192.0.2.1\nbogus="+d+f)
		}
	}
	res, err := Import(filepath.Join(dir, "main"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, line := range strings.Split(res.HCL, "\n") {
		if name, ok := strings.CutPrefix(line, `forward "`); ok {
			got = append(got, strings.TrimSuffix(name, `.example" {`))
		}
	}
	if want := "one onlya.conf alla.conf allb"; strings.Join(got, " ") != want {
		t.Errorf("read %v, want %s", got, want)
	}
	if n := res.Notes[0]; n.File != filepath.Join(dir, "only/a.conf") || n.Line != 2 {
		t.Errorf("the note is of %s:%d", n.File, n.Line)
	}
	write("loop", "conf-file="+dir+"/loop")
	for _, bad := range []string{"loop", "nowhere"} {
		if _, err := Import(filepath.Join(dir, bad)); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add("server=/a/b/1.2.3.4#53@x\naddress=/#/::\nhost-record=a,1.2.3.4,9")
	f.Add(`txt-record=a,"\"x"` + "\ncname=a,b,1\nmx-host=\nsrv-host=,,,,\ndns-rr=,,\nfilter-rr=,\nnaptr-record=,,,,,\nrev-server=,\n--=\n=\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "conf-") {
			return // files of this host
		}
		importText(t, text)
	})
}
