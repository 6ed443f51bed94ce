package listen

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canShare reports whether several sockets of one address get their shares of the datagrams.
const canShare = true

// receiveBuffer is asked for each UDP socket, in bytes: a burst that waits while the loop works. The kernel gives what it allows.
const receiveBuffer = 1 << 20

// share sets SO_REUSEPORT before bind.
func share(_, _ string, c syscall.RawConn) error {
	return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
}

// control runs f with the descriptor.
func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// prepareUDP sets what a bound socket needs; with pktinfo, each datagram brings the address that was asked.
func prepareUDP(u *net.UDPConn, pktinfo bool) error {
	u.SetReadBuffer(receiveBuffer)
	if !pktinfo {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return err
		}
		if domain == unix.AF_INET6 {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	})
}

// oobSize is enough for a packet info of either family.
const oobSize = 64

// destAddr returns the address that a datagram was sent to, out of its control message, or an invalid one. An IPv6 link-local one
// is told with its interface.
func destAddr(oob []byte) netip.Addr {
	for len(oob) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(oob)))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(oob) {
			break
		}
		data := oob[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(data[4:8])) // ipi_spec_dst: ours even where the datagram went to a broadcast address
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(data[:16])).Unmap()
		}
		oob = oob[min(unix.CmsgSpace(n-unix.CmsgLen(0)), len(oob)):]
	}
	return netip.Addr{}
}

// appendSource appends to oob, which has oobSize bytes of room, a control message that makes a datagram leave from an address; v6 says of which family the socket is. The
// interface is left to the routing table.
func appendSource(oob []byte, from netip.Addr, v6 bool) []byte {
	if !v6 {
		a := from.As4()
		oob = appendCmsg(oob, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(oob[len(oob)-unix.CmsgSpace(unix.SizeofInet4Pktinfo)+unix.CmsgLen(0)+4:], a[:]) // ipi_spec_dst
		return oob
	}
	a := from.As16()
	oob = appendCmsg(oob, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	copy(oob[len(oob)-unix.CmsgSpace(unix.SizeofInet6Pktinfo)+unix.CmsgLen(0):], a[:])
	return oob
}

// appendCmsg appends the header and zeroes for n bytes of data; there must be room.
func appendCmsg(oob []byte, level, typ int32, n int) []byte {
	start := len(oob)
	oob = oob[:start+unix.CmsgSpace(n)]
	h := oob[start:]
	clear(h)
	if unix.SizeofPtr == 8 {
		binary.NativeEndian.PutUint64(h, uint64(unix.CmsgLen(n)))
	} else {
		binary.NativeEndian.PutUint32(h, uint32(unix.CmsgLen(n)))
	}
	binary.NativeEndian.PutUint32(h[unix.SizeofPtr:], uint32(level))
	binary.NativeEndian.PutUint32(h[unix.SizeofPtr+4:], uint32(typ))
	return oob
}
