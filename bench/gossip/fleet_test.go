// Package gossip_test measures gossip at a size of its own: hundreds and thousands of
// the daemon's rooms cluster/gossip, each with its members, keyring and snapshot of
// lives, in one process, on a network in memory with loss and delay, in fake time.
package gossip_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"meibo/cluster/clustertest/memnet"
	"meibo/cluster/gossip"
	"meibo/cluster/membership"
)

const (
	seeds = 3                     // hosts that all join by
	look  = 50 * time.Millisecond // between two looks: how exact a time is
	port  = 8301
)

// key is the cluster's.
var key = []byte("meibo bench gossip key 012345678")

// fleet is a number of hosts on one network.
type fleet struct {
	*testing.T
	net   *memnet.Network
	hosts []*host
	sent  traffic
	wrong struct{ suspected, dead atomic.Int64 } // shown so of a host that lived
}

// traffic is what all hosts sent.
type traffic struct{ packets, packetBytes, streams, streamBytes atomic.Int64 }

// host is one of them.
type host struct {
	*gossip.Gossip
	n      int
	f      *fleet
	net    *memnet.Host
	up     atomic.Bool
	cancel context.CancelFunc
	done   chan struct{}
}

func (f *fleet) addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

func id(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// newFleet is one of hosts that don't run yet.
func newFleet(t *testing.T, count int) *fleet {
	f := &fleet{T: t, net: memnet.New(1)}
	for i := range count {
		f.hosts = append(f.hosts, &host{n: i, f: f})
	}
	return f
}

// start begins a life of the host.
func (h *host) start() {
	h.f.Helper()
	keyring, err := gossip.OpenKeyring("", key)
	must(h.f, err)
	h.net = h.f.net.Host(h.f.addr(h.n))
	cfg := gossip.Config{
		ID: id(h.n), Name: fmt.Sprintf("host-%05d", h.n), Datacenter: "dc1", Bind: netip.AddrPortFrom(h.net.Addr(), port), Keyring: keyring,
		// As a daemon tells of itself.
		Tags:    map[string]string{"role": "node", "vsn": "2", "build": "1.21.0", "segment": ""},
		Network: network{h.net, &h.f.sent},
	}
	cfg.Tuning.RetransmitMult, _ = strconv.Atoi(os.Getenv("GOSSIP_RETRANSMIT"))
	for i := range seeds {
		cfg.RetryJoin = append(cfg.RetryJoin, netip.AddrPortFrom(h.f.addr(i), port).String())
	}
	var g *gossip.Gossip
	made := make(chan struct{})
	cfg.OnLife = func(id string) {
		<-made
		h.f.judge(h, g.Members().ByID(id))
	}
	g, err = gossip.New(cfg)
	must(h.f, err)
	close(made)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Run(ctx); err != nil {
			h.f.Errorf("%s: %v", cfg.Name, err)
		}
	}()
	h.Gossip, h.cancel, h.done = g, cancel, done
	h.up.Store(true)
}

// judge counts what a host wrongly shows of another.
func (f *fleet) judge(by *host, m *membership.Member) {
	if m == nil || !by.up.Load() {
		return
	}
	var n int
	if _, err := fmt.Sscanf(m.Name, "host-%d", &n); err != nil || !f.hosts[n].up.Load() {
		return
	}
	switch m.Status {
	case membership.Suspect:
		f.wrong.suspected.Add(1)
	case membership.Failed:
		f.wrong.dead.Add(1)
	}
}

// kill ends the host's life as SIGKILL does.
func (h *host) kill() {
	h.up.Store(false)
	h.net.Kill()
	h.cancel()
}

// end ends all.
func (f *fleet) end() {
	for _, h := range f.hosts {
		if h.Gossip != nil {
			h.kill()
		}
	}
	for _, h := range f.hosts {
		if h.Gossip != nil {
			<-h.done
		}
	}
}

// micros is the CPU in microseconds, seconds the fake time.
func (u usage) micros() float64  { return float64(u.cpu.Nanoseconds()) / 1000 }
func (u usage) seconds() float64 { return u.took.Seconds() }

// living are the hosts that run.
func (f *fleet) living() []*host {
	return slices.DeleteFunc(slices.Clone(f.hosts), func(h *host) bool { return !h.up.Load() })
}

// until waits until it is true of all these, and says how long that took and of how many
// it was true by then. Of whom it was true once isn't asked again.
func (f *fleet) until(most time.Duration, what string, hosts []*host, is func(h *host) bool) (last time.Duration) {
	f.Helper()
	began := time.Now()
	left := slices.Clone(hosts)
	for {
		if left = slices.DeleteFunc(left, is); len(left) == 0 {
			return time.Since(began)
		}
		if time.Since(began) > most {
			f.Errorf("%s: after %v of %d hosts not at %d: %s", what, most, len(hosts), len(left), left[0].Members().Self().Name)
			return most
		}
		time.Sleep(look)
	}
}

