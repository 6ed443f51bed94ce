package wire

import (
	"encoding/binary"
	"net/netip"
)

// Section is a part of a message that holds records.
type Section uint8

// Sections in the order of a message.
const (
	Answers Section = iota
	Authority
	Additional
)

// String returns the section's name as dig prints it.
func (s Section) String() string {
	return [...]string{"ANSWER", "AUTHORITY", "ADDITIONAL", "?"}[min(s, 3)]
}

// RR is one record, for building an answer and for looking into one. Its class is the question's.
type RR struct {
	Section Section
	Owner   Name
	Type    Type
	TTL     uint32 // seconds
	Data    []byte // rdata, names in it uncompressed
	// With is 1 + the index of the answer record that this additional record belongs to (the addresses of an SRV's
	// target): the two are cut together. 0: belongs to none. Where several records share a target, its addresses may be
	// repeated for each or listed once with the first.
	With int
	// Expendable marks a record nobody needs: it goes first when the answer must be cut.
	Expendable bool
}

// A returns the rdata of an A or AAAA record, by the family of the address; an IPv4-mapped address makes an A.
func A(addr netip.Addr) []byte { return addr.Unmap().AsSlice() }

// AddrType returns the type of record that holds the address: A or AAAA.
func AddrType(addr netip.Addr) Type {
	if addr.Unmap().Is4() {
		return TypeA
	}
	return TypeAAAA
}

// SRV returns the rdata of an SRV record (RFC 2782). Its target is never compressed.
func SRV(priority, weight, port uint16, target Name) []byte {
	b := make([]byte, 0, 6+len(target))
	b = binary.BigEndian.AppendUint16(b, priority)
	b = binary.BigEndian.AppendUint16(b, weight)
	b = binary.BigEndian.AppendUint16(b, port)
	return append(b, target...)
}

// TXT returns the rdata of a TXT record with one character-string for each part; a part longer than 255 bytes goes on
// in further ones. Without parts it is one empty string, since a TXT record has at least one.
func TXT(parts ...string) []byte {
	if len(parts) == 0 {
		parts = []string{""}
	}
	var b []byte
	for _, p := range parts {
		for len(p) > 255 {
			b = appendString(b, p[:255])
			p = p[255:]
		}
		b = appendString(b, p)
	}
	return b
}

// appendString appends a character-string, cut to 255 bytes.
func appendString(b []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(b, byte(len(s))), s...)
}

// NameData returns the rdata of a record that is one name: NS, CNAME, PTR, DNAME.
func NameData(n Name) []byte { return []byte(n) }

// SOA returns the rdata of an SOA record; times in seconds. Its minimum is the TTL of negative answers (RFC 2308).
func SOA(mname, rname Name, serial, refresh, retry, expire, minimum uint32) []byte {
	b := make([]byte, 0, len(mname)+len(rname)+20)
	b = append(b, mname...)
	b = append(b, rname...)
	for _, v := range [...]uint32{serial, refresh, retry, expire, minimum} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// HINFO returns the rdata of an HINFO record, each part cut to 255 bytes.
func HINFO(cpu, os string) []byte { return appendString(appendString(nil, cpu), os) }
