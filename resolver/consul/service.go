package consul

import (
	"net/netip"
	"slices"

	"meibo/cluster/catalog"
	"meibo/resolver/wire"
)

// place is where an instance is to be found: an address or a host name, or
// neither when it has nothing usable.
type place struct {
	addr netip.Addr
	host wire.Name
	// v4 and v6 are set, both or none, where it has an address of each family.
	v4, v6 netip.Addr
	// isNode says that the address is the node's own, so that the node's name
	// can stand for it.
	isNode bool
}

// placeOf decides the address of an instance as Consul does: the service's,
// else the node's, each replaced by the tagged address of the wanted family.
func placeOf(in catalog.Instance, qtype wire.Type, asked wire.Name) place {
	tagged := in.Service.TaggedAddresses
	own := pick(in.Service.Address, tagged["lan_ipv4"].Address, tagged["lan_ipv6"].Address, qtype)
	if own == "" {
		return placeOfNode(in.Node, qtype)
	}
	if addr, ok := parseAddr(own); ok {
		return place{addr: addr}
	}
	host, err := wire.ParseName(own)
	if err != nil {
		return place{}
	}
	if host.Lower() == asked {
		// A service that gives its own name for an address is where its node is.
		if p := placeOfNode(in.Node, qtype); p.addr.IsValid() {
			return p
		}
	}
	return place{host: host}
}

// pairOf finds an instance's addresses of both families; ok is false if it hasn't
// both. isNode says that they are the node's, whose name then has both.
func pairOf(in catalog.Instance) (v4, v6 netip.Addr, isNode, ok bool) {
	own, tagged := in.Service.Address, in.Service.TaggedAddresses
	n4, n6, both := pair(in.Node.Address, in.Node.TaggedAddresses["lan_ipv4"], in.Node.TaggedAddresses["lan_ipv6"])
	if own == "" && tagged["lan_ipv4"].Address == "" && tagged["lan_ipv6"].Address == "" {
		return n4, n6, true, both
	}
	v4, v6, ok = pair(own, tagged["lan_ipv4"].Address, tagged["lan_ipv6"].Address)
	return v4, v6, both && v4 == n4 && v6 == n6, ok
}

// pair reads the addresses tagged for each family, the untagged one in place of
// one that is missing.
func pair(base, lan4, lan6 string) (v4, v6 netip.Addr, ok bool) {
	v4, ok4 := parseAddr(lan4)
	v6, ok6 := parseAddr(lan6)
	addr, known := parseAddr(base)
	if known && !ok4 && addr.Is4() {
		v4, ok4 = addr, true
	}
	if known && !ok6 && addr.Is6() {
		v6, ok6 = addr, true
	}
	return v4, v6, ok4 && ok6 && v4.Is4() && v6.Is6()
}

func placeOfNode(n *catalog.Node, qtype wire.Type) place {
	own := pick(n.Address, n.TaggedAddresses["lan_ipv4"], n.TaggedAddresses["lan_ipv6"], qtype)
	if addr, ok := parseAddr(own); ok {
		return place{addr: addr, isNode: own == n.Address}
	}
	host, err := wire.ParseName(own)
	if err != nil {
		return place{}
	}
	return place{host: host}
}

// pick chooses between an address and those tagged for one family: an A query
// wants IPv4 first, AAAA IPv6, and any other IPv6 before IPv4.
func pick(base, v4, v6 string, qtype wire.Type) string {
	switch {
	case v6 != "" && qtype != wire.TypeA:
		return v6
	case v4 != "" && qtype != wire.TypeAAAA:
		return v4
	}
	return base
}

func parseAddr(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(s)
	return addr.WithZone("").Unmap(), err == nil
}

func (b *builder) buildService() {
	visible := b.visible()
	switch {
	case len(visible) == 0 && b.tag != "" && b.leadsToTag():
		b.noData()
	case len(visible) == 0:
		b.deny()
	case b.q.Type == wire.TypeSRV:
		b.buildSRV(visible)
	case b.srvOnly:
		b.noData()
	default:
		b.buildAddresses(visible)
	}
}

// buildAddresses answers with the distinct addresses of the instances. A host
// name is given as a CNAME only where no instance has an address of any kind, and
// only one: a name that has other records can't be an alias (RFC 1034 section
// 3.6.2).
func (b *builder) buildAddresses(visible []catalog.Instance) {
	ttl := b.settings.ttl(b.name)
	seen := make(map[netip.Addr]bool)
	var hosts []wire.Name
	for _, in := range visible {
		p := placeOf(in, b.q.Type, b.owner)
		if p.host != "" && len(hosts) < maxAliases && !slices.ContainsFunc(hosts, p.host.Equal) {
			hosts = append(hosts, p.host)
		}
		if !p.addr.IsValid() || seen[p.addr] || !b.isWanted(wire.AddrType(p.addr)) {
			continue
		}
		if b.isFull(2 + recordHead + 16) {
			break
		}
		seen[p.addr] = true
		b.answer(wire.AddrType(p.addr), ttl, wire.A(p.addr))
	}
	switch {
	case len(seen) > 0:
		b.reply.Rotate = true
		b.limit()
	case len(hosts) > 0 && !slices.ContainsFunc(visible, b.addressed):
		b.buildCNAME(hosts, ttl)
	default:
		b.noData()
	}
}

// addressed reports whether an instance has an address of any kind, whichever is
// asked for.
func (b *builder) addressed(in catalog.Instance) bool {
	return placeOf(in, wire.TypeA, b.owner).addr.IsValid() || placeOf(in, wire.TypeAAAA, b.owner).addr.IsValid()
}

// maxAliases is how many host names are tried for one that exists.
const maxAliases = 4