// whole reports whether the host shows all the others alive.
func (h *host) whole() bool {
	members := h.Members().Members()
	return len(members) == len(h.f.hosts) && !slices.ContainsFunc(members, func(m *membership.Member) bool { return m.Status != membership.Alive })
}

// shows is what the host shows of another.
func (h *host) shows(other *host) membership.Member {
	if m := h.Members().ByID(id(other.n)); m != nil {
		return *m
	}
	return membership.Member{}
}

// usage is what was used, until an instant or during a time.
type usage struct {
	took                                       time.Duration // fake
	cpu                                        time.Duration // real, of the process
	packets, packetBytes, streams, streamBytes float64
	suspected, dead                            float64
	counts                                     map[string]float64 // totals of the hosts' metrics
}

// used is what has been used so far.
func (f *fleet) used() usage {
	u := usage{
		counts:  make(map[string]float64),
		packets: float64(f.sent.packets.Load()), packetBytes: float64(f.sent.packetBytes.Load()),
		streams: float64(f.sent.streams.Load()), streamBytes: float64(f.sent.streamBytes.Load()),
		suspected: float64(f.wrong.suspected.Load()), dead: float64(f.wrong.dead.Load()),
	}
	for _, h := range f.living() {
		registry := prometheus.NewRegistry()
		registry.MustRegister(h.Collector())
		families, err := registry.Gather()
		must(f, err)
		for _, family := range families {
			if family.GetType() == dto.MetricType_COUNTER {
				u.counts[family.GetName()] += family.GetMetric()[0].GetCounter().GetValue()
			}
		}
	}
	return u
}

// during is what is used for what fn does.
func (f *fleet) during(fn func()) usage {
	before := f.used()
	began, beforeCPU := time.Now(), cpu(f) // without what it takes to sum up
	fn()
	took, spent := time.Since(began), cpu(f)-beforeCPU
	after := f.used()
	for name := range after.counts {
		after.counts[name] -= before.counts[name]
	}
	return usage{
		took: took, cpu: spent,
		packets: after.packets - before.packets, packetBytes: after.packetBytes - before.packetBytes,
		streams: after.streams - before.streams, streamBytes: after.streamBytes - before.streamBytes,
		suspected: after.suspected - before.suspected, dead: after.dead - before.dead, counts: after.counts,
	}
}

func cpu(t testing.TB) time.Duration {
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// heap is what is in use after a collection.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

// network counts what goes over a host's network.
type network struct {
	gossip.Network
	sent *traffic
}

// ListenPacket implements gossip.Network.
func (n network) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	c, err := n.Network.ListenPacket(ctx, network, address)
	return packetConn{c, n.sent}, err
}

// DialContext implements gossip.Network.
func (n network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := n.Network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	n.sent.streams.Add(1)
	return stream{c, n.sent}, nil
}

type packetConn struct {
	net.PacketConn
	sent *traffic
}

// WriteTo implements net.PacketConn.
func (c packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.sent.packets.Add(1)
	c.sent.packetBytes.Add(int64(len(b)))
	return c.PacketConn.WriteTo(b, to)
}

// stream counts both ways, at the end that dialled.
type stream struct {
	net.Conn
	sent *traffic
}

// Read implements net.Conn.
func (s stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.sent.streamBytes.Add(int64(n))
	return n, err
}

// Write implements net.Conn.
func (s stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.sent.streamBytes.Add(int64(n))
	return n, err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// carry is the CPU that the network in memory takes for a packet, from one goroutine to
// another: what is not gossip's.
func carry(t testing.TB) time.Duration {
	const hosts, each = 100, 500
	n := memnet.New(1)
	var wg sync.WaitGroup
	var socks []net.PacketConn
	for i := range hosts {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}), port)
		s, err := n.Host(a.Addr()).ListenPacket(t.Context(), "udp", a.String())
		must(t, err)
		socks = append(socks, s)
		wg.Go(func() {
			b := make([]byte, 1<<16)
			for {
				if _, _, err := s.ReadFrom(b); err != nil {
					return
				}
			}
		})
	}
	before := cpu(t)
	var senders sync.WaitGroup
	for i, s := range socks {
		senders.Go(func() {
			b := make([]byte, 120)
			for k := range each {
				_, _ = s.WriteTo(b, socks[(i+k+1)%hosts].LocalAddr())
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	senders.Wait()
	time.Sleep(time.Second)
	spent := cpu(t) - before
	for _, s := range socks {
		must(t, s.Close())
	}
	wg.Wait()
	return spent / (hosts * each)
}
