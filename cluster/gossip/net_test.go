package gossip

import (
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	"meibo/cluster/clustertest/memnet"
)

// network is one in memory that knows the addresses of the tests' hosts.
type network struct {
	*memnet.Network

	mu   sync.Mutex                                     // guards following
	taps []func(from, to netip.AddrPort, packet []byte) // called with mu held
}

// hostsMost is how many hosts a test has at most.
const hostsMost = 32

func newNetwork() *network {
	n := &network{Network: memnet.New(1)}
	n.Tap = func(from, to netip.AddrPort, packet []byte) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, tap := range n.taps {
			tap(from, to, packet)
		}
	}
	return n
}

// Cut loses what from says to to, where f says so; nil mends all.
func (n *network) Cut(f func(from, to netip.AddrPort) bool) {
	for i := range hostsMost {
		for j := range hostsMost {
			from, to := address(i), address(j)
			n.Set([]netip.Addr{from.Addr()}, []netip.Addr{to.Addr()}, memnet.Path{Cut: f != nil && f(from, to)})
		}
	}
}

// lose loses a part of all packets.
func (n *network) lose(part float64) {
	var all []netip.Addr
	for i := range hostsMost {
		all = append(all, address(i).Addr())
	}
	n.Set(all, all, memnet.Path{Loss: part})
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
