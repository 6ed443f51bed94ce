package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed"
	"meibo/cluster/link"
	"meibo/cluster/view"
)

// hostsVar holds, for a child process, the hostsConfig of the hosts that it plays.
const hostsVar = "MEIBO_FEED_HOSTS"

// hostsConfig is what a child process plays: Count hosts from the First on, each with a link, a feed client and a view.
type hostsConfig struct {
	First, Count int
	Servers      []string // link addresses
	Key          []byte
	Names        []string // services that each host uses
}

// hostsEvent is a line that a child says. Times are Unix nanoseconds, one for each host.
type hostsEvent struct {
	What  string // "ready", "change", "confirmed"
	Seq   uint64 // of a change
	Times []int64
}

// changing is the service whose metadata counts the changes of the measurement.
const changing = "canary"

// TestFeedHosts is the body of a child process. It ends with its standard input.
func TestFeedHosts(t *testing.T) {
	text := os.Getenv(hostsVar)
	if text == "" {
		t.Skip("plays hosts for make bench-feed, in processes of their own")
	}
	var cfg hostsConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := &player{seen: make(map[uint64][]int64), out: json.NewEncoder(os.Stdout), count: cfg.Count}
	var wg sync.WaitGroup
	for i := range cfg.Count {
		h, err := newPlayed(cfg, cfg.First+i)
		if err != nil {
			t.Fatal(err)
		}
		p.hosts = append(p.hosts, h)
		wg.Go(func() { h.run(ctx, p) })
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		after, err := strconv.ParseInt(in.Text(), 10, 64)
		if err != nil {
			t.Error(err)
			break
		}
		p.confirmed(time.Unix(0, after))
	}
	cancel()
	wg.Wait()
}

// player gathers what its hosts see.
type player struct {
	hosts []*played
	count int

	mu    sync.Mutex // guards following
	out   *json.Encoder
	ready []int64
	seen  map[uint64][]int64
}

func (p *player) say(e hostsEvent) {
	if err := p.out.Encode(e); err != nil {
		panic(err)
	}
}

// isReady notes that a host knows all that it wants.
func (p *player) isReady() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready = append(p.ready, time.Now().UnixNano()); len(p.ready) == p.count {
		p.say(hostsEvent{What: "ready", Times: p.ready})
	}
}

// sees notes that a host shows the changes after from, up to seq.
func (p *player) sees(from, seq uint64) {
	now := time.Now().UnixNano()
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := from + 1; n <= seq; n++ {
		if p.seen[n] = append(p.seen[n], now); len(p.seen[n]) == p.count {
			p.say(hostsEvent{What: "change", Seq: n, Times: p.seen[n]})
			delete(p.seen, n)
		}
	}
}

// confirmed says when each host was confirmed again after a time.
func (p *player) confirmed(after time.Time) {
	times := make([]int64, 0, p.count)
	for _, h := range p.hosts {
		for !h.view.Confirmed().After(after) {
			time.Sleep(10 * time.Millisecond)
		}
		times = append(times, h.firstAfter(after))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say(hostsEvent{What: "confirmed", Times: times})
}

// played is one host.
type played struct {
	view   *view.View
	link   *link.Link
	client *feed.Client
	names  []string
	opened atomic.Int64 // when the present stream first confirmed anything
}

// playedAddr is the n-th host's own: servers bound what comes from one.
func playedAddr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 2, byte(n / 250), byte(n%250 + 1)})
}

// fromAddr dials from an address.
type fromAddr struct{ addr netip.Addr }

// Listen implements link.Network.
func (f fromAddr) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, network, address)
}

// DialContext implements link.Network.
func (f fromAddr) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.addr, 0))}
	return d.DialContext(ctx, network, address)
}

type oneKey []byte

// Keys implements link.Keys.
func (k oneKey) Keys() ([][]byte, <-chan struct{}) { return [][]byte{k}, nil }

func newPlayed(cfg hostsConfig, n int) (*played, error) {
	id := fmt.Sprintf("50000000-0000-4000-8000-%012d", n)
	name := fmt.Sprintf("host-%03d", n)
	v, err := view.New(view.Config{NodeName: name, NodeID: id})
	if err != nil {
		return nil, err
	}
	l, err := link.New(link.Config{
		Listen: netip.AddrPortFrom(playedAddr(n), 0), Network: fromAddr{playedAddr(n)}, Self: link.Peer{ID: id, Name: name, Datacenter: "dc1"}, Keys: oneKey(cfg.Key),
	})
	if err != nil {
		return nil, err
	}
	h := &played{view: v, link: l, names: cfg.Names}
	h.client = feed.NewClient(feed.ClientConfig{
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := l.Dial(ctx, addr, feed.Protocol, "")
			if err != nil {
				return nil, err
			}
			return conn, nil
		},
		Servers: func() []string { return cfg.Servers }, NodeID: id, Datacenter: "dc1", Resume: v.Resume,
	})
	return h, nil
}

// run keeps the host going until ctx ends.
func (h *played) run(ctx context.Context, p *player) {
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.link.Run(ctx) })
	wg.Go(func() { _ = h.view.Run(ctx) })
	wg.Go(func() { h.watch(ctx, p) })
	for ctx.Err() == nil {
		s, err := h.client.Open(ctx)
		if err != nil {
			break
		}
		h.opened.Store(0)
		_ = h.view.Follow(ctx, noted{s, h})
		s.Close()
	}
	wg.Wait()
}

// noted is a stream that notes when it first confirms.
type noted struct {
	*feed.Stream
	host *played
}

// Next implements view.Source.
func (n noted) Next(ctx context.Context) (catalog.Update, error) {
	u, err := n.Stream.Next(ctx)
	if err == nil && u.Confirmed {
		n.host.opened.CompareAndSwap(0, time.Now().UnixNano())
	}
	return u, err
}

func (h *played) firstAfter(after time.Time) int64 {
	if at := h.opened.Load(); at > after.UnixNano() {
		return at
	}
	return h.view.Confirmed().UnixNano()
}

// watch notes when the host knows its names, and then each change.
func (h *played) watch(ctx context.Context, p *player) {
	for !h.view.Load().HasBase() {
		select {
		case <-ctx.Done():
			return
		case <-h.view.Load().Superseded():
		}
	}
	for _, name := range h.names {
		select {
		case <-ctx.Done():
			return
		case <-h.view.Want(name):
		}
	}
	p.isReady()
	for last := h.seq(h.view.Load()); ; {
		s := h.view.Load()
		if n := h.seq(s); n > last {
			p.sees(last, n)
			last = n
		}
		select {
		case <-ctx.Done():
			return
		case <-s.Superseded():
		}
	}
}

// seq is the newest change that the state shows.
func (h *played) seq(s *view.State) uint64 {
	instances, _, _ := s.Service(changing)
	if len(instances) == 0 {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(instances[0].Service.Meta["seq"]), 10, 64)
	return n
}
