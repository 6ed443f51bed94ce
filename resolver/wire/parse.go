package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// TTLCap is what a TTL with its top bit set is taken as, in seconds: such a value is large, not negative, and to be capped
// (RFC 8767 section 4).
const TTLCap = 86400

// What is wrong with a message. All are wrapped by ParseAnswer.
var (
	errShort     = errors.New("it ends too early")
	errNotReply  = errors.New("it is not a response to a query")
	errQuestions = errors.New("it has not one question")
	errPointer   = errors.New("a compression pointer leads to no name before it")
	errData      = errors.New("rdata does not have the form of its type")
	errTooLong   = errors.New("it is longer than 65535 bytes")
)

// ErrOPT is wrapped by ParseAnswer's error where it is the OPT that is wrong: without one the same server may do better.
var ErrOPT = errors.New("an OPT is not alone, misplaced or malformed")

// ParseAnswer makes an Answer of an upstream's response, which it copies. It walks every section and refuses a message in which
// anything does not add up: a compression pointer that does not lead back to a name, a name of more than 255 bytes, rdata that is
// not of its type's form. Octets after the last record are passed over, and a message that says that it is cut (TC) may end
// within a record: what is whole of it counts. The OPT is taken out; its Extended DNS Error and upper rcode bits are kept. The TTLs
// of one RRset are made equal to the lowest (RFC 2181 section 5.2). A response without a question has no records (a server that
// could not read the query).
func ParseAnswer(msg []byte) (*Answer, error) {
	a, err := parseAnswer(msg)
	if err != nil {
		return nil, fmt.Errorf("parse a response of %d bytes: %w", len(msg), err)
	}
	return a, nil
}

