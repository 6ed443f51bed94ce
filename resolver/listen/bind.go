package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
)

// endpoint is the sockets of one address.
type endpoint struct {
	addr netip.AddrPort
	dual bool // an IPv6 socket that serves IPv4 too
	tcp  *net.TCPListener
	udp  []*net.UDPConn
}

func (e *endpoint) close() {
	if e.tcp != nil {
		e.tcp.Close()
	}
	for _, u := range e.udp {
		u.Close()
	}
}

func closeAll(endpoints []*endpoint) {
	for _, e := range endpoints {
		e.close()
	}
}

// bindAll makes the endpoints of a configuration, of what was handed over first.
func bindAll(cfg *Config) (_ []*endpoint, err error) {
	h, err := adopt(cfg.Files)
	if err != nil {
		return nil, err
	}
	var addrs []netip.AddrPort
	for _, addr := range slices.Concat(cfg.Addrs, h.addrs) {
		if addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()); addr.Port() == 0 || !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	var endpoints []*endpoint
	defer func() {
		if err != nil {
			h.close()
			closeAll(endpoints)
		}
	}()
	for _, addr := range addrs {
		e := &endpoint{addr: addr, dual: isDual(addr, addrs), tcp: h.claimTCP(addr), udp: h.claimUDP(addr)}
		handed := e.tcp != nil || e.udp != nil
		if err := e.bind(cfg.Loops); err != nil {
			e.close()
			if len(h.addrs) == 0 || handed {
				return nil, err
			}
			// Whoever hands over sockets makes them all: a fault in the list of further ones is no reason to serve none.
			cfg.Logger.Error("address is not listened on, all others are: no socket was handed over for it, and it can't be bound; under systemd it belongs into a drop-in of meibo.socket", "addr", addr, "err", err)
			continue
		}
		endpoints = append(endpoints, e)
		for _, u := range e.udp {
			if err := prepareUDP(u, e.addr.Addr().IsUnspecified()); err != nil {
				return nil, fmt.Errorf("listen on %s/udp: %w", e.addr, err)
			}
		}
	}
	return endpoints, nil
}

// isDual reports whether the socket of [::] is to serve IPv4 too: unless 0.0.0.0 is listened on by itself.
func isDual(addr netip.AddrPort, all []netip.AddrPort) bool {
	if addr.Addr() != netip.IPv6Unspecified() {
		return false
	}
	for _, a := range all {
		if a.Addr().Unmap() == netip.IPv4Unspecified() && a.Port() == addr.Port() {
			return false
		}
	}
	return true
}

// bind binds what the endpoint has not got yet, TCP before UDP.
func (e *endpoint) bind(loops int) error {
	// With port 0 the port that is free for TCP may be taken for UDP.
	for attempt := 0; ; attempt++ {
		ownTCP := e.tcp == nil
		if ownTCP {
			l, err := listenTCP(e.network("tcp"), e.addr)
			if err != nil {
				return bindError("tcp", e.addr, err)
			}
			e.tcp = l
		}
		if e.udp != nil {
			e.addr = netip.AddrPortFrom(e.addr.Addr(), addrPort(e.udp[0].LocalAddr()).Port())
			return nil
		}
		bound := netip.AddrPortFrom(e.addr.Addr(), addrPort(e.tcp.Addr()).Port())
		udp, err := listenUDP(e.network("udp"), bound, loops)
		if err == nil {
			e.addr, e.udp = bound, udp
			return nil
		}
		if !ownTCP || e.addr.Port() != 0 || attempt == 20 || !errors.Is(err, syscall.EADDRINUSE) {
			return bindError("udp", bound, err)
		}
		e.tcp.Close()
		e.tcp = nil
	}
}

// network returns tcp4, tcp6 or, for both families, tcp; and so for udp.
func (e *endpoint) network(proto string) string {
	switch {
	case e.dual:
		return proto
	case e.addr.Addr().Is4():
		return proto + "4"
	}
	return proto + "6"
}

