package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// door decides what may begin a handshake, before anybody has proven anything.
type door struct {
	conns, perSource, handshakesPerSource int

	interval time.Duration // between two handshakes at the full rate
	burst    time.Duration // so far the schedule may lag behind
	longest  time.Duration // so far it may run ahead: the wait
	slots    chan struct{} // handshakes at once

	mu      sync.Mutex // guards following
	total   int
	sources map[netip.Addr]source
	next    time.Time // when the next handshake is due
}

// source is what comes from one address.
type source struct{ conns, handshakes int }

// Reasons why the door stays shut; labels of a metric.
var (
	errConns      = errors.New("conns")
	errSource     = errors.New("source")
	errHandshakes = errors.New("handshakes")
	errRate       = errors.New("rate")
)

func newDoor(cfg *Config) *door {
	return &door{
		conns: cfg.Conns, perSource: cfg.ConnsPerSource, handshakesPerSource: cfg.HandshakesPerSource,
		interval: time.Second / time.Duration(cfg.HandshakeRate), burst: time.Second,
		longest: cfg.HandshakeTimeout / 2,
		slots:   make(chan struct{}, cfg.Handshakes),
		sources: make(map[netip.Addr]source),
	}
}

// enter counts a connection in, and says how long it has to wait for its turn.
func (d *door) enter(from netip.Addr, now time.Time) (wait time.Duration, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sources[from]
	switch {
	case d.total >= d.conns:
		return 0, errConns
	case s.conns >= d.perSource:
		return 0, errSource
	case s.handshakes >= d.handshakesPerSource:
		return 0, errHandshakes
	}
	if earliest := now.Add(-d.burst); d.next.Before(earliest) {
		d.next = earliest
	}
	next := d.next.Add(d.interval)
	if wait = next.Sub(now); wait > d.longest {
		return 0, errRate
	}
	d.next = next
	d.total++
	d.sources[from] = source{s.conns + 1, s.handshakes + 1}
	return max(wait, 0), nil
}

// turn waits for the connection's turn and for a slot, which release gives back.
func (d *door) turn(ctx context.Context, wait time.Duration) (release func(), err error) {
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case d.slots <- struct{}{}:
		return func() { <-d.slots }, nil
	}
}

// proven says that a connection is past its handshake, well or not.
func (d *door) proven(from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sources[from]
	s.handshakes--
	d.sources[from] = s
}

// leave counts a connection out.
func (d *door) leave(from netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total--
	s := d.sources[from]
	if s.conns--; s.conns <= 0 {
		delete(d.sources, from)
		return
	}
	d.sources[from] = s
}

// sourceOf is what connections are counted by: the address, of IPv6 the /64,
// which is what one host can have.
func sourceOf(nc net.Conn) netip.Addr {
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}
