package wire

import (
	"encoding/binary"
	"fmt"
)

// Reply is what Pack makes an Answer of.
type Reply struct {
	Rcode uint16 // 0..15
	AA    bool
	RRs   []RR
	// MaxAnswers is the most Answer records of a rendering, over any transport; 0: no limit. CNAME records don't count,
	// they lead to answers. Policy never sets TC.
	MaxAnswers int
	// MaxUDP is the same for UDP clients whose limit is 512 bytes; 0: no limit.
	MaxUDP int
	// NoTC keeps TC clear when records are cut for size (Consul's enable_truncate = false). An answer of which nothing
	// fits has TC all the same: without it it would say that there is nothing.
	NoTC bool
	// Rotate starts each rendering at another record of a set, and lets a hash of the client choose which records stay
	// when a set must be cut. Otherwise the order is kept and the last go.
	Rotate bool
	// Plain makes an answer of one that came without an OPT, see Answer.EDNS.
	Plain bool
}

// maxPointer is the highest offset that a compression pointer can hold.
const maxPointer = 0x3fff

// Pack makes the answer to q's question of our own records. Names are compressed into the question only, so that records
// can move: owners but of what goes with an answer, and the rdata of CNAME, NS, PTR and SOA, but never the target of an SRV (RFC 2782). When there is more than
// a message can hold, the same records go as when a client's limit is lower: expendable ones, those that belong to
// nothing, then answers from the end, each with its glue; the caller chose the order.
func Pack(q *Query, r *Reply) (*Answer, error) {
	if q.end == 0 {
		return nil, fmt.Errorf("pack an answer: the query holds no question")
	}
	if r.Rcode > 15 {
		return nil, fmt.Errorf("pack an answer for %s: rcode %d does not fit the header", Name(q.Name()), r.Rcode)
	}
	p := packer{q: q, rrs: r.RRs, class: q.Class}
	if p.class == ClassANY {
		p.class = ClassIN
	}
	p.findSuffixes()
	if err := p.measure(); err != nil {
		return nil, fmt.Errorf("pack an answer for %s: %w", Name(q.Name()), err)
	}
	p.fit()
	a := p.write(r)
	a.findOwnSets(r.Rotate)
	a.finish()
	return a, nil
}

// packer is one run of Pack.
type packer struct {
	q     *Query
	rrs   []RR
	class uint16
	// suffix says for each length of a name's tail whether the question ends with a tail that long.
	suffix [maxName + 1]bool
	size   []int // of each record, packed; 0: left out
	far    bool  // answers may lie beyond what a pointer reaches
	out    *Answer
}

func (p *packer) findSuffixes() {
	name := p.q.Name()
	for i := 0; i < len(name)-1; i += 1 + int(name[i]) {
		p.suffix[len(name)-i] = true
	}
}

// split returns how many bytes of n are written out, and where in the message the rest of it is; 0: nowhere, n is
// written whole.
func (p *packer) split(n []byte) (literal, target int) {
	name := p.q.Name()
	for i := 0; i < len(n)-1; i += 1 + int(n[i]) {
		tail := len(n) - i
		if tail <= len(name) && p.suffix[tail] && equalFold(n[i:], name[len(name)-tail:]) {
			return i, headerSize + len(name) - tail
		}
	}
	return len(n), 0
}

func (p *packer) nameSize(n []byte) int {
	literal, target := p.split(n)
	if target == 0 {
		return literal
	}
	return literal + 2
}

func (p *packer) appendName(dst, n []byte) []byte {
	literal, target := p.split(n)
	dst = append(dst, n[:literal]...)
	if target != 0 {
		dst = binary.BigEndian.AppendUint16(dst, 0xc000|uint16(target))
	}
	return dst
}

// compressible returns how many names the rdata of a type begins with that may be compressed.
func compressible(t Type) int {
	switch t {
	case TypeCNAME, TypeNS, TypePTR:
		return 1
	case TypeSOA:
		return 2
	}
	return 0
}

