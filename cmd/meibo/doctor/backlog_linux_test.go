package doctor

import (
	"net/netip"
	"syscall"
	"testing"
)

// backlogged listens with the shortest queue there is, and accepts nobody.
func backlogged(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, syscall.Listen(fd, 0))
	at, err := syscall.Getsockname(fd)
	must(t, err)
	return netip.AddrPortFrom(loopback, uint16(at.(*syscall.SockaddrInet4).Port))
}
