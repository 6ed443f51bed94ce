package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"meibo/cache"
	"meibo/cluster"
	"meibo/resolver"
	"meibo/resolver/consul"
	"meibo/resolver/wire"
)

// patience is how long a stub resolver waits.
const patience = 2 * time.Second

// zone answers names on one host as its daemon would: resolver, cache and zone
// over the host's view, without sockets.
type zone struct{ resolver *resolver.Resolver }

func newZone(node *cluster.Node, logger *slog.Logger) (*zone, error) {
	began := time.Now()
	z := new(zone)
	names, err := consul.New(consul.Options{
		State: func() consul.State { return node.View().Load() }, Want: node.View().Want,
		Moved: node.View().BumpEpoch, Neighbour: node.Neighbour, Logger: logger,
		Chase: func(ctx context.Context, q *wire.Query) (resolver.Result, error) { return z.resolver.Lookup(ctx, q) },
	})
	if err != nil {
		return nil, err
	}
	kept, err := cache.New(cache.Config{})
	if err != nil {
		return nil, err
	}
	z.resolver, err = resolver.New(resolver.Config{
		Cache: kept, Table: resolver.Table{Mounts: names.Mounts()}, Logger: logger,
		Now: func() time.Duration { return time.Since(began) },
	})
	return z, err
}

// run answers until ctx ends.
func (z *zone) run(ctx context.Context) { _ = z.resolver.Run(ctx) }

// lookup asks for the addresses of a service.
func (z *zone) lookup(service string) ([]netip.Addr, error) {
	name, err := wire.ParseName(service + ".service.consul.")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	res, err := z.resolver.Lookup(ctx, wire.NewQuery(name, dns.TypeA))
	if err != nil {
		return nil, err
	}
	if code := res.Answer.Rcode(); code != dns.RcodeSuccess {
		return nil, errors.New(dns.RcodeToString[int(code)] + extended(res))
	}
	addrs := make([]netip.Addr, 0, res.Answer.AnswerCount())
	for _, rr := range res.Answer.RRs() {
		if addr, ok := netip.AddrFromSlice(rr.Data); ok && rr.Type == wire.TypeA {
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

func extended(res resolver.Result) string {
	if res.EDE == 0 && res.EDEText == "" {
		return ""
	}
	return fmt.Sprintf(" (EDE %d %s)", res.EDE, res.EDEText)
}
