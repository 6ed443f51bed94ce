package migrate

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers each datagram with its name, as dnsmasq binds (one socket) or as systemd does (four).
func serve(t *testing.T, name, addr string, sockets int) (stop func()) {
	t.Helper()
	var conns []net.PacketConn
	var serving sync.WaitGroup
	for range sockets {
		listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error {
				if sockets > 1 {
					if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
						return err
					}
				}
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			})
		}}
		c, err := listen.ListenPacket(context.Background(), "udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		serving.Go(func() {
			buffer := make([]byte, 512)
			for {
				n, from, err := c.ReadFrom(buffer)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(append([]byte(name+" "), buffer[:n]...), from)
			}
		})
	}
	return func() {
		for _, c := range conns {
			_ = c.Close()
		}
		serving.Wait()
	}
}

func exchange(addr, text string) (string, error) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return "", err
	}
	buffer := make([]byte, 512)
	n, err := conn.Read(buffer)
	return string(buffer[:n]), err
}

// Nothing is lost or refused while one server goes and another comes, whichever way each of them binds.
func TestHold_NothingIsLost(t *testing.T) {
	for _, tc := range []struct {
		name             string
		before, after    string // address
		socketsB, socksA int
	}{
		{"one socket, then four", "127.0.0.1", "127.0.0.1", 1, 4},
		{"four sockets, then one", "127.0.0.1", "127.0.0.1", 4, 1},
		{"all addresses, then one of them", "0.0.0.0", "127.0.0.1", 1, 4},
		{"one of them, then all addresses", "127.0.0.1", "0.0.0.0", 4, 1},
		{"IPv6", "[::1]", "[::1]", 1, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := "127.0.0.1"
			if strings.HasPrefix(tc.before, "[") {
				at = tc.before
			}
			probe, err := net.ListenPacket("udp", at+":0")
			if err != nil && at == tc.before {
				t.Skipf("this machine has no IPv6 on loopback: %v", err)
			} else if err != nil {
				t.Fatal(err)
			}
			port := probe.LocalAddr().(*net.UDPAddr).Port
			_ = probe.Close()
			addr := fmt.Sprintf("%s:%d", at, port)
			stopOld := serve(t, "old", fmt.Sprintf("%s:%d", tc.before, port), tc.socketsB)

			var clients sync.WaitGroup
			var mu sync.Mutex // guards following
			answers, next := map[string]int{}, 0
			load := make(chan struct{})
			for range 20 {
				clients.Go(func() {
					for {
						select {
						case <-load:
							return
						default:
						}
						mu.Lock()
						next++
						text := fmt.Sprint(next)
						mu.Unlock()
						got, err := exchange(addr, text)
						name, echoed, _ := strings.Cut(got, " ")
						if err != nil || echoed != text {
							name = fmt.Sprintf("%q for %s: %v", got, text, err)
						}
						mu.Lock()
						answers[name]++
						mu.Unlock()
					}
				})
			}
			answered := func(name string, n int) {
				for range 1000 {
					mu.Lock()
					got := answers[name]
					mu.Unlock()
					if got >= n {
						return
					}
					if _, err := exchange(addr, "0"); err != nil { // takes its time
						t.Error(err)
						return
					}
				}
			}
			answered("old", 100)
			h := holdAll(t.Context(), []netip.AddrPort{netip.MustParseAddrPort(addr)})
			if len(h.conns) != 1 {
				t.Fatal("the address can't be had beside a server that lets it be used again")
			}
			for { // every client waits
				h.mu.Lock()
				n := len(h.held)
				h.mu.Unlock()
				if n >= 20 {
					break
				}
				time.Sleep(time.Millisecond) // between two looks
			}
			stopOld()
			stopNew := serve(t, "new", fmt.Sprintf("%s:%d", tc.after, port), tc.socksA)
			defer stopNew()
			got, of := h.release()
			if got != of || of < 20 {
				t.Errorf("%d of %d that were held have been answered", got, of)
			}
			answered("new", 100)
			close(load)
			clients.Wait()
			if len(answers) != 2 || answers["old"] < 100 || answers["new"] < 100 {
				t.Errorf("answers: %v", answers)
			}
		})
	}
}
