package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// evaluate returns the addresses that a text with templates stands for; that there are none
// is a fault.
func (b *builder) evaluate(path, text string, at position) []string {
	fields, ok := b.evaluateNow(path, text, at)
	if ok && len(fields) == 0 && isTemplate(text) {
		b.fault(&Fault{File: at.file, Line: at.line, Key: path, Text: "the template yields no address on this host"})
	}
	return fields
}

// evaluateNow is evaluate where there may be none yet. Not ok: a fault has been reported.
func (b *builder) evaluateNow(path, text string, at position) (fields []string, ok bool) {
	if !isTemplate(text) {
		return strings.Fields(text), true
	}
	result, err := b.src.Host.template(text)
	if err != nil {
		b.fault(&Fault{File: at.file, Line: at.line, Key: path, Text: "evaluate template: " + err.Error()})
		return nil, false
	}
	return strings.Fields(result), true
}

// joins returns hosts to join, templates evaluated.
func (b *builder) joins(path string) []string {
	var all []string
	for _, e := range b.entries(path) {
		if isTemplate(e.text) {
			all = append(all, b.evaluate(path, e.text, e.at)...)
			continue
		}
		if strings.HasPrefix(strings.TrimSpace(e.text), joinProgram) {
			continue
		}
		if strings.Contains(e.text, "provider=") { // may hold a cloud's secret: not shown
			b.fault(&Fault{File: e.at.file, Line: e.at.line, Key: path,
				Text: "clouds are not asked for hosts here: name servers by address, or by a DNS name that has the addresses of all, or by a program that prints them, \"exec=PROGRAM ARGS\", in place of " + joinable([]string{e.text})[0]})
			continue
		}
		all = append(all, e.text)
	}
	return all
}

// joinProgram begins an entry that names a program which prints hosts to join.
const joinProgram = "exec="

// joinPrograms returns the programs that print hosts to join, with their
// arguments.
func (b *builder) joinPrograms(path string) [][]string {
	var all [][]string
	for _, e := range b.entries(path) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(e.text), joinProgram); ok && !isTemplate(e.text) {
			if argv := strings.Fields(command); len(argv) > 0 {
				all = append(all, argv)
			}
		}
	}
	return all
}

