package wire

import "encoding/binary"

// expandName returns the name at p of a message that was checked, with its pointers followed.
func expandName(msg []byte, p int) Name {
	out, _ := appendExpanded(nil, msg, p)
	return Name(out)
}

// appendExpanded appends the name at p, uncompressed, and returns the offset after its bytes there.
func appendExpanded(dst, msg []byte, p int) ([]byte, int) {
	next := -1
	for {
		l := int(msg[p])
		if l >= 0xc0 {
			if next < 0 {
				next = p + 2
			}
			p = int(binary.BigEndian.Uint16(msg[p:])) & maxPointer
			continue
		}
		dst = append(dst, msg[p:p+1+l]...)
		p += 1 + l
		if l == 0 {
			break
		}
	}
	if next < 0 {
		next = p
	}
	return dst, next
}

// expandData returns a copy of the rdata that lies at p of a message that was checked, names uncompressed.
func expandData(msg []byte, typ Type, data []byte, p int) []byte {
	l, known := layoutOf(typ)
	if !known || l.names == 0 {
		return append([]byte(nil), data...)
	}
	names, end := p+l.before, p+len(data)
	if typ == TypeNAPTR {
		names = skipStrings(msg, names, end, 3)
	}
	out := append(make([]byte, 0, len(data)+32), msg[p:names]...)
	for range l.names {
		out, names = appendExpanded(out, msg, names)
	}
	return append(out, msg[names:end]...)
}
