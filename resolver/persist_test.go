package resolver_test

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"meibo/resolver"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

// saved is a resolver's cache as Save writes it.
func saved(t *testing.T, r *resolver.Resolver, want int) []byte {
	t.Helper()
	var b bytes.Buffer
	if n, err := r.Save(&b); err != nil || n != want {
		t.Fatalf("saved %d answers, error %v; want %d", n, err, want)
	}
	return b.Bytes()
}

func TestSave_WhatLoadTakesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, corp := resolvertest.NewMemory(), resolvertest.NewMemory()
		up.Servers, corp.Servers, up.TrustAD = "a", "b", true
		for _, rule := range []struct {
			name string
			typ  uint16
			rule resolvertest.Rule
		}{
			{"www.example.", dns.TypeA, resolvertest.Rule{AD: true, Records: []string{"www.example. 300 IN CNAME cdn.example.", "cdn.example. 300 IN A 192.0.2.1", "cdn.example. 300 IN A 192.0.2.2"}}},
			{"short.example.", dns.TypeA, resolvertest.Rule{Records: []string{"short.example. 30 IN A 192.0.2.3"}}},
			{"nx.example.", dns.TypeA, resolvertest.NXDomain("example.", 300)},
			{"txt.example.", dns.TypeTXT, resolvertest.Rule{Records: []string{`txt.example. 300 IN TXT "x"`}}},
			{"out.example.", dns.TypeA, resolvertest.Rule{Records: []string{"out.example. 300 IN CNAME db.corp."}}},
			{"local.example.", dns.TypeA, resolvertest.Rule{Records: []string{"local.example. 300 IN A 192.0.2.9"}}},
		} {
			up.Set(rule.name, rule.typ, rule.rule)
		}
		corp.Set("db.corp.", dns.TypeA, resolvertest.Rule{Records: []string{"db.corp. 300 IN A 10.0.0.1"}})
		table := resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root), corp.Mount(mustName("corp")), mount("own", resolver.RankOwn, says("own"))}}
		r, _ := newResolver(t, table)
		ask := func(r *resolver.Resolver, name string, typ uint16) string {
			m := resolvertest.Ask(t, r, resolvertest.Query(name, typ), false)
			return dns.RcodeToString[m.Rcode] + " " + resolvertest.Text(m)
		}
		asked := []struct {
			name string
			typ  uint16
		}{{"www.example", dns.TypeA}, {"short.example", dns.TypeA}, {"nx.example", dns.TypeA}, {"txt.example", dns.TypeTXT}, {"out.example", dns.TypeA}, {"local.example", dns.TypeA}, {"x.own", dns.TypeTXT}}
		before := map[string]string{}
		for _, a := range asked {
			before[a.name] = ask(r, a.name, a.typ)
		}
		file := saved(t, r, 6) // out.example joins two routes, and x.own is no upstream's; db.corp is

		time.Sleep(time.Minute)
		up.SetState(resolvertest.Refused)
		corp.SetState(resolvertest.Refused)
		hosts := &zone{answer: func(q *wire.Query) (resolver.Result, resolver.Outcome) {
			if string(q.Name()) == string(mustName("local.example")) {
				return resolver.Result{}, resolver.Answered
			}
			return resolver.Result{}, resolver.NotMine
		}}
		corp.Servers = "others" // whose answers those of before are not
		later := table
		later.Whole = hosts
		r, _ = newResolver(t, later)
		if n, err := r.Load(bytes.NewReader(file)); err != nil || n != 4 {
			t.Errorf("took up %d answers, error %v; want 4", n, err)
		}
		total := up.Asked() + corp.Asked()
		m := resolvertest.Ask(t, r, resolvertest.Query("www.example", dns.TypeA), false)
		if len(m.Answer) != 3 || m.Answer[0].Header().Ttl != 240 {
			t.Errorf("after a minute: %s", resolvertest.Text(m))
		}
		if m := resolvertest.Ask(t, r, resolvertest.Query("nx.example", dns.TypeMX), false); m.Rcode != dns.RcodeNameError {
			t.Errorf("a denial of the name for another type: %s", resolvertest.Text(m)) // RFC 2308 section 5
		}
		ad := resolvertest.Query("www.example", dns.TypeA)
		ad.AuthenticatedData = true
		if m := resolvertest.Ask(t, r, ad, false); !m.AuthenticatedData {
			t.Error("AD was lost")
		}
		if up.Asked()+corp.Asked() != total {
			t.Error("fresh answers were asked for")
		}
		m = resolvertest.Ask(t, r, resolvertest.Query("short.example", dns.TypeA), false)
		if code, _, _ := resolvertest.EDE(m); len(m.Answer) != 1 || code != 3 {
			t.Errorf("an expired answer does not stand in: %s", resolvertest.Text(m))
		}
		if m := resolvertest.Ask(t, r, resolvertest.Query("db.corp", dns.TypeA), false); len(m.Answer) > 0 {
			t.Errorf("an answer of other servers: %s", resolvertest.Text(m))
		}
	})
}

func TestLoad_AFilterHoldsForWhatWasSavedWithoutIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("evil.example.", dns.TypeA, resolvertest.Rule{Records: []string{"evil.example. 300 IN A 10.0.0.1"}})
		table := resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}}
		r, _ := newResolver(t, table)
		said(t, r, "evil.example", dns.TypeA)
		file := saved(t, r, 1)
		r, _ = newResolver(t, table)
		r.SetFilter(resolver.Filter{BogusNXDomain: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		if n, err := r.Load(bytes.NewReader(file)); n != 0 || err != nil {
			t.Errorf("took up %d, error %v", n, err)
		}
	})
}

// A clock that was put back makes answers no younger: they stand in, and are asked for.
func TestLoad_WhatIsFromTheFutureIsExpired(t *testing.T) {
	var file []byte
	up := resolvertest.NewMemory()
	up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.1"}})
	table := resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(24 * time.Hour)
		r, _ := newResolver(t, table)
		said(t, r, "www.example", dns.TypeA)
		file = saved(t, r, 1)
	})
	synctest.Test(t, func(t *testing.T) { // begins a day earlier
		r, _ := newResolver(t, table)
		if n, err := r.Load(bytes.NewReader(file)); n != 1 || err != nil {
			t.Fatalf("took up %d, error %v", n, err)
		}
		before := up.Asked()
		said(t, r, "www.example", dns.TypeA)
		if up.Asked() == before {
			t.Error("it was given as fresh")
		}
	})
}

func TestLoad_TakesNothingOfADamagedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.1"}})
		table := resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}}
		r, _ := newResolver(t, table)
		said(t, r, "www.example", dns.TypeA)
		file := saved(t, r, 1)
		r, _ = newResolver(t, table)
		for i := range file {
			bad := bytes.Clone(file)
			bad[i] ^= 0x10
			if n, err := r.Load(bytes.NewReader(bad)); n != 0 || err == nil {
				t.Fatalf("octet %d changed: took up %d, error %v", i, n, err)
			}
			if n, err := r.Load(bytes.NewReader(file[:i])); n != 0 || err == nil {
				t.Fatalf("cut after %d octets: took up %d, error %v", i, n, err)
			}
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("meibo answers 1\n\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		up := resolvertest.NewMemory()
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}})
		r.Load(bytes.NewReader(b))
		resolver.TakeUp(r, b) // beyond the checksum
	})
}