// targetAt returns where in the rdata the name lies that glue belongs to; -1: nowhere.
func targetAt(t Type) int {
	switch t {
	case TypeSRV:
		return 6
	case TypeMX:
		return 2
	case TypeNS, TypeCNAME, TypePTR:
		return 0
	}
	return -1
}

// measure checks every record and works out its packed size.
func (p *packer) measure() error {
	p.size = make([]int, len(p.rrs))
	answers := 0
	for i := range p.rrs {
		rr := &p.rrs[i]
		if err := p.check(rr); err != nil {
			return err
		}
		data, err := p.dataSize(rr)
		if err != nil {
			return err
		}
		p.size[i] = p.ownerSize(rr) + fixedSize + data
		if rr.Section == Answers {
			answers += p.size[i]
		}
	}
	p.far = p.q.end+answers > maxPointer
	for i := range p.rrs {
		if rr := &p.rrs[i]; p.pointsAtTarget(rr) {
			p.size[i] = 2 + fixedSize + len(rr.Data)
		}
	}
	return nil
}

// ownerSize returns the packed size of a record's owner. What goes with an answer is spelled as that answer's target is,
// not as the client spelled the question: its owner is written whole, unless it is the target.
func (p *packer) ownerSize(rr *RR) int {
	if rr.With > 0 {
		return len(rr.Owner)
	}
	return p.nameSize([]byte(rr.Owner))
}

func (p *packer) check(rr *RR) error {
	if !rr.Owner.IsValid() {
		return fmt.Errorf("record of type %s: owner %q is no name in wire form", TypeString(rr.Type), string(rr.Owner))
	}
	if rr.Section > Additional {
		return fmt.Errorf("record of %s, type %s: no section %d", rr.Owner, TypeString(rr.Type), rr.Section)
	}
	if rr.Type == TypeOPT {
		return fmt.Errorf("record of %s: an OPT is added when the answer is rendered", rr.Owner)
	}
	if n := len(rr.Data); rr.Type == TypeA && n != 4 || rr.Type == TypeAAAA && n != 16 {
		return fmt.Errorf("record of %s, type %s: %d bytes are no such address", rr.Owner, TypeString(rr.Type), n)
	}
	if len(rr.Data) > maxMessage {
		return fmt.Errorf("record of %s, type %s: %d bytes of rdata are too many", rr.Owner, TypeString(rr.Type), len(rr.Data))
	}
	if rr.With == 0 {
		return nil
	}
	if w := rr.With - 1; rr.Section != Additional || w < 0 || w >= len(p.rrs) || p.rrs[w].Section != Answers {
		return fmt.Errorf("record of %s, type %s: only an additional record goes with an answer", rr.Owner, TypeString(rr.Type))
	}
	return nil
}

// dataSize returns the packed size of a record's rdata.
func (p *packer) dataSize(rr *RR) (int, error) {
	data, size := rr.Data, 0
	for range compressible(rr.Type) {
		n := plainName(data)
		if n == 0 {
			return 0, fmt.Errorf("record of %s, type %s: rdata holds no uncompressed name", rr.Owner, TypeString(rr.Type))
		}
		size += p.nameSize(data[:n])
		data = data[n:]
	}
	if rr.Type == TypeSOA && len(data) != 20 {
		return 0, fmt.Errorf("record of %s, type SOA: %d bytes after the names, want 20", rr.Owner, len(data))
	}
	return size + len(data), nil
}

// plainName returns the length of the uncompressed name that b begins with; 0: there is none.
func plainName(b []byte) int {
	for i := 0; i < len(b) && b[i] <= maxLabel; i += 1 + int(b[i]) {
		if b[i] == 0 && i < maxName {
			return i + 1
		}
	}
	return 0
}

// pointsAtTarget reports whether a glue record's owner is written as a pointer to the name in its answer record.
func (p *packer) pointsAtTarget(rr *RR) bool {
	if rr.With == 0 || p.far {
		return false
	}
	of := &p.rrs[rr.With-1]
	at := targetAt(of.Type)
	if at < 0 || len(of.Data) != at+len(rr.Owner) || string(of.Data[at:]) != string(rr.Owner) {
		return false
	}
	if compressible(of.Type) == 0 {
		return true
	}
	// A target that is only a pointer into the question has no place of its own to point at; and the owner is as short.
	literal, _ := p.split(of.Data[at:])
	return literal > 0
}

