package forwarder

import (
	"net"
	"net/netip"
	"slices"
)

// isSelf tells whether a question sent to a would reach one of our own listeners.
func isSelf(a netip.AddrPort, self []netip.AddrPort) bool {
	for _, s := range self {
		if s.Port() != a.Port() {
			continue
		}
		if s.Addr().Unmap() == a.Addr() || s.Addr().IsUnspecified() && isLocal(a.Addr()) {
			return true
		}
	}
	return false
}

// isLocal tells whether a is an address of this host.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false // then the loop probe finds it
	}
	return slices.ContainsFunc(addrs, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr().Unmap() == a
	})
}
