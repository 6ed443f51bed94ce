//go:build !linux

package listen

import (
	"net"
	"net/netip"
	"syscall"
)

// Elsewhere than on Linux one socket serves an address, and a socket of an unspecified address answers from the address
// that the system chooses.
const (
	canShare = false
	oobSize  = 0
)

func share(_, _ string, _ syscall.RawConn) error { return nil }

func prepareUDP(*net.UDPConn, bool) error { return nil }

func destAddr([]byte) netip.Addr { return netip.Addr{} }

func appendSource(oob []byte, _ netip.Addr, _ bool) []byte { return oob }

// Holder says which process has a socket on an address; this system has no way to tell.
func Holder(string, netip.AddrPort) string { return "another process" }

// InUse says which process is in the way of a socket on addr; this system has no way to tell.
func InUse(string, netip.AddrPort) string { return "" }
