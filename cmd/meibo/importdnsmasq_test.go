package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meibo/cmd/meibo/config"
	"meibo/cmd/meibo/dnsmasq"
)

// The options and the values that lines are made of: those that mean something, at and past their limits, and nonsense.
var (
	dnsmasqOptions = strings.Fields(`server local rev-server address no-resolv resolv-file strict-order all-servers proxy-dnssec listen-address interface
		port no-hosts addn-hosts hostsdir expand-hosts domain local-ttl domain-needed bogus-priv bogus-nxdomain stop-dns-rebind rebind-localhost-ok
		rebind-domain-ok filter-AAAA filter-A filter-rr cache-size min-cache-ttl max-cache-ttl max-ttl neg-ttl no-negcache host-record cname srv-host
		txt-record ptr-record mx-host mx-target naptr-record caa-record dns-rr pid-file log-facility except-interface dhcp-range user nonsense`)
	dnsmasqValues = []string{
		"", "0", "1", "53", "300", "3600", "7200", "10801", "604801", "65535", "65536", "2147483647", "4294967296", "-1", "abc", "#", "//", "/#/", "=", "@", ",",
		"192.0.2.1", "192.0.2.1#53", "192.0.2.2#5353", "2001:db8::1", "127.0.0.1", "127.0.0.1#8600", "::1", "::", "0.0.0.0", "fe80::1%eth0", "255.255.255.255", "224.0.0.1", "::ffff:192.0.2.1", "10.0.0.0/8", "10.5.0.0/20",
		"192.168.5.128/25", "2001:db8::/33", "0.0.0.0/0", "10.0.0.0/99", "300.1.1.1", "192.0.2.1@lo", "#0",
		"a.example", "A.Example.", "b.a.example", "example", "consul", "localhost", "x.onion", "10.in-addr.arpa", "1.2.0.192.in-addr.arpa", "a b", "*.w.example", "*", ".", "..", "a..b", "under_score.example",
		"dollar$.example", `back\slash`, "größe.example", "xn--bcher-kva.example", strings.Repeat("x", 64) + ".example", strings.Repeat("abcdefghi.", 26) + "example",
		`"v=spf1 a, b"`, `"q\"u\\o\te"`, `"${x} %{y} {{ z }}"`, "${x", `"cost $5"`, `"unclosed`, "(open", "semi;colon", "\xff\xfe", "\u2028", strings.Repeat("long ", 60),
		"AAAA", "ANY", "HTTPS", "65", "01:02:ff", "0102f", "issue", "s", "SIP+D2U", `!^(.*)$!sip:\1@x!`, "_ldap._tcp", "_x._udp.a.example", "lo", "nosuch0", "eth*", `e"th`, "/nonexistent/file", "/tmp/$HOME/${b}", "relative/path", "local3", "daemon", "foo", "-",
	}
)

// randomLine is an option with values of any kind, in the forms that lists have.
func randomLine(r *rand.Rand) string {
	value := func() string { return dnsmasqValues[r.IntN(len(dnsmasqValues))] }
	line := dnsmasqOptions[r.IntN(len(dnsmasqOptions))]
	switch r.IntN(4) {
	case 0:
		return line + "=" + value()
	case 1:
		return line + "=/" + value() + "/" + value()
	case 2:
		return line + "=/" + value() + "/" + value() + "/" + value()
	}
	var list []string
	for range 1 + r.IntN(6) {
		list = append(list, value())
	}
	return line + "=" + strings.Join(list, ",")
}

// wantValid imports a configuration and loads what is made of it.
func wantValid(t *testing.T, dir, conf string) {
	t.Helper()
	path := writeFile(t, dir, "dnsmasq.conf", conf)
	made, err := dnsmasq.Import(path)
	if err != nil {
		t.Fatal(err)
	}
	hcl := writeFile(t, dir, "made.hcl", made.HCL)
	src := config.Sources{Paths: []string{hcl, writeFile(t, dir, "agent.hcl", fmt.Sprintf("data_dir = %q\n", dir))}, Partial: true, Look: true}
	src.Host.InUse = func(string, netip.AddrPort) string { return "" } // all sockets of the machine, for each address: it takes longer than the rest
	c, _, err := config.Load(src)
	if err == nil && len(c.Agent.LeftOut) > 0 {
		err = c.Agent.Faults()
	}
	if err != nil {
		t.Errorf("of\n%s\nthis was made, and is not valid: %v\n%s", conf, err, made.HCL)
	}
}

// What is made of a configuration always loads: what can't be taken is left out, and said.
func TestImportDnsmasq_WhatIsMadeIsValid(t *testing.T) {
	dir := t.TempDir()
	var lines []string
	for _, value := range dnsmasqValues { // each with each option
		lines = lines[:0]
		for _, option := range dnsmasqOptions {
			lines = append(lines, option+"="+value, option+"=/"+value+"/192.0.2.1", option+"=a.example,"+value)
		}
		wantValid(t, dir, strings.Join(lines, "\n"))
	}
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same on each run
		lines = lines[:0]
		for range 1 + r.IntN(12) {
			lines = append(lines, randomLine(r))
		}
		wantValid(t, dir, strings.Join(lines, "\n"))
	}
}

func FuzzImportDnsmasq_WhatIsMadeIsValid(f *testing.F) {
	f.Add("server=/a/b/1.2.3.4#53@x\naddress=/#/::\nhost-record=a,1.2.3.4,9\nmax-cache-ttl=0")
	f.Add("interface=nosuch0\nlog-facility=x\ntxt-record=a,\"${\"")
	f.Fuzz(func(t *testing.T, conf string) {
		if strings.Contains(conf, "conf-") || strings.Contains(conf, "servers-file") {
			return // files of this host
		}
		dir, err := os.MkdirTemp("", "import")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(filepath.Clean(dir))
		wantValid(t, dir, conf)
	})
}
