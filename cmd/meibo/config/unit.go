package config

import (
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// socketUnit is the unit of systemd that makes the sockets of port 53 where the package is installed.
const socketUnit = "meibo.socket"

// unitFolders are where systemd looks for units, the first wins; drop-ins of all count. (systemd.unit(5))
var unitFolders = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"}

// unitSockets are the addresses that the unit makes sockets for; false: there is no such unit here.
func unitSockets(folders []string) (addrs []netip.AddrPort, there bool) {
	var files []string
	for _, dir := range folders {
		path := filepath.Join(dir, socketUnit)
		if _, err := os.Stat(path); err == nil && files == nil {
			files = append(files, path)
		}
	}
	if files == nil {
		return nil, false
	}
	drops := map[string]string{} // by name: one of an earlier folder hides those of later ones
	for _, dir := range slices.Backward(folders) {
		found, _ := filepath.Glob(filepath.Join(dir, socketUnit+".d", "*.conf"))
		for _, path := range found {
			drops[filepath.Base(path)] = path
		}
	}
	for _, name := range slices.Sorted(maps.Keys(drops)) {
		files = append(files, drops[name])
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
			if key != "ListenDatagram" || !ok {
				continue // TCP goes with UDP
			}
			if value == "" {
				addrs = nil
				continue
			}
			if a, err := netip.ParseAddrPort(strings.TrimSpace(value)); err == nil && !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs, true
}

// packaged looks what keeps the daemon of the package from what the files say: its sockets are made by systemd, and it is
// a user of its own.
func (b *builder) packaged(c *Config, warn func(key, text string)) {
	addrs, there := b.src.Host.unitSockets()
	if !there {
		return
	}
	for _, a := range c.Listen {
		if c.ListenSet && a.Port() < 1024 && !slices.Contains(addrs, a) {
			warn("listen", fmt.Sprintf("%s would not be listened on: the sockets of ports below 1024 are made by %s, which lacks it (systemctl edit %s, as in more-addresses.conf of /usr/share/doc/meibo/examples)", a, socketUnit, socketUnit))
		}
	}
	daemon, err := user.Lookup("meibo")
	if err != nil || os.Geteuid() != 0 {
		return
	}
	for _, path := range b.read {
		if !mayRead(daemon, path) {
			b.warn(Warning{Serious: true, File: path, Text: "the daemon's user meibo can't read this file, and would not start: chown root:meibo and chmod 0640, and its folder 0755"})
		}
	}
}

// mayRead reports whether a user may read a file, by the modes of it and of its folders.
func mayRead(u *user.User, path string) bool {
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	groups, _ := u.GroupIds()
	may := func(path string, bit fs.FileMode) bool {
		info, err := os.Stat(path)
		if err != nil {
			return true // that is said elsewhere
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		switch {
		case !ok:
			return true
		case uint64(owner.Uid) == uid:
			bit <<= 6
		case slices.Contains(groups, strconv.FormatUint(uint64(owner.Gid), 10)):
			bit <<= 3
		}
		return info.Mode().Perm()&bit != 0
	}
	const read, search = 4, 1
	abs, err := filepath.Abs(path)
	if err != nil || !may(abs, read) {
		return err != nil
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		if !may(dir, search) {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
