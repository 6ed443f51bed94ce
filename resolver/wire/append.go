package wire

import "encoding/binary"

// Render says how one client gets an Answer.
type Render struct {
	Age       uint32 // seconds taken off every TTL, which stays at least 1 unless it was 0
	FixTTL    uint32 // with UseFixTTL, every TTL (stale answers)
	UseFixTTL bool
	MaxTTL    uint32 // most of a TTL that is shown; 0: all
	Pick      uint32 // random, for the start of the rotation
	Client    uint32 // hash of the client's address and port: chooses which records stay when the answer is cut
	EDE       uint16 // Extended DNS Error, if the client sent an OPT; 0: the answer's own, if it has one; EDEOther sends 0
	EDEText   string // at most 160 bytes of it are sent
	AD        bool
}

// ttl returns the TTL to show.
func (r *Render) ttl(ttl uint32) uint32 {
	if ttl = r.aged(ttl); r.MaxTTL > 0 {
		return min(ttl, r.MaxTTL)
	}
	return ttl
}

// touchesTTL reports whether TTLs are shown as other than they are.
func (r *Render) touchesTTL() bool { return r.UseFixTTL || r.Age > 0 || r.MaxTTL > 0 }

func (r *Render) aged(ttl uint32) uint32 {
	switch {
	case r.UseFixTTL:
		return r.FixTTL
	case ttl > r.Age:
		return ttl - r.Age
	case ttl > 0:
		return 1
	}
	return 0
}

// start returns the record of n at which a rotation starts.
func (r *Render) start(n int) int { return int(uint64(r.Pick) * uint64(n) >> 32) }

// window returns the record of n at which what a client gets of a cut set starts.
func (r *Render) window(n int) int { return int(uint64(stir(r.Client)) * uint64(n) >> 32) }

// stride returns how far apart of n records those stand that follow one another in what a client gets: it has no common
// divisor with n, so that n steps meet every record once.
func (r *Render) stride(n int) int {
	if n < 3 {
		return 1
	}
	step := 1 + int(uint64(stir(^r.Client))*uint64(n-1)>>32)
	for gcd(step, n) != 1 {
		if step++; step == n {
			step = 1
		}
	}
	return step
}

