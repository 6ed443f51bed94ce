package resolver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// served is what a question came to: an entry to render, or an error.
type served struct {
	entry *cache.Entry
	stale bool // entry is expired and given for want of a better one
	err   error
}

// ServeDNS is the way in for clients. It appends the reply to dst and returns it,
// or returns nil when the query is dropped or its reply comes later: reply is then
// called once, from another goroutine, with a clone of q. What can be answered
// from memory is answered before it returns; no lock is held while a Zone is
// asked. q and dst are borrowed until it returns. Called concurrently.
func (r *Resolver) ServeDNS(q *wire.Query, v wire.Verdict, dst []byte, reply func(q *wire.Query, msg []byte)) (out []byte) {
	defer func() {
		if p := recover(); p != nil {
			r.panicked(q, p)
			out = wire.AppendError(dst, q, wire.RcodeServFail, wire.EDEOther, textPanic)
		}
	}()
	if v != wire.OK {
		return r.judged(q, v, dst)
	}
	if q.Class != wire.ClassIN {
		return r.otherClass(q, dst)
	}
	switch q.Type {
	case wire.TypeNone, wire.TypeOPT, wire.TypeTSIG:
		return r.errorReply(dst, q, wire.RcodeFormErr, 0, "")
	case wire.TypeTKEY:
		return r.errorReply(dst, q, wire.RcodeNotImp, 0, "")
	case wire.TypeAXFR, wire.TypeIXFR:
		return r.errorReply(dst, q, wire.RcodeRefused, wire.EDENotSupported, "no zone transfers")
	}
	now := r.now()
	e, st := r.cfg.Cache.Get(q, now)
	if st == cache.Fresh {
		return r.append(dst, q, served{entry: e}, now)
	}
	if out = r.miss(q, e, now, dst, reply); out != nil {
		r.stats.atOnce.Add(1)
	}
	return out
}

// judged answers what the parser found wanting.
func (r *Resolver) judged(q *wire.Query, v wire.Verdict, dst []byte) []byte {
	if v == wire.Drop {
		r.stats.dropped.Add(1)
		return nil
	}
	return r.errorReply(dst, q, v.Rcode(), 0, "")
}

// miss asks the zones in place; what they cannot say at once becomes a flight.
// expired is the entry to fall back on, or nil.
func (r *Resolver) miss(q *wire.Query, expired *cache.Entry, now time.Duration, dst []byte, reply func(*wire.Query, []byte)) []byte {
	mark := r.cfg.Cache.Mark(q)
	var p passed
	var buf [8]*Mount
	for _, m := range r.table.Load().appendCandidates(buf[:0], q) {
		if m.Upstream != nil {
			return r.forward(m, q, p, expired, now, dst, reply)
		}
		res, outcome := m.Zone.Answer(q)
		switch outcome {
		case Answered:
			r.stats.inPlace.Add(1)
			e := zoneEntry(m, q, &res, p, now)
			r.store(q, e, res.NoStore, mark)
			return r.append(dst, q, served{entry: e}, now)
		case Later:
			return r.join(q, expired, now, dst, reply)
		case NotMine:
			p.by(&res)
		}
	}
	return r.append(dst, q, served{err: errNoRoute}, now)
}

// forward decides what of a question for an upstream can be said at once.
func (r *Resolver) forward(m *Mount, q *wire.Query, p passed, expired *cache.Entry, now time.Duration, dst []byte, reply func(*wire.Query, []byte)) []byte {
	if !r.mayRecurse(q) {
		return r.refuse(dst, q)
	}
	if !q.RD {
		return r.append(dst, q, served{err: errNoRecursion}, now)
	}
	if e, ok := r.unasked(m, q, p, now); ok {
		return r.append(dst, q, served{entry: e}, now)
	}
	if err, known := r.failures.recall(q, now, expired); known {
		return r.append(dst, q, r.fallback(served{err: err}, expired), now)
	}
	if e, ok := r.denied(m, q, p, expired, now); ok {
		return r.append(dst, q, served{entry: e}, now)
	}
	if h, ok := m.Upstream.(Health); ok && expired != nil && h.Down() {
		r.refresh(q, expired)
		return r.append(dst, q, r.fallback(served{err: errDown}, expired), now)
	}
	return r.join(q, expired, now, dst, reply)
}

// store stores e as the answer to q.
func (r *Resolver) store(q *wire.Query, e *cache.Entry, noStore bool, mark cache.Mark) {
	if !noStore {
		r.cfg.Cache.Put(q, e, mark)
	}
}

// passed is what the zones that passed a question on said of it.
type passed struct {
	// dep is the counter that tells when one would answer it. One is enough for a table
	// in which one zone has names that come and go.
	dep    cache.Dep
	exists bool // one has the name
}

