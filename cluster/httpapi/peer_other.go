//go:build !linux

package httpapi

import (
	"net"
	"os"
)

// peerUID trusts the socket's mode where the kernel is not asked.
func peerUID(net.Conn) (uid int, err error) { return os.Geteuid(), nil }