// fit leaves out records until the rest fits a message.
func (p *packer) fit() {
	total := p.q.end
	for _, n := range p.size {
		total += n
	}
	drop := func(i int) {
		total -= p.size[i]
		p.size[i] = 0
	}
	sweep := func(goes func(*RR) bool) {
		for i := len(p.rrs) - 1; i >= 0 && total > maxMessage; i-- {
			if goes(&p.rrs[i]) {
				drop(i)
			}
		}
	}
	if total <= maxMessage {
		return
	}
	sweep(func(rr *RR) bool { return rr.Expendable })
	sweep(func(rr *RR) bool { return rr.Section == Additional && rr.With == 0 })

	glue := p.glueByAnswer()
	for i := len(p.rrs) - 1; i >= 0 && total > maxMessage; i-- {
		if p.rrs[i].Section != Answers {
			continue
		}
		drop(i)
		for _, g := range glue[i] {
			drop(g)
		}
	}
	sweep(func(*RR) bool { return true })
}

// glueByAnswer lists for each answer the records that go with it.
func (p *packer) glueByAnswer() map[int][]int {
	m := make(map[int][]int)
	for i := range p.rrs {
		if w := p.rrs[i].With; w > 0 {
			m[w-1] = append(m[w-1], i)
		}
	}
	return m
}

// write packs the records that stay: answers, authority, glue in the order of its answers, other additional records.
func (p *packer) write(r *Reply) *Answer {
	total, count := p.q.end, 0
	for _, n := range p.size {
		total += n
		if n > 0 {
			count++
		}
	}
	a := &Answer{flags: isOwn, rcode: r.Rcode, extra: &noExtra, msg: make([]byte, headerSize, total)}
	a.toEnd = uint16(p.q.end)
	a.room(count)
	if how := (policy{maxAnswers: r.MaxAnswers, maxUDP: r.MaxUDP, noTC: r.NoTC}); how != (policy{}) {
		a.more().policy = how
	}
	if r.AA {
		a.flags |= flagAA
	}
	if !r.Plain {
		a.flags |= hasOPT
	}
	a.msg = append(a.msg, p.q.Name()...)
	a.msg = append(a.msg, p.q.Msg[p.q.end-4:p.q.end]...)
	p.out = a
	at := p.writeSection(func(rr *RR) bool { return rr.Section == Answers })
	a.toAns = uint16(len(a.recs))
	p.writeSection(func(rr *RR) bool { return rr.Section == Authority })
	a.toAuth = uint16(len(a.recs))
	p.writeGlue(at)
	a.toGlue = uint16(len(a.recs))
	p.writeSection(func(rr *RR) bool { return rr.Section == Additional && rr.With == 0 })
	a.measureUnits()
	putCounts(a.msg, 1, a.ans(), a.auth()-a.ans(), len(a.recs)-a.auth())
	return a
}

// writeSection writes the records that belong, and returns where each of rrs went.
func (p *packer) writeSection(belongs func(*RR) bool) (at []int) {
	at = make([]int, len(p.rrs))
	for i := range p.rrs {
		if p.size[i] > 0 && belongs(&p.rrs[i]) {
			at[i] = len(p.out.recs)
			p.writeRecord(&p.rrs[i])
		}
	}
	return at
}

