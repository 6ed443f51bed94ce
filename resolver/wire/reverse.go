package wire

import (
	"encoding/hex"
	"net/netip"
	"strconv"
)

// ReverseName returns the name whose PTR record names the address (RFC 1035 section 3.5, RFC 3596 section 2.5). An
// IPv4-mapped address counts as IPv4.
func ReverseName(addr netip.Addr) Name {
	addr = addr.Unmap()
	if addr.Is4() {
		var b []byte
		a := addr.As4()
		for i := len(a) - 1; i >= 0; i-- {
			b = appendString(b, strconv.Itoa(int(a[i])))
		}
		return Name(b) + "\x07in-addr\x04arpa\x00"
	}
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 64)
	a := addr.As16()
	for i := len(a) - 1; i >= 0; i-- {
		b = append(b, 1, digits[a[i]&15], 1, digits[a[i]>>4])
	}
	return Name(b) + "\x03ip6\x04arpa\x00"
}

// ReverseAddr reads the address out of a whole name below in-addr.arpa or ip6.arpa; ok is false for any other name.
func ReverseAddr(n Name) (addr netip.Addr, ok bool) {
	labels := n.Lower().Labels()
	last := len(labels) - 2
	if last < 0 || labels[last+1] != "arpa" {
		return netip.Addr{}, false
	}
	switch {
	case labels[last] == "in-addr" && last == 4:
		addr, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return addr, err == nil && addr.Is4()
	case labels[last] == "ip6" && last == 32:
		return reverseAddr6(labels[:32])
	}
	return netip.Addr{}, false
}

func reverseAddr6(labels []string) (netip.Addr, bool) {
	var digits [32]byte
	for i, l := range labels {
		if len(l) != 1 {
			return netip.Addr{}, false
		}
		digits[31-i] = l[0]
	}
	var a [16]byte
	if _, err := hex.Decode(a[:], digits[:]); err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16(a), true
}
