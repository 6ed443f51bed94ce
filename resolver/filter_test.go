package resolver_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"meibo/resolver"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

func TestFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, corp := resolvertest.NewMemory(), resolvertest.NewMemory()
		for name, data := range map[string]string{
			"pub.example.": "A 192.0.2.1", "priv.example.": "A 10.0.0.1", "host.example.": "A 127.0.0.1", "zero.example.": "A 0.0.0.0", "cgn.example.": "A 100.64.0.9",
			"link.example.": "A 169.254.1.1", "v6.example.": "AAAA fd00::1", "mapped.example.": "AAAA ::ffff:10.0.0.1", "six.example.": "AAAA 2001:db8::1",
			"dev.ok.example.": "A 10.0.0.1", "hint.example.": `HTTPS 1 . alpn="h2" ipv4hint=192.0.2.1,10.0.0.1`, "hint6.example.": "HTTPS 1 svc.example. ipv6hint=fd00::1",
			"fine.example.": `HTTPS 1 . ipv4hint=192.0.2.1`, "bogus.example.": "A 64.94.110.11", "plain.": "A 192.0.2.1",
		} {
			typ, _, _ := strings.Cut(data, " ")
			up.Set(name, dns.StringToType[typ], resolvertest.Rule{Records: []string{name + " 300 IN " + data}})
		}
		corp.Set("nas.corp.", dns.TypeA, resolvertest.Rule{Records: []string{"nas.corp. 300 IN A 10.0.0.7"}})
		up.Set("to.example.", dns.TypeA, resolvertest.Rule{Records: []string{"to.example. 300 IN CNAME nas.corp."}})
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root), corp.Mount(mustName("corp"))}})
		rebind := resolver.Filter{StopDNSRebind: true, RebindDomainOK: []wire.Name{mustName("ok.example")}}
		localhost := rebind
		localhost.RebindLocalhostOK = true
		bogus := resolver.Filter{BogusNXDomain: []netip.Prefix{netip.MustParsePrefix("64.94.110.0/24")}}
		types := resolver.Filter{Types: []wire.Type{wire.TypeAAAA}, DomainNeeded: true}
		for _, tc := range []struct {
			filter    resolver.Filter
			name, typ string
			want      string
		}{
			{resolver.Filter{}, "priv.example", "A", "NOERROR 1"},
			{rebind, "priv.example", "A", "NOERROR 0 ede 15"},
			{rebind, "PUB.example", "A", "NOERROR 1"},
			{rebind, "host.example", "A", "NOERROR 0 ede 15"},
			{rebind, "zero.example", "A", "NOERROR 0 ede 15"},
			{rebind, "cgn.example", "A", "NOERROR 0 ede 15"},
			{rebind, "link.example", "A", "NOERROR 0 ede 15"},
			{rebind, "v6.example", "AAAA", "NOERROR 0 ede 15"},
			{rebind, "mapped.example", "AAAA", "NOERROR 0 ede 15"},
			{rebind, "six.example", "AAAA", "NOERROR 1"},
			{rebind, "dev.OK.example", "A", "NOERROR 1"}, // the domain is allowed
			{rebind, "hint.example", "HTTPS", "NOERROR 0 ede 15"},
			{rebind, "hint6.example", "HTTPS", "NOERROR 0 ede 15"},
			{rebind, "fine.example", "HTTPS", "NOERROR 1"},
			{rebind, "nas.corp", "A", "NOERROR 1"},          // a route of its own is the operator's
			{rebind, "to.example", "A", "NOERROR 0 ede 15"}, // an alias into it is not
			{localhost, "host.example", "A", "NOERROR 1"},   // as lists of blocked names have it
			{localhost, "priv.example", "A", "NOERROR 0 ede 15"},
			{bogus, "bogus.example", "A", "NXDOMAIN 0 ede 15"},
			{bogus, "pub.example", "A", "NOERROR 1"},
			{types, "six.example", "AAAA", "NOERROR 0 ede 17"},
			{types, "pub.example", "A", "NOERROR 1"},
			{types, "plain", "A", "NXDOMAIN 0 ede 17"},
			{types, "plain", "AAAA", "NXDOMAIN 0 ede 17"},
			{types, "plain", "MX", "NXDOMAIN 0"}, // only addresses are refused; this is the upstream's word
			{resolver.Filter{}, "plain", "A", "NOERROR 1"},
			{resolver.Filter{}, "six.example", "AAAA", "NOERROR 1"}, // a filter that goes takes its answers along
		} {
			r.SetFilter(tc.filter)
			for range 2 { // the second time from the cache
				m := resolvertest.Ask(t, r, resolvertest.Query(tc.name, dns.StringToType[tc.typ]), false)
				got := fmt.Sprintf("%s %d", dns.RcodeToString[m.Rcode], len(m.Answer))
				for _, o := range m.IsEdns0().Option {
					if e, ok := o.(*dns.EDNS0_EDE); ok {
						got += fmt.Sprintf(" ede %d", e.InfoCode)
					}
				}
				if got != tc.want {
					t.Errorf("%s %s with %+v: %s, want %s", tc.name, tc.typ, tc.filter, got, tc.want)
				}
				if m.Rcode != dns.RcodeSuccess && strings.Contains(tc.want, "ede") && len(m.Ns) != 1 {
					t.Errorf("%s %s: a denial of ours without an SOA", tc.name, tc.typ)
				}
			}
		}
	})
}
