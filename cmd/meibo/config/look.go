package config

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"meibo/cluster/gossip"
)

// look says what of this host would keep the daemon from its sockets, as things are now.
func (b *builder) look(c *Config, all []socket) {
	said := map[string]bool{}
	warn := func(key, text string) {
		if s := b.set[key]; !said[key+text] {
			w := Warning{Serious: true, Key: key, Text: text}
			if said[key+text] = true; s != nil {
				w.File, w.Line = s.at.file, s.at.line
			}
			b.warn(w)
		}
	}
	for _, s := range all {
		key := b.addressOf(s)
		switch {
		case s.unix != "":
			if dir := filepath.Dir(s.unix); !isDir(dir) {
				warn(key, fmt.Sprintf("the folder %s of the socket %s is not there: %s", dir, s.unix, lost(s.key)))
			}
		case !b.src.Host.has(s.addr.Addr()):
			warn(key, fmt.Sprintf("no interface of this host has the address %s: %s", s.addr.Addr(), lost(s.key)))
		default:
			if who := b.src.Host.inUse(strings.ToLower(s.proto), s.addr); who != "" && !c.isOwn(who) {
				warn(s.key, fmt.Sprintf("%s is taken by %s: %s; stop that, or set another port", s.addr, who, lost(s.key)))
			}
		}
	}
	b.packaged(c, warn)
	const maxSocketPath = 107 // what a socket's address has room for, on Linux
	if n := len(filepath.Join(c.DataDir, "control.sock")); c.DataDir != "" && n > maxSocketPath {
		warn("data_dir", fmt.Sprintf("too long a path for the control socket in it, of %d octets, %d of which a socket's address holds: what operators change by `meibo` needs the folder /run/meibo then", n, maxSocketPath))
	}
	if path := c.KeyringPath(); path != "" && c.Cluster.Encrypt != "" && gossip.WasRemoved(path, c.Key()) {
		warn("encrypt", "that key was removed from the cluster's keyring, says "+path+".past, and is not used: name one that `meibo keyring list` shows, or none")
	}
	for key, lookup := range map[string]func(string) error{
		"unix_sockets.user":  func(name string) error { _, err := user.Lookup(name); return err },
		"unix_sockets.group": func(name string) error { _, err := user.LookupGroup(name); return err },
	} {
		name := b.text(key)
		if _, err := strconv.Atoi(name); name == "" || err == nil {
			continue
		}
		if err := lookup(name); err != nil {
			warn(key, fmt.Sprintf("%q is not known on this host: %s", shorten(name), lost("ports.http")))
		}
	}
}

// lost is what becomes of a daemon that can't have its sockets.
func lost(key string) string {
	switch key {
	case "ports.dns", "listen":
		return "`meibo agent` would not start"
	case "ports.http", "ports.https":
		return "the API would not be served until that changes"
	}
	return "this host would speak to no other until that changes"
}

// LockPath is the file that the daemon of this data_dir holds locked, with its process ID in it; "" without one.
func (c *Config) LockPath() string {
	if c.DataDir == "" {
		return ""
	}
	return filepath.Join(c.DataDir, "lock")
}

// isOwn reports whether the sockets are those of the daemon of this configuration, which runs, or that systemd keeps for
// it. By data_dir one daemon is told from another; where none is set it may be given to the daemon on its command line.
func (c *Config) isOwn(who string) bool {
	holders := strings.Split(who, ", ")
	if who == "systemd (pid 1)" {
		return true
	}
	if c.DataDir == "" {
		return slices.ContainsFunc(holders, func(h string) bool { return strings.HasPrefix(h, "meibo (pid ") })
	}
	pid, err := os.ReadFile(c.LockPath())
	return err == nil && slices.Contains(holders, "meibo (pid "+strings.TrimSpace(string(pid))+")")
}

// addressOf is the key that gives the socket its address.
func (b *builder) addressOf(s socket) string {
	paths := []string{s.key, "client_addr"}
	switch kind, _ := strings.CutPrefix(s.key, "ports."); kind {
	case "dns", "http", "https":
		paths = []string{"addresses." + kind, "client_addr"}
	case "serf_lan", "server":
		paths = []string{"serf_lan", "bind_addr"}
	}
	if b.isSet(paths[0]) {
		return paths[0]
	}
	return paths[1]
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// unreachable finds hosts to join that no packet from this one would get to: gossip is off, or bound to or known by a
// loopback address, and whoever set that may have written another file.
func (b *builder) unreachable(c *Config) {
	from, key := c.Cluster.SerfLAN.Addr(), "bind_addr"
	if b.isSet("serf_lan") {
		key = "serf_lan"
	}
	mend := fmt.Sprintf("%s is %s, a loopback address, which keeps this host to itself: remove it, or set it to an address of this host that the others reach", b.named(key), from)
	switch {
	case !from.IsValid():
		mend = fmt.Sprintf("%s is off, which keeps this host to itself: remove it, or set it to a port", b.named("ports.serf_lan"))
	case c.Cluster.ServerPort <= 0:
		mend = fmt.Sprintf("%s is off, which keeps this host to itself: remove it, or set it to a port", b.named("ports.server"))
	case from.IsLoopback():
	case b.isSet("advertise_addr") && c.Node.Advertise.IsLoopback():
		mend = fmt.Sprintf("%s is %s, a loopback address, at which no other host finds this one: remove it, or set it to an address that the others reach", b.named("advertise_addr"), c.Node.Advertise)
	default:
		return
	}
	own, _ := b.src.Host.addresses()
	far := map[position][]string{} // by line
	for _, e := range b.entries("retry_join") {
		if isTemplate(e.text) || strings.Contains(e.text, "=") || !beyondLoopback(e.text) {
			continue // what a template or a program yields is not known here
		}
		host := hostOf(e.text)
		if a, err := netip.ParseAddr(host); err == nil && slices.Contains(own, a.Unmap()) {
			continue
		} else if err != nil {
			host += " (unless it is this machine)"
		}
		far[e.at] = append(far[e.at], shorten(host))
	}
	for at, hosts := range far {
		b.warn(Warning{Serious: true, File: at.file, Line: at.line, Key: "retry_join", Text: strings.Join(hosts, ", ") + " can't be reached: " + mend})
	}
}