// writeGlue writes the records that go with answers; at says where the answers went.
func (p *packer) writeGlue(at []int) {
	order := p.glueOrder()
	if len(order) == 0 {
		return
	}
	ties := make([]tie, cap(p.out.recs))
	p.out.more().ties = ties
	for _, i := range order {
		rr := &p.rrs[i]
		to := at[rr.With-1]
		if ties[to].past == 0 {
			ties[to].first = uint16(len(p.out.recs))
		}
		ties[to].past = uint16(len(p.out.recs)) + 1
		if !p.pointsAtTarget(rr) {
			p.writeRecord(rr)
			continue
		}
		of := &p.out.recs[to]
		name := int(of.owner) + fixedSize + targetAt(p.rrs[rr.With-1].Type)
		start := len(p.out.msg)
		p.out.msg = binary.BigEndian.AppendUint16(p.out.msg, 0xc000|uint16(int(of.off)+name))
		ties[len(p.out.recs)].at = uint16(name)
		p.writeRest(rr, start)
	}
}

// glueOrder lists the glue that stays, by its answer and as it was given, by counting.
func (p *packer) glueOrder() []int {
	start := make([]int, len(p.rrs)+1)
	for i := range p.rrs {
		if w := p.rrs[i].With; w > 0 && p.size[i] > 0 {
			start[w]++
		}
	}
	for i := 1; i < len(start); i++ {
		start[i] += start[i-1]
	}
	order := make([]int, start[len(start)-1])
	for i := range p.rrs {
		if w := p.rrs[i].With; w > 0 && p.size[i] > 0 {
			order[start[w-1]] = i
			start[w-1]++
		}
	}
	return order
}

func (p *packer) writeRecord(rr *RR) {
	start := len(p.out.msg)
	if rr.With > 0 {
		p.out.msg = append(p.out.msg, rr.Owner...)
	} else {
		p.out.msg = p.appendName(p.out.msg, []byte(rr.Owner))
	}
	p.writeRest(rr, start)
}

// writeRest writes what follows the owner of the record that begins at start.
func (p *packer) writeRest(rr *RR, start int) {
	m := p.out.msg
	rec := record{off: uint16(start), owner: uint8(len(m) - start)}
	if rr.Expendable {
		rec.marks = expendable
	}
	m = binary.BigEndian.AppendUint16(m, rr.Type)
	m = binary.BigEndian.AppendUint16(m, p.class)
	m = binary.BigEndian.AppendUint32(m, rr.TTL)
	m = append(m, 0, 0)
	at := len(m)
	data := rr.Data
	for range compressible(rr.Type) {
		n := plainName(data)
		m = p.appendName(m, data[:n])
		data = data[n:]
	}
	m = append(m, data...)
	binary.BigEndian.PutUint16(m[at-2:], uint16(len(m)-at))
	p.out.msg = m
	p.out.recs = append(p.out.recs, rec)
}

// measureUnits notes for each answer its size with the glue it takes along, if any does.
func (a *Answer) measureUnits() {
	if a.ties == nil {
		return
	}
	for i := range a.ans() {
		n := a.recBytes(i)
		for g, past := a.glueOf(i); g < past; g++ {
			if !a.recs[g].is(expendable) {
				n += a.recBytes(g)
			}
		}
		a.ties[i].unit = uint16(n)
	}
}

// findOwnSets finds the runs of answers that may be moved, if any may: of one owner, CNAMEs apart, expendable ones for themselves.
func (a *Answer) findOwnSets(rotate bool) {
	first := 0
	for i := 1; i <= a.ans(); i++ {
		if rotate && i < a.ans() && a.moveTogether(first, i) {
			continue
		}
		a.addSet(first, i)
		first = i
	}
}

func (a *Answer) moveTogether(i, j int) bool {
	r, s := &a.recs[i], &a.recs[j]
	return r.is(expendable) == s.is(expendable) && a.recType(i) != TypeCNAME && a.recType(j) != TypeCNAME &&
		equalFold(a.msg[r.off:int(r.off)+int(r.owner)], a.msg[s.off:int(s.off)+int(s.owner)])
}

// putCounts writes the four counts of a header.
func putCounts(msg []byte, questions, answers, authority, additional int) {
	binary.BigEndian.PutUint16(msg[4:], uint16(questions))
	binary.BigEndian.PutUint16(msg[6:], uint16(answers))
	binary.BigEndian.PutUint16(msg[8:], uint16(authority))
	binary.BigEndian.PutUint16(msg[10:], uint16(additional))
}
