package consul

import (
	"context"
	"net/netip"

	"meibo/cache"
	"meibo/cluster/catalog"
	"meibo/resolver"
	"meibo/resolver/wire"
)

// reverse answers for addresses that the catalog knows; all others are not its
// own. An answer that isn't given still names the counter that says when it
// would be: Result.Deps beside NotMine.
type reverse struct{ zone *Zone }

// Answer implements resolver.Zone.
func (r reverse) Answer(q *wire.Query) (resolver.Result, resolver.Outcome) {
	addr, ok := wire.ReverseAddr(wire.Name(q.Name()))
	if !ok {
		return resolver.Result{}, resolver.NotMine
	}
	s, owner, found := r.ownerOf(addr)
	if !found {
		return resolver.Result{Deps: [2]cache.Dep{s.deps[0]}}, resolver.NotMine
	}
	b := r.zone.newBuilder(q, s)
	b.judgeAge()
	if b.tooStale && b.settings.staleAnswer == ServFail {
		b.failStale()
	} else {
		b.buildPTR(owner)
	}
	return b.result(), resolver.Answered
}

// Resolve implements resolver.Zone. It is not reached: Answer is never late.
func (r reverse) Resolve(_ context.Context, q *wire.Query) (resolver.Result, error) {
	result, outcome := r.Answer(q)
	if outcome != resolver.Answered {
		return result, resolver.ErrNotMine
	}
	return result, nil
}

// ownerOf finds the owner of an address, by the same rule as Zone.subjectOf.
func (r reverse) ownerOf(addr netip.Addr) (s subject, owner catalog.Owner, found bool) {
	z := r.zone
	for i := 0; ; i++ {
		s = subject{settings: z.settings.Load(), state: z.load(), known: catalog.Present}
		s.domain = s.settings.main
		owner, found = s.state.AddressOwner(addr)
		s.deps = [2]cache.Dep{dependOn(s.state.Addresses()), dependOn(s.state.Epoch())}
		steady := z.load() == s.state && z.settings.Load() == s.settings
		if steady || i == maxRestarts {
			if s.passing = !steady; s.passing {
				s.deps[0].Value-- // a value of the past: what is answered in our place isn't kept either
			}
			return s, owner, found
		}
	}
}

// buildPTR answers with the owner's name below the main domain. Letter case of
// the answer's other records follows the zone.
func (b *builder) buildPTR(owner catalog.Owner) {
	name, err := b.domain.nodeName(owner.Node.Node)
	if owner.Service != nil {
		name, err = b.domain.serviceName(owner.Service.Service)
	}
	if err != nil || !b.isWanted(wire.TypePTR) {
		// The whole name is ours and nothing else of its zone, so it is a zone
		// of its own and holds its SOA (RFC 2308 section 3).
		b.addSOA(wire.Authority, b.owner, b.domain)
		return
	}
	b.answer(wire.TypePTR, b.settings.nodeTTL, wire.NameData(name))
}
