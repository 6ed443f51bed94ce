package wire

import (
	"encoding/binary"
	"net/netip"
)

const (
	headerSize    = 12
	minUDP        = 512   // every client takes this much (RFC 1035 section 4.2.1)
	maxMessage    = 65535 // the length prefix of TCP has 16 bits
	maxUDPPayload = 65507 // what IPv4 carries
)

// Bits of the second 16 bits of the header.
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagAD = 1 << 5
	flagCD = 1 << 4
)

const (
	optionECS = 8  // RFC 7871
	optionEDE = 15 // RFC 8914
	flagDO    = 1 << 15
)

// Verdict is what the bytes of a query deserve.
type Verdict uint8

// Verdicts of [Query.Parse].
const (
	OK      Verdict = iota
	Drop            // a response, or too short to have a header: no reply, or two servers could talk for ever
	FormErr         // RFC 1035, RFC 9619 (not one question), RFC 6891 (two OPT)
	NotImp          // an opcode other than QUERY
	BadVers         // EDNS version other than 0 (RFC 6891 section 6.1.3)
)

// Rcode returns the response code for a verdict other than Drop.
func (v Verdict) Rcode() uint16 {
	switch v {
	case FormErr:
		return RcodeFormErr
	case NotImp:
		return RcodeNotImp
	case BadVers:
		return RcodeBadVers
	}
	return RcodeSuccess
}

// String returns the verdict in words.
func (v Verdict) String() string {
	return [...]string{"ok", "drop", "format error", "not implemented", "bad EDNS version", "?"}[min(v, 5)]
}

// Query is one question. The zero value is ready for Parse, which may be called again and again. A Query must not be
// used by two goroutines at once while one of them parses; afterwards it is only read.
type Query struct {
	Msg    []byte // as received; borrowed until the handler returns, see Clone
	ID     uint16
	Opcode uint8
	RD     bool // recursion desired
	AD     bool
	CD     bool // checking disabled
	Type   Type
	Class  uint16

	EDNS    bool   // an OPT was there; the rest of this group has meaning only then
	Version uint8  // of EDNS
	UDPSize uint16 // as the client said it; see Limit
	DO      bool   // DNSSEC records wanted
	ECS     []byte // data of a well-formed client subnet option, or nil

	TCP    bool           // filled by who received the message, like the following
	Client netip.AddrPort // or invalid: a question of our own
	Local  netip.Addr     // that the client asked; invalid if not known

	name []byte // lower-cased; its room is used again by Parse
	end  int    // of the question in Msg; 0 when there is none to echo
}

