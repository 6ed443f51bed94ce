//go:build !linux

package forwarder

import (
	"context"
	"net"
	"net/netip"
)

// dialUDP opens a socket connected to a, from a port that the system picks.
func dialUDP(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "udp", a.String())
}