// limit sets the limits of policy.
func (b *builder) limit() {
	b.reply.MaxUDP = b.settings.udpLimit
	if b.q.Type != wire.TypeSRV {
		b.reply.MaxAnswers = b.settings.aLimit
	}
}

// buildCNAME answers with the first of the names under which something is found,
// else the first that exists, and with what is found.
func (b *builder) buildCNAME(hosts []wire.Name, ttl uint32) {
	host := hosts[0]
	if b.q.Type == wire.TypeCNAME || host.Lower() == b.owner {
		b.answer(wire.TypeCNAME, ttl, wire.NameData(host))
		return
	}
	if b.chase == nil {
		b.answer(wire.TypeCNAME, ttl, wire.NameData(host))
		b.needsChase = true
		return
	}
	host, found := b.followFirst(hosts[:min(len(hosts), maxHosts)])
	b.answer(wire.TypeCNAME, ttl, wire.NameData(host))
	found.spell(host)
	b.addFound(found)
}

// srvSet is an SRV answer in the making.
type srvSet struct {
	*builder
	ttl    uint32
	seen   map[srvKey]bool
	glued  map[wire.Name]bool
	metas  []meta
	chased map[wire.Name]chased
}

// srvKey tells instances apart: what differs in none of these is one record.
type srvKey struct {
	node, address string
	port          int
}

// meta is a node whose metadata goes with a record.
type meta struct {
	node *catalog.Node
	with int
}

func (b *builder) buildSRV(visible []catalog.Instance) {
	s := &srvSet{
		builder: b, ttl: b.settings.ttl(b.name),
		seen: make(map[srvKey]bool), glued: make(map[wire.Name]bool),
	}
	s.chased = b.followHosts(visible)
	for _, in := range visible {
		key := srvKey{in.Node.Node, in.Service.Address, in.Service.Port}
		if s.seen[key] {
			continue
		}
		s.seen[key] = true
		if !s.addInstance(in) {
			break
		}
	}
	if len(b.reply.RRs) == 0 {
		b.noData()
		return
	}
	if b.settings.metaTXT {
		s.addMetas()
	}
	b.reply.Rotate = true
	b.limit()
}

// addInstance adds the SRV record of an instance and the addresses of its
// target; it returns false when the answer is full.
func (s *srvSet) addInstance(in catalog.Instance) bool {
	p := placeOf(in, s.q.Type, s.owner)
	if v4, v6, isNode, ok := pairOf(in); ok && p.addr.IsValid() {
		p.v4, p.v6, p.isNode = v4, v6, isNode
	}
	target := s.target(in.Node, p)
	if target == "" {
		return true
	}
	glue := s.glue(target, p)
	need := 2 + recordHead + 6 + len(target)
	for _, rr := range glue {
		need += len(rr.Owner) + recordHead + len(rr.Data)
	}
	if s.isFull(need) {
		return false
	}
	with := s.answer(wire.TypeSRV, s.ttl, wire.SRV(1, weight(in), uint16(in.Service.Port), target))
	for _, rr := range glue {
		rr.With = with
		s.add(rr)
	}
	s.glued[target] = true
	if len(in.Node.Meta) > 0 && !slices.ContainsFunc(s.metas, func(m meta) bool { return m.node == in.Node }) {
		s.metas = append(s.metas, meta{in.Node, with})
	}
	return true
}

// target is the name an SRV record points to: the node's where the address is
// the node's, else one that stands for the address, or for both where there is one
// of each family, so that clients of either connect; else the host name. A node
// whose name cannot be written in DNS goes by its address.
func (s *srvSet) target(n *catalog.Node, p place) wire.Name {
	if p.host != "" {
		return p.host
	}
	if !p.addr.IsValid() {
		return ""
	}
	if p.isNode {
		if name, err := s.domain.nodeName(n.Node); err == nil {
			return name
		}
	}
	if p.v4.IsValid() {
		return s.domain.pairName(p.v4, p.v6)
	}
	return s.domain.addrName(p.addr)
}

// glue returns the address records of a target, once per target.
func (s *srvSet) glue(target wire.Name, p place) []wire.RR {
	if s.glued[target] {
		return nil
	}
	if p.host != "" {
		c := s.chased[target.Lower()]
		c.spell(target)
		return c.glue
	}
	addrs := []netip.Addr{p.addr}
	if p.v4.IsValid() {
		addrs = []netip.Addr{p.v4, p.v6}
	}
	glue := make([]wire.RR, len(addrs))
	for i, addr := range addrs {
		glue[i] = wire.RR{Section: wire.Additional, Owner: target, Type: wire.AddrType(addr), TTL: s.ttl, Data: wire.A(addr)}
	}
	return glue
}

// addMetas adds the metadata of the nodes while there is room.
func (s *srvSet) addMetas() {
	for _, m := range s.metas {
		owner, err := s.domain.nodeName(m.node.Node)
		if err != nil {
			continue
		}
		for _, text := range metaTexts(m.node) {
			if s.size+len(owner)+recordHead+len(text)+1+len(text)/255 > maxSet {
				return
			}
			s.add(wire.RR{
				Section: wire.Additional, Owner: owner, Type: wire.TypeTXT, TTL: s.ttl,
				Data: wire.TXT(text), With: m.with, Expendable: true,
			})
		}
	}
}

// weight is the SRV weight of an instance by its health.
func weight(in catalog.Instance) uint16 {
	w := in.Service.Weights
	if w == (catalog.Weights{}) {
		return 1
	}
	switch in.Status() {
	case catalog.Passing:
		return uint16(min(max(w.Passing, 0), 65535))
	case catalog.Warning:
		return uint16(min(max(w.Warning, 0), 65535))
	}
	return 1
}
