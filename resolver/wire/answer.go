package wire

import (
	"encoding/binary"
	"unsafe"
)

// Answer is a packed response: header, question and records, without an OPT, which belongs to one hop. It is immutable
// and safe for concurrent use.
type Answer struct {
	msg    []byte
	recs   []record // answers, then authority, then additional
	*extra          // &noExtra for most

	minTTL, negTTL uint32
	flags          uint16 // AA, TC, AD and RA, as given or received; traits
	rcode          uint16
	places
	few [3]record // what recs is of, where there are no more: most answers are one block and its bytes
}

// traits are kept beside the flags of a header, in the place of its rcode.
const (
	isOwn  = 1 << iota // made by Pack
	hasOPT             // received with one, or our own
	isNegative
	hasNegTTL
)

// places are where the parts of an answer end, in the sixteen bits that a message's length has.
type places struct{ toEnd, toAns, toAuth, toGlue, counted uint16 }

func (p *places) end() int  { return int(p.toEnd) }  // of the question: where the records begin
func (p *places) ans() int  { return int(p.toAns) }  // recs[:ans] are answers
func (p *places) auth() int { return int(p.toAuth) } // recs[ans:auth] are the authority section
func (p *places) glue() int { return int(p.toGlue) } // recs[auth:glue] belong to answers, in their order; recs[glue:] belong to none

// answers is how many records a policy counts: answers but CNAMEs.
func (p *places) answers() int { return int(p.counted) }

// extra is what few answers have, and the cache holds many. It never changes once an answer has it.
type extra struct {
	ties    []tie // of each record, if any belongs to an answer
	policy  policy
	ede     uint16
	edeText string

	expendableBytes int // of records that go first
	expendableHeld  int // of these, those before recs[glue]
}

var noExtra extra

// more gives the answer an extra of its own, to fill in while it is made.
func (a *Answer) more() *extra {
	if a.extra == &noExtra {
		a.extra = new(extra)
	}
	return a.extra
}

// room gives the answer room for n records.
func (a *Answer) room(n int) {
	if n <= len(a.few) {
		a.recs = a.few[:0]
		return
	}
	a.recs = make([]record, 0, n)
}

// policy is what a Reply says of cutting.
type policy struct {
	maxAnswers, maxUDP int
	noTC               bool
}

// record says where one record lies. The cache holds many: what only some answers' records have is a tie's.
type record struct {
	off   uint16 // in msg
	set   uint16 // answers: how many the set has that begins here; 0: it began before
	owner uint8  // bytes of the owner field
	marks marks
}

type marks uint8

const (
	expendable marks = 1 << iota
	pinned           // a compression pointer leads into it: it must keep its place
	even             // answers: the whole set that begins here is of the same unit
)

func (r *record) is(m marks) bool { return r.marks&m != 0 }

// tie says what a record takes along, or what it belongs to.
type tie struct {
	unit        uint16 // answers: bytes of the record and its glue, expendable glue apart
	first, past uint16 // answers: their glue is recs[first:past]
	at          uint16 // glue: offset in its answer record of the name its owner points at; 0: owner not so compressed
}

// set is a run of answers that may be rotated and cut anywhere: no compression pointer leads into them but from glue. An answer
// that keeps its place is one for itself.
type set struct{ first, n int }

// setAt returns the set that begins with answer i.
func (a *Answer) setAt(i int) set { return set{i, int(a.recs[i].set)} }

// addSet notes that the answers [first, end) are a set.
func (a *Answer) addSet(first, end int) {
	r := &a.recs[first]
	r.set = uint16(end - first)
	for i := first; i < end; i++ {
		if a.unit(i) != a.unit(first) {
			return
		}
	}
	r.marks |= even
}

// unit returns the bytes of answer i and its glue, expendable glue apart.
func (a *Answer) unit(i int) int {
	if a.ties == nil {
		return a.recBytes(i)
	}
	return int(a.ties[i].unit)
}

// unitOf returns the unit of every record of s, if they are equal; else 0.
func (a *Answer) unitOf(s set) int {
	if !a.recs[s.first].is(even) {
		return 0
	}
	return a.unit(s.first)
}

// glueOf returns where the records are that answer i takes along.
func (a *Answer) glueOf(i int) (first, past int) {
	if a.ties == nil {
		return 0, 0
	}
	return int(a.ties[i].first), int(a.ties[i].past)
}

// pointsAt returns where in its answer record the name is that glue record i's owner points at; 0: nowhere.
func (a *Answer) pointsAt(i int) int { return int(a.ties[i].at) }

