package listen

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

// TestInUse_SeesWhatWouldBeInTheWay, and nothing that would not.
func TestInUse_SeesWhatWouldBeInTheWay(t *testing.T) {
	listen := func(network, addr string) netip.AddrPort {
		t.Helper()
		if strings.HasPrefix(network, "udp") {
			c, err := net.ListenPacket(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return addrPort(c.LocalAddr())
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return addrPort(l.Addr())
	}
	one := listen("tcp4", "127.0.0.1:0").Port()
	all4 := listen("udp4", "0.0.0.0:0").Port()
	both := listen("tcp", "[::]:0").Port()
	for _, tt := range []struct {
		proto, addr string
		port        uint16
		taken       bool
	}{
		{"tcp", "127.0.0.1", one, true},
		{"tcp", "0.0.0.0", one, true},
		{"tcp", "127.0.0.2", one, false},
		{"udp", "127.0.0.1", one, false},
		{"udp", "127.0.0.1", all4, true},
		{"udp", "::1", all4, false},
		{"tcp", "127.0.0.1", both, true},
		{"tcp", "::1", both, true},
		{"tcp", "::ffff:127.0.0.1", one, true},
		{"tcp", "127.0.0.1", 0, false},
	} {
		who := InUse(tt.proto, netip.AddrPortFrom(netip.MustParseAddr(tt.addr), tt.port))
		if taken := who != ""; taken != tt.taken || taken && !strings.Contains(who, "(pid ") {
			t.Errorf("%s %s, port %d: held by %q, want taken %v", tt.proto, tt.addr, tt.port, who, tt.taken)
		}
	}
}
