package forwarder_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"meibo/forwarder"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

func TestCollector(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Answer(www, dns.TypeA, record)
	f := start(t, forwarder.Route{}, u)
	mustAsk(t, f)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(f.Collector())
	if families, err := reg.Gather(); err != nil || len(families) != 7 {
		t.Errorf("%d families, %v", len(families), err)
	}
}

// BenchmarkExchange is one question to a server that only turns the packet round,
// whose work is counted in.
func BenchmarkExchange(b *testing.B) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			buf[2] |= 0x80
			conn.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	defer wg.Wait()
	defer conn.Close()
	f, err := forwarder.New(forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{conn.LocalAddr().(*net.UDPAddr).AddrPort()}}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { f.Run(ctx) })
	defer cancel()
	up := f.Mounts()[0].Upstream
	if up == nil {
		up = f.Mounts()[1].Upstream
	}
	q := question(www, dns.TypeA)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := up.Exchange(context.Background(), q); err != nil {
			b.Fatal(err)
		}
	}
}