// Parse reads a message in place. It sets every field but TCP, Client and Local, which it leaves alone. With a verdict
// other than OK and Drop, ID, RD, EDNS and the question are set as far as they could be read, so that [AppendError] can
// echo them. The class is not judged, and of types only those that make no sense are left to the caller too.
func (q *Query) Parse(msg []byte) Verdict {
	q.Msg, q.name, q.end = msg, q.name[:0], 0
	q.Type, q.Class = 0, 0
	q.EDNS, q.Version, q.UDPSize, q.DO, q.ECS = false, 0, 0, false, nil
	if len(msg) < headerSize {
		return Drop
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&flagQR != 0 {
		return Drop
	}
	q.ID = binary.BigEndian.Uint16(msg)
	q.Opcode = uint8(flags>>11) & 15
	q.RD, q.AD, q.CD = flags&flagRD != 0, flags&flagAD != 0, flags&flagCD != 0
	asked := binary.BigEndian.Uint16(msg[4:]) == 1 && q.parseQuestion()
	records := q.end
	if !asked {
		records = q.skipQuestions()
	}
	whole := records > 0 && q.parseRecords(records) // of what is refused too: who sends an OPT gets one (RFC 6891 section 6.1.1)
	switch {
	case q.Opcode != 0:
		return NotImp
	case !asked || !whole:
		return FormErr
	case q.Version != 0:
		return BadVers
	}
	return OK
}

// skipQuestions returns the offset after the questions, none or many, or -1.
func (q *Query) skipQuestions() int {
	p := headerSize
	for range binary.BigEndian.Uint16(q.Msg[4:]) {
		if p = skipName(q.Msg, p); p < 0 || p+4 > len(q.Msg) {
			return -1
		}
		p += 4
	}
	return p
}

// parseQuestion reads the name, which may not be compressed (there is nothing before it to point to), type and class.
func (q *Query) parseQuestion() bool {
	msg, p, n := q.Msg, headerSize, 0
	if cap(q.name) < maxName {
		q.name = make([]byte, 0, maxName)
	}
	name := q.name[:maxName]
	for {
		if p >= len(msg) {
			return false
		}
		l := int(msg[p])
		if l > maxLabel || n+1+l > maxName || p+1+l > len(msg) {
			return false
		}
		for i := 0; i <= l; i++ {
			name[n+i] = lower[msg[p+i]]
		}
		n += 1 + l
		p += 1 + l
		if l == 0 {
			break
		}
	}
	if p+4 > len(msg) {
		return false
	}
	q.name = name[:n]
	q.Type = binary.BigEndian.Uint16(msg[p:])
	q.Class = binary.BigEndian.Uint16(msg[p+2:])
	q.end = p + 4
	return true
}

// parseRecords walks what follows the question, from p on, and finds the OPT. Octets after the last record are passed over: there are
// clients that pad, and no server refuses them.
func (q *Query) parseRecords(p int) bool {
	msg := q.Msg
	others := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:]))
	total := others + int(binary.BigEndian.Uint16(msg[10:]))
	for i := range total {
		owner := p
		p = skipName(msg, p)
		if p < 0 || p+10 > len(msg) {
			return false
		}
		typ := binary.BigEndian.Uint16(msg[p:])
		data := p + 10
		next := data + int(binary.BigEndian.Uint16(msg[p+8:]))
		if next > len(msg) {
			return false
		}
		if typ == TypeOPT {
			// One OPT, in the additional section, owned by the root (RFC 6891 section 6.1.1, 6.1.2).
			if q.EDNS || i < others || msg[owner] != 0 || !q.parseOPT(p, data, next) {
				return false
			}
		}
		p = next
	}
	return true
}

// parseOPT reads the OPT whose type is at p and whose options lie from data to end. Unknown options are passed over.
func (q *Query) parseOPT(p, data, end int) bool {
	msg := q.Msg
	q.EDNS = true
	q.UDPSize = binary.BigEndian.Uint16(msg[p+2:])
	q.Version = msg[p+5]
	q.DO = binary.BigEndian.Uint16(msg[p+6:])&flagDO != 0
	for data < end {
		if data+4 > end {
			return false
		}
		code := binary.BigEndian.Uint16(msg[data:])
		n := int(binary.BigEndian.Uint16(msg[data+2:]))
		data += 4
		if data+n > end {
			return false
		}
		if code == optionECS && validECS(msg[data:data+n]) {
			q.ECS = msg[data : data+n : data+n]
		}
		data += n
	}
	return true
}

// validECS reports whether a client subnet is one we may echo: a known family, a prefix that fits it, no scope, and as
// many address bytes as the prefix needs (RFC 7871 section 6). Others are taken as absent.
func validECS(d []byte) bool {
	if len(d) < 4 || d[3] != 0 {
		return false
	}
	bits := 0
	switch binary.BigEndian.Uint16(d) {
	case 1:
		bits = 32
	case 2:
		bits = 128
	}
	prefix := int(d[2])
	return prefix <= bits && len(d) == 4+(prefix+7)/8
}

// skipName returns the offset after the name at p, or -1. It does not follow pointers, but they must lead back.
func skipName(msg []byte, p int) int {
	for p < len(msg) {
		l := int(msg[p])
		switch {
		case l == 0:
			return p + 1
		case l <= maxLabel:
			p += 1 + l
		case l >= 0xc0 && p+2 <= len(msg):
			if to := int(binary.BigEndian.Uint16(msg[p:])) & 0x3fff; to < headerSize || to >= p {
				return -1
			}
			return p + 2
		default:
			return -1
		}
	}
	return -1
}

