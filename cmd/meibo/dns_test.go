package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meibo/forwarder"
	"meibo/resolver/local"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

// hangUp has the daemon read its configuration again, and waits until it has, by a service that only the new one has.
func hangUp(t *testing.T, s *site, p *process, round int) {
	t.Helper()
	writeFile(t, s.dir, "conf/round.hcl", fmt.Sprintf("service { name = \"round%d\" address = \"192.0.2.%d\" port = 1 }", round, round))
	before := strings.Count(p.Output.String(), "configuration taken")
	must(t, p.Process.Signal(syscall.SIGHUP))
	eventually(t, "the configuration is taken", func() error {
		if strings.Count(p.Output.String(), "configuration taken") == before {
			return fmt.Errorf("not yet; it said:\n%s", p.Output)
		}
		return nil
	})
}

func wantAsked(t *testing.T, u *resolvertest.Upstream, name string, want int) {
	t.Helper()
	if got := len(u.Asked(name)); got != want {
		t.Errorf("the upstream was asked for %s %d times, want %d", name, got, want)
	}
}

// TestReload_ForwardedAnswersSurviveUnlessTheirRouteChanged is VIEWS rule 3: a forwarded entry holds its route's counter
// only; a changed hosts record removes its own keys.
func TestReload_ForwardedAnswersSurviveUnlessTheirRouteChanged(t *testing.T) {
	world, corp, corp2 := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
	world.Answer("www.example.net.", dns.TypeA, "www.example.net. 3600 IN A 203.0.113.1")
	world.Answer("pinned.example.net.", dns.TypeA, "pinned.example.net. 3600 IN A 203.0.113.2")
	for i, u := range []*resolvertest.Upstream{corp, corp2} {
		u.Answer("db.corp.example.", dns.TypeA, fmt.Sprintf("db.corp.example. 3600 IN A 203.0.113.1%d", i))
	}
	s := newSite(t, "")
	conf := func(corp *resolvertest.Upstream, more string) {
		text := fmt.Sprintf(`
			node_name = "h1"
			bind_addr = "127.0.0.1"
			recursors = [%q]
			ports { dns = %d  http = %d }
			forward "corp.example" { servers = [%q] }
			%s
			service { name = "web" address = "192.0.2.10" port = 80 }`, world.Addr(), s.dnsPort, s.httpPort, corp.Addr(), more)
		writeFile(t, s.dir, "conf/agent.hcl", text)
	}
	conf(corp, "")
	p := s.start(t)
	s.up(t)
	all := func(corpAnswer, pinned string) {
		t.Helper()
		for name, want := range map[string]string{"www.example.net": "A 203.0.113.1", "db.corp.example": corpAnswer, "pinned.example.net": pinned} {
			if err := wantAnswer(s.dns, name, dns.TypeA, want); err != nil {
				t.Error(err)
			}
		}
	}
	all("A 203.0.113.10", "A 203.0.113.2")
	hangUp(t, s, p, 1)
	all("A 203.0.113.10", "A 203.0.113.2")
	wantAsked(t, world, "www.example.net", 1)
	wantAsked(t, corp, "db.corp.example", 1)

	conf(corp, `hosts { records = ["pinned.example.net A 198.51.100.9"] }`)
	hangUp(t, s, p, 2)
	all("A 203.0.113.10", "A 198.51.100.9")
	wantAsked(t, world, "www.example.net", 1)
	wantAsked(t, world, "pinned.example.net", 1)
	wantAsked(t, corp, "db.corp.example", 1)

	conf(corp2, "")
	hangUp(t, s, p, 3)
	all("A 203.0.113.11", "A 203.0.113.2")
	wantAsked(t, world, "www.example.net", 1)
	wantAsked(t, world, "pinned.example.net", 2)
	wantAsked(t, corp, "db.corp.example", 1)
	wantAsked(t, corp2, "db.corp.example", 1)
	p.Stop(t)
}

