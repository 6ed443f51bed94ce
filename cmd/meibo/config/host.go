package config

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"meibo/resolver/listen"
)

// Host answers what is asked of the machine. Nil functions ask the real one.
type Host struct {
	Name     func() (string, error)
	Template func(string) (string, error) // evaluates a go-sockaddr template
	// Addresses returns those of interfaces that are up, loopback and
	// link-local ones left out.
	Addresses func() ([]netip.Addr, error)
	// Route returns the address that packets to the world leave from, invalid
	// when there is no way out.
	Route func(v6 bool) netip.Addr
	// Has reports whether a socket can be bound to an address.
	Has func(netip.Addr) bool
	// InUse returns which process is in the way of a socket, "" for none.
	InUse func(proto string, addr netip.AddrPort) string
	// UnitSockets returns what systemd makes the DNS sockets for, false where there is
	// no unit for it.
	UnitSockets func() (addrs []netip.AddrPort, there bool)
}

func (h Host) unitSockets() ([]netip.AddrPort, bool) {
	if h.UnitSockets != nil {
		return h.UnitSockets()
	}
	return unitSockets(unitFolders)
}

func (h Host) name() (string, error) {
	if h.Name != nil {
		return h.Name()
	}
	return os.Hostname()
}

func (h Host) template(s string) (string, error) {
	if h.Template != nil {
		return h.Template(s)
	}
	return evaluateTemplate(s)
}

func (h Host) addresses() ([]netip.Addr, error) {
	if h.Addresses != nil {
		return h.Addresses()
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface went away meanwhile
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().IsGlobalUnicast() && !slices.Contains(all, p.Addr()) {
				all = append(all, p.Addr())
			}
		}
	}
	return all, nil
}

// route asks the kernel by connecting a UDP socket, which sends nothing.
func (h Host) route(v6 bool) netip.Addr {
	if h.Route != nil {
		return h.Route(v6)
	}
	network, target := "udp4", "192.0.2.1:9" // RFC 5737, RFC 3849: nobody's
	if v6 {
		network, target = "udp6", "[2001:db8::1]:9"
	}
	c, err := net.Dial(network, target)
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	ap, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil || !ap.Addr().IsGlobalUnicast() {
		return netip.Addr{}
	}
	return ap.Addr()
}

// has asks the kernel for a UDP socket of any port.
func (h Host) has(a netip.Addr) bool {
	if h.Has != nil {
		return h.Has(a)
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return !errors.Is(err, syscall.EADDRNOTAVAIL)
	}
	c.Close()
	return true
}

func (h Host) inUse(proto string, addr netip.AddrPort) string {
	if h.InUse != nil {
		return h.InUse(proto, addr)
	}
	return listen.InUse(proto, addr)
}
