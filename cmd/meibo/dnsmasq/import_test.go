package dnsmasq

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
		{"server=//192.0.2.3", "", "left out: server=//192.0.2.3: names without a dot have no block of their own, and go where those with a dot go"},
		{"address=//192.0.2.3", "", "left out: address=//192.0.2.3: names without a dot have no block"},
		{"local=//", "domain_needed = true", "changed: local=//: addresses of names without a dot are asked of nobody"},
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
		{"address=/a.example/192.0.2.3", "  addresses = [\"192.0.2.3\"]\n  servers   = [\"#\"]", ""},
		{"address=/a.example/192.0.2.3\nlocal=/a.example/", "forward \"a.example\" {\n  addresses = [\"192.0.2.3\"]\n}", ""},
		{"address=/a.example/192.0.2.3\nlocal=/example/", "forward \"a.example\" {\n  addresses = [\"192.0.2.3\"]\n}", "dnsmasq.conf:1: changed: address=/a.example/192.0.2.3: a.example has no data of other types"},
		{"address=/a.example/192.0.2.3\nserver=/example/192.0.2.9", "  addresses = [\"192.0.2.3\"]\n  servers   = [\"192.0.2.9\"]", ""},
		{"address=/b.a.example/192.0.2.3\nserver=/a.example/192.0.2.9\nserver=/example/192.0.2.8", "  addresses = [\"192.0.2.3\"]\n  servers   = [\"192.0.2.9\"]", ""},
		{"address=/a.example/192.0.2.3\naddress=/a.example/2001:db8::1", `addresses = ["192.0.2.3", "2001:db8::1"]`, ""},
		{"address=/a.example/#", `addresses = ["0.0.0.0", "::"]`, ""},
		{"address=/a.example/", `local = true`, ""},
		{"address=/#/192.0.2.3", "forward \".\" {\n  addresses = [\"192.0.2.3\"]\n  servers   = [\"#\"]", ""},
		{"address=/#/192.0.2.3\nserver=/a.example/#", `recursors = ["192.0.2.1"]`, ""},
		{"local=/#/", `recursors = ["192.0.2.1"]`, ""}, // dnsmasq prefers the server
		{"server=/test/127.0.0.1\naddress=/.test/127.0.0.1", `addresses = ["127.0.0.1"]`, "dnsmasq.conf:1: changed: server=/test/127.0.0.1: that is this daemon itself"},
		{"server=/test/127.0.0.1", `local = true`, "that is this daemon itself"},
		{"address=/192.0.2.3", "", "expected /DOMAIN/"},
		{"address=192.0.2.3", "", "expected /DOMAIN/ADDRESS"},
		{"address=/a.example/192.0.2.3\nserver=/a.example/192.0.2.9", "  addresses = [\"192.0.2.3\"]\n  servers   = [\"192.0.2.9\"]", ""},
		{"strict-order", "recursors = [\"192.0.2.1\"]\nforward \".\" {\n  servers = [\"#\"]\n  mode    = \"strict\"", ""},
		{"all-servers", `mode    = "all"`, ""},
		{"proxy-dnssec", `trust_ad = true`, ""},
		{"listen-address=::1,192.0.2.9", `listen    = ["[::1]:53", "192.0.2.9:53", "127.0.0.1:53"]`, ""},
		{"port=5300", `listen    = ["127.0.0.1:5300"]`, ""},
		{"port=0", "ports { dns = -1 }", "left out: port=0"},
		{"interface=br0", `addresses { dns = "127.0.0.1 ::1 {{ GetInterfaceIP \"^br0$\" }}" }`, "changed: interface=br0"},
		{"interface=eth0.7", `{{ GetInterfaceIP \"^eth0\\\\.7$\" }}`, "changed: interface=eth0.7"},
		{"interface=(eth", "", "changed: interface=(eth"},
		{"interface=eth0/1", "", "is no interface's name"},
		{"interface=eth*", "", "there are no patterns"},
		{"listen-address=0.0.0.0,::ffff:192.0.2.9,::1", `listen = ["0.0.0.0:53", "[::1]:53"]`, ""},
		{"listen-address=::", `listen = ["[::]:53"]`, ""},
		{"listen-address=192.0.2.9\nserver=192.0.2.9", `recursors = ["192.0.2.1"]`, "changed: server=192.0.2.9: that is this daemon itself"},
		{"listen-address=224.0.0.1", "", "is no address that a host listens on"},
		{"server=fe80::1%eth0,192.0.2.2", "", `"fe80::1%eth0,192.0.2.2" is no address`},
		{"server=fe80::1%eth0", `recursors = ["fe80::1%eth0", "192.0.2.1"]`, ""},
		{"server=0.0.0.0", "", "is no server's address"},
		{"server=/192.0.2.7/192.0.2.1", "", "192.0.2.7 is an address and no domain"},
		{"rebind-domain-ok=back\\slash", "", "is no domain"},
		{"expand-hosts\ndomain=a/b", "", "is no domain"},
		{"log-facility=foo", "", "no facility of syslog"},
		{"interface=lo", `listen    = ["127.0.0.1:53", "[::1]:53"]`, ""},
		{"except-interface=eth0", "", "left out: except-interface=eth0"},
		{"bind-interfaces", "", "not needed: bind-interfaces"},
		{"no-hosts", `files = []`, ""},
		{"addn-hosts=/etc/a", `files = ["/etc/hosts", "/etc/a"]`, ""},
		{"no-hosts\nhostsdir=/etc/h", `files = ["/etc/h"]`, ""},
		{"expand-hosts\ndomain=Lan", `domain           = "Lan"`, ""},
		{"expand-hosts", "", "left out: expand-hosts"},
		{"domain=lan,192.168.0.0/24", "", "left out: domain=lan"},
		{"local-ttl=60", `ttl              = "60s"`, ""},
		{"domain-needed", "domain_needed = true", ""},
		{"local-ttl=2147483647", `ttl              = "2147482800s"`, "changed: local-ttl=2147483647: 2147482800 s are the most that there is"},
		{"", `bogus_priv = "off"`, ""},
		{"bogus-priv", `bogus_priv = "reverse"`, ""},
		{"bogus-nxdomain=198.51.100.1,198.51.100.0/24", `bogus_nxdomain = ["198.51.100.1", "198.51.100.0/24"]`, ""},
		{"stop-dns-rebind\nrebind-localhost-ok", "rebind_localhost_ok = true", ""},
		{"rebind-domain-ok=/a.example/b.example/", `rebind_domain_ok = ["a.example", "b.example"]`, ""},
		{"rebind-domain-ok=a.example", `rebind_domain_ok = ["a.example"]`, ""},
		{"filter-AAAA\nfilter-A\nfilter-rr=ANY,65", `types      = ["AAAA", "A", "ANY", "TYPE65"]`, ""},
		{"cache-size=10000", "", "not needed: cache-size=10000"},
		{"cache-size=200000", `max_bytes = "58MiB"`, ""},
		{"cache-size=0", "", "left out: cache-size=0"},
		{"min-cache-ttl=60\nmax-cache-ttl=3600\nmax-ttl=300\nneg-ttl=30", `negative_ttl   = "30s"`, ""},
		{"max-cache-ttl=0", `max_ttl = "604800s"`, "changed: max-cache-ttl=0: 604800 s are the most"},
		{"max-cache-ttl=604801", `max_ttl = "604800s"`, "changed: max-cache-ttl=604801"},
		{"min-cache-ttl=7200", `min_ttl = "3600s"`, ""}, // as dnsmasq takes it
		{"max-ttl=0", `max_client_ttl = "0s"`, ""},
		{"max-ttl=700000", `max_client_ttl = "604800s"`, "changed: max-ttl=700000"},
		{"neg-ttl=10801", `negative_ttl = "10800s"`, "changed: neg-ttl=10801"},
		{"no-negcache", `negative_max_ttl = "0s"`, ""},
		{"host-record=nas.lan,nas,192.0.2.5,2001:db8::5,60", `"nas.lan 60 A 192.0.2.5"`, ""},
		{"host-record=nas.lan,192.0.2.5", `"5.2.0.192.in-addr.arpa PTR nas.lan."`, ""},
		{"host-record=a.lan,192.0.2.5\nhost-record=b.lan,192.0.2.5", `records = ["a.lan A 192.0.2.5", "5.2.0.192.in-addr.arpa PTR a.lan.", "b.lan A 192.0.2.5"]`, ""},
		{"host-record=a.lan,192.0.2.5\nptr-record=5.2.0.192.in-addr.arpa,b.lan", `records = ["a.lan A 192.0.2.5", "5.2.0.192.in-addr.arpa PTR b.lan."]`, ""},
		{"host-record=nas.lan", "", "no name has an address"},
		{"cname=a.lan,b.lan,c.lan,30", `"b.lan 30 CNAME c.lan."`, ""},
		{"cname=*.lan,c.lan", "", "there are no wildcards"},
		{"cname=a.lan,c.lan\nhost-record=A.lan,192.0.2.1", `records          = ["a.lan CNAME c.lan.", "1.2.0.192.in-addr.arpa PTR A.lan."]`, "dnsmasq.conf:2: left out: host-record=A.lan,192.0.2.1: a.lan. has a CNAME ("},
		{"host-record=a.lan,192.0.2.1\ntxt-record=a.lan,x\ncname=a.lan,c.lan", `records          = ["1.2.0.192.in-addr.arpa PTR a.lan.", "a.lan CNAME c.lan."]`, "dnsmasq.conf:2: left out: txt-record=a.lan,x: a.lan. has a CNAME ("},
		{"cname=a.lan,c.lan\ncname=a.lan,c.lan", `records          = ["a.lan CNAME c.lan."]`, ""},
		{"domain=lan\nsrv-host=_ldap._tcp,ldap.lan,389,1,2", `"_ldap._tcp.lan SRV 1 2 389 ldap.lan."`, ""},
		{"srv-host=_none._tcp.lan", `"_none._tcp.lan SRV 0 0 1 ."`, ""},
		{`txt-record=a.lan,"v=spf1 a, \"x\" # all",b`, `"a.lan TXT \"v=spf1 a, \\\"x\\\" # all\" \"b\""`, ""},
		{`txt-record=a.lan,"a\1b","c\\d","e\te",f\tf,"${x} $5"`, `"a.lan TXT \"a\\\\1b\" \"c\\\\d\" \"e\\009e\" \"f\\\\tf\" \"\u0024{x} $5\""`, ""},
		{"txt-record=a.lan,\xe9", `"a.lan TXT \"\\233\""`, ""},
		{`naptr-record=a.lan,10,20,u,E2U+sip,!^(.*)$!sip:\1@b.lan!,c.lan`, `"a.lan NAPTR 10 20 \"u\" \"E2U+sip\" \"!^(.*)$!sip:\\\\1@b.lan!\" c.lan."`, ""},
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
		if !strings.Contains(squeezed(res.HCL), squeezed(tc.want)) {
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

// squeezed leaves one blank of each row: those before equals signs say nothing.
func squeezed(s string) string { return regexp.MustCompile(" +").ReplaceAllString(s, " ") }

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
		{"server=192.0.2.1\nserver=/a.example/192.0.2.2\nserver=/a.example/#", `servers = ["192.0.2.2", "192.0.2.1", "#"]`, "recursors"},
		{"no-resolv\nserver=/a.example/#", "forward \"a.example\" {\n  local = true", "#"}, // resolv.conf's are none
		{"no-resolv\naddress=/a.example/192.0.2.1", "forward \"a.example\" {\n  addresses = [\"192.0.2.1\"]\n}", "#"},
		{"no-resolv\nall-servers\nserver=192.0.2.1\nserver=/a.example/#", "recursors = [\"192.0.2.1\"]\nforward \"a.example\" {\n  servers = [\"#\"]\n  mode    = \"all\"", ""},
		{"server=192.0.2.1\nno-resolv", `recursors = ["192.0.2.1"]`, "forward"},
		{"no-resolv", "forward \".\" {\n  local = true", "recursors"},
		{"no-resolv\nserver=/a.example/192.0.2.1", "forward \".\" {\n  local = true", "recursors"},
		{"strict-order", "servers = [\"#\"]\n  mode    = \"strict\"", "recursors"},
		{"resolv-file=/run/r", `resolv_file = "/run/r"`, "forward"},
		{"resolv-file=/run/r\nno-resolv\nserver=192.0.2.1", `recursors = ["192.0.2.1"]`, "resolv_file"},
		{"server=192.0.2.1\naddress=/#/192.0.2.9", "addresses = [\"192.0.2.9\"]\n  servers   = [\"192.0.2.1\", \"#\"]", "recursors"},
		{"no-resolv\naddress=/#/192.0.2.9", "forward \".\" {\n  addresses = [\"192.0.2.9\"]\n}", "recursors"},
		{"no-resolv\nlocal=/#/", "forward \".\" {\n  local = true", "recursors"},
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
	if _, err := Import(filepath.Join(dir, "nowhere")); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("nowhere: error %v", err)
	}
}

