package consul

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/resolver"
	"meibo/resolver/wire"
)

const (
	// maxSet is the most octets of records that one answer holds. A message
	// has 65535; the rest is for the question, OPT and what it carries.
	maxSet = 64<<10 - 1024
	// redraw is how long an answer lives that could not hold the whole set, so
	// that the others get their turn.
	redraw = 10 * time.Second
	// recordHead is what a record takes besides its owner and data.
	recordHead = 10
)

// builder makes one answer from a subject.
type builder struct {
	subject
	zone  *Zone
	q     *wire.Query
	owner wire.Name // the question's name
	reply wire.Reply
	size  int // octets of records so far, not counting compression

	life    time.Duration
	noStore bool
	ages    bool
	ede     uint16
	edeText string

	// unsure says that what is said of the catalog is not confirmed; tooStale,
	// that it hasn't been for longer than the configuration allows.
	unsure, tooStale bool
	// unconfirmed is the name of a node that is in the answer by the word of an
	// earlier history alone.
	unconfirmed string

	// ctx and chase are set in a flight. Without them a name to be followed
	// sets needsChase.
	ctx        context.Context
	chase      Chaser
	needsChase bool
}

func (z *Zone) newBuilder(q *wire.Query, s subject) *builder {
	b := &builder{
		subject: s, zone: z, q: q, owner: wire.Name(q.Name()),
		reply:   wire.Reply{AA: true, NoTC: !s.settings.truncate},
		noStore: s.passing,
	}
	if b.kind.isCatalog() {
		b.judgeAge()
	}
	return b
}

// build answers the question.
func (b *builder) build() {
	switch {
	case b.known == catalog.NotYet && !b.older:
		b.fail(wire.EDENotReady, "this host has not learned yet which names exist")
	case b.tooStale && b.settings.staleAnswer == ServFail:
		b.failStale()
	case b.known == catalog.Absent:
		b.denyUnknown()
	default:
		b.buildKind()
	}
}

func (b *builder) buildKind() {
	switch b.kind {
	case nowhere:
		b.deny()
	case between:
		b.noData()
	case apex:
		b.buildZone()
	case services:
		b.buildService()
	case nodes:
		b.buildNode()
	case address:
		b.buildAddress()
	}
}

// denyUnknown denies a service or node that doesn't exist. "_tcp.service" is
// no service, yet every service has a name below it.
func (b *builder) denyUnknown() {
	if b.kind == services && b.name == "_tcp" && b.tag == "" {
		b.noData()
		return
	}
	b.deny()
}

// fail makes the answer a failure that is not kept.
func (b *builder) fail(ede uint16, text string) {
	b.reply.Rcode, b.reply.AA, b.reply.RRs = wire.RcodeServFail, false, nil
	b.noStore, b.ede, b.edeText = true, ede, text
}

func (b *builder) deny() {
	b.reply.Rcode = wire.RcodeNXDomain
	b.noData()
}

// noData adds the SOA that says how long the absence may be remembered
// (RFC 2308 section 3). It belongs to the domain that was asked.
func (b *builder) noData() {
	b.addSOA(wire.Authority, b.domain.name, b.domain)
}

func (b *builder) addSOA(section wire.Section, owner wire.Name, d *domain) {
	s := b.settings
	data := wire.SOA(d.mname, d.rname, uint32(b.zone.now().Unix()), s.refresh, s.retry, s.expire, s.minTTL)
	b.add(wire.RR{Section: section, Owner: owner, Type: wire.TypeSOA, TTL: s.minTTL, Data: data})
}

// add adds a record and returns 1 + its place, for the additional records that
// go with it.
func (b *builder) add(rr wire.RR) int {
	if b.tooStale && rr.TTL > shortTTL {
		rr.TTL = shortTTL
	}
	b.size += len(rr.Owner) + recordHead + len(rr.Data)
	b.reply.RRs = append(b.reply.RRs, rr)
	return len(b.reply.RRs)
}

// answer adds a record of the question's own name.
func (b *builder) answer(typ wire.Type, ttl uint32, data []byte) int {
	b.size -= len(b.owner) - 2 // always compressed: it points to the question
	return b.add(wire.RR{Section: wire.Answers, Owner: b.owner, Type: typ, TTL: ttl, Data: data})
}

// isFull reports whether no more may be added to the set; the answer is then a
// sample of it, drawn anew before long (VIEWS rule 7).
func (b *builder) isFull(next int) bool {
	if b.size+next <= maxSet {
		return false
	}
	b.bound(redraw)
	return true
}

// bound shortens the answer's life.
func (b *builder) bound(d time.Duration) {
	if b.life == 0 || d < b.life {
		b.life = d
	}
}

// result packs what was built.
func (b *builder) result() resolver.Result {
	b.markStale()
	answer, err := wire.Pack(b.q, &b.reply)
	if err != nil {
		b.zone.logger.Error("answer cannot be packed", "qname", b.owner.String(), "err", err)
		b.fail(wire.EDEOther, "the answer cannot be packed")
		answer, _ = wire.Pack(b.q, &b.reply)
	}
	return resolver.Result{
		Answer: answer, Deps: b.deps, Life: b.life, NoStore: b.noStore, Ages: b.ages,
		Source: sourceView, EDE: b.ede, EDEText: b.edeText,
	}
}

// isWanted reports whether a record of the type may be in the answer section.
func (b *builder) isWanted(typ wire.Type) bool {
	return b.q.Type == typ || b.q.Type == wire.TypeANY
}

// visible returns the instances that the question is about, in random order.
func (b *builder) visible() []catalog.Instance {
	lastResort := LastResort(b.instances, b.settings.onlyPassing)
	var out []catalog.Instance
	for _, in := range b.instances {
		if b.tag != "" && !in.Service.HasTag(b.tag) {
			continue
		}
		if Excluded(in, b.settings.onlyPassing, lastResort) == nil {
			out = append(out, in)
			if b.unconfirmed == "" && b.state.Unconfirmed(in.Node.Node, in.Service.ID) {
				b.unconfirmed = in.Node.Node
			}
		}
	}
	if lastResort && len(out) > 0 {
		b.zone.stats.lastResort.Add(1)
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// leadsToTag reports whether the question's tag is the right end of a longer
// tag with dots, so that names exist below this one.
func (b *builder) leadsToTag() bool {
	for _, in := range b.instances {
		if slices.ContainsFunc(in.Service.Tags, func(tag string) bool {
			return strings.HasSuffix(strings.ToLower(tag), "."+b.tag)
		}) {
			return true
		}
	}
	return false
}
