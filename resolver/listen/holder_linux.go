package listen

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder says which process has a socket on an address, for people to read.
func Holder(proto string, addr netip.AddrPort) string {
	sockets := socketsOn(proto, addr)
	if len(sockets) == 0 {
		return "another process (its socket is not in /proc/net; perhaps it just ended)"
	}
	owners, hidden := ownersOf(sockets)
	if len(owners) > 0 {
		return strings.Join(owners, ", ")
	}
	var uids []string
	for _, s := range sockets {
		if u := "uid " + s.uid; !slices.Contains(uids, u) {
			uids = append(uids, u)
		}
	}
	who := "a process of " + strings.Join(uids, ", ")
	if hidden {
		return who + " (which one, only root may see: ss -lntup)"
	}
	return who + " (in another container or namespace)"
}

// InUse returns who has a socket that would be in the way of one on addr, for people to read; "" if nobody has. It binds
// nothing: what it says holds for the moment.
func InUse(proto string, addr netip.AddrPort) string {
	if addr.Port() == 0 || len(socketsOn(proto, addr)) == 0 {
		return ""
	}
	return Holder(proto, addr)
}

// boundSocket is a line of /proc/net/tcp or udp.
type boundSocket struct{ inode, uid string }

// socketsOn lists the sockets that stand in the way of addr: on it, or one of the two is unspecified.
func socketsOn(proto string, addr netip.AddrPort) []boundSocket {
	var out []boundSocket
	for _, name := range []string{proto, proto + "6"} {
		f, err := os.Open("/proc/net/" + name)
		if err != nil {
			continue
		}
		s := bufio.NewScanner(f)
		for s.Scan() {
			if b, ok := parseSocket(s.Text(), proto, addr); ok {
				out = append(out, b)
			}
		}
		f.Close()
	}
	return out
}

// parseSocket reads one line; ok if the socket is in the way of addr.
func parseSocket(line, proto string, addr netip.AddrPort) (_ boundSocket, ok bool) {
	const listening = "0A"
	f := strings.Fields(line)
	if len(f) < 10 || proto == "tcp" && f[3] != listening {
		return boundSocket{}, false
	}
	local, ok := parseProcAddr(f[1])
	if !ok || local.Port() != addr.Port() {
		return boundSocket{}, false
	}
	if local.Addr() != addr.Addr().Unmap() && !covers(local.Addr(), addr.Addr().Unmap()) && !covers(addr.Addr().Unmap(), local.Addr()) {
		return boundSocket{}, false
	}
	return boundSocket{inode: f[9], uid: f[7]}, true
}

// covers reports whether a socket on a takes the place of one on b: [::] has IPv4 too, unless it was told not to.
func covers(a, b netip.Addr) bool { return a.IsUnspecified() && (a.Is6() || b.Is4()) }

// parseProcAddr reads 0100007F:0035, 32-bit words in the machine's order (which is little-endian wherever this has run).
func parseProcAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, ok := netip.AddrFromSlice(b)
	p, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), ok && err == nil
}

// ownersOf lists the processes that have one of the sockets open; hidden if some could not be looked at.
func ownersOf(sockets []boundSocket) (owners []string, hidden bool) {
	links := make(map[string]bool)
	for _, s := range sockets {
		links["socket:["+s.inode+"]"] = true
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir + "/fd")
		if errors.Is(err, fs.ErrPermission) {
			hidden = true
		}
		for _, e := range entries {
			if link, err := os.Readlink(dir + "/fd/" + e.Name()); err != nil || !links[link] {
				continue
			}
			name, _ := os.ReadFile(dir + "/comm")
			owners = append(owners, fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(dir)))
			break
		}
	}
	return owners, hidden
}
