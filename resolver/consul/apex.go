package consul

import (
	"strings"

	"meibo/cluster/catalog"
	"meibo/resolver/wire"
)

// maxServers is the most NS records that are given.
const maxServers = 3

// buildZone answers with the zone's own records.
func (b *builder) buildZone() {
	switch b.q.Type {
	case wire.TypeSOA:
		b.addSOA(wire.Answers, b.domain.name, b.domain)
		b.addServers(wire.Authority)
	case wire.TypeNS:
		if !b.addServers(wire.Answers) {
			b.noData()
		}
	default:
		b.noData()
	}
}

// addServers adds the zone's name servers, which are the servers of the
// cluster, and their addresses. It returns false when there are none.
func (b *builder) addServers(section wire.Section) bool {
	ttl := b.settings.nodeTTL
	var names []wire.Name
	var glue []wire.RR
	for _, in := range b.visible() {
		p := placeOf(in, wire.TypeANY, b.owner)
		if len(names) == maxServers || !p.addr.IsValid() || !isHostName(in.Node) {
			continue
		}
		name, err := b.domain.nodeName(in.Node.Node)
		if err != nil {
			continue
		}
		names = append(names, name)
		glue = append(glue, wire.RR{
			Section: wire.Additional, Owner: name, Type: wire.AddrType(p.addr), TTL: ttl, Data: wire.A(p.addr),
		})
	}
	for i, name := range names {
		at := b.add(wire.RR{
			Section: section, Owner: b.domain.name, Type: wire.TypeNS, TTL: ttl, Data: wire.NameData(name),
		})
		if section == wire.Answers {
			glue[i].With = at
		}
	}
	for _, rr := range glue {
		b.add(rr)
	}
	return len(names) > 0
}

// isHostName reports whether the node's name has only letters, digits and
// hyphens; others cannot be name servers (RFC 1123 section 2.1).
func isHostName(n *catalog.Node) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
	return strings.Trim(strings.ToLower(n.Node), allowed) == ""
}
