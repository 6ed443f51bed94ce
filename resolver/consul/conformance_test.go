package consul_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/consul"
	"meibo/resolver/resolvertest/consulcases"
	"meibo/resolver/wire"
)

// TestConsulsOwnDNSTests puts Consul's tests to the zone behind a resolver in
// this process.
func TestConsulsOwnDNSTests(t *testing.T) {
	consulcases.Run(t, startInProcess)
}

// host is a resolver with the zone of a fake catalog.
type host struct {
	*fake
	resolver *resolver.Resolver
	zone     *consul.Zone
	port     atomic.Uint32
}

// fileConfig is as much of a configuration file as the cases use.
type fileConfig struct {
	Domain     string
	AltDomain  string `json:"alt_domain"`
	Datacenter string
	DNSConfig  struct {
		NodeTTL        duration            `json:"node_ttl"`
		ServiceTTL     map[string]duration `json:"service_ttl"`
		OnlyPassing    bool                `json:"only_passing"`
		ARecordLimit   int                 `json:"a_record_limit"`
		UDPAnswerLimit int                 `json:"udp_answer_limit"`
		EnableTruncate bool                `json:"enable_truncate"`
		NodeMetaTXT    *bool               `json:"enable_additional_node_meta_txt"`
		SOA            struct {
			Refresh, Retry, Expire int
			MinTTL                 int `json:"min_ttl"`
		}
	} `json:"dns_config"`
}

type duration time.Duration

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

func zoneConfig(t testing.TB, text string) consul.Config {
	var f fileConfig
	if text != "" {
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			t.Fatal(err)
		}
	}
	name := func(s string) wire.Name {
		if s == "" {
			return ""
		}
		n, err := wire.ParseName(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	d := f.DNSConfig
	c := consul.Config{
		Domain: name(f.Domain), AltDomain: name(f.AltDomain), Datacenter: f.Datacenter,
		NodeTTL: time.Duration(d.NodeTTL), ServiceTTL: make(map[string]time.Duration), OnlyPassing: d.OnlyPassing,
		ARecordLimit: d.ARecordLimit, UDPAnswerLimit: d.UDPAnswerLimit, EnableTruncate: d.EnableTruncate,
		NoNodeMetaTXT: d.NodeMetaTXT != nil && !*d.NodeMetaTXT,
		SOA: consul.SOA{
			Refresh: time.Duration(d.SOA.Refresh) * time.Second, Retry: time.Duration(d.SOA.Retry) * time.Second,
			Expire: time.Duration(d.SOA.Expire) * time.Second, MinTTL: time.Duration(d.SOA.MinTTL) * time.Second,
		},
	}
	for key, ttl := range d.ServiceTTL {
		c.ServiceTTL[key] = time.Duration(ttl)
	}
	return c
}

func startInProcess(t testing.TB, config string, upstream []string) consulcases.Server {
	return startHost(t, zoneConfig(t, config), upstream)
}

func startHost(t testing.TB, config consul.Config, upstream []string) *host {
	h := &host{fake: newFake()}
	if err := h.Register(`{"Node":"server1","Address":"127.0.0.1","Service":{"Service":"consul","Port":8300}}`); err != nil {
		t.Fatal(err)
	}
	chase := func(ctx context.Context, q *wire.Query) (resolver.Result, error) { return h.resolver.Lookup(ctx, q) }
	var err error
	h.zone, err = consul.New(consul.Options{Config: config, State: h.fake.State, Want: h.fake.Want, Chase: chase, Moved: func() { h.epoch.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	table := resolver.Table{Mounts: h.zone.Mounts()}
	if upstream != nil {
		table.Mounts = append(table.Mounts, resolver.Mount{
			Suffix: wire.Root, Rank: resolver.RankDefault, Upstream: scripted(upstream), Route: new(atomic.Uint64), Name: "default",
		})
	}
	if h.resolver, err = resolver.New(resolver.Config{Cache: c, Table: table}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.resolver.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

// Exchange implements consulcases.Server. Each query comes from a port of its
// own, as a stub resolver's does.
func (h *host) Exchange(network string, query []byte) ([]byte, error) {
	q := &wire.Query{
		TCP: network == "tcp", Local: netip.MustParseAddr("127.0.0.1"),
		Client: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(20000+h.port.Add(1))),
	}
	v := q.Parse(query)
	h.settle()
	later := make(chan []byte, 1)
	if reply := h.resolver.ServeDNS(q, v, nil, func(_ *wire.Query, msg []byte) { later <- bytes.Clone(msg) }); reply != nil {
		return reply, nil
	}
	return <-later, nil
}

// Patience implements consulcases.Server: what is registered shows at once.
func (h *host) Patience() time.Duration { return 0 }

// scripted is an upstream that has records.
type scripted []string

func (s scripted) Exchange(_ context.Context, q *wire.Query) (resolver.Result, error) {
	m := new(dns.Msg)
	m.SetQuestion(wire.Name(q.Name()).String(), q.Type)
	reply, err := consulcases.Upstream(s, m).Pack()
	if err != nil {
		return resolver.Result{}, err
	}
	answer, err := wire.ParseAnswer(reply)
	return resolver.Result{Answer: answer, Ages: true, Source: "upstream"}, err
}
