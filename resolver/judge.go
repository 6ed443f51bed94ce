package resolver

import (
	"encoding/binary"
	"slices"
	"time"

	"meibo/resolver/wire"
)

// maxLinks is the longest chain of aliases taken from one answer.
const maxLinks = 16

// judgment is what an upstream's answer means and how long it may be kept.
type judgment struct {
	answer    *wire.Answer // as it shall be given on
	bad       bool         // no answer to the question: SERVFAIL, REFUSED and the like
	err       error        // an answer that is not to be believed
	negative  bool
	nameError bool          // NXDOMAIN of the asked name itself
	alias     wire.Name     // where the answer leaves the route (see leaves), or stops
	life      time.Duration // 0: not to be kept
}

// judge classifies a by RFC 2181 and RFC 2308 and brings its records in order.
func (r *Resolver) judge(m *Mount, q *wire.Query, a *wire.Answer) judgment {
	j := judgment{answer: a}
	rcode := a.Rcode()
	if rcode != wire.RcodeSuccess && rcode != wire.RcodeNXDomain {
		j.bad = true
		return j
	}
	if a.TC() {
		return j // given on as it is, and never kept (RFC 2181 section 9)
	}
	if a.IsPlain(uint32(r.cfg.MaxTTL / time.Second)) {
		j.life = r.life(a, false) // nothing to leave out, to lower or to follow
		return j
	}
	rrs := a.RRs()
	changed := false
	if !q.DO {
		rrs, changed = withoutProofs(q, rrs)
	}
	c := chainOf(q, rrs)
	if c.links > maxLinks {
		j.err = &Failure{EDE: wire.EDEInvalidData, Text: "the upstream answered with a chain of too many aliases"}
		return j
	}
	j.negative = rcode == wire.RcodeNXDomain || !c.found
	j.nameError = rcode == wire.RcodeNXDomain && c.links == 0 && q.Type != wire.TypeDS
	changed = changed || c.foreign
	if n := r.leaves(m, q, &c); n > 0 {
		j.alias, c.names = c.names[n], c.names[:n]
		j.negative, j.nameError = false, false
		rrs = slices.DeleteFunc(rrs, func(rr wire.RR) bool { return rr.Section != wire.Answers })
		changed = true
	}
	if j.alias == "" && rcode == wire.RcodeSuccess && !c.found && q.Type != wire.TypeCNAME {
		if j.alias = c.open(rrs); j.alias != "" {
			j.negative = false
		}
	}
	if changed {
		rrs = c.filter(rrs)
	}
	if r.capTTLs(rrs, j.negative) || changed {
		j.answer = repack(q, a, rrs)
	}
	j.life = r.life(j.answer, j.negative)
	return j
}

// withoutProofs leaves out the DNSSEC records that a client did not ask for, by DO
// or by type (RFC 4035 section 3.2.1).
func withoutProofs(q *wire.Query, rrs []wire.RR) ([]wire.RR, bool) {
	n := len(rrs)
	rrs = slices.DeleteFunc(rrs, func(rr wire.RR) bool {
		proof := rr.Type == wire.TypeRRSIG || rr.Type == wire.TypeNSEC || rr.Type == wire.TypeNSEC3
		return proof && rr.Type != q.Type && q.Type != wire.TypeANY
	})
	return rrs, len(rrs) < n
}

// repack builds a anew with rrs, without AA: it is not ours. Where that fails, a
// stays as it is.
func repack(q *wire.Query, a *wire.Answer, rrs []wire.RR) *wire.Answer {
	b, err := wire.Pack(q, &wire.Reply{Rcode: a.Rcode(), RRs: rrs, Rotate: true, Plain: !a.EDNS()})
	if err != nil {
		return a
	}
	return b
}

// chain is the answer section seen from the question.
type chain struct {
	names   []wire.Name // lower case: the asked name and what its aliases lead to
	links   int
	found   bool // a record of the asked type stands at the end
	foreign bool // there are records off the chain
}

