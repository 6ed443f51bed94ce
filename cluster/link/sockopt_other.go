//go:build !linux

package link

import "syscall"

// setUserTimeout does nothing: keepalives and the pings of HTTP/2 and of feed
// find a cut cable, a little later.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