// fixed bytes between owner and rdata: type, class, TTL, length.
const fixedSize = 10

// recEnd returns the offset after record i.
func (a *Answer) recEnd(i int) int {
	if i+1 < len(a.recs) {
		return int(a.recs[i+1].off)
	}
	return len(a.msg)
}

func (a *Answer) recBytes(i int) int { return a.recEnd(i) - int(a.recs[i].off) }

// spareBytes is how many bytes the records take that go first, and the additional ones that belong to no answer.
func (a *Answer) spareBytes() int {
	n := a.expendableHeld
	if i := a.glue(); i < len(a.recs) {
		n += len(a.msg) - int(a.recs[i].off)
	}
	return n
}

func (a *Answer) recType(i int) Type {
	r := &a.recs[i]
	return binary.BigEndian.Uint16(a.msg[int(r.off)+int(r.owner):])
}

func (a *Answer) recTTL(i int) uint32 {
	r := &a.recs[i]
	return binary.BigEndian.Uint32(a.msg[int(r.off)+int(r.owner)+4:])
}

func (a *Answer) setTTL(i int, ttl uint32) {
	r := &a.recs[i]
	binary.BigEndian.PutUint32(a.msg[int(r.off)+int(r.owner)+4:], ttl)
}

// data returns the rdata of record i as it lies there, and its offset.
func (a *Answer) data(i int) ([]byte, int) {
	r := &a.recs[i]
	p := int(r.off) + int(r.owner) + fixedSize
	return a.msg[p:a.recEnd(i)], p
}

// Rcode returns the response code, the upper bits from an upstream's OPT included.
func (a *Answer) Rcode() uint16 { return a.rcode }

// AA reports the bit as given or received. Only our own answers are rendered with it: a cache is no authority.
func (a *Answer) AA() bool { return a.flags&flagAA != 0 }

// AD reports the bit as received. It is rendered only when Render says so.
func (a *Answer) AD() bool { return a.flags&flagAD != 0 }

// TC reports the bit as received.
func (a *Answer) TC() bool { return a.flags&flagTC != 0 }

// EDE returns the Extended DNS Error an upstream sent; code 0 means none, EDEOther the code 0.
func (a *Answer) EDE() (code uint16, text string) { return a.ede, a.edeText }

// MinTTL returns the lowest TTL of all records; not ok when there are none.
func (a *Answer) MinTTL() (ttl uint32, ok bool) { return a.minTTL, len(a.recs) > 0 }

// Negative reports NXDOMAIN, or NOERROR without a record of the type asked (RFC 2308 section 2), be there an SOA or not.
func (a *Answer) Negative() bool { return a.flags&isNegative != 0 }

// NegativeTTL returns how long a negative answer may be kept: the lower of its SOA's TTL and minimum (RFC 2308 section
// 5). It is not ok for a positive answer, and for a negative one without SOA, which should not be kept.
func (a *Answer) NegativeTTL() (ttl uint32, ok bool) { return a.negTTL, a.flags&hasNegTTL != 0 }

// AnswerCount returns how many records the answer section holds.
func (a *Answer) AnswerCount() int { return a.ans() }

// Size returns the bytes of memory that the answer takes.
func (a *Answer) Size() int {
	n := int(unsafe.Sizeof(*a)) + cap(a.msg)
	if cap(a.recs) > len(a.few) {
		n += cap(a.recs) * int(unsafe.Sizeof(record{}))
	}
	if a.extra != &noExtra {
		n += int(unsafe.Sizeof(*a.extra)) + len(a.edeText) + cap(a.ties)*int(unsafe.Sizeof(tie{}))
	}
	return n
}

// EDNS reports whether the answer came with an OPT, or is ours. One without comes of a
// server that was not asked for DNSSEC records, or didn't understand that: to its client
// DO is not confirmed (RFC 3225 section 3).
func (a *Answer) EDNS() bool { return a.flags&hasOPT != 0 }

// QName is the name asked, in lower case; nil without a question. It must not be changed.
func (a *Answer) QName() []byte {
	if !a.HasQuestion() {
		return nil
	}
	return a.msg[headerSize : a.end()-4]
}

// HasQuestion reports whether the answer repeats a question.
func (a *Answer) HasQuestion() bool { return a.end() > headerSize }