// dnsmasq reads each file once, whatever names it how often.
func TestImport_AFileIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"main":  "conf-file=" + path("loop") + "\nconf-file=" + path("main") + "\nconf-dir=" + path("d") + "\ntxt-record=main.lan,x",
		"loop":  "txt-record=loop.lan,x\nconf-file=" + path("main"),
		"d/one": "txt-record=one.lan,x\nconf-dir=" + path("d"),
	} {
		if err := os.MkdirAll(filepath.Dir(path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../loop", path("d/two")); err != nil {
		t.Fatal(err)
	}
	res, err := Import(path("main"))
	if err != nil {
		t.Fatal(err)
	}
	if want := `["loop.lan TXT \"x\"", "one.lan TXT \"x\"", "main.lan TXT \"x\""]`; !strings.Contains(res.HCL, want) {
		t.Errorf("no %s in\n%s", want, res.HCL)
	}
	var notes []string
	for _, n := range res.Notes {
		if n.Line > 0 {
			notes = append(notes, n.String())
		}
	}
	want := []string{
		path("loop") + ":2: not needed: conf-file=" + path("main") + ": " + path("main") + " has been read already",
		path("main") + ":2: not needed: conf-file=" + path("main") + ": " + path("main") + " has been read already",
		path("d/one") + ":2: not needed: conf-dir=" + path("d") + ": " + path("d/one") + " has been read already",
		path("d/one") + ":2: not needed: conf-dir=" + path("d") + ": " + path("d/two") + " has been read already",
		path("main") + ":3: not needed: conf-dir=" + path("d") + ": " + path("d/two") + " has been read already",
	}
	if !slices.Equal(notes, want) {
		t.Errorf("said\n%s\nwant\n%s", strings.Join(notes, "\n"), strings.Join(want, "\n"))
	}
}

func FuzzImport(f *testing.F) {
	f.Add("server=/a/b/1.2.3.4#53@x\naddress=/#/::\nhost-record=a,1.2.3.4,9")
	f.Add(`txt-record=a,"\"x"` + "\ncname=a,b,1\nmx-host=\nsrv-host=,,,,\ndns-rr=,,\nfilter-rr=,\nnaptr-record=,,,,,\nrev-server=,\n--=\n=\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "conf-") || strings.Contains(text, "servers-file") {
			return // files of this host
		}
		importText(t, text)
	})
}
