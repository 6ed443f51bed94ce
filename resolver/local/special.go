package local

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/wire"
)

// specialTTL is the TTL of what is said of special names: they never change,
// but configuration may make a name a usual one again (RFC 6303 section 3 has
// three hours).
const specialTTL = 10800

// BogusPriv says what becomes of names that have a meaning in a private network
// alone, and that neither hosts files nor the catalog know: PTR questions for
// private addresses, names below local, test and home.arpa.
type BogusPriv uint8

const (
	// BogusPrivAuto denies them when all default upstreams have public
	// addresses, which cannot know them; a private upstream may.
	BogusPrivAuto BogusPriv = iota
	// BogusPrivOn denies them always.
	BogusPrivOn
	// BogusPrivOff forwards them always.
	BogusPrivOff
	// BogusPrivReverse denies PTR questions for private addresses always, but those
	// behind a carrier's NAT (100.64.0.0/10), and forwards all else, as dnsmasq does.
	BogusPrivReverse
)

// SpecialConfig says which special names are answered here.
type SpecialConfig struct {
	BogusPriv BogusPriv
	// Upstreams are the addresses of the default route's servers.
	Upstreams []netip.Addr
	// Routes are the suffixes of explicit routes but the default one. Special
	// names at or below them are left to the route.
	Routes []wire.Name
}

// specialKind is how the names of a zone are answered.
type specialKind uint8

const (
	denied   specialKind = iota // every name NXDOMAIN
	empty                       // the apex exists, nothing below it
	loopback                    // every name is this host
	private                     // empty, unless an upstream may know better
	carrier                     // the same: addresses behind a carrier's NAT
	internal                    // denied, unless an upstream may know better
)

// isPrivate tells what has a meaning in a private network alone.
func (k specialKind) isPrivate() bool { return k == private || k == carrier || k == internal }

type specialZone struct {
	zone wire.Name
	kind specialKind
	// ptr is the only name below the apex with data; host is its PTR.
	ptr  wire.Name
	host wire.Name
}

const localhost = wire.Name("\x09localhost\x00")

// specialZones are the names of RFC 6761, 6762 (local), 7686 (onion), 8375
// (home.arpa), 9462 (resolver.arpa), 9665 (service.arpa), 6303 and 7793
// (reverse zones). "example" and "ipv4only.arpa" are usual names to a resolver,
// "alt" and "internal" are the operator's.
var specialZones = makeSpecialZones()

func makeSpecialZones() []specialZone {
	var out []specialZone
	add := func(kind specialKind, names ...string) {
		for _, s := range names {
			n, err := wire.ParseName(s)
			if err != nil {
				panic(err)
			}
			out = append(out, specialZone{zone: n, kind: kind})
		}
	}
	add(loopback, "localhost")
	add(denied, "invalid", "onion")
	// Companies have names of their own there, and routers those of a home.
	add(internal, "test", "local")
	add(private, "home.arpa")
	add(empty, "resolver.arpa", "service.arpa")
	// Never in use outside a host, whatever an upstream says.
	add(empty, "0.in-addr.arpa", "127.in-addr.arpa", "255.255.255.255.in-addr.arpa")
	out[len(out)-2].ptr, out[len(out)-2].host = wire.ReverseName(netip.MustParseAddr("127.0.0.1")), localhost
	for _, s := range []string{"::", "::1"} {
		out = append(out, specialZone{zone: wire.ReverseName(netip.MustParseAddr(s)), kind: empty})
	}
	out[len(out)-1].ptr, out[len(out)-1].host = out[len(out)-1].zone, localhost

	add(private, "10.in-addr.arpa", "168.192.in-addr.arpa", "254.169.in-addr.arpa",
		"2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa",
		"d.f.ip6.arpa", "8.e.f.ip6.arpa", "9.e.f.ip6.arpa", "a.e.f.ip6.arpa", "b.e.f.ip6.arpa",
		"8.b.d.0.1.0.0.2.ip6.arpa")
	for second := 16; second <= 31; second++ {
		add(private, reverse16(172, second))
	}
	for second := 64; second <= 127; second++ {
		add(carrier, reverse16(100, second))
	}
	return out
}

// reverse16 is the reverse zone of an IPv4 /16.
func reverse16(first, second int) string {
	name := wire.ReverseName(netip.AddrFrom4([4]byte{byte(first), byte(second), 0, 0}))
	return name.Parent().Parent().String()
}

// ReverseZones returns the special zones below in-addr.arpa and ip6.arpa. A
// zone that knows addresses of its own must be asked before them.
func ReverseZones() []wire.Name {
	var out []wire.Name
	for _, z := range specialZones {
		if isReverse(z.zone) {
			out = append(out, z.zone)
		}
	}
	return out
}

// PrivateZones returns the zones whose names have a meaning in a private network
// alone: where there are private upstreams, these are to be asked for them.
func PrivateZones() []wire.Name {
	var out []wire.Name
	for _, z := range specialZones {
		if z.kind.isPrivate() {
			out = append(out, z.zone)
		}
	}
	return out
}

func isReverse(n wire.Name) bool {
	return n.HasSuffix("\x07in-addr\x04arpa\x00") || n.HasSuffix("\x03ip6\x04arpa\x00")
}

// Special answers special-use names. It is safe for concurrent use.
type Special struct {
	active  atomic.Pointer[activeZones]
	counter atomic.Uint64 // moves after active
}