// stir makes a hash that differs in its low bits only as good as any.
func stir(h uint32) uint32 {
	h *= 0x9e3779b1
	h ^= h >> 15
	h *= 0x85ebca77
	return h ^ h>>13
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Append appends the answer as q's client gets it, and returns the extended buffer: with the client's ID, RD, CD and spelling of
// the question, RA, TTLs aged, sets rotated, cut to the client's limit and to the answer's policy, and with an OPT if q had one. It
// allocates nothing when dst has room. An answer to another question than q's is a fault of the caller; the client gets
// SERVFAIL.
//
// When it must be cut, first go expendable records, then additional records that belong to no answer, then the authority
// section of a positive answer; none of this sets TC. Then answers go, each with its glue, and TC says so. Of a set that may be
// moved, the records that stay begin at a place that the client's hash chooses, so that over many clients every
// record is sent equally often.
func (a *Answer) Append(dst []byte, q *Query, r Render) []byte {
	if r.EDE == 0 {
		r.EDE, r.EDEText = a.ede, a.edeText
	}
	if a.end() != q.end {
		if len(a.recs) == 0 {
			return AppendError(dst, q, a.rcode, r.EDE, r.EDEText)
		}
		return AppendError(dst, q, RcodeServFail, r.EDE, r.EDEText)
	}
	limit, opt := q.Limit(), optSize(q, &r)
	if len(a.msg)+opt > limit && len(r.EDEText) > 0 {
		r.EDEText = ""
		opt = optSize(q, &r)
	}
	most := a.mostAnswers(q, limit)
	if len(a.msg)+opt > limit || most < a.answers() {
		return a.appendCut(dst, q, &r, limit-opt, most)
	}
	base := len(dst)
	dst = append(dst, a.msg...)
	m := dst[base:]
	a.putHeader(m, q, &r, a.flags&flagTC)
	a.rotate(m, &r)
	if r.touchesTTL() {
		a.age(m, &r)
	}
	return appendReplyOPT(dst, base, q, a.rcode, q.DO && a.EDNS(), &r)
}

// mostAnswers returns how many answers policy lets this client have.
func (a *Answer) mostAnswers(q *Query, limit int) int {
	most := maxMessage
	if n := a.policy.maxAnswers; n > 0 {
		most = n
	}
	if n := a.policy.maxUDP; n > 0 && !q.TCP && limit == minUDP {
		most = min(most, n)
	}
	return most
}

// putHeader writes ID, flags and question over those of the template m begins with.
func (a *Answer) putHeader(m []byte, q *Query, r *Render, tc uint16) {
	flags := a.rcode&15 | tc
	if a.rcode > 15 && !q.EDNS {
		flags = RcodeServFail | tc // the upper bits have no place
	}
	if a.flags&isOwn != 0 {
		flags |= a.flags & flagAA
	}
	if r.AD {
		flags |= flagAD
	}
	putHeader(m, q, flags)
	copy(m[headerSize:], q.question())
}

// putHeader writes ID and flags: those given, QR, RA, and what is echoed.
func putHeader(m []byte, q *Query, flags uint16) {
	flags |= flagQR | flagRA | uint16(q.Opcode)<<11
	if q.RD {
		flags |= flagRD
	}
	if q.CD {
		flags |= flagCD
	}
	binary.BigEndian.PutUint16(m, q.ID)
	binary.BigEndian.PutUint16(m[2:], flags)
}

// rotate turns every set of m, which holds the whole answer, to its start, and points its glue there.
func (a *Answer) rotate(m []byte, r *Render) {
	var s set
	for i := 0; i < a.ans(); i += s.n {
		s = a.setAt(i)
		k := r.start(s.n)
		if k == 0 {
			continue
		}
		first, mid, end := int(a.recs[s.first].off), int(a.recs[s.first+k].off), a.recEnd(s.first+s.n-1)
		copy(m[first:], a.msg[mid:end])
		copy(m[first+end-mid:], a.msg[first:mid])
		if a.glue() > a.auth() {
			a.pointGlue(m, s.first, s.first+k, end-mid)
			a.pointGlue(m, s.first+k, s.first+s.n, first-mid)
		}
	}
}

// pointGlue points the glue of the answers [from, to) at where they moved by so many bytes.
func (a *Answer) pointGlue(m []byte, from, to, moved int) {
	for i := from; i < to; i++ {
		for g, past := a.glueOf(i); g < past; g++ {
			if at := a.pointsAt(g); at > 0 {
				binary.BigEndian.PutUint16(m[a.recs[g].off:], 0xc000|uint16(int(a.recs[i].off)+moved+at))
			}
		}
	}
}

// age writes the TTLs to show into m, which holds the whole answer, its sets turned to their starts.
func (a *Answer) age(m []byte, r *Render) {
	var s set
	for i := 0; i < a.ans(); i += s.n {
		s = a.setAt(i)
		k := r.start(s.n)
		first, mid, end := int(a.recs[i].off), int(a.recs[i+k].off), a.recEnd(i+s.n-1)
		a.ageRun(m, r, i, i+k, end-mid)
		a.ageRun(m, r, i+k, i+s.n, first-mid)
	}
	a.ageRun(m, r, a.ans(), len(a.recs), 0)
}

func (a *Answer) ageRun(m []byte, r *Render, from, to, moved int) {
	for i := from; i < to; i++ {
		rec := &a.recs[i]
		ttl := m[int(rec.off)+moved+int(rec.owner)+4:]
		binary.BigEndian.PutUint32(ttl, r.ttl(binary.BigEndian.Uint32(ttl)))
	}
}

// optSize returns the bytes of the OPT that q's client gets.
func optSize(q *Query, r *Render) int {
	if !q.EDNS {
		return 0
	}
	n := 1 + fixedSize
	if q.ECS != nil {
		n += 4 + len(q.ECS)
	}
	if r.EDE != 0 {
		n += 6 + min(len(r.EDEText), maxEDEText)
	}
	return n
}

// appendReplyOPT appends an OPT of our own: version 0, the size that we take, DO as the client's where the answer can have what it
// asks for (RFC 3225 section 3), a client
// subnet as it came with scope 0 (valid for everybody), and an Extended DNS Error. Of the client's other options none is
// understood and none is echoed.
func appendReplyOPT(dst []byte, base int, q *Query, rcode uint16, do bool, r *Render) []byte {
	if !q.EDNS {
		return dst
	}
	additional := dst[base+10:]
	binary.BigEndian.PutUint16(additional, binary.BigEndian.Uint16(additional)+1)
	dst = appendOPT(dst, rcode, do)
	options := len(dst)
	if q.ECS != nil {
		dst = append(dst, 0, optionECS, 0, byte(len(q.ECS)))
		dst = append(dst, q.ECS...)
	}
	if r.EDE != 0 {
		code := r.EDE
		if code == EDEOther {
			code = 0
		}
		text := r.EDEText[:min(len(r.EDEText), maxEDEText)]
		dst = append(dst, 0, optionEDE, 0, byte(2+len(text)))
		dst = binary.BigEndian.AppendUint16(dst, code)
		dst = append(dst, text...)
	}
	binary.BigEndian.PutUint16(dst[options-2:], uint16(len(dst)-options))
	return dst
}

// AppendError appends a reply without records: header, the question as far as it could be read, an OPT if q had one. An rcode above
// 15 is SERVFAIL to a client without EDNS. It allocates nothing when dst has room.
func AppendError(dst []byte, q *Query, rcode uint16, ede uint16, text string) []byte {
	base := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, q.questions(), 0, 0, 0, 0, 0, 0)
	dst = append(dst, q.question()...)
	flags := rcode & 15
	if rcode > 15 && !q.EDNS {
		flags = RcodeServFail
	}
	putHeader(dst[base:], q, flags)
	r := Render{EDE: ede, EDEText: text}
	if len(dst)-base+optSize(q, &r) > q.Limit() {
		r.EDEText = ""
	}
	return appendReplyOPT(dst, base, q, rcode, q.DO, &r)
}
