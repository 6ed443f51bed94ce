package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// socket is one socket that the daemon will bind.
type socket struct {
	proto string // "TCP" or "UDP"
	addr  netip.AddrPort
	wide  bool   // an unspecified address that takes the other family along
	unix  string // the path of a socket that is a file; addr is not valid then
	key   string // that gives it its port
}

// sockets are all that the daemon will bind.
func (b *builder) sockets(c *Config) (all []socket) {
	both := func(key string, wide bool, a netip.AddrPort) {
		if a.IsValid() {
			all = append(all, socket{proto: "TCP", addr: a, wide: wide, key: key}, socket{proto: "UDP", addr: a, wide: wide, key: key})
		}
	}
	dns := "ports.dns"
	if b.isSet("listen") {
		dns = "listen"
	}
	for _, a := range c.Listen {
		both(dns, a.Addr() == netip.IPv6Unspecified() && !holds(c.Listen, netip.IPv4Unspecified(), a.Port()), a)
	}
	b.httpSockets(&all, "ports.http", c.HTTP.Listen)
	b.httpSockets(&all, "ports.https", c.HTTP.ListenTLS)
	if gossip := c.GossipConfig().Bind; gossip.IsValid() && c.Cluster.ServerPort > 0 {
		wide := gossip.Addr() == netip.IPv6Unspecified()
		both("ports.serf_lan", wide, gossip)
		all = append(all, socket{proto: "TCP", addr: netip.AddrPortFrom(gossip.Addr(), uint16(c.Cluster.ServerPort)), wide: wide, key: "ports.server"})
	}
	return all
}

// clashes finds two listeners that would be in each other's way: only the second of
// them would notice, and it would never be the same one.
func (b *builder) clashes(c *Config, all []socket) {
	if c.Cluster.Server || b.isSet("ports.serf_wan") { // others have no use for it, and leave it at its default
		if a := c.reachable(b.serf("serf_wan", "ports.serf_wan", c.Node.Bind)); a.IsValid() {
			all = append(slices.Clone(all), socket{proto: "TCP", addr: a, key: "ports.serf_wan"}, socket{proto: "UDP", addr: a, key: "ports.serf_wan"})
		}
	}
	said := map[string]bool{}
	for i, s := range all {
		for _, other := range all[:i] {
			if pair := other.key + " " + s.key; s.clashes(other) && !said[pair] {
				said[pair] = true
				b.clash(other, s)
			}
		}
	}
}

// httpSockets adds those of HTTP, where either unspecified address takes the other
// family along, unless both are named.
func (b *builder) httpSockets(all *[]socket, key string, endpoints []Endpoint) {
	var addrs []netip.AddrPort
	for _, e := range endpoints {
		addrs = append(addrs, e.AddrPort)
	}
	for _, e := range endpoints {
		s := socket{proto: "TCP", addr: e.AddrPort, unix: e.Unix, key: key}
		s.wide = e.Unix == "" && !(holds(addrs, netip.IPv4Unspecified(), e.AddrPort.Port()) && holds(addrs, netip.IPv6Unspecified(), e.AddrPort.Port()))
		*all = append(*all, s)
	}
}

func holds(all []netip.AddrPort, addr netip.Addr, port uint16) bool {
	return slices.Contains(all, netip.AddrPortFrom(addr, port))
}

// clashes reports whether the kernel would refuse the second of the two.
func (s socket) clashes(o socket) bool {
	if s.unix != "" || o.unix != "" {
		return s.unix == o.unix
	}
	if s.proto != o.proto || s.addr.Port() != o.addr.Port() || s.addr.Port() == 0 {
		return false
	}
	return s.covers(o) || o.covers(s)
}

// covers reports whether s takes the place of o: the same address, or all of its family.
func (s socket) covers(o socket) bool {
	a, b := s.addr.Addr().Unmap(), o.addr.Addr().Unmap()
	return a == b || a.IsUnspecified() && (s.wide || a.Is4() == b.Is4())
}

// clash names both keys, at the place of one that is written down.
func (b *builder) clash(first, second socket) {
	first.key, second.key = b.giver(first, second), b.giver(second, first)
	if first.unix != "" {
		b.wrong(second.key, fmt.Sprintf("unix://%s is what %s listens on too: give each a path of its own", first.unix, b.named(first.key)))
		return
	}
	if first.key == second.key {
		b.wrong(first.key, fmt.Sprintf("%s and %s (%s) are in each other's way: leave one out", first.addr, second.addr, second.proto))
		return
	}
	at, other := second, first
	if !b.isSet(at.key) && b.isSet(other.key) {
		at, other = other, at
	}
	b.wrong(at.key, fmt.Sprintf("%s (%s) is in the way of %s, %s: give each a port of its own", at.addr, at.proto, b.named(other.key), other.addr))
}

// giver is the key to change: the port's, or where that is a default, or can't be what is
// wrong, the address's.
func (b *builder) giver(s, other socket) string {
	kind, isPort := strings.CutPrefix(s.key, "ports.")
	if !isPort || b.isSet(s.key) && s.key != other.key && s.unix == "" {
		return s.key
	}
	for _, path := range []string{"addresses." + kind, "client_addr"} {
		if b.isSet(path) && (kind == "dns" || kind == "http" || kind == "https") {
			return path
		}
	}
	return s.key
}

// named is a key with the place of its value, for the text of a fault at another place.
func (b *builder) named(key string) string {
	s := b.get(key)
	if s.at.file == "" {
		return fmt.Sprintf("%s (its default)", key)
	}
	return fmt.Sprintf("%s (%s)", key, strings.TrimSuffix(place(s.at.file, s.at.line), ": "))
}
