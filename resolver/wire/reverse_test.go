package wire

import (
	"net/netip"
	"testing"
)

func TestReverseName_RFC1035_3_5_RFC3596_2_5(t *testing.T) {
	for _, tc := range []struct{ addr, want string }{
		{"192.0.2.1", "1.2.0.192.in-addr.arpa."},
		{"::ffff:192.0.2.1", "1.2.0.192.in-addr.arpa."},
		{"255.0.10.100", "100.10.0.255.in-addr.arpa."},
		{"2001:db8::567:89ab", "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."},
	} {
		addr := netip.MustParseAddr(tc.addr)
		got := ReverseName(addr)
		if got.String() != tc.want || !got.IsValid() {
			t.Errorf("ReverseName(%s) = %s, want %s", tc.addr, got, tc.want)
		}
		if back, ok := ReverseAddr(got); !ok || back != addr.Unmap() {
			t.Errorf("ReverseAddr(%s) = %s, %v, want %s", got, back, ok, addr)
		}
	}
}

func TestReverseAddr_RefusesOtherNames(t *testing.T) {
	for _, s := range []string{
		".", "arpa.", "in-addr.arpa.", "2.0.192.in-addr.arpa.", "1.1.2.0.192.in-addr.arpa.", "256.2.0.192.in-addr.arpa.",
		"01.2.0.192.in-addr.arpa.", "a.2.0.192.in-addr.arpa.", "1.2.0.192.in-addr.example.", "ip6.arpa.",
		"10.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
		"g.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
	} {
		n, err := ParseName(s)
		if err != nil {
			t.Fatal(err)
		}
		if addr, ok := ReverseAddr(n); ok {
			t.Errorf("ReverseAddr(%s) = %s, want none", s, addr)
		}
	}
}
