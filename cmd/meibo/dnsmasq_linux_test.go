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
		sameAnswers(t, conf, "www.example A", nil, []string{
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
		})
	})
}

// TestImportDnsmasq_WhatIsEasilyTakenAmiss has options that seem to have an equal in meibo and mean something else, or mean
// more together than alone.
func TestImportDnsmasq_WhatIsEasilyTakenAmiss(t *testing.T) {
	inHost(t, func(t *testing.T) {
		world, corp := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
		for _, rr := range []string{
			"www.example. 300 IN A 93.184.216.1", "x.pub.corp.example. 300 IN A 93.184.216.2", "y.corp.example. 300 IN A 93.184.216.66",
			"4.3.2.10.in-addr.arpa. 300 IN PTR ten.example.", "4.3.2.10.in-addr.arpa. 300 IN TXT ten", "1.0.64.100.in-addr.arpa. 300 IN PTR carrier.example.",
			"1.0.32.172.in-addr.arpa. 300 IN PTR public.example.", "printer.local. 300 IN A 93.184.216.3", "a.test. 300 IN A 93.184.216.4", "a.home.arpa. 300 IN A 93.184.216.5",
			"a.hr. 300 IN AAAA 2606:2800::1", "a.hr. 300 IN TXT world", "t.example. 300 IN A 93.184.216.6", "file.example. 300 IN AAAA 2606:2800::2",
			"x.ad.example. 300 IN AAAA 2606:2800::3", "x.ad.example. 300 IN TXT world", "x.both.example. 300 IN TXT world", "one. 300 IN TXT world", "one. 300 IN AAAA 2606:2800::4",
		} {
			f := strings.Fields(rr)
			world.Answer(f[0], dns.StringToType[f[3]], rr)
		}
		corp.Answer("y.corp.example.", dns.TypeA, "y.corp.example. 300 IN A 10.0.0.7")
		corp.Answer("x.both.example.", dns.TypeTXT, "x.both.example. 300 IN TXT corp")
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o755))
		hosts := writeFile(t, dir, "hosts", "192.0.2.1 file.example bad\\name.. good.example "+strings.Repeat("x", 64)+" late.example\nnonsense here\n192.0.2.2 more.example\n")
		asServer := func(u *resolvertest.Upstream) string { return strings.Replace(u.Addr().String(), ":", "#", 1) }
		lines := strings.NewReplacer("WORLD", asServer(world), "CORP", asServer(corp), "HOSTS", hosts)
		for _, tc := range []struct {
			name, lines string
			questions   []string
			differs     map[string]string
		}{
			{
				"default servers", "strict-order\nserver=/corp.example/CORP\nserver=/pub.corp.example/#",
				[]string{"y.corp.example A", "x.pub.corp.example A"}, nil,
			},
			{
				"default servers beside local", "all-servers\nlocal=/#/\nserver=/corp.example/CORP\nserver=/pub.corp.example/#",
				[]string{"y.corp.example A", "x.pub.corp.example A"}, nil,
			},
			{
				"bogus-priv", "bogus-priv",
				[]string{"4.3.2.10.in-addr.arpa PTR", "4.3.2.10.in-addr.arpa TXT", "1.0.64.100.in-addr.arpa PTR", "1.0.32.172.in-addr.arpa PTR", "1.2.0.192.in-addr.arpa PTR", "1.1.254.169.in-addr.arpa PTR", "printer.local A", "a.test A", "a.home.arpa A"}, nil,
			},
			{
				"no bogus-priv", "",
				[]string{"4.3.2.10.in-addr.arpa PTR", "4.3.2.10.in-addr.arpa TXT", "1.0.64.100.in-addr.arpa PTR", "printer.local A", "a.test A", "a.home.arpa A"}, nil,
			},
			{
				"types that records have none of", "domain-needed\nlocal=/lan/\nhost-record=a.hr,192.0.2.61\nhost-record=nx.hr,192.0.2.62\ntxt-record=t.example,hi\nmx-host=m.example,mail.example,10\n" +
					"srv-host=_s._tcp.example,a.hr,80\ncaa-record=c.example,0,issue,ca.example\ncname=alias.hr,a.hr\nhost-record=nas.lan,192.0.2.63\nhost-record=one,192.0.2.64",
				[]string{"a.hr A", "a.hr AAAA", "a.hr TXT", "a.hr MX", "nx.hr AAAA", "nx.hr TXT", "t.example TXT", "t.example A", "t.example AAAA", "m.example MX", "m.example A", "_s._tcp.example SRV", "_s._tcp.example A", "c.example CAA", "c.example A",
					"alias.hr A", "alias.hr AAAA", "nas.lan A", "nas.lan AAAA", "nas.lan MX", "other.lan A", "one A", "one AAAA", "one TXT", "two A", "61.2.0.192.in-addr.arpa PTR"},
				map[string]string{"c.example A": "a name that has a CAA record is there; dnsmasq forgets these, and lets it be denied"},
			},
			{
				"types that hosts files have none of, and bad names", "addn-hosts=HOSTS",
				[]string{"file.example A", "file.example AAAA", "file.example MX", "good.example A", "good.example AAAA", "late.example A", "more.example A"}, nil,
			},
			{
				"types that addresses have none of", "local=/hr/\nserver=/example/WORLD\naddress=/ad.example/0.0.0.0\naddress=/both.example/192.0.2.1\nserver=/both.example/CORP\naddress=/fixed.example/192.0.2.2\nlocal=/fixed.example/\naddress=/ad.hr/0.0.0.0",
				[]string{"ad.example A", "x.ad.example A", "x.ad.example AAAA", "x.ad.example TXT", "nx.ad.example TXT", "x.both.example A", "x.both.example TXT", "x.fixed.example A", "x.fixed.example TXT", "x.ad.hr A", "x.ad.hr TXT"},
				map[string]string{"x.ad.hr TXT": "the name has an address, so that there is no data; dnsmasq denies the name"},
			},
			{
				"an address for all names", "address=/#/192.0.2.9\nserver=/corp.example/CORP\nserver=/pub.corp.example/#\nhost-record=a.hr,192.0.2.61",
				[]string{"www.example A", "x.ad.example TXT", "x.ad.example AAAA", "y.corp.example A", "x.pub.corp.example A", "a.hr A", "a.hr AAAA"}, nil,
			},
			{
				"backslashes and dollars", `naptr-record=n.example,10,20,"u","E2U+sip","!^(.*)$!sip:\1@y.example!",r.example` + "\n" + `naptr-record=n2.example,10,20,u,E2U+sip,!^(.*)$!sip:\1@y.example!,r.example` + "\n" +
					`txt-record=bs.example,"a\1b","c\\d","e\te","f\xg","q\"q","x\ey",u\1v,w\\x` + "\n" + `txt-record=dollar.example,"cost $5","${x}",$6`,
				[]string{"n.example NAPTR", "n2.example NAPTR", "bs.example TXT", "dollar.example TXT"}, nil,
			},
			{
				"an alias and an address of one name", "host-record=both.lan,192.0.2.1\ncname=both.lan,c.lan\nhost-record=c.lan,192.0.2.2",
				[]string{"both.lan A", "both.lan CNAME", "c.lan A", "1.2.0.192.in-addr.arpa PTR"}, nil,
			},
			{
				"names of one address", "addn-hosts=HOSTS\nhost-record=a.hr,192.0.2.1\nhost-record=b.hr,192.0.2.1\nhost-record=c.hr,192.0.2.3\nptr-record=3.2.0.192.in-addr.arpa,d.hr",
				[]string{"1.2.0.192.in-addr.arpa PTR", "2.2.0.192.in-addr.arpa PTR", "3.2.0.192.in-addr.arpa PTR"}, nil,
			},
		} {
			t.Run(tc.name, func(t *testing.T) {
				text := "user=root\nkeep-in-foreground\nno-resolv\nno-hosts\nport=5301\nlisten-address=127.0.0.1\nbind-interfaces\nserver=WORLD\n" + tc.lines + "\n"
				conf := writeFile(t, dir, strings.ReplaceAll(tc.name, " ", "-")+"/dnsmasq.conf", lines.Replace(text))
				sameAnswers(t, conf, "www.example A", tc.differs, tc.questions)
			})
		}
	})
}