func listenTCP(network string, addr netip.AddrPort) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1} // idle connections are closed long before a keep-alive would find them dead
	l, err := lc.Listen(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// listenUDP binds a group of sockets that share the address. It binds one without sharing first, so that it doesn't join a group of
// another program of the same user.
func listenUDP(network string, addr netip.AddrPort, loops int) ([]*net.UDPConn, error) {
	probe, err := listenOneUDP(network, addr, nil)
	if err != nil {
		return nil, err
	}
	if loops == 1 || !canShare {
		return []*net.UDPConn{probe}, nil
	}
	probe.Close()
	var out []*net.UDPConn
	for range loops {
		u, err := listenOneUDP(network, addr, share)
		if err != nil {
			for _, u := range out {
				u.Close()
			}
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

func listenOneUDP(network string, addr netip.AddrPort, control func(network, address string, c syscall.RawConn) error) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: control}
	u, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	return u.(*net.UDPConn), nil
}

// bindError says what is in the way, and what to do.
func bindError(proto string, addr netip.AddrPort, err error) error {
	what := fmt.Sprintf("listen on %s/%s", addr, proto)
	var sys syscall.Errno
	if !errors.As(err, &sys) {
		return fmt.Errorf("%s: %w", what, err)
	}
	switch sys {
	case syscall.EADDRINUSE:
		return fmt.Errorf("%s: the port is taken by %s: stop it, or listen on another address or port: %w", what, Holder(proto, addr), sys)
	case syscall.EACCES, syscall.EPERM:
		return fmt.Errorf("%s: ports below 1024 need root or CAP_NET_BIND_SERVICE (under systemd meibo.socket makes the sockets: is it active, and has it this address?): %w", what, sys)
	case syscall.EADDRNOTAVAIL:
		return fmt.Errorf("%s: no interface of this host has the address: %w", what, sys)
	}
	return fmt.Errorf("%s: %w", what, sys)
}

// addrPort returns the address of a socket, an IPv4 one as such.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// handed is sockets handed over and not taken yet.
type handed struct {
	addrs []netip.AddrPort // of all, each once
	tcp   map[netip.AddrPort]*net.TCPListener
	udp   map[netip.AddrPort][]*net.UDPConn
}

// adopt makes sockets of files, and closes the files.
func adopt(files []*os.File) (*handed, error) {
	h := &handed{tcp: make(map[netip.AddrPort]*net.TCPListener), udp: make(map[netip.AddrPort][]*net.UDPConn)}
	for _, f := range files {
		if err := h.add(f); err != nil {
			h.close()
			return nil, err
		}
	}
	for _, f := range files {
		f.Close()
	}
	return h, nil
}

func (h *handed) add(f *os.File) error {
	var addr netip.AddrPort
	if l, err := net.FileListener(f); err == nil {
		tcp, ok := l.(*net.TCPListener)
		if !ok {
			l.Close()
			return fmt.Errorf("take over socket %s: it listens on %s/%s, DNS needs TCP or UDP", f.Name(), l.Addr(), l.Addr().Network())
		}
		addr = addrPort(tcp.Addr())
		if h.tcp[addr] != nil {
			tcp.Close()
			return fmt.Errorf("take over socket %s: there are two for %s/tcp", f.Name(), addr)
		}
		h.tcp[addr] = tcp
	} else if p, err := net.FilePacketConn(f); err == nil {
		udp, ok := p.(*net.UDPConn)
		if !ok {
			p.Close()
			return fmt.Errorf("take over socket %s: it is of %s, DNS needs TCP or UDP", f.Name(), p.LocalAddr().Network())
		}
		addr = addrPort(udp.LocalAddr())
		h.udp[addr] = append(h.udp[addr], udp)
	} else {
		return fmt.Errorf("take over socket %s: %w", f.Name(), err)
	}
	for _, a := range h.addrs {
		if a == addr {
			return nil
		}
	}
	h.addrs = append(h.addrs, addr)
	return nil
}

func (h *handed) claimTCP(addr netip.AddrPort) *net.TCPListener {
	l := h.tcp[addr]
	delete(h.tcp, addr)
	return l
}

func (h *handed) claimUDP(addr netip.AddrPort) []*net.UDPConn {
	u := h.udp[addr]
	delete(h.udp, addr)
	return u
}

// close closes what was not taken.
func (h *handed) close() {
	for _, l := range h.tcp {
		l.Close()
	}
	for _, us := range h.udp {
		for _, u := range us {
			u.Close()
		}
	}
}
