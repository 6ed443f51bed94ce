package netswitch

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setMAC gives the device the address 02:00:00:00:00:n. The request holds a sockaddr, for which x/sys has no setter.
func setMAC(fd int, name string, n byte) error {
	var req struct {
		name   [unix.IFNAMSIZ]byte
		family uint16
		mac    [6]byte
		_      [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.family, req.mac = unix.ARPHRD_ETHER, [6]byte{2, 0, 0, 0, 0, n}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