// activeZones are those of specialZones that are answered here.
type activeZones struct {
	is      []bool
	onlyPTR bool // the private ones leave other types to others
}

// NewSpecial makes the zones of all special names.
func NewSpecial(c SpecialConfig) *Special {
	s := new(Special)
	s.SetConfig(c)
	return s
}

// SetConfig takes a new configuration for all answers from now on, cached ones
// included.
func (s *Special) SetConfig(c SpecialConfig) {
	active := &activeZones{is: make([]bool, len(specialZones)), onlyPTR: c.BogusPriv == BogusPrivReverse}
	for i, z := range specialZones {
		active.is[i] = isActive(z, c)
	}
	s.active.Store(active)
	s.counter.Add(1)
}

func isActive(z specialZone, c SpecialConfig) bool {
	for _, route := range c.Routes {
		if len(route) > 1 && z.zone.HasSuffix(route) {
			return false
		}
	}
	switch {
	case !z.kind.isPrivate() || c.BogusPriv == BogusPrivOn:
		return true
	case c.BogusPriv == BogusPrivReverse:
		return z.kind == private && isReverse(z.zone)
	case c.BogusPriv == BogusPrivOff:
		return false
	}
	return !slices.ContainsFunc(c.Upstreams, IsPrivate)
}

// IsPrivate reports whether an upstream's address is one of the networks whose
// reverse zones are special, or this host.
func IsPrivate(addr netip.Addr) bool {
	addr = addr.Unmap()
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10) // RFC 6598
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || shared.Contains(addr)
}

// Mounts returns where the special names belong in a resolver's table. They
// stay the same whatever the configuration.
func (s *Special) Mounts() []resolver.Mount {
	mounts := make([]resolver.Mount, len(specialZones))
	for i, z := range specialZones {
		mounts[i] = resolver.Mount{
			Suffix: z.zone, Rank: resolver.RankSpecial, Zone: &specialMount{s, i}, Name: "special " + z.zone.String(),
		}
	}
	return mounts
}

// specialMount is one special zone as the resolver sees it.
type specialMount struct {
	special *Special
	index   int
}

// Answer implements resolver.Zone.
func (m *specialMount) Answer(q *wire.Query) (resolver.Result, resolver.Outcome) {
	s := m.special
	for {
		active := s.active.Load()
		dep := cache.Dep{Counter: &s.counter, Value: s.counter.Load()}
		if s.active.Load() != active {
			continue
		}
		others := active.onlyPTR && specialZones[m.index].kind.isPrivate() && q.Type != wire.TypePTR && q.Type != wire.TypeANY
		if !active.is[m.index] || others {
			return resolver.Result{}, resolver.NotMine
		}
		answer, err := wire.Pack(q, specialZones[m.index].reply(q))
		if err != nil {
			return resolver.Result{}, resolver.NotMine
		}
		return resolver.Result{Answer: answer, Deps: [2]cache.Dep{dep}, Source: "special"}, resolver.Answered
	}
}

// Resolve implements resolver.Zone. It is not reached: Answer is never late.
func (m *specialMount) Resolve(_ context.Context, q *wire.Query) (resolver.Result, error) {
	result, outcome := m.Answer(q)
	if outcome != resolver.Answered {
		return result, resolver.ErrNotMine
	}
	return result, nil
}

// reply says what the zone has for a question below it.
func (z *specialZone) reply(q *wire.Query) *wire.Reply {
	name := wire.Name(q.Name())
	is := func(typ wire.Type) bool { return q.Type == typ || q.Type == wire.TypeANY }
	r := &wire.Reply{AA: true}
	add := func(typ wire.Type, data []byte) {
		r.RRs = append(r.RRs, wire.RR{Owner: name, Type: typ, TTL: specialTTL, Data: data})
	}
	switch {
	case z.kind == loopback:
		if is(wire.TypeA) {
			add(wire.TypeA, []byte{127, 0, 0, 1})
		}
		if is(wire.TypeAAAA) {
			add(wire.TypeAAAA, wire.A(netip.IPv6Loopback()))
		}
	case z.ptr != "" && name == z.ptr && is(wire.TypePTR):
		add(wire.TypePTR, wire.NameData(z.host))
	case name == z.zone && z.kind != denied && z.kind != internal:
		z.replyApex(r, q)
	case name != z.ptr && !z.leadsTo(name):
		r.Rcode = wire.RcodeNXDomain
	}
	if len(r.RRs) == 0 {
		r.RRs = append(r.RRs, soa(wire.Authority, z.zone, specialTTL))
	}
	return r
}

// replyApex answers with the SOA and NS records that a served zone has
// (RFC 6303 section 3).
func (z *specialZone) replyApex(r *wire.Reply, q *wire.Query) {
	if q.Type == wire.TypeSOA || q.Type == wire.TypeANY {
		r.RRs = append(r.RRs, soa(wire.Answers, z.zone, specialTTL))
	}
	if q.Type == wire.TypeNS || q.Type == wire.TypeANY {
		r.RRs = append(r.RRs, wire.RR{Owner: z.zone, Type: wire.TypeNS, TTL: specialTTL, Data: wire.NameData(z.zone)})
	}
}

// leadsTo reports whether the name is an empty non-terminal: nothing itself,
// with data below it (RFC 8020).
func (z *specialZone) leadsTo(name wire.Name) bool {
	return z.ptr != "" && z.ptr.HasSuffix(name)
}