// endpoints returns the addresses of path, each with the port.
func (b *builder) endpoints(path string, port int) []Endpoint {
	s := b.get(path)
	var all []Endpoint
	for _, f := range b.evaluate(path, s.value.(string), s.at) {
		e := Endpoint{}
		if unix, ok := strings.CutPrefix(f, "unix://"); ok {
			e.Unix = unix
		} else if a, err := parseAddr(f); err == nil {
			e.AddrPort = netip.AddrPortFrom(a, uint16(port))
		} else {
			b.fault(&Fault{File: s.at.file, Line: s.at.line, Key: path, Expected: "an IP address", Got: fmt.Sprintf("%q", shorten(f))})
			continue
		}
		if !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	return all
}

// client returns what addresses.<kind>, else client_addr, says for a port.
func (b *builder) client(kind string) []Endpoint {
	port := b.int("ports." + kind)
	if port <= 0 {
		return nil
	}
	path := "addresses." + kind
	if b.text(path) == "" {
		path = "client_addr"
	}
	return b.endpoints(path, port)
}

func (b *builder) listen() []netip.AddrPort {
	var all []netip.AddrPort
	if !b.isSet("listen") {
		for _, e := range b.client("dns") {
			if e.Unix != "" {
				b.wrong("client_addr", "DNS cannot listen on a unix socket: set listen, or addresses.dns")
				continue
			}
			all = append(all, e.AddrPort)
		}
		if len(all) == 0 && b.int("ports.dns") > 0 {
			b.caution("client_addr", "names no address: DNS listens nowhere")
		}
		return all
	}
	for _, e := range b.entries("listen") {
		if ap, ok := parseListen(e.text); ok && !slices.Contains(all, ap) {
			all = append(all, ap)
		}
	}
	if len(all) == 0 {
		b.caution("listen", "names no address: DNS listens nowhere")
	}
	return all
}

// address returns the one address of path, invalid when there is none.
func (b *builder) address(path string) netip.Addr {
	s := b.get(path)
	if s.value.(string) == "" {
		return netip.Addr{}
	}
	fields, ok := b.evaluateNow(path, s.value.(string), s.at)
	if ok && len(fields) == 0 {
		b.awaited = true
		b.caution(path, "the template yields no address on this host yet: the daemon starts anew once it does")
	}
	if len(fields) > 1 {
		b.fault(&Fault{File: s.at.file, Line: s.at.line, Key: path, Expected: "one address", Got: strings.Join(fields, " ")})
	}
	if len(fields) != 1 {
		return netip.Addr{}
	}
	a, err := parseAddr(fields[0])
	if err != nil {
		b.fault(&Fault{File: s.at.file, Line: s.at.line, Key: path, Expected: "an IP address", Got: fmt.Sprintf("%q", shorten(fields[0]))})
	}
	return a
}

func (b *builder) serf(path, port string, bind netip.Addr) netip.AddrPort {
	a := b.address(path)
	if !a.IsValid() {
		a = bind
	}
	if n := b.int(port); n > 0 && a.IsValid() {
		return netip.AddrPortFrom(a, uint16(n))
	}
	return netip.AddrPort{}
}

func (b *builder) node() Node {
	n := Node{
		Name: b.text("node_name"), ID: strings.ToLower(b.text("node_id")), Meta: b.pairs("node_meta"),
		Datacenter: strings.ToLower(b.text("datacenter")), PrimaryDatacenter: strings.ToLower(b.text("primary_datacenter")),
		Bind: b.address("bind_addr"), TranslateWAN: b.is("translate_wan_addrs"),
	}
	if n.Datacenter == "" {
		n.Datacenter = "dc1"
	}
	if n.PrimaryDatacenter == "" {
		n.PrimaryDatacenter = n.Datacenter
	}
	if n.PrimaryDatacenter != n.Datacenter {
		b.caution("primary_datacenter", "no effect yet: "+noWAN)
	}
	if n.Name == "" {
		name, err := b.src.Host.name()
		if err != nil || name == "" {
			b.fault(&Fault{Key: "node_name", Text: "not set, and the host has no name"})
		}
		n.Name = name
	}
	b.advertise(&n)
	return n
}

// advertise settles the addresses that this node shows.
func (b *builder) advertise(n *Node) {
	v4, v6 := b.address("advertise_addr_ipv4"), b.address("advertise_addr_ipv6")
	n.Advertise = firstValid(b.address("advertise_addr"), v4, v6)
	if !n.Advertise.IsValid() {
		if n.Advertise = n.Bind; !n.Bind.IsValid() || n.Bind.IsUnspecified() {
			n.Advertise = b.ownAddress(n.Bind.Is6())
			b.awaited = b.awaited || n.Advertise.IsLoopback()
		}
	}
	if n.Advertise.IsUnspecified() {
		b.wrong("advertise_addr", "other hosts cannot reach "+n.Advertise.String())
	}
	w4, w6 := b.address("advertise_addr_wan_ipv4"), b.address("advertise_addr_wan_ipv6")
	wan := firstValid(b.address("advertise_addr_wan"), w4, w6, n.Advertise)
	n.TaggedAddresses = map[string]string{}
	maps.Copy(n.TaggedAddresses, b.pairs("tagged_addresses"))
	tag := func(name string, a netip.Addr) {
		if a.IsValid() {
			n.TaggedAddresses[name] = a.String()
		}
	}
	tag("lan", n.Advertise)
	tag("wan", wan)
	tag("lan_ipv4", firstValid(v4, only(n.Advertise, netip.Addr.Is4)))
	tag("lan_ipv6", firstValid(v6, only(n.Advertise, netip.Addr.Is6)))
	tag("wan_ipv4", firstValid(w4, only(wan, netip.Addr.Is4)))
	tag("wan_ipv6", firstValid(w6, only(wan, netip.Addr.Is6)))
}

func firstValid(addrs ...netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

func only(a netip.Addr, family func(netip.Addr) bool) netip.Addr {
	if a.IsValid() && family(a) {
		return a
	}
	return netip.Addr{}
}

// ownAddress picks the address to advertise: the private one, as Consul does;
// of several the one that packets leave from, else the first, with a warning
// (Consul refuses to start); without a private one, the one packets leave from.
// A host with addresses of one family alone advertises that family.
func (b *builder) ownAddress(v6 bool) netip.Addr {
	all, err := b.src.Host.addresses()
	if err != nil {
		b.caution("bind_addr", "read the host's addresses: "+err.Error())
	}
	for _, family := range []bool{v6, !v6} {
		if a := b.choose(all, family); a.IsValid() {
			return a
		}
	}
	a := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if v6 {
		a = netip.IPv6Loopback()
	}
	b.caution("bind_addr", "this host has no address that others could reach; advertising "+a.String())
	return a
}

// choose picks among the addresses of one family.
func (b *builder) choose(all []netip.Addr, v6 bool) netip.Addr {
	var private, public []netip.Addr
	for _, a := range all {
		switch {
		case a.Is6() != v6:
		case a.IsPrivate():
			private = append(private, a)
		default:
			public = append(public, a)
		}
	}
	if len(private) == 1 {
		return private[0]
	}
	way := b.src.Host.route(v6)
	switch {
	case len(private) == 0 && (way.IsValid() || len(public) == 0):
		return way
	case len(private) == 0:
		return public[0]
	case slices.Contains(private, way):
		return way
	}
	b.caution("bind_addr", fmt.Sprintf("this host has the private addresses %s; advertising the first: set bind_addr or advertise_addr to choose", joined(private)))
	return private[0]
}

func joined(addrs []netip.Addr) string {
	list := make([]string, len(addrs))
	for i, a := range addrs {
		list[i] = a.String()
	}
	return strings.Join(list, ", ")
}
