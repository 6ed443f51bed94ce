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

// admission decides what may begin a handshake, before anybody has proven anything.
type admission struct {
	conns, perSource, handshakesPerSource int
	isReserved                            func(netip.Addr) bool

	// shared is for all hosts, reserved for those that must not wait behind them.
	shared, reserved *lane

	mu      sync.Mutex // guards following, and the lanes' schedules
	total   int        // of the shared lane
	sources map[netip.Addr]source
}

// source is what comes from one address.
type source struct{ conns, handshakes int }

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
	errSource     = errors.New("source")
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
		conns: cfg.Conns, perSource: cfg.ConnsPerSource, handshakesPerSource: cfg.HandshakesPerSource,
		isReserved: cfg.Reserved, shared: newLane(), reserved: newLane(),
		sources: make(map[netip.Addr]source),
	}
}

// place is the place of one admitted connection.
type place struct {
	a    *admission
	from netip.Addr
	lane *lane
	wait time.Duration // for its turn
}

// enter gives a connection from addr a place, and says how long it has to wait for its
// turn.
func (a *admission) enter(addr netip.Addr, now time.Time) (*place, error) {
	l := a.shared
	if a.isReserved != nil && a.isReserved(addr) {
		l = a.reserved
	}
	from := sourceOf(addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sources[from]
	switch {
	case l == a.shared && a.total >= a.conns:
		return nil, errConns
	case s.conns >= a.perSource:
		return nil, errSource
	case s.handshakes >= a.handshakesPerSource:
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
	a.sources[from] = source{s.conns + 1, s.handshakes + 1}
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

// proven says that the connection is past its handshake, well or not, leave that it is
// closed. Both are called once, in any order.
func (p *place) proven() { p.count(source{handshakes: 1}) }
func (p *place) leave()  { p.count(source{conns: 1}) }

func (p *place) count(out source) {
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	s := p.a.sources[p.from]
	s.conns -= out.conns
	s.handshakes -= out.handshakes
	if p.lane == p.a.shared {
		p.a.total -= out.conns
	}
	if s == (source{}) {
		delete(p.a.sources, p.from)
		return
	}
	p.a.sources[p.from] = s
}

// remoteAddr is the address that a connection comes from, none if it isn't TCP.
func remoteAddr(nc net.Conn) netip.Addr {
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// sourceOf is what connections are counted by: the address, of IPv6 the /64,
// which is what one host can have.
func sourceOf(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}