// TestReload_FixedDomainsAndFilters: what is fixed, and what is filtered, changes with a reload, for cached answers too.
func TestReload_FixedDomainsAndFilters(t *testing.T) {
	world := resolvertest.NewUpstream(t)
	for _, rr := range []string{"www.ads.example. 3600 IN A 203.0.113.1", "nas.ads.example. 3600 IN A 203.0.113.2", "evil.example. 3600 IN A 10.0.0.1", "ten.example. 3600 IN AAAA 2001:db8::10"} {
		name, typ := strings.Fields(rr)[0], strings.Fields(rr)[3]
		world.Answer(name, dns.StringToType[typ], rr)
	}
	s := newSite(t, "")
	conf := func(more string) {
		writeFile(t, s.dir, "conf/agent.hcl", fmt.Sprintf(`
			node_name = "h1"
			bind_addr = "127.0.0.1"
			recursors = [%q]
			ports { dns = %d  http = %d }
			service { name = "web" address = "192.0.2.10" port = 80 }
			hosts { files = []  records = ["nas.ads.example A 192.0.2.7", "www.lan CNAME nas.ads.example"] }
			%s`, world.Addr(), s.dnsPort, s.httpPort, more))
	}
	all := func(www, evil, ten string) {
		t.Helper()
		for name, want := range map[string]string{
			"www.ads.example": www, "nas.ads.example": "A 192.0.2.7", "www.lan": "CNAME nas.ads.example., A 192.0.2.7", "evil.example": evil, "ten.example AAAA": ten,
		} {
			name, typ, _ := strings.Cut(name, " ")
			reply, err := ask(s.dns, "udp", name, dns.StringToType[cmp.Or(typ, "A")])
			must(t, err)
			var got []string
			for _, rr := range reply.Answer {
				got = append(got, strings.Join(strings.Fields(rr.String())[3:], " "))
			}
			if len(got) == 0 {
				got = []string{dns.RcodeToString[reply.Rcode]}
			}
			if text := strings.Join(got, ", "); text != want {
				t.Errorf("%s: %s, want %s", name, text, want)
			}
		}
	}
	conf("")
	p := s.start(t)
	s.up(t)
	all("A 203.0.113.1", "A 10.0.0.1", "AAAA 2001:db8::10")
	conf(`forward "ads.example" { local = true }  filter { stop_dns_rebind = true  types = ["AAAA"] }`)
	hangUp(t, s, p, 1)
	all("NXDOMAIN", "NOERROR", "NOERROR")
	conf(`forward "ads.example" { addresses = ["192.0.2.99"] }`)
	hangUp(t, s, p, 2)
	all("A 192.0.2.99", "A 10.0.0.1", "AAAA 2001:db8::10")
	conf("")
	hangUp(t, s, p, 3)
	all("A 203.0.113.1", "A 10.0.0.1", "AAAA 2001:db8::10")
	conf(`forward "." { local = true }`) // nobody is asked at all
	hangUp(t, s, p, 4)
	all("NXDOMAIN", "NXDOMAIN", "NXDOMAIN")
	p.Stop(t)
}

// TestRestart_ForwardedAnswersAreKept: asked for before a restart, answered after it without an upstream.
func TestRestart_ForwardedAnswersAreKept(t *testing.T) {
	world := resolvertest.NewUpstream(t)
	world.Answer("www.example.net.", dns.TypeA, "www.example.net. 3600 IN A 203.0.113.1")
	s := newSite(t, "")
	writeFile(t, s.dir, "conf/agent.hcl", fmt.Sprintf(`
		node_name = "h1"
		bind_addr = "127.0.0.1"
		recursors = [%q]
		ports { dns = %d  http = %d }
		cache { persist = true }
		service { name = "web" address = "192.0.2.10" port = 80 }`, world.Addr(), s.dnsPort, s.httpPort))
	for round, want := range []int{1, 1, 2} {
		p := s.start(t)
		s.up(t)
		if err := wantAnswer(s.dns, "www.example.net", dns.TypeA, "A 203.0.113.1"); err != nil {
			t.Error(err)
		}
		wantAsked(t, world, "www.example.net", want)
		p.Stop(t)
		file := filepath.Join(s.dir, "data/view/answers.cache")
		info, err := os.Stat(file)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", file, info.Mode())
		}
		if round == 1 { // a file that is spoilt costs its answers alone
			must(t, os.WriteFile(file, []byte("meibo answers 1\nnothing of the kind"), 0o600))
		}
	}
}

// TestReload_RouteToItselfChangesNothing: the services that came with it aren't taken either.
func TestReload_RouteToItselfChangesNothing(t *testing.T) {
	s := newSite(t, "")
	p := s.start(t)
	s.up(t)
	writeFile(t, s.dir, "conf/self.hcl", fmt.Sprintf("forward \"corp.example\" { servers = [%q] }\nservice { name = \"late\" address = \"192.0.2.20\" port = 1 }", s.dns))
	must(t, p.Process.Signal(syscall.SIGHUP))
	p.Said(t, "not taken", "corp.example", "no server to ask")
	reply, err := ask(s.dns, "udp", "late.service.consul", dns.TypeA)
	must(t, err)
	if len(reply.Answer) > 0 {
		t.Errorf("half of a refused configuration was taken: %v", reply)
	}
}

