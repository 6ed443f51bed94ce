package forwarder

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// dialUDP opens a socket connected to a. The kernel picks a random port, drops
// what comes from anywhere else, and reports refusals. Path MTU news are ignored,
// so that forged ones can't make the server fragment (RFC 5452, fragment attacks).
func dialUDP(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(network, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if network == "udp4" {
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
			} else {
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
			}
		})
	}}
	return d.DialContext(ctx, "udp", a.String())
}
