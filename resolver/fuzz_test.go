package resolver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

// FuzzServeDNS gives a client's bytes to the whole resolver: every query that is
// no response gets one reply, with its ID, within its size, that parses.
func FuzzServeDNS(f *testing.F) {
	for _, req := range []*dns.Msg{
		resolvertest.Query("www.example", dns.TypeA),
		resolvertest.Query("WWW.Example", dns.TypeTXT).SetEdns0(512, true),
		resolvertest.Query("version.bind", dns.TypeTXT),
		new(dns.Msg).SetQuestion(".", dns.TypeNS),
		new(dns.Msg).SetAxfr("example."),
		new(dns.Msg).SetUpdate("example."),
	} {
		b, err := req.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
	}
	f.Add([]byte{}, false)
	up := resolvertest.NewMemory()
	up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.1"}})
	up.Set("www.example.", dns.TypeTXT, resolvertest.Big("www.example.", 20))
	c, err := cache.New(cache.Config{MaxBytes: 1 << 18})
	if err != nil {
		f.Fatal(err)
	}
	r, err := resolver.New(resolver.Config{Cache: c, Version: "x", Table: resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root), mount("own", resolver.RankOwn, says("own"))}}})
	if err != nil {
		f.Fatal(err)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(r.Collector())
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool) {
		q := &wire.Query{TCP: tcp, Client: netip.MustParseAddrPort("127.0.0.1:999")}
		v := q.Parse(msg)
		limit := q.Limit()
		later := make(chan []byte, 2)
		out := r.ServeDNS(q, v, nil, func(_ *wire.Query, m []byte) { later <- bytes.Clone(m) })
		if v == wire.Drop {
			if out != nil {
				t.Fatal("answered what is to be dropped")
			}
			return
		}
		if out == nil {
			out = <-later
		}
		if len(out) < 12 || len(out) > limit {
			t.Fatalf("%d bytes, the limit is %d", len(out), limit)
		}
		if binary.BigEndian.Uint16(out) != binary.BigEndian.Uint16(msg) || out[2]&0x80 == 0 {
			t.Fatalf("ID or QR: % x", out[:12])
		}
		if err := new(dns.Msg).Unpack(out); err != nil {
			t.Fatalf("%v: % x", err, out)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, fam := range families {
			if fam.GetName() == "meibo_resolver_panics_total" && fam.GetMetric()[0].GetCounter().GetValue() > 0 {
				t.Fatal("panicked")
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.Run(ctx)
}
