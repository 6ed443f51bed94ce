package fleet

import (
	"net"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"
)

// TestSwitch_CarriesCutsAndDelays holds the network of the tests themselves to what they rely on.
func TestSwitch_CarriesCutsAndDelays(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 2, 0)
		a, b := f.hosts[0], f.hosts[1]
		var server net.PacketConn
		var client net.Conn
		b.inside(func() {
			var err error
			server, err = net.ListenPacket("udp", b.addr()+":9")
			hosttest.Must(t, err)
		})
		defer server.Close()
		a.inside(func() {
			var err error
			client, err = net.Dial("udp", b.addr()+":9")
			hosttest.Must(t, err)
		})
		defer client.Close()
		round := func(patience time.Duration) (time.Duration, bool) {
			begin := time.Now()
			if _, err := client.Write([]byte("there")); err != nil {
				return 0, false
			}
			buf := make([]byte, 16)
			hosttest.Must(t, server.SetReadDeadline(begin.Add(patience)))
			_, from, err := server.ReadFrom(buf)
			if err != nil {
				return 0, false
			}
			_, _ = server.WriteTo([]byte("back"), from)
			hosttest.Must(t, client.SetReadDeadline(begin.Add(patience)))
			_, err = client.Read(buf)
			return time.Since(begin), err == nil
		}
		hosttest.Eventually(t, "a datagram there and back", func() error {
			if _, ok := round(100 * time.Millisecond); !ok {
				return net.ErrClosed
			}
			return nil
		})
		f.net.Set(b.n, a.n, netswitch.Path{Cut: true})
		if _, ok := round(100 * time.Millisecond); ok {
			t.Error("cut one way: an answer came back")
		}
		f.net.SetBoth(a.n, b.n, netswitch.Path{Delay: 30 * time.Millisecond})
		if took, ok := round(5 * time.Second); !ok || took < 60*time.Millisecond {
			t.Errorf("delayed 30 ms each way: %v, %v", took, ok)
		}
	})
}
