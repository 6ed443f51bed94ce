package main

import (
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestLargeServiceWithoutEDNS_SpreadsEvenly: 512 bytes hold a fraction of 200 instances. Over many clients each instance
// must come equally often; one client on one socket must see a steady subset.
func TestLargeServiceWithoutEDNS_SpreadsEvenly(t *testing.T) {
	const instances, clients = 200, 4000
	var services strings.Builder
	for i := range instances {
		fmt.Fprintf(&services, "service { id = \"big-%d\" name = \"big\" address = \"10.1.0.%d\" port = 80 }\n", i, i+1)
	}
	s := newSite(t, services.String())
	s.start(t)
	s.up(t)
	// While the catalog still takes the instances in, and this host the catalog, answers are made anew, and with them
	// the subsets. So wait for all of them, then until what is known stays as it is for a while.
	var index string
	var since time.Time
	eventually(t, "every instance is answered, and nothing changes any more", func() error {
		m := new(dns.Msg)
		m.SetQuestion("big.service.consul.", dns.TypeA)
		reply, _, err := (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(m, s.dns)
		if err != nil {
			return err
		}
		status, err := http.Get("http://" + s.http + "/v1/catalog/nodes")
		if err != nil {
			return err
		}
		defer status.Body.Close()
		if now := status.Header.Get("X-Consul-Index"); now != index || len(reply.Answer) != instances {
			index, since = now, time.Now()
			return fmt.Errorf("%d answers, index %s", len(reply.Answer), index)
		}
		if time.Since(since) < time.Second {
			return fmt.Errorf("index %s since %v", index, time.Since(since))
		}
		return nil
	})
	for _, qtype := range []uint16{dns.TypeA, dns.TypeSRV} {
		t.Run(dns.TypeToString[qtype], func(t *testing.T) {
			counts := map[string]int{}
			total := 0
			for range clients {
				set := subsetOfOneClient(t, s.dns, qtype)
				for _, instance := range set {
					counts[instance]++
					total++
				}
			}
			if len(counts) != instances {
				t.Errorf("%d of %d instances were ever returned", len(counts), instances)
			}
			p := chiSquareTail(counts, float64(total)/instances, instances-1)
			t.Logf("%d clients, %.1f records each, p = %.4f", clients, float64(total)/clients, p)
			if p < 1e-6 {
				t.Errorf("not even: p = %g", p)
			}
		})
	}
}

// subsetOfOneClient asks twice from one socket and checks that both answers hold the same instances.
func subsetOfOneClient(t *testing.T, addr string, qtype uint16) []string {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	must(t, err)
	defer conn.Close()
	client := &dns.Client{Timeout: patience}
	var first []string
	for round := range 2 {
		m := new(dns.Msg)
		m.SetQuestion("big.service.consul.", qtype)
		reply, _, err := client.ExchangeWithConn(m, &dns.Conn{Conn: conn})
		must(t, err)
		if reply.Truncated {
			t.Fatal("TC is set though enable_truncate is off")
		}
		got := answers(reply)
		if len(got) < 5 {
			t.Fatalf("only %d records: %v", len(got), reply)
		}
		if round == 0 {
			first = got
			continue
		}
		seen := map[string]bool{}
		for _, a := range first {
			seen[a] = true
		}
		for _, a := range got {
			if !seen[a] || len(got) != len(first) {
				t.Fatalf("one client, two subsets: %v then %v", first, got)
			}
		}
	}
	return first
}

// chiSquareTail is the chance of counts at least this uneven if every instance were equally likely. The draws of one
// answer exclude each other, so the true spread is a little smaller than the test assumes: it errs on the quiet side.
func chiSquareTail(counts map[string]int, expected float64, degrees int) float64 {
	var x float64
	for _, n := range counts {
		x += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	// Wilson and Hilferty (1931): the cube root of chi-square over its degrees is close to normal.
	k := float64(degrees)
	z := (math.Cbrt(x/k) - (1 - 2/(9*k))) / math.Sqrt(2/(9*k))
	return 0.5 * math.Erfc(z/math.Sqrt2)
}