func parseAnswer(msg []byte) (*Answer, error) {
	if len(msg) > maxMessage {
		return nil, errTooLong
	}
	if len(msg) < headerSize {
		return nil, errShort
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&flagQR == 0 || flags>>11&15 != 0 {
		return nil, errNotReply
	}
	w := walker{a: &Answer{flags: flags & (flagAA | flagTC | flagAD | flagRA), rcode: flags & 15, extra: &noExtra}}
	if err := w.splitOPT(msg); err != nil {
		return nil, err
	}
	if err := w.walk(); err != nil {
		return nil, err
	}
	w.equaliseTTLs()
	w.findSets()
	w.a.finish()
	return w.a, nil
}

// walker is one run of ParseAnswer.
type walker struct {
	a     *Answer
	count [3]int // records of each section, the OPT apart
	end   int    // of the last record noted

	// The bytes [gap, gap+gapLen) of the message as received were an OPT; pointers beyond it are shortened.
	gap, gapLen int

	start [(maxPointer + 1) / 64]uint64 // labels that may be pointed at, a bit for each offset

	// Of each record a hash of owner, type and class; the first few apart, for most messages have no more and so take nothing
	// from the heap.
	few  [16]uint64
	more []uint64
}

func (w *walker) key(i int) uint64 {
	if i < len(w.few) {
		return w.few[i]
	}
	return w.more[i-len(w.few)]
}

func (w *walker) addKey(k uint64) {
	if i := len(w.a.recs) - 1; i < len(w.few) {
		w.few[i] = k
		return
	}
	w.more = append(w.more, k)
}

// splitOPT copies the message without its OPT and reads that.
func (w *walker) splitOPT(msg []byte) error {
	var counts [4]int
	for i := range counts {
		counts[i] = int(binary.BigEndian.Uint16(msg[4+2*i:]))
	}
	if counts[0] > 1 {
		return errQuestions
	}
	w.count = [3]int(counts[1:])
	total := counts[1] + counts[2] + counts[3]
	cut := w.a.flags&flagTC != 0
	p := headerSize
	if counts[0] == 1 {
		if p = skipName(msg, p); p < 0 || p+4 > len(msg) {
			return errShort
		}
		p += 4
	}
	w.a.toEnd = uint16(p)
	if total > (len(msg)-p)/(1+fixedSize) && !cut {
		return errShort
	}
	for i := range total {
		owner := p
		next := recordEnd(msg, p)
		if next < 0 && cut {
			w.endAt(i)
			break
		}
		if p = skipName(msg, p); p < 0 {
			return errPointer
		}
		if next < 0 {
			return errShort
		}
		typ := binary.BigEndian.Uint16(msg[p:])
		if typ == TypeOPT {
			if w.gapLen > 0 || i < counts[1]+counts[2] || msg[owner] != 0 || !w.a.readOPT(msg[p:next]) {
				return ErrOPT
			}
			w.gap, w.gapLen = owner, next-owner
			w.a.flags |= hasOPT
			w.count[2]--
		}
		p = next
	}
	msg = msg[:p]
	if counts[0] == 0 && w.count != [3]int{} {
		return errQuestions
	}
	w.a.msg = make([]byte, 0, len(msg)-w.gapLen)
	if w.gapLen == 0 {
		w.gap = len(msg)
	}
	w.a.msg = append(append(w.a.msg, msg[:w.gap]...), msg[w.gap+w.gapLen:]...)
	putCounts(w.a.msg, counts[0], w.count[0], w.count[1], w.count[2])
	return nil
}

// recordEnd returns the offset after the record at p, or -1 if it isn't whole.
func recordEnd(msg []byte, p int) int {
	p = skipName(msg, p)
	if p < 0 || p+fixedSize > len(msg) {
		return -1
	}
	if p += fixedSize + int(binary.BigEndian.Uint16(msg[p+8:])); p > len(msg) {
		return -1
	}
	return p
}

// endAt leaves out all records from the i-th on.
func (w *walker) endAt(i int) {
	if w.gapLen > 0 {
		i-- // the OPT is not counted any more
	}
	for s := range w.count {
		w.count[s] = min(w.count[s], i)
		i -= w.count[s]
	}
}

// readOPT reads an OPT from its type on.
func (a *Answer) readOPT(opt []byte) bool {
	a.rcode |= uint16(opt[4]) << 4
	options := opt[fixedSize:]
	for len(options) > 0 {
		if len(options) < 4 {
			return false
		}
		code, n := binary.BigEndian.Uint16(options), int(binary.BigEndian.Uint16(options[2:]))
		options = options[4:]
		if n > len(options) {
			return false
		}
		if code == optionEDE && n >= 2 && a.ede == 0 {
			x := a.more()
			if x.ede = binary.BigEndian.Uint16(options); x.ede == 0 {
				x.ede = EDEOther
			}
			x.edeText = string(options[2:min(n, 2+maxEDEText)])
		}
		options = options[n:]
	}
	return true
}

// walk checks the question and every record, and notes where they are.
func (w *walker) walk() error {
	a := w.a
	total := w.count[0] + w.count[1] + w.count[2]
	a.room(total)
	if a.end() > headerSize {
		if p, err := w.name(headerSize); err != nil || p != a.end()-4 {
			return errQuestions
		}
		for i, c := range a.msg[headerSize : a.end()-4] { // each client gets its own spelling
			a.msg[headerSize+i] = lower[c]
		}
	}
	p := a.end()
	for range total {
		next, err := w.record(p)
		if err != nil {
			return err
		}
		p = next
	}
	a.toAns = uint16(w.count[0])
	a.toAuth = uint16(w.count[0] + w.count[1])
	a.toGlue = a.toAuth
	return nil
}

// record checks the record at p, notes it, and returns the offset after it.
func (w *walker) record(p int) (int, error) {
	a := w.a
	fixed, err := w.name(p)
	if err != nil {
		return 0, err
	}
	data := fixed + fixedSize
	end := data + int(binary.BigEndian.Uint16(a.msg[fixed+8:]))
	k := w.hash(p, fixed, data, end)
	a.recs = append(a.recs, record{off: uint16(p), owner: uint8(fixed - p)})
	w.end = end
	w.addKey(k)
	if ttl := a.msg[fixed+4:]; ttl[0]&0x80 != 0 {
		binary.BigEndian.PutUint32(ttl, TTLCap)
	}
	return end, w.data(binary.BigEndian.Uint16(a.msg[fixed:]), data, end)
}

// data checks the names in rdata, and the length where a type fixes it.
func (w *walker) data(typ Type, p, end int) error {
	l, known := layoutOf(typ)
	if !known {
		return nil
	}
	p += l.before
	if typ == TypeNAPTR {
		p = skipStrings(w.a.msg, p, end, 3)
	}
	for range l.names {
		if p < 0 || p >= end {
			return errData
		}
		next, err := w.name(p)
		if err != nil {
			return err
		}
		p = next
	}
	if p < 0 || p+max(l.after, 0) > end || l.after >= 0 && p+l.after != end {
		return errData
	}
	return nil
}

// layout is where the names of a type's rdata are: bytes before them, how many, bytes after them; -1: any number.
type layout struct{ before, names, after int }

// layoutOf returns the layout of a type that is known.
func layoutOf(t Type) (layout, bool) {
	if int(t) >= len(layouts) || layouts[t] == (layout{}) {
		return layout{}, false
	}
	return layouts[t], true
}

// layouts holds the types whose names a sender may have compressed (RFC 3597 section 4), those of DNSSEC whose names a
// pointer may lead to, and the two whose length matters most.
var layouts = [...]layout{
	TypeA: {4, 0, 0}, TypeAAAA: {16, 0, 0},
	TypeNS: {0, 1, 0}, TypeMD: {0, 1, 0}, TypeMF: {0, 1, 0}, TypeCNAME: {0, 1, 0}, TypeMB: {0, 1, 0}, TypeMG: {0, 1, 0},
	TypeMR: {0, 1, 0}, TypePTR: {0, 1, 0}, TypeDNAME: {0, 1, 0},
	TypeSOA: {0, 2, 20}, TypeMINFO: {0, 2, 0}, TypeRP: {0, 2, 0},
	TypeMX: {2, 1, 0}, TypeAFSDB: {2, 1, 0}, TypeRT: {2, 1, 0}, TypeKX: {2, 1, 0}, TypePX: {2, 2, 0},
	TypeSRV: {6, 1, 0}, TypeNAPTR: {4, 1, 0},
	TypeSIG: {18, 1, -1}, TypeRRSIG: {18, 1, -1}, TypeNXT: {0, 1, -1}, TypeNSEC: {0, 1, -1},
}

// skipStrings returns the offset after n character-strings, or -1.
func skipStrings(msg []byte, p, end, n int) int {
	for range n {
		if p >= end {
			return -1
		}
		p += 1 + int(msg[p])
	}
	return p
}

// name checks the name at p, shortens its pointer if it leads beyond the OPT that was taken out, notes its labels as
// places to point at, and returns the offset after it.
func (w *walker) name(p int) (next int, err error) {
	msg := w.a.msg
	length, labels, bound := 0, 0, len(msg)
	next = -1
	for {
		if p >= bound {
			return 0, errShort
		}
		l := int(msg[p])
		switch {
		case l <= maxLabel:
			length, labels = length+1+l, labels+1
			if length > maxName || labels > maxLabels || p+1+l > bound {
				return 0, errLongName
			}
			if next < 0 && p <= maxPointer {
				w.start[p/64] |= 1 << (p % 64)
			}
			p += 1 + l
			if l > 0 {
				continue
			}
			if next < 0 {
				next = p
			}
			return next, nil
		case l < 0xc0 || p+2 > bound:
			return 0, errPointer
		}
		to := int(binary.BigEndian.Uint16(msg[p:])) & maxPointer
		if next < 0 {
			next = p + 2
			if p >= w.gap && to >= w.gap {
				if to < w.gap+w.gapLen {
					return 0, errPointer
				}
				to -= w.gapLen
				binary.BigEndian.PutUint16(msg[p:], 0xc000|uint16(to))
			}
			if p <= maxPointer && to >= headerSize {
				w.start[p/64] |= 1 << (p % 64) // a name that is only a pointer may be pointed at
			}
		}
		if to < headerSize || to >= p {
			return 0, errPointer
		}
		if bound, err = w.pointed(to, bound); err != nil {
			return 0, err
		}
		p = to
	}
}

// pointed checks that a pointer may lead to an offset: a label of a name before it, or any byte of rdata that we cannot
// read, if the name stays within. It returns where the name there must end at the latest.
func (w *walker) pointed(to, bound int) (int, error) {
	known := w.start[to/64]&(1<<(to%64)) != 0
	if to < w.a.end() {
		if !known {
			return 0, errPointer
		}
		return bound, nil
	}
	i := w.find(to)
	if i < 0 {
		// In the owner being read: a name that leads into itself.
		return 0, errPointer
	}
	w.a.recs[i].marks |= pinned
	if known {
		return bound, nil
	}
	rec := &w.a.recs[i]
	data := int(rec.off) + int(rec.owner) + fixedSize
	if _, known := layoutOf(w.a.recType(i)); known || to < data {
		return 0, errPointer
	}
	return min(w.a.recEnd(i), w.end), nil
}

// find returns the record noted so far that holds an offset, or -1.
func (w *walker) find(off int) int {
	lo, hi := 0, len(w.a.recs)
	for lo < hi {
		mid := (lo + hi) / 2
		if int(w.a.recs[mid].off) <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return -1
	}
	if off >= w.end {
		return -1
	}
	return lo - 1
}

// hash hashes what makes an RRset: owner, type, class, and the type covered by a signature. Two sets with equal hashes would
// share a TTL and perhaps a rotation, which harms nobody.
func (w *walker) hash(owner, fixed, data, end int) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	msg := w.a.msg
	h := uint64(offset)
	typ := binary.BigEndian.Uint16(msg[fixed:])
	signature := typ == TypeRRSIG || typ == TypeSIG
	if n := len(w.a.recs); n > 0 && fixed-owner == 2 && !signature {
		// Most often owner, type and class are the very bytes of the record before.
		prev := &w.a.recs[n-1]
		if prev.owner == 2 && string(msg[prev.off:prev.off+6]) == string(msg[owner:owner+6]) {
			return w.key(n - 1)
		}
	}
	for p := owner; msg[p] != 0; {
		if msg[p] >= 0xc0 {
			p = int(binary.BigEndian.Uint16(msg[p:])) & maxPointer
			continue
		}
		for range 1 + int(msg[p]) {
			h = (h ^ uint64(lower[msg[p]])) * prime
			p++
		}
	}
	for _, c := range msg[fixed : fixed+4] {
		h = (h ^ uint64(c)) * prime
	}
	if signature && end-data >= 2 {
		h = (h ^ uint64(msg[data])) * prime
		h = (h ^ uint64(msg[data+1])) * prime
	}
	return h
}

