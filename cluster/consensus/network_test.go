package consensus

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"meibo/cluster/clustertest/memnet"
)

// network is one in memory, whose hosts have names.
type network struct {
	*memnet.Network

	mu    sync.Mutex // guards following
	addrs map[string]netip.Addr
	hosts map[string]*memnet.Host
	dials int // connections that were made
}

// way is what befalls what one host sends to another.
type way struct {
	cut   bool
	delay time.Duration
	loss  float64
}

// newNetwork makes one on which nobody waits for a kernel to dial again.
func newNetwork(seed uint64) *network {
	n := memnet.New(seed)
	n.Redial = 100 * time.Millisecond
	return &network{Network: n, addrs: make(map[string]netip.Addr), hosts: make(map[string]*memnet.Host)}
}

// addr is the host's address, given to it when it is first spoken of.
func (n *network) addr(name string) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.addrs[name]; !known {
		n.addrs[name] = netip.AddrFrom4([4]byte{10, 0, 0, byte(len(n.addrs) + 1)})
	}
	return n.addrs[name]
}

// set changes the way from one host to another.
func (n *network) set(from, to string, w way) {
	n.Set([]netip.Addr{n.addr(from)}, []netip.Addr{n.addr(to)}, memnet.Path{Cut: w.cut, Delay: w.delay, Loss: w.loss})
}

// all changes all ways.
func (n *network) all(w way) {
	for _, a := range n.names() {
		for _, b := range n.names() {
			n.set(a, b, w)
		}
	}
}

// apart cuts a host off from all others, both ways, or joins it to them again.
func (n *network) apart(name string, cut bool) {
	for _, other := range n.names() {
		n.set(name, other, way{cut: cut})
		n.set(other, name, way{cut: cut})
	}
}

// lose takes the host's power: what it has sent and nobody has read yet is lost.
func (n *network) lose(name string) {
	n.mu.Lock()
	h := n.hosts[name]
	n.mu.Unlock()
	h.SwitchOff()
}

func (n *network) names() (names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range n.addrs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// port is where Raft listens on every host.
const port = 8300

// layer is a stream layer on a host.
type layer struct {
	net.Listener
	net  *network
	host *memnet.Host
	name string
}

// host starts a process on the host of that name, in the place of a former.
func (n *network) host(name string) *layer {
	addr := n.addr(name)
	h := n.Host(addr)
	n.mu.Lock()
	n.hosts[name] = h
	n.mu.Unlock()
	l, err := h.Listen(context.Background(), "tcp", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		panic(err)
	}
	return &layer{Listener: l, net: n, host: h, name: name}
}

// Addr is that under which Raft knows the host.
func (l *layer) Addr() net.Addr { return address(l.name) }

// Dial connects to the host of that name.
func (l *layer) Dial(name string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := l.host.DialContext(ctx, "tcp", netip.AddrPortFrom(l.net.addr(name), port).String())
	if err == nil {
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		l.net.dials++
	}
	return c, err
}
