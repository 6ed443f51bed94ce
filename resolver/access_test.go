package resolver_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meibo/resolver"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

// askFrom is the reply to a client at an address who sends OPT.
func askFrom(t *testing.T, r *resolver.Resolver, client, local, name string, qtype uint16, rd bool) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.RecursionDesired = rd
	m.SetEdns0(1232, false)
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := &wire.Query{Client: netip.AddrPortFrom(netip.MustParseAddr(client), 4242), Local: netip.MustParseAddr(local)}
	v := q.Parse(packed)
	late := make(chan []byte, 1)
	msg := r.ServeDNS(q, v, nil, func(_ *wire.Query, msg []byte) { late <- append([]byte(nil), msg...) })
	if msg == nil {
		select {
		case msg = <-late:
		case <-time.After(10 * time.Second):
			t.Fatal("no reply")
		}
	}
	out := new(dns.Msg)
	if err := out.Unpack(msg); err != nil {
		t.Fatal(err)
	}
	return out
}

// verdict is the rcode of a reply, with the code of its Extended Error.
func verdict(m *dns.Msg) string {
	out := dns.RcodeToString[m.Rcode]
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok && e.InfoCode == dns.ExtendedErrorCodeProhibited {
				out += " prohibited"
			}
		}
	}
	return out
}

// Who may not recurse gets our own zones and nothing that came from upstream, cached or not (RFC 5358 section 4).
func TestRecursion_IsForThoseWhoMay_RFC5358(t *testing.T) {
	up := resolvertest.NewMemory()
	for _, name := range []string{"www.example.com.", "late.example.com."} {
		up.Set(name, dns.TypeA, resolvertest.Rule{Records: []string{name + " 300 IN A 198.51.100.1"}})
	}
	up.Set("gone.example.com.", dns.TypeA, resolvertest.Rule{Rcode: dns.RcodeNameError, Records: []string{"authority:example.com. 60 IN SOA ns. h. 1 2 3 4 60"}})
	// A zone that finds out only in a flight that a name is none of its own.
	slow := &zone{
		answer: func(*wire.Query) (resolver.Result, resolver.Outcome) { return resolver.Result{}, resolver.Later },
		resolve: func(context.Context, *wire.Query) (resolver.Result, error) {
			return resolver.Result{}, resolver.ErrNotMine
		},
	}
	inside := netip.MustParsePrefix("192.0.2.0/24")
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{
		mount("consul.", resolver.RankOwn, says("own")), mount("late.example.com.", resolver.RankOwn, slow), up.Mount(wire.Root),
	}})
	r.SetClients([]netip.Prefix{inside})

	const refused = "REFUSED prohibited"
	for _, c := range []struct {
		client, local, name string
		qtype               uint16
		rd                  bool
		want                string
	}{
		{"203.0.113.9", "192.0.2.1", "www.example.com", dns.TypeA, true, refused}, // not in the cache
		{"203.0.113.9", "192.0.2.1", "late.example.com", dns.TypeA, true, refused},
		{"203.0.113.9", "192.0.2.1", "gone.example.com", dns.TypeA, true, refused},
		{"192.0.2.7", "192.0.2.1", "www.example.com", dns.TypeA, true, "NOERROR"},
		{"192.0.2.7", "192.0.2.1", "late.example.com", dns.TypeA, true, "NOERROR"},
		{"192.0.2.7", "192.0.2.1", "gone.example.com", dns.TypeA, true, "NXDOMAIN"},
		{"203.0.113.9", "192.0.2.1", "www.example.com", dns.TypeA, true, refused}, // in the cache
		{"203.0.113.9", "192.0.2.1", "www.example.com", dns.TypeA, false, refused},
		{"203.0.113.9", "192.0.2.1", "late.example.com", dns.TypeA, true, refused},
		{"203.0.113.9", "192.0.2.1", "gone.example.com", dns.TypeA, true, refused},
		{"203.0.113.9", "192.0.2.1", "gone.example.com", dns.TypeAAAA, true, refused}, // denied for another type
		{"203.0.113.9", "192.0.2.1", "web.service.consul", dns.TypeTXT, true, "NOERROR"},
		{"203.0.113.9", "203.0.113.9", "www.example.com", dns.TypeA, true, "NOERROR"}, // this host
		{"127.0.0.1", "127.0.0.1", "www.example.com", dns.TypeA, true, "NOERROR"},
		{"::1", "::1", "www.example.com", dns.TypeA, true, "NOERROR"},
	} {
		if got := verdict(askFrom(t, r, c.client, c.local, c.name, c.qtype, c.rd)); got != c.want {
			t.Errorf("%s asks %s %s, rd %v: %s, want %s", c.client, c.name, dns.TypeToString[c.qtype], c.rd, got, c.want)
		}
	}
	if got := said(t, r, "www.example.com", dns.TypeA); got == "REFUSED" {
		t.Error("a question of our own is refused")
	}
}

func TestRecursion_CostsNoAllocation(t *testing.T) {
	up := resolvertest.NewMemory()
	up.Set("www.example.com.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example.com. 300 IN A 198.51.100.1"}})
	inside := netip.MustParsePrefix("192.0.2.0/24")
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}})
	r.SetClients([]netip.Prefix{inside})
	askFrom(t, r, "192.0.2.7", "192.0.2.1", "www.example.com", dns.TypeA, true)
	for _, client := range []string{"192.0.2.7:53", "203.0.113.9:53"} {
		b, err := resolvertest.Query("www.example.com", dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		q := &wire.Query{Client: netip.MustParseAddrPort(client)}
		dst := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(100, func() { r.ServeDNS(q, q.Parse(b), dst, nil) }); n != 0 {
			t.Errorf("%s: %v allocations", client, n)
		}
	}
}