// chainOf follows the aliases of an answer from the asked name.
func chainOf(q *wire.Query, rrs []wire.RR) chain {
	c := chain{names: []wire.Name{wire.Name(q.Name())}}
	for grown := true; grown; {
		grown = false
		for i := range rrs {
			if rr := &rrs[i]; rr.Section == wire.Answers && rr.Type == wire.TypeCNAME && c.on(rr) {
				if to := wire.Name(rr.Data).Lower(); !c.has(to) {
					c.names = append(c.names, to)
					grown = true
				}
			}
		}
	}
	for i := range rrs {
		rr := &rrs[i]
		switch {
		case rr.Section != wire.Answers:
			continue
		case !c.on(rr):
			c.foreign = true
			continue
		case rr.Type == wire.TypeCNAME:
			c.links++
		}
		if rr.Type == q.Type || q.Type == wire.TypeANY {
			c.found = true
		}
	}
	return c
}

// open is the name that a chain ends with, where nothing is said of it: no alias, no
// records, no SOA that denies them. It takes another question; servers that don't
// follow aliases out of their zones leave it to who asks.
func (c *chain) open(rrs []wire.RR) wire.Name {
	if c.links == 0 {
		return ""
	}
	end := c.names[len(c.names)-1]
	for i := range rrs {
		rr := &rrs[i]
		if rr.Section == wire.Authority && rr.Type == wire.TypeSOA || rr.Section == wire.Answers && rr.Type == wire.TypeCNAME && rr.Owner.Equal(end) {
			return ""
		}
	}
	return end
}

func (c *chain) has(n wire.Name) bool {
	for _, m := range c.names {
		if m == n {
			return true
		}
	}
	return false
}

// on tells whether rr belongs to the chain: it is owned by one of its names, or is
// the DNAME that one of them was made by (RFC 6672), or the signature of that.
func (c *chain) on(rr *wire.RR) bool {
	owner := rr.Owner.Lower()
	if c.has(owner) {
		return true
	}
	typ := rr.Type
	if typ == wire.TypeRRSIG && len(rr.Data) >= 2 {
		typ = binary.BigEndian.Uint16(rr.Data)
	}
	if typ != wire.TypeDNAME {
		return false
	}
	for _, n := range c.names {
		if n.HasSuffix(owner) {
			return true
		}
	}
	return false
}

// filter leaves out the answer records that are off the chain (RFC 2181 section
// 5.4.1: they are no answer to this question).
func (c *chain) filter(rrs []wire.RR) []wire.RR {
	out := make([]wire.RR, 0, len(rrs))
	for i := range rrs {
		if rrs[i].Section != wire.Answers || c.on(&rrs[i]) {
			out = append(out, rrs[i])
		}
	}
	return out
}

// capTTLs lowers TTLs that are longer than we keep an answer (RFC 8767 section 4,
// RFC 2308 section 5), so that whoever caches after us keeps it no longer either.
// It reports whether anything changed. That the TTLs of a set are equal, and that
// an SOA shows the TTL of its denial, package wire has seen to.
func (r *Resolver) capTTLs(rrs []wire.RR, negative bool) bool {
	changed := false
	for i := range rrs {
		top := r.cfg.MaxTTL
		if negative && rrs[i].Section == wire.Authority && rrs[i].Type == wire.TypeSOA {
			top = min(top, r.cfg.NegativeMaxTTL)
		}
		if ttl := uint32(top / time.Second); rrs[i].TTL > ttl {
			rrs[i].TTL, changed = ttl, true
		}
	}
	return changed
}

// life is how long an answer may be kept: until the first of its records is over.
// A negative one needs an SOA to say how long (RFC 2308 section 5); without, it may
// be an answer cut short.
func (r *Resolver) life(a *wire.Answer, negative bool) time.Duration {
	ttl, ok := a.MinTTL()
	if negative {
		if _, ok = a.NegativeTTL(); !ok { // of the SOA, which is one of the records
			return min(r.cfg.NegativeTTL, r.cfg.NegativeMaxTTL)
		}
	}
	if !ok || ttl == 0 {
		return 0
	}
	life := time.Duration(ttl) * time.Second
	if negative {
		return min(life, r.cfg.NegativeMaxTTL)
	}
	return min(max(life, r.cfg.MinTTL), r.cfg.MaxTTL)
}
