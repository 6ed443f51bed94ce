package local

import (
	"bytes"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"meibo/resolver/wire"
)

// hostSet is the contents of hosts files: immutable once published. It is laid
// out for a million names: no pointers but the names themselves.
type hostSet struct {
	// names leads from a lower-cased name in wire form to 1 + the place of its
	// newest link.
	names map[string]uint32
	links []link
	// ptrs has the first name of each address, in the file's letter case.
	ptrs map[netip.Addr]wire.Name
	// records are the static ones.
	records map[string][]wire.RR
	ttl     uint32 // of what comes from files
	domain  string // goes behind names of files without a dot; begins with one
	fixed   []Fixed
	// typeTransparent leaves types that a name has none of to others.
	typeTransparent bool
	// parents are names in fixed domains below which there are names.
	parents map[string]struct{}
}

// link is one address of a name; next is 1 + the place of the one before it, 0
// at the end.
type link struct {
	addr [16]byte
	next uint32
	is4  bool
}

// fault is a line that is left out, or some of whose names are.
type fault struct {
	line   int
	reason string
}

// newHostSet makes an empty set with room for a text of size octets.
func newHostSet(size int) *hostSet {
	names := size / 32 // octets of an average line
	return &hostSet{
		names: make(map[string]uint32, names),
		links: make([]link, 0, names),
		ptrs:  make(map[netip.Addr]wire.Name),
	}
}

// addrs yields a name's addresses in the order in which they were read.
func (s *hostSet) addrs(at uint32) iter.Seq[netip.Addr] {
	var places []uint32
	for ; at != 0; at = s.links[at-1].next {
		places = append(places, at-1)
	}
	return func(yield func(netip.Addr) bool) {
		for i := len(places) - 1; i >= 0; i-- {
			l := s.links[places[i]]
			if !yield(addrOf(l.addr, l.is4)) {
				return
			}
		}
	}
}

// parse adds the lines of a text: an address, then names, then perhaps a
// comment (hosts(5)). It returns what makes no sense of the first bad lines, and how
// many such lines there are.
func (s *hostSet) parse(text string) (faults []fault, bad int) {
	p := hostParser{set: s}
	for text != "" {
		p.line++
		line, rest, _ := strings.Cut(text, "\n")
		p.parseLine(line)
		text = rest
	}
	return p.faults, p.bad
}

// maxFaults bounds what is told of a file that is no hosts file at all.
const maxFaults = 20

type hostParser struct {
	set    *hostSet
	line   int
	faults []fault
	bad    int // lines
	// The address of the line before: many lines of a long file have the same.
	lastText string
	last     netip.Addr
	buf      [256]byte
}

// fault notes what is wrong with the line. It is called once for each.
func (p *hostParser) fault(format string, args ...any) {
	p.bad++
	if len(p.faults) < maxFaults {
		p.faults = append(p.faults, fault{p.line, fmt.Sprintf(format, args...)})
	}
}

func (p *hostParser) parseLine(line string) {
	if i := strings.IndexByte(line, '#'); i >= 0 {
		line = line[:i]
	}
	text, rest := nextField(line)
	if text == "" {
		return
	}
	addr, ok := p.address(text)
	if !ok {
		p.fault("%.60q is no IP address", text)
		return
	}
	name, rest := nextField(rest)
	if name == "" {
		p.fault("address %s has no name", text)
		return
	}
	bad, more := "", 0 // what is no name takes nothing else along
	for ; name != ""; name, rest = nextField(rest) {
		if p.add(addr, name) {
			continue
		}
		if bad == "" {
			bad = name
		} else {
			more++
		}
	}
	if bad == "" {
		return
	}
	why := "is no domain name"
	if strings.Contains(bad, "*") {
		why = "is a wildcard, and there are none in hosts files"
	}
	if more > 0 {
		why += fmt.Sprintf(", nor can %d more of the line be taken", more)
	}
	p.fault("%.80q %s", bad, why)
}