// sameAnswers runs dnsmasq with a configuration, on port 5301, and meibo with what is made of it, and holds the one's answers
// to the other's; where they are to differ, differs says why. Both answer first once they are up.
func sameAnswers(t *testing.T, conf, first string, differs map[string]string, questions []string) {
	t.Helper()
	theirs := start(t, peer(t, "dnsmasq", "-k", "--pid-file", "-C", conf))
	made, err := dnsmasq.Import(conf)
	must(t, err)
	for _, n := range made.Notes {
		if n.Kind == dnsmasq.LeftOut && !strings.HasPrefix(n.Text, "user=") && !strings.Contains(n.Why, "has a CNAME") {
			t.Errorf("not taken: %s", n)
		}
	}
	dir := filepath.Dir(conf)
	writeFile(t, dir, "conf/dnsmasq.hcl", strings.ReplaceAll(made.HCL, ":5301", ":5302"))
	writeFile(t, dir, "conf/agent.hcl", fmt.Sprintf("data_dir = %q\nbind_addr = \"127.0.0.1\"\n", filepath.Join(dir, "data")))
	bin, err := meiboBinary()
	must(t, err)
	if out, err := run(t, exec.Command(bin, "validate", filepath.Join(dir, "conf"))); err != nil {
		t.Fatalf("validate: %v\n%s", err, out)
	}
	ours := startMeibo(t, "-config-dir", filepath.Join(dir, "conf"))
	for _, addr := range []string{"127.0.0.1:5301", "127.0.0.1:5302"} {
		eventually(t, addr+" answers", func() error {
			name, typ, _ := strings.Cut(first, " ")
			reply, err := ask(addr, "udp", name, dns.StringToType[typ])
			if err == nil && len(reply.Answer) == 0 {
				err = fmt.Errorf("%s has no answer yet", first)
			}
			return err
		})
	}
	for _, q := range questions {
		theirs, ours := said(t, "127.0.0.1:5301", q), said(t, "127.0.0.1:5302", q)
		why := differs[q]
		switch {
		case theirs != ours && why == "":
			t.Errorf("%s: dnsmasq says %s, meibo %s", q, theirs, ours)
		case theirs == ours && why != "":
			t.Errorf("%s: both say %s, though it was to differ: %s", q, theirs, why)
		}
	}
	if t.Failed() {
		t.Logf("made of it:\n%s", made.HCL)
	}
	ours.Stop(t)
	theirs.Stop(t)
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
