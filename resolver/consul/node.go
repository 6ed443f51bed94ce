package consul

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"meibo/cluster/catalog"
	"meibo/resolver/wire"
)

// buildNode answers with a node's address and metadata.
func (b *builder) buildNode() {
	if b.state.Unconfirmed(b.node.Node, "") {
		b.unconfirmed = b.node.Node
	}
	ttl := b.settings.nodeTTL
	p := placeOfNode(b.node, b.q.Type)
	switch {
	case p.addr.IsValid() && b.isWanted(wire.AddrType(p.addr)):
		b.answer(wire.AddrType(p.addr), ttl, wire.A(p.addr))
	case p.host != "" && b.showsCNAME():
		b.buildCNAME([]wire.Name{p.host}, ttl)
	}
	if b.reply.Rcode != wire.RcodeSuccess {
		return // the name that the node has for an address does not exist
	}
	b.addMeta(ttl)
	if !slices.ContainsFunc(b.reply.RRs, func(rr wire.RR) bool { return rr.Section != wire.Additional }) {
		b.reply.RRs = nil
		b.noData()
	}
}

// showsCNAME reports whether a node that has a host name for an address shows
// it: only where addresses are asked for, since metadata is beside it.
func (b *builder) showsCNAME() bool {
	switch b.q.Type {
	case wire.TypeA, wire.TypeAAAA, wire.TypeANY, wire.TypeCNAME:
		return true
	}
	return false
}

// addMeta adds the node's metadata: what was asked for to the answer, else
// beside an address where the configuration allows it.
func (b *builder) addMeta(ttl uint32) {
	rr := wire.RR{Owner: b.owner, Type: wire.TypeTXT, TTL: ttl}
	switch {
	case b.isWanted(wire.TypeTXT):
		rr.Section = wire.Answers
	case b.settings.metaTXT && (b.q.Type == wire.TypeA || b.q.Type == wire.TypeAAAA):
		rr.Section, rr.Expendable = wire.Additional, true
	default:
		return
	}
	for _, text := range metaTexts(b.node) {
		rr.Data = wire.TXT(text)
		b.add(rr)
	}
}

// buildAddress answers for a name that is an address.
func (b *builder) buildAddress() {
	for _, addr := range []netip.Addr{b.addr, b.also} {
		if addr.IsValid() && b.isWanted(wire.AddrType(addr)) {
			b.answer(wire.AddrType(addr), b.settings.nodeTTL, wire.A(addr))
		}
	}
	if len(b.reply.RRs) == 0 {
		b.noData()
	}
}

// metaTexts writes a node's metadata as texts in the order of the keys.
func metaTexts(n *catalog.Node) []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(n.Meta)) {
		out = append(out, metaText(key, n.Meta[key]))
	}
	return out
}

// metaText writes one pair after RFC 1464: "key=value", with a backquote
// before each backquote and "=" of the key and each space around it, and
// backquotes of the value doubled. A key that begins with "rfc1035-" gives the
// value as it is.
func metaText(key, value string) string {
	const raw = "rfc1035-"
	if len(key) >= len(raw) && strings.EqualFold(key[:len(raw)], raw) {
		return value
	}
	key = strings.NewReplacer("`", "``", "=", "`=").Replace(key)
	inner := strings.TrimLeft(key, " ")
	leading := len(key) - len(inner)
	key = inner
	inner = strings.TrimRight(key, " ")
	trailing := len(key) - len(inner)
	return strings.Repeat("` ", leading) + inner + strings.Repeat("` ", trailing) +
		"=" + strings.ReplaceAll(value, "`", "``")
}