// IsPlain reports whether the answer is one set, of the type and name asked, beside which stand no signatures or proofs, and
// no TTL is above maxTTL. Most are; some that it takes for others are too.
func (a *Answer) IsPlain(maxTTL uint32) bool {
	if a.rcode != RcodeSuccess || a.TC() || a.ans() == 0 || a.end() <= headerSize {
		return false
	}
	asked := binary.BigEndian.Uint16(a.msg[a.end()-4:])
	if asked == TypeCNAME || asked == TypeDNAME {
		return false // a link of a chain
	}
	for i := range a.recs {
		rec, typ := &a.recs[i], a.recType(i)
		switch {
		case typ == TypeRRSIG, typ == TypeSIG, typ == TypeNSEC, typ == TypeNSEC3, a.recTTL(i) > maxTTL:
			return false
		case i < a.ans() && (typ != asked || rec.owner != 2 || binary.BigEndian.Uint16(a.msg[rec.off:]) != 0xc000|headerSize):
			return false
		}
	}
	return true
}

// IsReferral reports whether the answer only names other servers: NOERROR, no answers,
// and NS without an SOA in the authority section (RFC 2308 section 2.2.1). From who was
// asked to resolve, that is no answer.
func (a *Answer) IsReferral() bool {
	if a.rcode != RcodeSuccess || a.ans() > 0 || a.auth() == 0 {
		return false
	}
	ns := false
	for i := range a.auth() {
		switch a.recType(i) {
		case TypeSOA:
			return false
		case TypeNS:
			ns = true
		}
	}
	return ns
}

// IsLame reports whether the answer says nothing, from who doesn't resolve: NOERROR
// with neither answers nor an SOA that denies them, by a server that offers no
// recursion and is no authority (RFC 9499 section 7, lame delegation).
func (a *Answer) IsLame() bool {
	return a.rcode == RcodeSuccess && a.ans() == 0 && a.flags&(hasNegTTL|flagRA|flagAA|flagTC) == 0
}

// Matches reports whether the answer's question is q's, without regard to letter case.
func (a *Answer) Matches(q *Query) bool {
	if a.end() != q.end || q.end == 0 {
		return false
	}
	name := headerSize + len(q.name)
	return equalFold(a.msg[headerSize:name], q.Name()) && string(a.msg[name:a.end()]) == string(q.Msg[name:q.end])
}

// RRs returns the records, owners and rdata uncompressed, in the order answers, authority, additional.
func (a *Answer) RRs() []RR {
	out := make([]RR, len(a.recs))
	for i := range a.recs {
		rec := &a.recs[i]
		data, at := a.data(i)
		out[i] = RR{
			Section:    a.section(i),
			Owner:      expandName(a.msg, int(rec.off)),
			Type:       a.recType(i),
			TTL:        a.recTTL(i),
			Data:       expandData(a.msg, a.recType(i), data, at),
			Expendable: rec.is(expendable),
		}
	}
	for i := range a.recs[:a.ans()] {
		for g, past := a.glueOf(i); g < past; g++ {
			out[g].With = i + 1
		}
	}
	return out
}

func (a *Answer) section(i int) Section {
	switch {
	case i < a.ans():
		return Answers
	case i < a.auth():
		return Authority
	}
	return Additional
}

// finish works out what is asked of every Answer once its records are in place.
func (a *Answer) finish() {
	qtype := TypeNone
	if a.end() > headerSize {
		qtype = binary.BigEndian.Uint16(a.msg[a.end()-4:])
	}
	positive := false
	for i := range a.ans() {
		t := a.recType(i)
		positive = positive || t == qtype || qtype == TypeANY
		if t != TypeCNAME {
			a.counted++
		}
	}
	if a.rcode == RcodeNXDomain || a.rcode == RcodeSuccess && !positive {
		a.flags |= isNegative
		a.clampSOA()
	}
	for i := range a.recs {
		if ttl := a.recTTL(i); i == 0 || ttl < a.minTTL {
			a.minTTL = ttl
		}
		if !a.recs[i].is(expendable) {
			continue
		}
		n := a.recBytes(i)
		a.more().expendableBytes += n
		if i < a.glue() {
			a.extra.expendableHeld += n
		}
	}
}

// clampSOA shows the SOA of a negative answer with the TTL that the answer has (RFC 2308 section 5).
func (a *Answer) clampSOA() {
	for i := a.ans(); i < a.auth(); i++ {
		data, _ := a.data(i)
		if a.recType(i) != TypeSOA || len(data) < 20 {
			continue
		}
		ttl := min(a.recTTL(i), binary.BigEndian.Uint32(data[len(data)-4:]))
		a.setTTL(i, ttl)
		if a.flags&hasNegTTL == 0 || ttl < a.negTTL {
			a.negTTL = ttl
			a.flags |= hasNegTTL
		}
	}
}
