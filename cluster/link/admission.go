package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"meibo/cluster/retry"
)

// admission decides what may begin a handshake, before anybody has proven anything,
// and how many connections a member may have once it has.
type admission struct {
	conns, perMember, handshakesPerSource int
	isReserved                            func(netip.Addr) bool

	// shared is for all hosts, reserved for those that must not wait behind them.
	shared, reserved *lane

	mu      sync.Mutex         // guards following, and the lanes' schedules
	total   int                // of the shared lane
	sources map[netip.Addr]int // handshakes not done yet, by what sourceOf returns
	members map[string]int     // connections past theirs, by node ID
}

// lane is a limiter of handshakes.
type lane struct {
	interval time.Duration // between two handshakes at the full rate
	burst    time.Duration // so far the schedule may lag behind
	longest  time.Duration // so far it may run ahead: the wait
	slots    chan struct{} // handshakes at once
	next     time.Time     // when the next handshake is due
}

// Reasons why a connection is not admitted; labels of a metric.
var (
	errConns      = errors.New("conns")
	errHandshakes = errors.New("handshakes")
	errRate       = errors.New("rate")
)

func newAdmission(cfg *Config) *admission {
	newLane := func() *lane {
		return &lane{
			interval: time.Second / time.Duration(cfg.HandshakeRate), burst: time.Second,
			longest: cfg.HandshakeTimeout / 2,
			slots:   make(chan struct{}, cfg.Handshakes),
		}
	}
	return &admission{
		conns: cfg.Conns, perMember: cfg.ConnsPerMember, handshakesPerSource: cfg.HandshakesPerSource,
		isReserved: cfg.Reserved, shared: newLane(), reserved: newLane(),
		sources: make(map[netip.Addr]int), members: make(map[string]int),
	}
}

// place is the place of one admitted connection.
type place struct {
	a    *admission
	from netip.Addr
	lane *lane
	wait time.Duration // for its turn

	// a.mu guards following.
	member string // that the connection is counted for
	left   bool
}

// enter gives a connection from addr a place, and says how long it has to wait for its
// turn.
func (a *admission) enter(addr netip.Addr, now time.Time) (*place, error) {
	l, from := a.shared, sourceOf(addr)
	if a.isReserved != nil && a.isReserved(addr) {
		l, from = a.reserved, addr // who else is in its /64 doesn't matter
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case l == a.shared && a.total >= a.conns:
		return nil, errConns
	case a.sources[from] >= a.handshakesPerSource:
		return nil, errHandshakes
	}
	if earliest := now.Add(-l.burst); l.next.Before(earliest) {
		l.next = earliest
	}
	next := l.next.Add(l.interval)
	wait := next.Sub(now)
	if wait > l.longest {
		return nil, errRate
	}
	l.next = next
	if l == a.shared {
		a.total++
	}
	a.sources[from]++
	return &place{a: a, from: from, lane: l, wait: max(wait, 0)}, nil
}

// turn waits for the connection's turn and for a slot, which release gives back.
func (p *place) turn(ctx context.Context) (release func(), err error) {
	if p.wait > 0 && !retry.Wait(ctx, p.wait) {
		return nil, ctx.Err()
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case p.lane.slots <- struct{}{}:
		return func() { <-p.lane.slots }, nil
	}
}

// handshaken says that the connection is past its handshake, well or not: its source
// may begin another. Called once.
func (p *place) handshaken() {
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	take(p.a.sources, p.from)
}

// join counts the connection for the member that it has proven to come from; false:
// the member has as many as it may, or the connection is closed already.
func (p *place) join(id string) bool {
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	if p.left || p.a.members[id] >= p.a.perMember {
		return false
	}
	p.member = id
	p.a.members[id]++
	return true
}

// leave says that the connection is closed, be it within its handshake. Called once.
func (p *place) leave() {
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	p.left = true
	if p.lane == p.a.shared {
		p.a.total--
	}
	if p.member != "" {
		take(p.a.members, p.member)
	}
}

// take takes one from a count.
func take[K comparable](counts map[K]int, k K) {
	if counts[k]--; counts[k] == 0 {
		delete(counts, k)
	}
}

// remoteAddr is the address that a connection comes from, none if it isn't TCP.
func remoteAddr(nc net.Conn) netip.Addr {
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// sourceOf is what handshakes are counted by: the address, of IPv6 the /64, which is
// what one host can have.
func sourceOf(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}
