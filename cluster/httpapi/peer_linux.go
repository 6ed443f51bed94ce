package httpapi

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerUID is the user at the other end of a local socket, as the kernel knows it.
func peerUID(conn net.Conn) (uid int, err error) {
	local, ok := conn.(*net.UnixConn)
	if !ok {
		return -1, fmt.Errorf("%T is no local socket", conn)
	}
	raw, err := local.SyscallConn()
	if err != nil {
		return -1, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return -1, err
	}
	if failed != nil {
		return -1, failed
	}
	return int(cred.Uid), nil
}