func (p *passed) by(res *Result) {
	if p.dep.Counter == nil {
		p.dep = res.Deps[0]
	}
	p.exists = p.exists || res.Exists
}

// noData is a, which denies q's name, where the name is known to be there.
func noData(q *wire.Query, a *wire.Answer) *wire.Answer {
	b, err := wire.Pack(q, &wire.Reply{AA: a.AA(), RRs: a.RRs()})
	if err != nil {
		return a
	}
	return b
}

// zoneEntry is the entry of a Zone's result; p is what those asked before it said.
func zoneEntry(m *Mount, q *wire.Query, res *Result, p passed, now time.Duration) *cache.Entry {
	if p.exists && res.Alias == "" && res.Answer.Rcode() == wire.RcodeNXDomain {
		res.Answer = noData(q, res.Answer)
	}
	e := &cache.Entry{
		Answer: res.Answer, Stored: now, Ages: res.Ages, AD: res.AD,
		Origin: &cache.Origin{
			Deps:  [3]cache.Dep{res.Deps[0], res.Deps[1], p.dep},
			Mount: m.Name, Source: res.Source, EDE: res.EDE, EDEText: res.EDEText,
		},
	}
	if res.Life > 0 {
		e.Expires = now + res.Life
	}
	return e
}

// append renders s for q, whose client may have it or is refused.
func (r *Resolver) append(dst []byte, q *wire.Query, s served, now time.Duration) []byte {
	e := s.entry
	if e != nil && e.Forwarded && !r.mayRecurse(q) {
		return r.refuse(dst, q)
	}
	if e == nil {
		var bad *badAnswer
		if !errors.As(s.err, &bad) {
			rcode, ede, text := errorCode(s.err)
			return r.errorReply(dst, q, rcode, ede, text)
		}
		e = bad.entry
		r.stats.refusal(e.Answer.Rcode())
	}
	if q.TCP && e.Answer.TC() && e.Answer.AnswerCount() == 0 {
		// It tells a client to do what it has just done (RFC 2181 section 9).
		return r.errorReply(dst, q, wire.RcodeServFail, wire.EDENetworkError, e.Source+" has a longer answer and does not give it over TCP")
	}
	rd := wire.Render{
		Age: e.Age(now), Pick: rand.Uint32(), Client: clientHash(q.Client),
		EDE: e.EDE, EDEText: e.EDEText, AD: e.AD && (q.AD || q.DO),
	}
	if e.Forwarded {
		rd.MaxTTL = uint32(r.cfg.MaxClientTTL / time.Second)
	}
	if s.stale {
		r.stats.stale.Add(1)
		rd.FixTTL, rd.UseFixTTL = staleTTL, true
		rd.EDE, rd.EDEText = wire.EDEStale, failureText(s.err)
		if e.Answer.Rcode() == wire.RcodeNXDomain {
			rd.EDE = wire.EDEStaleNXDomain
		}
	}
	return e.Answer.Append(dst, q, rd)
}

// refuse tells a client that what upstreams say is not for it. Strangers may ask as
// often as they like: it allocates nothing.
func (r *Resolver) refuse(dst []byte, q *wire.Query) []byte {
	return r.errorReply(dst, q, wire.RcodeRefused, errNotAllowed.ede, errNotAllowed.text)
}

func (r *Resolver) errorReply(dst []byte, q *wire.Query, rcode, ede uint16, text string) []byte {
	r.stats.refusal(rcode)
	return wire.AppendError(dst, q, rcode, ede, text)
}

// fallback turns a failure into the expired answer, where there is one that may
// be served.
func (r *Resolver) fallback(s served, expired *cache.Entry) served {
	if s.err == nil || expired == nil {
		return s
	}
	var no *refusal
	if errors.As(s.err, &no) || expired.Moved() {
		return s
	}
	return served{entry: expired, stale: true, err: s.err}
}

// panicked counts and logs a panic; q is the question that caused it, if known.
func (r *Resolver) panicked(q *wire.Query, p any) {
	r.stats.panics.Add(1)
	name, typ := "", ""
	if q != nil {
		name, typ = wire.Name(q.Name()).String(), wire.TypeString(q.Type)
	}
	r.log.Error("panic while answering", "qname", name, "qtype", typ, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// clientHash spreads clients evenly by address and port, the same for one socket
// at all times (the finisher of splitmix64).
func clientHash(c netip.AddrPort) uint32 {
	a := c.Addr().As16()
	h := binary.LittleEndian.Uint64(a[:8]) ^ binary.LittleEndian.Uint64(a[8:])*0x9e3779b97f4a7c15 ^ uint64(c.Port())*0xd1342543de82ef95
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return uint32(h ^ h>>31)
}
