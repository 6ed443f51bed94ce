package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cache"
	"meibo/cluster/feed"
	"meibo/cluster/link"
	"meibo/cluster/view"
	"meibo/resolver"
	"meibo/resolver/consul"
	"meibo/resolver/wire"
)

// host is one host: everything between its listeners and the servers, as its daemon has it.
type host struct {
	number int
	player *Player
	uses   []int
	used   []uint64 // uses as a set of bits

	resolver atomic.Pointer[resolver.Resolver]
	view     *view.View
	next     *view.View // that it begins with when it starts again
	stop     context.CancelFunc
	ended    sync.WaitGroup

	query wire.Query // watch's
	buf   [4096]byte
}

func newHost(p *Player, number int, z *zipf) *host {
	h := &host{number: number, player: p, uses: p.cfg.Fleet.uses(number, z), used: make([]uint64, (p.cfg.Fleet.Services+63)/64)}
	for _, s := range h.uses {
		h.used[s/64] |= 1 << (s % 64)
	}
	return h
}

func (h *host) isUser(s int) bool { return h.used[s/64]&(1<<(s%64)) != 0 }

// wires counts what goes over the hosts' connections, TLS included.
type wires struct{ in, out atomic.Int64 }

// hostAddr is the n-th host's own: servers bound what comes from one.
func hostAddr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 2, byte(n / 250), byte(n%250 + 1)})
}

type oneKey []byte

// Keys implements link.Keys.
func (k oneKey) Keys() ([][]byte, <-chan struct{}) { return [][]byte{k}, nil }

func (h *host) id() string { return fmt.Sprintf("50000000-0000-4000-8000-%012d", h.number) }

func (h *host) newView() (*view.View, error) {
	return view.New(view.Config{NodeName: nodeName(h.number), NodeID: h.id()})
}

// kill ends the host at once, and prepares that it starts again with what it knew, as from its file: to read and to write
// files is what each host does with a processor of its own, and here there are two for all.
func (h *host) kill() (err error) {
	h.stop()
	h.ended.Wait()
	known := h.view.Export()
	h.view = nil // two views of each host would be too much
	h.resolver.Store(nil)
	if h.next, err = h.newView(); err == nil {
		h.next.Import(known, view.FromDisk)
	}
	return err
}

// start makes the host and runs it.
func (h *host) start() error {
	p, name, id := h.player, nodeName(h.number), h.id()
	v := h.next
	if v == nil {
		var err error
		if v, err = h.newView(); err != nil {
			return err
		}
	}
	l, err := link.New(link.Config{
		Listen: netip.AddrPortFrom(hostAddr(h.number), 0), Self: link.Peer{ID: id, Name: name, Datacenter: "dc1"}, Keys: oneKey(p.cfg.Key),
		Network: &network{from: hostAddr(h.number), wires: &p.wires, latency: p.cfg.Latency, loss: p.cfg.Loss},
	})
	if err != nil {
		return err
	}
	client := feed.NewClient(feed.ClientConfig{
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := l.Dial(ctx, addr, feed.Protocol, "")
			if err != nil {
				return nil, err
			}
			return conn, nil
		},
		Servers: func() []string { return p.cfg.Servers }, NodeID: id, Datacenter: "dc1", Resume: v.Resume,
		Hosts: func() int { return p.cfg.Fleet.Hosts },
	})
	r, err := p.newResolver(v)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	h.view, h.next, h.stop = v, nil, stop
	h.resolver.Store(r)
	h.ended.Go(func() { _ = l.Run(ctx) })
	h.ended.Go(func() { _ = v.Run(ctx) })
	h.ended.Go(func() { _ = r.Run(ctx) })
	h.ended.Go(func() {
		for {
			s, err := client.Open(ctx)
			if err != nil {
				return
			}
			_ = v.Follow(ctx, pooled{s, p.pool})
			s.Close()
		}
	})
	h.ended.Go(func() { h.watch(ctx) })
	return nil
}

// newResolver makes what answers lookups: the zone over the host's view, a cache, and a default route.
func (p *Player) newResolver(v *view.View) (r *resolver.Resolver, err error) {
	zone, err := consul.New(consul.Options{
		State: func() consul.State { return v.Load() }, Want: v.Want, Moved: v.BumpEpoch,
		Chase: func(ctx context.Context, q *wire.Query) (resolver.Result, error) { return r.Lookup(ctx, q) },
	})
	if err != nil {
		return nil, err
	}
	kept, err := cache.New(cache.Config{})
	if err != nil {
		return nil, err
	}
	return resolver.New(resolver.Config{Cache: kept, Table: resolver.Table{Mounts: append(zone.Mounts(), resolver.Mount{
		Suffix: wire.Root, Rank: resolver.RankDefault, Upstream: upstream{}, Route: new(atomic.Uint64), Name: "simulated",
	})}})
}

// upstream is simulated: every name has an address for a minute.
type upstream struct{}

// Exchange implements resolver.Upstream.
func (upstream) Exchange(_ context.Context, q *wire.Query) (resolver.Result, error) {
	answer, err := wire.Pack(q, &wire.Reply{RRs: []wire.RR{{
		Owner: wire.Name(q.Name()), Type: wire.TypeA, TTL: 60, Data: wire.A(netip.AddrFrom4([4]byte{192, 0, 2, 1})),
	}}})
	return resolver.Result{Answer: answer, Ages: true, Source: "simulated"}, err
}

// watch follows the view: what it newly knows may be a change that somebody waits for.
func (h *host) watch(ctx context.Context) {
	for {
		state := h.view.Load()
		h.player.look(h, state)
		select {
		case <-ctx.Done():
			return
		case <-state.Superseded():
		}
	}
}

// knows waits until the host knows services.
func (h *host) knows(ctx context.Context, services []int) error {
	for state := h.view.Load(); !state.HasBase(); state = h.view.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-state.Superseded():
		}
	}
	var known []<-chan struct{}
	for _, s := range services {
		known = append(known, h.view.Want(serviceName(s)))
	}
	for _, k := range known {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k:
		}
	}
	return nil
}

// confirmed waits until a server with a leader has told the host that it knows all, after a time.
func (h *host) confirmed(ctx context.Context, after time.Time) error {
	for {
		state := h.view.Load()
		if h.view.Confirmed().After(after) {
			return nil
		}
		again := time.NewTimer(100 * time.Millisecond) // a confirmation alone publishes no state
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-state.Superseded():
			again.Stop()
		case <-again.C:
		}
	}
}
