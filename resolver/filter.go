package resolver

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// Filter says what of the upstreams' answers is kept from clients. It does not touch
// what zones answer, but where an upstream's alias leads to them. Its parts are called
// as dnsmasq has them.
type Filter struct {
	// Types are not asked of upstreams: the names have none (filter-A, filter-AAAA).
	Types []wire.Type
	// DomainNeeded: addresses of names without a dot are not asked of the default
	// route; there are none.
	DomainNeeded bool
	// BogusNXDomain are addresses that stand for a name that does not exist: an answer
	// with one of them is NXDOMAIN.
	BogusNXDomain []netip.Prefix
	// StopDNSRebind drops answers of the default route with addresses of private
	// networks, those in SVCB and HTTPS records included: a page of the world outside
	// is not to speak with hosts within.
	StopDNSRebind bool
	// RebindDomainOK are domains that may have such addresses.
	RebindDomainOK []wire.Name // lower case
	// RebindLocalhostOK allows the addresses of this host, 127.0.0.0/8 and ::1, as lists
	// of blocked names have them, and 0.0.0.0 and ::.
	RebindLocalhostOK bool
}

func (f *Filter) isEmpty() bool {
	return len(f.Types) == 0 && !f.DomainNeeded && len(f.BogusNXDomain) == 0 && !f.StopDNSRebind
}

const (
	// filteredTTL is the TTL of what is answered in place of an upstream's word.
	filteredTTL = 30
	// rebindsEvery is how often the log has an answer that was dropped.
	rebindsEvery = time.Minute
)

// SetFilter takes a filter for all answers from now on, cached ones included.
func (r *Resolver) SetFilter(f Filter) {
	old := r.filter.Load()
	if old == nil && f.isEmpty() || old != nil && reflect.DeepEqual(*old, f) {
		return
	}
	r.filter.Store(&f)
	r.cfg.Cache.DropSuffix(wire.Root)
}

// unasked answers what isn't to be asked of m's upstreams.
func (r *Resolver) unasked(m *Mount, q *wire.Query, p passed, now time.Duration) (*cache.Entry, bool) {
	f := r.filter.Load()
	switch {
	case f == nil:
		return nil, false
	case f.DomainNeeded && m.Rank == RankDefault && isPlain(q.Name()) && (q.Type == wire.TypeA || q.Type == wire.TypeAAAA):
		rcode := uint16(wire.RcodeNXDomain)
		if p.exists {
			rcode = wire.RcodeSuccess
		}
		return r.filtered(m, q, now, rcode, wire.EDEFiltered, "filter.domain_needed"), true
	case slices.Contains(f.Types, q.Type):
		return r.filtered(m, q, now, wire.RcodeSuccess, wire.EDEFiltered, "filter.types"), true
	}
	return nil, false
}

// isPlain tells a name of one label.
func isPlain(name []byte) bool { return len(name) > 2 && int(name[0])+2 == len(name) }

// screen returns e, which upstreams of m had a part in, or what is answered in its place.
func (r *Resolver) screen(m *Mount, q *wire.Query, e *cache.Entry, now time.Duration) *cache.Entry {
	f := r.filter.Load()
	if f == nil || len(f.BogusNXDomain) == 0 && !f.StopDNSRebind {
		return e
	}
	rebind := f.StopDNSRebind && m.Rank == RankDefault && m.Suffix == wire.Root && !slices.ContainsFunc(f.RebindDomainOK, wire.Name(q.Name()).HasSuffix)
	for _, addr := range addressesIn(e.Answer) {
		switch {
		case slices.ContainsFunc(f.BogusNXDomain, func(p netip.Prefix) bool { return p.Contains(addr) }):
			r.stats.bogus.Add(1)
			return r.filtered(m, q, now, wire.RcodeNXDomain, wire.EDEBlocked, fmt.Sprintf("%s said %s (filter.bogus_nxdomain)", e.Source, addr))
		case rebind && f.isPrivate(addr):
			r.stats.rebinds.Add(1)
			r.logRebind(q, e, addr)
			return r.filtered(m, q, now, wire.RcodeSuccess, wire.EDEBlocked, fmt.Sprintf("%s said %s, of a private network (filter.stop_dns_rebind)", e.Source, addr))
		}
	}
	return e
}

