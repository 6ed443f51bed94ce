package local

import (
	"context"
	"fmt"
	"net/netip"

	"meibo/resolver"
	"meibo/resolver/wire"
)

// Fixed is a domain about which nobody is asked. Names of hosts files and static
// records come before it, and so does a route for a longer suffix.
type Fixed struct {
	Suffix wire.Name // lower case; wire.Root: everything without a longer route
	// Addrs are those of every name at and below Suffix, which have nothing else.
	// Empty: there are no names but those of hosts files and static records.
	Addrs []netip.Addr
	// TypeTransparent leaves types that Addrs have none of to the route of the same
	// suffix.
	TypeTransparent bool
}

func checkFixed(zones []Fixed) ([]Fixed, error) {
	seen := map[wire.Name]bool{}
	for _, z := range zones {
		switch {
		case z.Suffix == "":
			return nil, fmt.Errorf("hosts: a fixed domain without a suffix (the root is %q)", ".")
		case seen[z.Suffix]:
			return nil, fmt.Errorf("hosts: %s is fixed twice", z.Suffix)
		}
		seen[z.Suffix] = true
	}
	return zones, nil
}

// Mounts returns where the fixed domains belong in a resolver's table. They are those
// of the last SetConfig.
func (h *Hosts) Mounts() []resolver.Mount {
	h.mu.Lock()
	defer h.mu.Unlock()
	var mounts []resolver.Mount
	for _, z := range h.source.fixed {
		mounts = append(mounts, resolver.Mount{
			Suffix: z.Suffix, Rank: resolver.RankRoute, Zone: &fixedMount{h, z.Suffix}, Name: "fixed " + z.Suffix.String(),
		})
	}
	return mounts
}

// fixedMount is one fixed domain as the resolver sees it.
type fixedMount struct {
	hosts  *Hosts
	suffix wire.Name
}

// Answer implements resolver.Zone.
func (m *fixedMount) Answer(q *wire.Query) (resolver.Result, resolver.Outcome) {
	return m.hosts.answer(q, func(set *hostSet) said {
		for i := range set.fixed {
			if z := &set.fixed[i]; z.Suffix == m.suffix {
				return set.fixedReply(z, q)
			}
		}
		return said{} // gone with the last reload, whose table comes at once
	})
}

// Resolve implements resolver.Zone. It is not reached: Answer is never late.
func (m *fixedMount) Resolve(_ context.Context, q *wire.Query) (resolver.Result, error) {
	result, outcome := m.Answer(q)
	if outcome != resolver.Answered {
		return result, resolver.ErrNotMine
	}
	return result, nil
}

// fixedReply says what a fixed domain has for a question. A name that only leads to
// names of hosts files is empty, and not denied (RFC 8020 section 2).
func (s *hostSet) fixedReply(z *Fixed, q *wire.Query) said {
	name := wire.Name(q.Name())
	reply := &wire.Reply{AA: true}
	for _, addr := range z.Addrs {
		if typ := wire.AddrType(addr); q.Type == typ || q.Type == wire.TypeANY {
			reply.RRs = append(reply.RRs, wire.RR{Owner: name, Type: typ, TTL: s.ttl, Data: wire.A(addr)})
		}
	}
	switch {
	case len(reply.RRs) > 0:
		return said{reply: reply}
	case z.TypeTransparent:
		return said{exists: true, watched: true}
	}
	if _, isParent := s.parents[string(q.Name())]; len(z.Addrs) == 0 && !isParent {
		reply.Rcode = wire.RcodeNXDomain
	}
	reply.RRs = []wire.RR{soa(wire.Authority, z.Suffix, s.ttl)}
	return said{reply: reply}
}

// findParents notes the names that lead to others in domains which deny the rest.
func (s *hostSet) findParents() {
	for _, z := range s.fixed {
		if len(z.Addrs) > 0 {
			continue
		}
		for name := range s.names {
			s.addParents(wire.Name(name), z.Suffix)
		}
		for name := range s.records {
			s.addParents(wire.Name(name), z.Suffix)
		}
	}
}

func (s *hostSet) addParents(name, suffix wire.Name) {
	if !name.HasSuffix(suffix) {
		return
	}
	if s.parents == nil {
		s.parents = map[string]struct{}{}
	}
	for name != suffix {
		name = name.Parent()
		if _, known := s.parents[string(name)]; known {
			return
		}
		s.parents[string(name)] = struct{}{}
	}
}