// nextField cuts the first run of characters that are no blanks.
func nextField(s string) (field, rest string) {
	start := 0
	for start < len(s) && isBlank(s[start]) {
		start++
	}
	end := start
	for end < len(s) && !isBlank(s[end]) {
		end++
	}
	return s[start:end], s[end:]
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' }

func (p *hostParser) address(text string) (netip.Addr, bool) {
	if text == p.lastText {
		return p.last, true
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, false
	}
	p.lastText, p.last = text, addr.WithZone("").Unmap()
	return p.last, true
}

// add gives a name an address, and before it the name with the domain, whose PTR it
// is then; false when it is no name.
func (p *hostParser) add(addr netip.Addr, text string) bool {
	if p.set.domain != "" && !strings.Contains(text, ".") && !p.addName(addr, text+p.set.domain) {
		return false
	}
	return p.addName(addr, text)
}

func (p *hostParser) addName(addr netip.Addr, text string) bool {
	n, ok := p.pack(text)
	if !ok {
		return false
	}
	s := p.set
	if _, named := s.ptrs[addr]; !named && !addr.IsUnspecified() {
		// A blocked name's 0.0.0.0 is nobody's address.
		s.ptrs[addr] = wire.Name(p.buf[:n])
	}
	key := lowerKey(p.buf[:n])
	newest := s.names[string(key)]
	for at := newest; at != 0; at = s.links[at-1].next {
		if l := &s.links[at-1]; l.addr == addr.As16() && l.is4 == addr.Is4() {
			return true
		}
	}
	s.links = append(s.links, link{addr: addr.As16(), next: newest, is4: addr.Is4()})
	s.names[string(key)] = uint32(len(s.links))
	return true
}

// pack writes a name in wire form into the buffer. A final dot is allowed, escapes and
// wildcards are not: hosts(5) has none.
func (p *hostParser) pack(text string) (n int, ok bool) {
	text = strings.TrimSuffix(text, ".")
	if text == "" || len(text)+2 > 255 {
		return 0, false
	}
	start := 0
	n = 1
	for i := 0; i <= len(text); i++ {
		if i < len(text) && text[i] != '.' {
			if c := text[i]; c <= ' ' || c == 0x7f || c == '\\' || c == '*' {
				return 0, false
			}
			p.buf[n] = text[i]
			n++
			continue
		}
		l := n - start - 1
		if l == 0 || l > 63 {
			return 0, false
		}
		p.buf[start] = byte(l)
		start = n
		p.buf[n] = 0
		n++
	}
	return n, true
}

// lowerKey puts a name in wire form into lower case, in place.
func lowerKey(b []byte) []byte {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}

// diff returns the names, PTR names included, that are not the same in both sets: all,
// where one set leaves types to others and one does not.
func (s *hostSet) diff(t *hostSet) []wire.Name {
	if s.typeTransparent != t.typeTransparent {
		none := newHostSet(0)
		none.typeTransparent = t.typeTransparent
		others := *s
		others.typeTransparent = t.typeTransparent
		return append(others.diff(none), none.diff(t)...)
	}
	var out []wire.Name
	for name, at := range s.names {
		if other, ok := t.names[name]; !ok || !s.sameLinks(at, t, other) {
			out = append(out, wire.Name(name))
		}
	}
	for name := range t.names {
		if _, ok := s.names[name]; !ok {
			out = append(out, wire.Name(name))
		}
	}
	for name, rrs := range s.records {
		if !slices.EqualFunc(rrs, t.records[name], sameRecord) {
			out = append(out, wire.Name(name))
		}
	}
	for name := range t.records {
		if _, ok := s.records[name]; !ok {
			out = append(out, wire.Name(name))
		}
	}
	for addr, name := range s.ptrs {
		if t.ptrs[addr] != name {
			out = append(out, wire.ReverseName(addr))
		}
	}
	for addr := range t.ptrs {
		if _, ok := s.ptrs[addr]; !ok {
			out = append(out, wire.ReverseName(addr))
		}
	}
	return out
}

func sameRecord(a, b wire.RR) bool {
	return a.Type == b.Type && a.TTL == b.TTL && bytes.Equal(a.Data, b.Data)
}

// sameLinks reports whether two names have the same addresses in one order.
func (s *hostSet) sameLinks(a uint32, t *hostSet, b uint32) bool {
	for a != 0 && b != 0 {
		l, m := &s.links[a-1], &t.links[b-1]
		if l.addr != m.addr || l.is4 != m.is4 {
			return false
		}
		a, b = l.next, m.next
	}
	return a == b
}
