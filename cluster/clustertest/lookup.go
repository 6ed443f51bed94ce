package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"meibo/cache"
	"meibo/cluster"
	"meibo/cluster/catalog"
	"meibo/cluster/view"
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
		Source: source{node.View()}, Moved: node.View().BumpEpoch, Neighbour: node.Neighbour, Logger: logger,
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

// source lets the zone ask the view, as the daemon's own does.
type source struct{ view *view.View }

func (s source) State() consul.State { return state{s.view.Load(), s.view} }

func (s source) Want(name string) <-chan struct{} { return s.view.Want(name) }

type state struct {
	*view.State
	view *view.View
}

func (s state) Confirmed() time.Time { return s.view.Confirmed() }

func (s state) Service(name string) ([]catalog.Instance, *atomic.Uint64, consul.Known) {
	instances, c, known := s.State.Service(name)
	return instances, c, consul.Known(known)
}

func (s state) Node(name string) (*catalog.Node, *atomic.Uint64, consul.Known) {
	node, c, known := s.State.Node(name)
	return node, c, consul.Known(known)
}

func (s state) AddressOwner(addr netip.Addr) (consul.Owner, bool) {
	owner, ok := s.State.AddressOwner(addr)
	out := consul.Owner{}
	if owner.Node != nil {
		out.Node = owner.Node.Node
	}
	if owner.Service != nil {
		out.Service = owner.Service.Service
	}
	return out, ok
}
