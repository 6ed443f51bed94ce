package consul_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"meibo/resolver"
	"meibo/resolver/consul"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

// reply is what the zone answers to a client that spells the name so, over TCP.
func reply(t testing.TB, z *consul.Zone, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := &wire.Query{TCP: true}
	if v := q.Parse(packed); v != wire.OK {
		t.Fatal(v)
	}
	result, outcome := z.Answer(q)
	if outcome == resolver.Later {
		if result, err = z.Resolve(context.Background(), q); err != nil {
			t.Fatal(err)
		}
	} else if outcome != resolver.Answered {
		t.Fatalf("%s: outcome %v", name, outcome)
	}
	out := new(dns.Msg)
	if err := out.Unpack(result.Answer.Append(nil, q, wire.Render{})); err != nil {
		t.Fatal(err)
	}
	return out
}

// said is a reply in short: its code, answers and additional records, sorted.
func said(m *dns.Msg) string {
	lines := append(resolvertest.Records(m.Answer), resolvertest.Records(m.Extra)...)
	slices.Sort(lines)
	return dns.RcodeToString[m.Rcode] + " " + strings.Join(lines, "; ")
}

// withHosts is a zone over the registrations, which follows host names into these records.
func withHosts(t testing.TB, registrations []string, records ...string) *consul.Zone {
	t.Helper()
	f := newFake()
	for _, r := range registrations {
		if err := f.Register(r); err != nil {
			t.Fatal(err)
		}
	}
	f.settle()
	zone, err := consul.New(consul.Options{State: f.State, Want: f.Want, Moved: func() {}, Chase: func(_ context.Context, q *wire.Query) (resolver.Result, error) {
		r := &wire.Reply{Rcode: wire.RcodeNXDomain}
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				return resolver.Result{}, err
			}
			if !strings.EqualFold(rr.Header().Name, wire.Name(q.Name()).String()) {
				continue
			}
			r.Rcode = wire.RcodeSuccess
			if a, ok := rr.(*dns.A); ok && q.Type == wire.TypeA {
				r.RRs = append(r.RRs, wire.RR{Owner: wire.Name(q.Name()), Type: wire.TypeA, TTL: rr.Header().Ttl, Data: a.A.To4()})
			}
		}
		a, err := wire.Pack(q, r)
		return resolver.Result{Answer: a, Ages: true}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// A host name that nobody answers for costs the others 0.4 s, and what it had in hand is not waited for.
func TestSeveralHosts_ASilentOneCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		for _, r := range []string{
			`{"Node":"a","Address":"192.0.2.1","Service":{"Service":"ext","Port":1,"Address":"silent.example"}}`,
			`{"Node":"b","Address":"192.0.2.2","Service":{"Service":"ext","Port":1,"Address":"here.example"}}`,
			`{"Node":"c","Address":"192.0.2.3","Service":{"Service":"ext","Port":1,"Address":"silent2.example"}}`,
		} {
			if err := f.Register(r); err != nil {
				t.Fatal(err)
			}
		}
		f.settle()
		zone, err := consul.New(consul.Options{State: f.State, Want: f.Want, Moved: func() {}, Chase: func(ctx context.Context, q *wire.Query) (resolver.Result, error) {
			if strings.HasPrefix(wire.Name(q.Name()).String(), "silent") {
				<-ctx.Done()
				return resolver.Result{}, ctx.Err()
			}
			a, err := wire.Pack(q, &wire.Reply{RRs: []wire.RR{{Owner: wire.Name(q.Name()), Type: wire.TypeA, TTL: 60, Data: []byte{198, 51, 100, 1}}}})
			return resolver.Result{Answer: a, Ages: true}, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // whatever the order of the instances
			began := time.Now()
			if got, want := said(reply(t, zone, "ext.service.consul.", dns.TypeA)), "NOERROR ext.service.consul. 0 IN CNAME here.example.; here.example. 60 IN A 198.51.100.1"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if took := time.Since(began); took > 800*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		}
	})
}

func TestMixed_AddressesAreTheAnswer_RFC1034_3_6_2(t *testing.T) {
	zone := withHosts(t, []string{
		`{"Node":"a","Address":"192.0.2.1","Service":{"Service":"mixed","Port":1}}`,
		`{"Node":"b","Address":"192.0.2.2","Service":{"Service":"mixed","Port":1,"Address":"gone.example"}}`,
		`{"Node":"a","Address":"192.0.2.1","Service":{"Service":"mixed6","Port":1,"Address":"2001:db8::1"}}`,
		`{"Node":"b","Address":"192.0.2.2","Service":{"Service":"mixed6","Port":1,"Address":"here.example"}}`,
		`{"Node":"a","Address":"192.0.2.1","Service":{"Service":"hosts","Port":1,"Address":"gone.example"}}`,
		`{"Node":"b","Address":"192.0.2.2","Service":{"Service":"hosts","Port":1,"Address":"here.example"}}`,
		`{"Node":"c","Address":"192.0.2.3","Service":{"Service":"hosts","Port":1,"Address":"gone2.example"}}`,
		`{"Node":"a","Address":"192.0.2.1","Service":{"Service":"spelled","Port":1,"Address":"Here.Example"}}`,
		`{"Node":"a","Address":"192.0.2.1","Service":{"Service":"nothing","Port":1,"Address":"gone.example"}}`,
		`{"Node":"a","Address":"192.0.2.1","Service":{"Service":"both","Port":1,"Address":"here.example","TaggedAddresses":{"lan_ipv6":{"Address":"2001:db8::7"}}}}`,
	}, "here.example. 60 IN A 198.51.100.1")
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"mixed", dns.TypeA, "NOERROR mixed.service.consul. 0 IN A 192.0.2.1"},
		{"mixed", dns.TypeAAAA, "NOERROR "},
		{"mixed", dns.TypeTXT, "NOERROR "},
		{"mixed", dns.TypeMX, "NOERROR "},
		{"mixed", dns.TypeHTTPS, "NOERROR "},
		{"mixed", dns.TypeCNAME, "NOERROR "},
		{"mixed", dns.TypeANY, "NOERROR mixed.service.consul. 0 IN A 192.0.2.1"},
		{"mixed6", dns.TypeA, "NOERROR "},
		{"mixed6", dns.TypeAAAA, "NOERROR mixed6.service.consul. 0 IN AAAA 2001:db8::1"},
		{"hosts", dns.TypeA, "NOERROR here.example. 60 IN A 198.51.100.1; hosts.service.consul. 0 IN CNAME here.example."},
		{"hosts", dns.TypeAAAA, "NOERROR hosts.service.consul. 0 IN CNAME here.example."},
		{"hosts", dns.TypeTXT, "NOERROR hosts.service.consul. 0 IN CNAME here.example."},
		{"both", dns.TypeA, "NOERROR "},
		{"both", dns.TypeAAAA, "NOERROR both.service.consul. 0 IN AAAA 2001:db8::7"},
		{"both", dns.TypeTXT, "NOERROR "},
		{"hosts", dns.TypeMX, "NOERROR hosts.service.consul. 0 IN CNAME here.example."},
		{"spelled", dns.TypeA, "NOERROR Here.Example. 60 IN A 198.51.100.1; spelled.service.consul. 0 IN CNAME Here.Example."},
		{"spelled", dns.TypeSRV, "NOERROR Here.Example. 60 IN A 198.51.100.1; spelled.service.consul. 0 IN SRV 1 1 1 Here.Example."},
		{"nothing", dns.TypeA, "NXDOMAIN nothing.service.consul. 0 IN CNAME gone.example."},
	} {
		for range 8 { // the order of instances is random
			if got := said(reply(t, zone, c.name+".service.consul", c.qtype)); got != c.want {
				t.Errorf("%s %s: got %s, want %s", c.name, dns.TypeToString[c.qtype], got, c.want)
				break
			}
		}
	}
}