// logRebind logs an answer that was dropped, now and then.
func (r *Resolver) logRebind(q *wire.Query, e *cache.Entry, addr netip.Addr) {
	now, last := int64(r.now()), r.rebindSaid.Load()
	if last != 0 && time.Duration(now-last) < rebindsEvery || !r.rebindSaid.CompareAndSwap(last, now) {
		return
	}
	r.log.Warn("a name of the world outside has an address of a private network, perhaps a DNS rebinding attack: its answer was dropped; filter.rebind_domain_ok allows a domain",
		"name", wire.Name(q.Name()).String(), "addr", addr.String(), "from", e.Source)
}

// filtered is what is answered in place of an upstream's word.
func (r *Resolver) filtered(m *Mount, q *wire.Query, now time.Duration, rcode, ede uint16, why string) *cache.Entry {
	const nobody = wire.Name("\x06nobody\x07invalid\x00")
	name := wire.Name(strings.Clone(string(q.Name())))
	a, err := wire.Pack(q, &wire.Reply{Rcode: rcode, RRs: []wire.RR{{
		Section: wire.Authority, Owner: name, Type: wire.TypeSOA, TTL: filteredTTL, // so that who caches after us knows for how long (RFC 2308 section 3)
		Data: wire.SOA(name, nobody, 1, 3600, 1200, 604800, filteredTTL),
	}}})
	if err != nil {
		panic(err) // one small record
	}
	return &cache.Entry{
		Answer: a, Stored: now, Expires: now + filteredTTL*time.Second, Transient: true, Ages: true, Forwarded: true, Negative: true,
		Origin: &cache.Origin{Deps: [3]cache.Dep{{Counter: m.Route, Value: m.Route.Load()}}, Mount: m.Name, Source: "filter", EDE: ede, EDEText: why},
	}
}

// addressesIn are those that an answer gives: of A, AAAA, and the hints of SVCB and
// HTTPS records (RFC 9460 section 7.3).
func addressesIn(a *wire.Answer) (addrs []netip.Addr) {
	for _, rr := range a.RRs() {
		switch rr.Type {
		case wire.TypeA, wire.TypeAAAA:
			addrs = appendAddrs(addrs, rr.Data, len(rr.Data))
		case wire.TypeSVCB, wire.TypeHTTPS:
			addrs = appendHints(addrs, rr.Data)
		}
	}
	return addrs
}

// appendHints appends the addresses of an SVCB record's ipv4hint and ipv6hint (RFC 9460
// section 2.2: priority, target, then key, length and value of each parameter).
func appendHints(addrs []netip.Addr, data []byte) []netip.Addr {
	if len(data) < 3 {
		return addrs
	}
	rest := data[2:]
	for len(rest) > 0 && rest[0] != 0 { // the target's labels
		if len(rest) < 1+int(rest[0]) {
			return addrs
		}
		rest = rest[1+int(rest[0]):]
	}
	if len(rest) == 0 {
		return addrs
	}
	rest = rest[1:]
	for len(rest) >= 4 {
		key, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if rest = rest[4:]; len(rest) < size {
			return addrs
		}
		switch key {
		case 4:
			addrs = appendAddrs(addrs, rest[:size], 4)
		case 6:
			addrs = appendAddrs(addrs, rest[:size], 16)
		}
		rest = rest[size:]
	}
	return addrs
}

// appendAddrs appends the addresses of size octets each that stand in b.
func appendAddrs(addrs []netip.Addr, b []byte, size int) []netip.Addr {
	for ; size > 0 && len(b) >= size; b = b[size:] {
		if addr, ok := netip.AddrFromSlice(b[:size]); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// shared is the address space behind carriers' NAT (RFC 6598).
var shared = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)

// isPrivate tells addresses that no name of the world outside should have.
func (f *Filter) isPrivate(addr netip.Addr) bool {
	here := addr.IsLoopback() || addr.IsUnspecified() || addr.Is4() && addr.As4()[0] == 0
	if here {
		return !f.RebindLocalhostOK
	}
	return addr.IsPrivate() || addr.IsLinkLocalUnicast() || shared.Contains(addr)
}