// equaliseTTLs gives all records of an RRset its lowest TTL (RFC 2181 section 5.2).
func (w *walker) equaliseTTLs() {
	a := w.a
	if len(w.more) > 0 {
		w.equaliseMany()
		return
	}
	keys := w.few[:len(a.recs)]
	for i, k := range keys {
		lowest := a.recTTL(i)
		for j, l := range keys {
			if l == k {
				lowest = min(lowest, a.recTTL(j))
			}
		}
		a.setTTL(i, lowest) // those before it in its set have it by now
	}
}

// equaliseMany is equaliseTTLs for so many records that comparing each with each takes too long.
func (w *walker) equaliseMany() {
	lowest := make(map[uint64]uint32)
	for i := range w.a.recs {
		k, ttl := w.key(i), w.a.recTTL(i)
		if low, ok := lowest[k]; !ok || ttl < low {
			lowest[k] = ttl
		}
	}
	for i := range w.a.recs {
		w.a.setTTL(i, lowest[w.key(i)])
	}
}

// findSets finds the runs of answers that may be moved: of one RRset and one size, with no pointer into them. Links of a chain
// keep their place.
func (w *walker) findSets() {
	a := w.a
	movable := func(i int) bool {
		t := a.recType(i)
		return !a.recs[i].is(pinned) && t != TypeCNAME && t != TypeDNAME
	}
	first := 0
	for i := 1; i <= a.ans(); i++ {
		if i < a.ans() && w.key(i) == w.key(first) && a.recBytes(i) == a.recBytes(first) && movable(i) && movable(first) {
			continue
		}
		a.addSet(first, i)
		first = i
	}
}