func TestSRV_TargetHasBothFamilies(t *testing.T) {
	const both = `"TaggedAddresses":{"lan_ipv4":"192.0.2.1","lan_ipv6":"2001:db8::1"}`
	const pair = "c000020220010db8000000000000000000000002.addr.dc1.consul."
	zone := withHosts(t, []string{
		`{"Node":"n1","Address":"192.0.2.1",` + both + `,"Service":{"Service":"node","Port":1}}`,
		`{"Node":"n1","Address":"192.0.2.1",` + both + `,"Service":{"Service":"same","Port":1,"Address":"192.0.2.1","TaggedAddresses":{"lan_ipv4":{"Address":"192.0.2.1"},"lan_ipv6":{"Address":"2001:db8::1"}}}}`,
		`{"Node":"n2","Address":"192.0.2.9","Service":{"Service":"own","Port":1,"Address":"192.0.2.2","TaggedAddresses":{"lan_ipv6":{"Address":"2001:db8::2"}}}}`,
		`{"Node":"n2","Address":"192.0.2.9","Service":{"Service":"one","Port":1,"Address":"192.0.2.2","TaggedAddresses":{"lan_ipv4":{"Address":"192.0.2.2"}}}}`,
	})
	for name, want := range map[string]string{
		"node": "n1.node.dc1.consul. 0 IN A 192.0.2.1; n1.node.dc1.consul. 0 IN AAAA 2001:db8::1; node.service.consul. 0 IN SRV 1 1 1 n1.node.dc1.consul.",
		"same": "n1.node.dc1.consul. 0 IN A 192.0.2.1; n1.node.dc1.consul. 0 IN AAAA 2001:db8::1; same.service.consul. 0 IN SRV 1 1 1 n1.node.dc1.consul.",
		"own":  pair + " 0 IN A 192.0.2.2; " + pair + " 0 IN AAAA 2001:db8::2; own.service.consul. 0 IN SRV 1 1 1 " + pair,
		"one":  "c0000202.addr.dc1.consul. 0 IN A 192.0.2.2; one.service.consul. 0 IN SRV 1 1 1 c0000202.addr.dc1.consul.",
	} {
		if got := said(reply(t, zone, name+".service.consul", dns.TypeSRV)); got != "NOERROR "+want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	// What it points to is there in both families.
	for _, target := range []string{"n1.node.dc1.consul.", pair} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			if m := reply(t, zone, target, qtype); len(m.Answer) != 1 || m.Answer[0].Header().Rrtype != qtype {
				t.Errorf("%s: %v", target, m)
			}
		}
	}
	if m := reply(t, zone, pair, dns.TypeTXT); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
		t.Errorf("TXT: %v", m)
	}
}

// A client that spells the question in its own way must be able to match what goes with a record by its bytes.
func TestSRV_OneSpellingOfAllThatGoesWithATarget_RFC4343(t *testing.T) {
	zone := withHosts(t, []string{
		`{"Node":"foo","Address":"192.0.2.1","NodeMeta":{"k":"v"},"Service":{"Service":"web","Port":80}}`,
		`{"Node":"Bar","Address":"192.0.2.2","NodeMeta":{"k":"v"},"Service":{"Service":"web","Address":"192.0.2.3","Port":80}}`,
	})
	for _, spelled := range []string{"web.service.consul", "web.service.DC1.Consul", "WEB.SERVICE.DC1.CONSUL"} {
		m := reply(t, zone, spelled, dns.TypeSRV)
		want := []string{"7f", "foo.node.dc1.consul.", "c0000203.addr.dc1.consul.", "Bar.node.dc1.consul."}
		for _, rr := range m.Extra {
			if !slices.Contains(want, rr.Header().Name) {
				t.Errorf("%s: owner %s", spelled, rr.Header().Name)
			}
		}
		if len(m.Extra) != 4 {
			t.Error(fmt.Sprint(m))
		}
	}
}
