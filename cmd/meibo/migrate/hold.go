package migrate

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxHeld queries are kept, far more than come in the seconds that a change takes.
	maxHeld = 200_000
	// relayTime is how long the new server has for one of them: its client waits 5 s in all (resolv.conf(5)).
	relayTime = 3 * time.Second
	// relays are on their way at once.
	relays = 64
	// discard is a port from which nothing comes (RFC 863).
	discard = 9
)

// hold keeps UDP queries while the server of their addresses is replaced, so that none is lost
// or refused: it takes them in place of whoever has the sockets, and hands them to the next one.
//
// Linux gives a datagram to the latest of several sockets that are bound to one address, and to
// one bound to it before one that is bound to all, if all of them allow the address to be used again
// (SO_REUSEADDR), as dnsmasq and systemd do.
type hold struct {
	conns   []*net.UDPConn
	reading sync.WaitGroup
	mu      sync.Mutex // guards held
	held    []heldQuery
}

type heldQuery struct {
	conn *net.UDPConn // it came to
	from netip.AddrPort
	data []byte
}

// holdAll begins to hold what comes to the addresses; of those that can't be had it leaves the queries where they go.
func holdAll(ctx context.Context, addrs []netip.AddrPort) *hold {
	h := &hold{}
	h.again(ctx, addrs)
	return h
}

// again takes what comes to the addresses from whoever bound them since.
func (h *hold) again(ctx context.Context, addrs []netip.AddrPort) {
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	for _, addr := range addrs {
		if addr.Addr().IsUnspecified() {
			loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
			if addr.Addr().Is6() {
				loopback = netip.IPv6Loopback()
			}
			addr = netip.AddrPortFrom(loopback, addr.Port())
		}
		c, err := listen.ListenPacket(ctx, "udp", addr.String())
		if err != nil {
			continue
		}
		conn, ok := c.(*net.UDPConn)
		if !ok {
			continue
		}
		h.conns = append(h.conns, conn)
		h.reading.Go(func() { h.read(conn) })
	}
}

func control(c syscall.RawConn, f func(fd int) error) error {
	var inner error
	err := c.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}

// read keeps what comes until the deadline that release sets.
func (h *hold) read(conn *net.UDPConn) {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue // what a client's host said of an answer
		}
		h.mu.Lock()
		if len(h.held) < maxHeld {
			h.held = append(h.held, heldQuery{conn, from, append([]byte(nil), buffer[:n]...)})
		}
		h.mu.Unlock()
	}
}

// release lets queries go to whoever has the addresses now, asks it those that were held, and
// returns how many of them it answered. Their answers come from where their clients sent them to.
func (h *hold) release() (answered, of int) {
	for _, conn := range h.conns {
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort() //nolint:forcetypeassert // of a UDP socket
		if raw, err := conn.SyscallConn(); err == nil {
			_ = control(raw, func(fd int) error { return connect(fd, netip.AddrPortFrom(local.Addr().Unmap(), discard)) })
		}
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // what had come before is there already
	}
	h.reading.Wait()
	var relaying sync.WaitGroup
	next := make(chan heldQuery)
	var mu sync.Mutex // guards answered
	for range min(relays, len(h.held)) {
		relaying.Go(func() {
			for q := range next {
				if relay(q) {
					mu.Lock()
					answered++
					mu.Unlock()
				}
			}
		})
	}
	for _, q := range h.held {
		next <- q
	}
	close(next)
	relaying.Wait()
	for _, conn := range h.conns {
		_ = conn.Close()
	}
	return answered, len(h.held)
}

// connect has a socket take datagrams of one sender alone.
func connect(fd int, to netip.AddrPort) error {
	if to.Addr().Is4() {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}
	return unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
}

// relay asks the server one query and answers its client.
func relay(q heldQuery) bool {
	server, err := net.DialTimeout("udp", q.conn.LocalAddr().String(), relayTime)
	if err != nil {
		return false
	}
	defer server.Close()
	if err := server.SetDeadline(time.Now().Add(relayTime)); err != nil {
		return false
	}
	if _, err := server.Write(q.data); err != nil {
		return false
	}
	buffer := make([]byte, 64<<10)
	n, err := server.Read(buffer)
	if err != nil {
		return false
	}
	_, err = q.conn.WriteToUDPAddrPort(buffer[:n], q.from)
	return err == nil
}