// Name returns the name asked in wire form and lower case, valid while q is. A map lookup m[string(q.Name())] does not
// allocate.
func (q *Query) Name() []byte { return q.name }

// NameAsked returns the name in the client's letter case, valid while q.Msg is.
func (q *Query) NameAsked() []byte { return q.Msg[headerSize : headerSize+len(q.name)] }

// question returns the question as asked, or nothing.
func (q *Query) question() []byte {
	if q.end == 0 {
		return nil
	}
	return q.Msg[headerSize:q.end]
}

// questions returns the low byte of QDCOUNT for a reply to q.
func (q *Query) questions() byte {
	if q.end == 0 {
		return 0
	}
	return 1
}

// Clone returns a copy that owns its bytes; its Msg ends with the question.
func (q *Query) Clone() *Query {
	c := *q
	n := max(q.end, min(len(q.Msg), headerSize))
	both := append(append(make([]byte, 0, n+len(q.name)), q.Msg[:n]...), q.name...)
	c.Msg, c.name = both[:n:n], both[n:]
	c.ECS = append([]byte(nil), q.ECS...)
	if q.ECS == nil {
		c.ECS = nil
	}
	return &c
}

// NewQuery makes a question of our own: class IN, recursion desired, no limit of size that a message does not have. A
// name that is not valid makes a question without one, which nothing answers.
func NewQuery(name Name, typ Type) *Query {
	q := &Query{RD: true, Type: typ, Class: ClassIN, EDNS: true, UDPSize: maxMessage}
	q.Msg = make([]byte, headerSize, headerSize+len(name)+4)
	binary.BigEndian.PutUint16(q.Msg[2:], flagRD)
	if !name.IsValid() {
		return q
	}
	q.Msg[5] = 1
	q.Msg = append(q.Msg, name...)
	q.Msg = binary.BigEndian.AppendUint16(q.Msg, typ)
	q.Msg = binary.BigEndian.AppendUint16(q.Msg, ClassIN)
	q.end = len(q.Msg)
	q.name = appendLower(make([]byte, 0, len(name)), name)
	return q
}

// Limit returns the most bytes that a reply may have: 65535 over TCP, 512 without EDNS, else what the client says it
// takes. A client elsewhere gets at most 1232 bytes whatever it says, so that no reply is fragmented (RFC 9715); one on
// this host gets what it asks, since loopback carries 64 KB whole.
func (q *Query) Limit() int {
	switch {
	case q.TCP:
		return maxMessage
	case !q.EDNS:
		return minUDP
	}
	size := max(int(q.UDPSize), minUDP)
	if !q.Client.IsValid() {
		return size
	}
	if a := q.Client.Addr(); !a.IsLoopback() && a != q.Local {
		return min(size, advertisedUDPSize)
	}
	return min(size, maxUDPPayload)
}

// AppendQuery appends q's question as a query for an upstream: the given ID, RD set, CD as the client's, the name in the
// client's letter case, and, if edns, an OPT of our own with DO as the client's.
func AppendQuery(dst []byte, q *Query, id uint16, edns bool) []byte {
	flags := uint16(flagRD)
	if q.CD {
		flags |= flagCD
	}
	var additional byte
	if edns {
		additional = 1
	}
	dst = binary.BigEndian.AppendUint16(dst, id)
	dst = binary.BigEndian.AppendUint16(dst, flags)
	dst = append(dst, 0, q.questions(), 0, 0, 0, 0, 0, additional)
	dst = append(dst, q.question()...)
	if !edns {
		return dst
	}
	return appendOPT(dst, 0, q.DO)
}

// appendOPT appends an OPT without options; its last two bytes are the length of the options.
func appendOPT(dst []byte, rcode uint16, do bool) []byte {
	var flags byte
	if do {
		flags = flagDO >> 8
	}
	return append(dst, 0, 0, byte(TypeOPT), advertisedUDPSize>>8, advertisedUDPSize&0xff, byte(rcode>>4), 0, flags, 0, 0, 0)
}
