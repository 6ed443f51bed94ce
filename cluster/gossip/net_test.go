package gossip

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// network is a network in memory: it takes part in a synctest bubble, and can
// be cut, one way or both.
type network struct {
	mu    sync.Mutex // guards following
	hosts map[netip.AddrPort]*port
	cut   func(from, to netip.AddrPort) bool
	lose  func() bool                                    // loses a packet; called with mu held
	taps  []func(from, to netip.AddrPort, packet []byte) // called with mu held
}

func newNetwork() *network { return &network{hosts: make(map[netip.AddrPort]*port)} }

// Cut loses what from says to to, where f says so; nil mends all.
func (n *network) Cut(f func(from, to netip.AddrPort) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = f
}

func (n *network) lost(from, to netip.AddrPort) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut != nil && n.cut(from, to)
}

func (n *network) find(at netip.AddrPort) *port {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[at]
}

// port is a host's place on a network.
type port struct {
	net     *network
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	once    sync.Once
	opened  chan struct{}
}

func (n *network) port(at netip.AddrPort) *port {
	p := &port{net: n, at: at, packets: make(chan *memberlist.Packet, 256), streams: make(chan net.Conn, 16), done: make(chan struct{}), opened: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[at] = p
	return p
}

func (p *port) open() { close(p.opened) }

func (p *port) inject(b []byte) { p.put(b, p.at) }

func (p *port) put(b []byte, from netip.AddrPort) {
	select {
	case p.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}:
	default:
	}
}

func (p *port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.at.Addr().AsSlice(), int(p.at.Port()), nil
}

func (p *port) WriteTo(b []byte, addr string) (time.Time, error) {
	to := netip.MustParseAddrPort(addr)
	p.net.mu.Lock()
	for _, tap := range p.net.taps {
		tap(p.at, to, b)
	}
	lose := p.net.lose != nil && p.net.lose()
	p.net.mu.Unlock()
	if other := p.net.find(to); other != nil && !lose && !p.net.lost(p.at, to) {
		other.put(b, p.at)
	}
	return time.Now(), nil
}

func (p *port) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return p.WriteTo(b, a.Addr)
}

func (p *port) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to := netip.MustParseAddrPort(addr)
	other := p.net.find(to)
	if other == nil {
		return nil, fmt.Errorf("dial tcp %s: refused", addr)
	}
	if p.net.lost(p.at, to) || p.net.lost(to, p.at) {
		select {
		case <-time.After(timeout):
		case <-p.done:
		}
		return nil, fmt.Errorf("dial tcp %s: i/o timeout", addr)
	}
	here, there := net.Pipe()
	select {
	case other.streams <- pipe{there, p.at, to}:
		return pipe{here, to, p.at}, nil
	case <-other.done:
		return nil, fmt.Errorf("dial tcp %s: refused", addr)
	}
}

// pipe is a pipe with addresses.
type pipe struct {
	net.Conn
	remote, local netip.AddrPort
}

func (c pipe) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }
func (c pipe) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }

func (p *port) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return p.DialTimeout(a.Addr, timeout)
}

func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *port) StreamCh() <-chan net.Conn           { return p.streams }

func (p *port) Shutdown() error {
	p.once.Do(func() {
		close(p.done)
		p.net.mu.Lock()
		defer p.net.mu.Unlock()
		if p.net.hosts[p.at] == p {
			delete(p.net.hosts, p.at)
		}
	})
	return nil
}

// testLogger writes to the test's log.
func testLogger(t *testing.T, name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo})).With("host", name)
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b))
	return len(b), nil
}
