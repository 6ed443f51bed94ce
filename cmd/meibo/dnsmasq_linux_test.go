package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"meibo/cmd/meibo/dnsmasq"
	"meibo/resolver/resolvertest"
)

// TestImportDnsmasq_AnswersAsDnsmasqDoes runs a real dnsmasq and a meibo with what is made of its configuration, and asks
// both the same.
func TestImportDnsmasq_AnswersAsDnsmasqDoes(t *testing.T) {
	inHost(t, func(t *testing.T) {
		world, corp := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
		for _, rr := range []string{
			"www.example. 300 IN A 93.184.216.1", "www.example. 300 IN AAAA 2606:2800::1", "mail.example. 300 IN MX 10 mx.example.",
			"evil.example. 300 IN A 10.6.6.6", "ok.plex.direct. 300 IN A 192.168.1.7", "lo.example. 300 IN A 127.0.0.1", "typo.example. 300 IN A 64.94.110.11",
			"x.ads.example. 300 IN A 93.184.216.9", "x.blocked.example. 300 IN A 93.184.216.9", "x.dual.example. 300 IN A 93.184.216.9", "nas. 300 IN A 93.184.216.9",
			"out.corp.example. 300 IN A 93.184.216.77", "other.lan. 300 IN A 93.184.216.9", "9.1.168.192.in-addr.arpa. 300 IN PTR wrong.example.", "a.null.example. 300 IN TXT hello",
		} {
			f := strings.Fields(rr)
			world.Answer(f[0], dns.StringToType[f[3]], rr)
		}
		corp.Answer("db.corp.example.", dns.TypeA, "db.corp.example. 300 IN A 10.0.0.7")
		corp.Answer("7.0.2.10.in-addr.arpa.", dns.TypePTR, "7.0.2.10.in-addr.arpa. 300 IN PTR db.corp.example.")
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o755))
		hosts := writeFile(t, dir, "hosts", "192.168.1.5 box\n192.168.1.6 printer.lan\nfd00::6 printer.lan\n")
		hostsDir := filepath.Join(dir, "hosts.d")
		writeFile(t, hostsDir, "more", "192.168.1.8 late\n")
		asServer := func(u *resolvertest.Upstream) string { return strings.Replace(u.Addr().String(), ":", "#", 1) }
		conf := writeFile(t, dir, "dnsmasq.conf", fmt.Sprintf(`
user=root
keep-in-foreground
no-resolv
no-hosts
addn-hosts=%s
hostsdir=%s
port=5301
listen-address=127.0.0.1
bind-interfaces
domain=lan
expand-hosts
local=/lan/
domain-needed
bogus-priv
stop-dns-rebind
rebind-localhost-ok
rebind-domain-ok=/plex.direct/corp.example/
bogus-nxdomain=64.94.110.11
server=%s   # the rest
server=/corp.example/%s
server=/out.corp.example/#
rev-server=10.2.0.0/16,%s
address=/ads.example/192.0.2.9
address=/dual.example/192.0.2.9
address=/dual.example/2001:db8::9
address=/blocked.example/
address=/null.example/#
host-record=nas.lan,192.168.1.9,fd00::9
cname=www.lan,nas.lan
srv-host=_ldap._tcp.lan,nas.lan,389,0,5
txt-record=info.lan,"a, b",c
mx-host=lan,nas.lan,10
ptr-record=_http._tcp.lan,"Box one._http._tcp.lan"
caa-record=lan,0,issue,letsencrypt.org
naptr-record=_sip._udp.lan,10,20,s,SIP+D2U,,_sip._udp.lan
`, hosts, hostsDir, asServer(world), asServer(corp), asServer(corp)))
		start(t, peer(t, "dnsmasq", "-k", "--pid-file", "-C", conf))
		made, err := dnsmasq.Import(conf)
		must(t, err)
		for _, n := range made.Notes {
			if n.Kind == dnsmasq.LeftOut && !strings.HasPrefix(n.Text, "user=") {
				t.Errorf("not taken: %s", n)
			}
		}
		writeFile(t, dir, "conf/dnsmasq.hcl", strings.ReplaceAll(made.HCL, ":5301", ":5302"))
		writeFile(t, dir, "conf/agent.hcl", fmt.Sprintf("data_dir = %q\nbind_addr = \"127.0.0.1\"\n", filepath.Join(dir, "data")))
		bin, err := meiboBinary()
		must(t, err)
		if out, err := run(t, exec.Command(bin, "validate", filepath.Join(dir, "conf"))); err != nil {
			t.Fatalf("validate: %v\n%s", err, out)
		}
		startMeibo(t, "-config-dir", filepath.Join(dir, "conf"))
		for _, addr := range []string{"127.0.0.1:5301", "127.0.0.1:5302"} {
			eventually(t, addr+" answers", func() error { return wantAnswer(addr, "www.example", dns.TypeA, "A 93.184.216.1") })
		}
		differs := map[string]string{ // and why
			"a.null.example TXT": "addresses are all that such names have; dnsmasq asks the world for the rest",
		}
		for _, q := range []string{
			"www.example A", "www.example AAAA", "mail.example MX", "absent.example A", "WWW.Example A",
			"evil.example A", "ok.plex.direct A", "lo.example A", "typo.example A",
			"ads.example A", "x.ads.example A", "x.y.ads.example A", "x.ads.example AAAA", "x.dual.example A", "x.dual.example AAAA",
			"blocked.example A", "x.blocked.example A", "x.blocked.example MX", "null.example A", "a.null.example AAAA", "a.null.example TXT",
			"nas A", "box A", "box.lan A", "box.lan AAAA", "printer.lan A", "printer.lan AAAA", "late A", "late.lan A", "other.lan A", "other.lan MX",
			"nas.lan A", "nas.lan AAAA", "nas.lan TXT", "www.lan A", "www.lan AAAA", "www.lan CNAME", "www.lan MX",
			"_ldap._tcp.lan SRV", "_ldap._tcp.lan A", "info.lan TXT", "lan MX", "lan CAA", "_http._tcp.lan PTR", "_sip._udp.lan NAPTR",
			"db.corp.example A", "absent.corp.example A", "out.corp.example A",
			"5.1.168.192.in-addr.arpa PTR", "6.1.168.192.in-addr.arpa PTR", "9.1.168.192.in-addr.arpa PTR", "7.0.2.10.in-addr.arpa PTR", "77.1.168.192.in-addr.arpa PTR",
			"9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR",
		} {
			theirs, ours := said(t, "127.0.0.1:5301", q), said(t, "127.0.0.1:5302", q)
			why := differs[q]
			switch {
			case theirs != ours && why == "":
				t.Errorf("%s: dnsmasq says %s, meibo %s", q, theirs, ours)
			case theirs == ours && why != "":
				t.Errorf("%s: both say %s, though it was to differ: %s", q, theirs, why)
			}
		}
	})
}

// said is the response code and the answer section, in order, in lower case, without TTLs.
func said(t *testing.T, server, question string) string {
	t.Helper()
	name, typ, _ := strings.Cut(question, " ")
	reply, err := ask(server, "udp", name, dns.StringToType[typ])
	must(t, err)
	var rrs []string
	for _, rr := range reply.Answer {
		f := strings.Fields(rr.String())
		rrs = append(rrs, strings.ToLower(f[0]+" "+strings.Join(f[3:], " ")))
	}
	slices.Sort(rrs)
	return dns.RcodeToString[reply.Rcode] + " [" + strings.Join(rrs, "; ") + "]"
}