// TestForwarding_BlackBox puts the rules that the issue of forwarding names to the binary, once each.
func TestForwarding_BlackBox(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	s := newSite(t, "")
	writeFile(t, s.dir, "conf/z.hcl", fmt.Sprintf(`
		cache { max_ttl = "24h" }
		forward "example.net" { servers = [%q] }
		service { name = "ext" address = "www.example.net" port = 443 }`, u.Addr()))
	p := s.start(t)
	s.up(t)
	u.Answer("www.example.net.", dns.TypeA, "www.example.net. 300 IN CNAME edge.example.net.", "edge.example.net. 200 IN A 203.0.113.1")
	u.Answer("www.example.net.", dns.TypeAAAA, "www.example.net. 300 IN CNAME edge.example.net.", "edge.example.net. 200 IN AAAA 2001:db8::1")
	u.Set("absent.example.net.", dns.TypeA, resolvertest.NXDomain("example.net.", 60))
	u.Set("mute.example.net.", dns.TypeA, resolvertest.NoData("example.net.", 60))
	big := resolvertest.Big("big.example.net.", 20)
	big.Truncate = true
	u.Set("big.example.net.", dns.TypeTXT, big)
	u.Set("slow.example.net.", dns.TypeA, resolvertest.Rule{Records: []string{"slow.example.net. 60 IN A 203.0.113.7"}, Delay: 300 * time.Millisecond})
	u.Answer("short.example.net.", dns.TypeA, "short.example.net. 1 IN A 203.0.113.8")

	t.Run("RFC 2308: NXDOMAIN denies every type, NODATA its own", func(t *testing.T) {
		for _, q := range []struct {
			name        string
			qtype       uint16
			rcode, asks int
		}{{"absent", dns.TypeA, dns.RcodeNameError, 1}, {"absent", dns.TypeA, dns.RcodeNameError, 1}, {"absent", dns.TypeAAAA, dns.RcodeNameError, 1}, {"mute", dns.TypeA, dns.RcodeSuccess, 1}, {"mute", dns.TypeA, dns.RcodeSuccess, 1}} {
			reply, err := ask(s.dns, "udp", q.name+".example.net", q.qtype)
			must(t, err)
			if reply.Rcode != q.rcode || len(reply.Answer) != 0 || len(reply.Ns) != 1 {
				t.Errorf("%s: %v", q.name, reply)
			}
			wantAsked(t, u, q.name+".example.net", q.asks)
		}
	})
	t.Run("TCP after TC", func(t *testing.T) {
		reply, err := ask(s.dns, "tcp", "big.example.net", dns.TypeTXT)
		must(t, err)
		asked := u.Asked("big.example.net")
		if len(reply.Answer) != 20 || len(asked) != 2 || asked[0].TCP || !asked[1].TCP {
			t.Errorf("%d records after %+v", len(reply.Answer), asked)
		}
	})
	t.Run("equal questions in flight are joined", func(t *testing.T) {
		errs := make(chan error, 20)
		for range cap(errs) {
			go func() { errs <- wantAnswer(s.dns, "slow.example.net", dns.TypeA, "A 203.0.113.7") }()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		exchanges := map[[2]uint16]bool{} // a question sent again keeps its port and ID
		for _, a := range u.Asked("slow.example.net") {
			exchanges[[2]uint16{a.Port, a.ID}] = true
		}
		if len(exchanges) != 1 {
			t.Errorf("%d questions for 20 clients, want 1", len(exchanges))
		}
	})
	t.Run("a host name of an instance is followed in both families", func(t *testing.T) {
		for qtype, want := range map[uint16]string{dns.TypeA: "A 203.0.113.1", dns.TypeAAAA: "AAAA 2001:db8::1"} {
			if err := wantAnswer(s.dns, "ext.service.consul", qtype, "CNAME www.example.net.", "CNAME edge.example.net.", want); err != nil {
				t.Error(err)
			}
		}
		reply, err := ask(s.dns, "udp", "ext.service.consul", dns.TypeSRV, func(m *dns.Msg) { m.SetEdns0(1232, false) })
		must(t, err)
		if text := fmt.Sprint(reply.Extra); !strings.Contains(text, "203.0.113.1") || !strings.Contains(text, "2001:db8::1") {
			t.Errorf("SRV without the addresses of its target: %v", reply)
		}
	})
	t.Run("RFC 8767: an expired answer when nobody has another", func(t *testing.T) {
		must(t, wantAnswer(s.dns, "short.example.net", dns.TypeA, "A 203.0.113.8"))
		u.SetDown(true)
		defer u.SetDown(false)
		eventually(t, "the answer expires and is given as stale", func() error {
			reply, err := ask(s.dns, "udp", "short.example.net", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
			if err != nil {
				return err
			}
			if code, _, ok := resolvertest.EDE(reply); len(reply.Answer) != 1 || !ok || code != dns.ExtendedErrorCodeStaleAnswer || reply.Answer[0].Header().Ttl != 30 {
				return fmt.Errorf("not stale: %v", reply)
			}
			return nil
		})
	})
	p.Stop(t)
}

// TestEDNSVersionClassAndOpcode_AreJudgedByTheRFCs: RFC 6891 section 6.1.3, RFC 1035 section 4.1, RFC 5936 for transfers.
func TestEDNSVersionClassAndOpcode_AreJudgedByTheRFCs(t *testing.T) {
	s := newSite(t, "")
	p := s.start(t)
	s.up(t)
	for name, tc := range map[string]struct {
		qtype uint16
		edit  func(*dns.Msg)
		want  int
	}{
		"EDNS version 1": {dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
		"class CHAOS":    {dns.TypeA, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		"class ANY":      {dns.TypeA, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, dns.RcodeRefused},
		"opcode STATUS":  {dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, dns.RcodeNotImplemented},
		"opcode NOTIFY":  {dns.TypeSOA, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented},
		"opcode UPDATE":  {dns.TypeSOA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"AXFR":           {dns.TypeAXFR, func(*dns.Msg) {}, dns.RcodeRefused},
		"IXFR":           {dns.TypeIXFR, func(*dns.Msg) {}, dns.RcodeRefused},
		"a usual one":    {dns.TypeA, func(*dns.Msg) {}, dns.RcodeSuccess},
	} {
		for _, network := range []string{"udp", "tcp"} {
			reply, err := ask(s.dns, network, "web.service.consul", tc.qtype, tc.edit)
			if err != nil {
				t.Errorf("%s over %s: %v", name, network, err)
				continue
			}
			if reply.Rcode != tc.want {
				t.Errorf("%s over %s: %s, want %s", name, network, dns.RcodeToString[reply.Rcode], dns.RcodeToString[tc.want])
			}
		}
	}
	p.Stop(t)
}

// TestResolvConfNamingOnlyUs_IsNoUpstreamAndIsFollowed: the host's resolv.conf says 127.0.0.1 and we listen there.
func TestResolvConfNamingOnlyUs_IsNoUpstreamAndIsFollowed(t *testing.T) {
	inHost(t, func(t *testing.T) {
		dir := t.TempDir()
		writeFile(t, dir, "agent.hcl", `
			node_name = "h1"
			bind_addr = "127.0.0.1"
			ports { dns = 53 }
			service { name = "web" address = "192.0.2.10" port = 80 }`)
		p := startMeibo(t, "-config-dir", dir, "-data-dir", filepath.Join(dir, "data"))
		const here = "127.0.0.1:53"
		eventually(t, "the service is answered", func() error { return wantAnswer(here, "web.service.consul", dns.TypeA, "A 192.0.2.10") })
		reply, err := ask(here, "udp", "www.example.net", dns.TypeA)
		must(t, err)
		if reply.Rcode != dns.RcodeRefused {
			t.Errorf("without an upstream: %v", reply)
		}
		p.Said(t, "names only this host (127.0.0.1)", "recursors")

		conn, err := net.ListenPacket("udp", "127.0.0.2:53")
		must(t, err)
		upstream := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
			m := new(dns.Msg).SetReply(req)
			rr, _ := dns.NewRR(req.Question[0].Name + " 60 IN A 203.0.113.5")
			m.Answer = []dns.RR{rr}
			_ = w.WriteMsg(m)
		})}
		ended := make(chan error, 1)
		go func() { ended <- upstream.ActivateAndServe() }()
		defer func() { _ = conn.Close(); <-ended }()
		must(t, os.WriteFile("/etc/resolv.conf", []byte("nameserver 127.0.0.1\nnameserver 127.0.0.2\n"), 0o644))
		took := eventually(t, "the new upstream is asked", func() error { return wantAnswer(here, "www.example.net", dns.TypeA, "A 203.0.113.5") })
		t.Logf("followed after %v", took)
		must(t, os.WriteFile("/etc/resolv.conf", []byte("nameserver 127.0.0.1\n"), 0o644))
		must(t, p.Process.Signal(syscall.SIGHUP))
		p.Said(t, "configuration taken")
		if err := wantAnswer(here, "other.example.net", dns.TypeA, "A 203.0.113.5"); err != nil {
			t.Errorf("a reload forgot the upstreams known last: %v", err)
		}
		p.Stop(t)
	})
}

// What means something in a private network alone is asked of private upstreams, where there are others as well.
func TestPrivateParts_AskThoseWhoCanKnow_RFC6303(t *testing.T) {
	server := netip.MustParseAddrPort
	public, inner := server("9.9.9.9:53"), server("10.0.0.2:53")
	root := func(servers ...netip.AddrPort) forwarder.Route {
		return forwarder.Route{Suffix: wire.Root, Servers: servers}
	}
	corp := forwarder.Route{Suffix: "\x0210\x07in-addr\x04arpa\x00", Servers: []netip.AddrPort{inner}}
	for name, c := range map[string]struct {
		routes []forwarder.Route
		parts  int
		fixed  []local.Fixed
	}{
		"all public":           {[]forwarder.Route{root(public)}, 0, nil},
		"all private":          {[]forwarder.Route{root(inner)}, 0, nil},
		"none":                 {nil, 0, nil},
		"both":                 {[]forwarder.Route{root(public, inner)}, len(local.PrivateZones()), nil},
		"both, and one routed": {[]forwarder.Route{root(public, inner), corp}, len(local.PrivateZones()) - 1, nil},
		"both, and one fixed":  {[]forwarder.Route{root(public, inner)}, len(local.PrivateZones()) - 1, []local.Fixed{{Suffix: "\x05local\x00"}}},
	} {
		parts := privateParts(c.routes, c.fixed)
		if len(parts) != c.parts {
			t.Errorf("%s: %d parts, want %d", name, len(parts), c.parts)
		}
		for _, p := range parts {
			if !p.Part || len(p.Servers) != 1 || p.Servers[0] != inner {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
}

// What others tell the catalog of a living host does not last: its agent puts it right.
func TestOthersWordOfALivingHost_DoesNotLast(t *testing.T) {
	s := newSite(t, "")
	s.start(t)
	s.up(t)
	s.led(t)
	holds := func(what string) {
		t.Helper()
		took := eventually(t, what, func() error {
			_, body, err := s.call(http.MethodGet, "/v1/catalog/node/h1", "")
			if err == nil && (!strings.Contains(body, `"Address":"127.0.0.1"`) || !strings.Contains(body, `"web"`)) {
				err = errors.New(body)
			}
			return err
		})
		t.Logf("%s after %v", what, took)
	}
	holds("the host is registered")
	s.mustCall(t, http.MethodPut, "/v1/catalog/deregister", `{"Node":"h1"}`)
	holds("it is back")
	s.mustCall(t, http.MethodPut, "/v1/catalog/register", `{"Node":"h1","Address":"203.0.113.66","SkipNodeUpdate":false}`)
	holds("its address is right")
}

// No answer between two states is a failure: a name is there, or it is denied.
func TestDeregister_IsNeverAFailure(t *testing.T) {
	for _, view := range []string{"", "view { whole_below = 0 }"} {
		s := newSite(t, view)
		p := s.start(t)
		s.led(t)
		eventually(t, "the catalog is known", func() error {
			reply, err := ask(s.dns, "udp", "unknown.service.consul", dns.TypeA)
			if err == nil && reply.Rcode != dns.RcodeNameError { // VIEWS.md 12: nothing is denied before
				err = fmt.Errorf("got %s", dns.RcodeToString[reply.Rcode])
			}
			return err
		})
		for round := range 20 {
			name := fmt.Sprintf("brief%d", round%3)
			s.mustCall(t, "PUT", "/v1/agent/service/register", fmt.Sprintf(`{"Name":%q,"Port":1}`, name))
			rcodes := func(want int) {
				t.Helper()
				for range 50 {
					reply, err := ask(s.dns, "udp", name+".service.consul", dns.TypeA)
					must(t, err)
					if reply.Rcode != want {
						t.Fatalf("round %d: %s, want %s", round, dns.RcodeToString[reply.Rcode], dns.RcodeToString[want])
					}
				}
			}
			rcodes(dns.RcodeSuccess)
			s.mustCall(t, "PUT", "/v1/agent/service/deregister/"+name, "")
			rcodes(dns.RcodeNameError)
		}
		p.Stop(t)
	}
}
