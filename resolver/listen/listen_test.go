package listen

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"meibo/resolver/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handlerFunc is a Handler.
type handlerFunc func(q *wire.Query, v wire.Verdict, dst []byte, reply func(*wire.Query, []byte)) []byte

func (f handlerFunc) ServeDNS(q *wire.Query, v wire.Verdict, dst []byte, reply func(*wire.Query, []byte)) []byte {
	return f(q, v, dst, reply)
}

// refuse answers every question REFUSED at once, and what is no question by its verdict.
var refuse = handlerFunc(func(q *wire.Query, v wire.Verdict, dst []byte, _ func(*wire.Query, []byte)) []byte {
	if v != wire.OK {
		return wire.AppendError(dst, q, v.Rcode(), 0, "")
	}
	return wire.AppendError(dst, q, wire.RcodeRefused, 0, "")
})

func addrs(s ...string) (out []netip.AddrPort) {
	for _, a := range s {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

// start runs a Listener until the test ends.
func start(t *testing.T, cfg Config) *Listener {
	t.Helper()
	if cfg.Addrs == nil && cfg.Files == nil {
		cfg.Addrs = addrs("127.0.0.1:0")
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run = %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run does not end")
		}
	})
	return l
}

func query(t testing.TB, id uint16, name string) []byte {
	t.Helper()
	n, err := wire.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	return wire.AppendQuery(nil, wire.NewQuery(n, wire.TypeA), id, false)
}

func dial(t testing.TB, network string, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(15 * time.Second))
	return c
}

func write(t testing.TB, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func frame(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}

func readFrame(t testing.TB, c io.Reader) []byte {
	t.Helper()
	var n [2]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		t.Fatal(err)
	}
	msg := make([]byte, binary.BigEndian.Uint16(n[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		t.Fatal(err)
	}
	return msg
}

func readDatagram(t testing.TB, c net.Conn) []byte {
	t.Helper()
	b := make([]byte, 65536)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func id(msg []byte) uint16 { return binary.BigEndian.Uint16(msg) }

func rcode(msg []byte) uint16 { return uint16(msg[3] & 15) }

// eventually waits for what follows an answer a moment later.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never comes to that")
		}
	}
}

// paths are the two ways to receive datagrams.
func paths(t *testing.T, f func(t *testing.T, cfg Config)) {
	t.Run("batch", func(t *testing.T) { f(t, Config{}) })
	t.Run("each", func(t *testing.T) { f(t, Config{NoBatch: true}) })
}

func TestUDP_AnswersEveryQueryOfABurst(t *testing.T) {
	paths(t, func(t *testing.T, cfg Config) {
		cfg.Handler = refuse
		l := start(t, cfg)
		const clients, each = 8, 50
		for i := range clients {
			c := dial(t, "udp", l.Addrs()[0])
			for n := range each {
				write(t, c, query(t, uint16(i*each+n), fmt.Sprintf("name%d.example.", n)))
			}
			seen := make(map[uint16]bool)
			for range each {
				msg := readDatagram(t, c)
				if rcode(msg) != wire.RcodeRefused {
					t.Fatalf("rcode %d", rcode(msg))
				}
				seen[id(msg)] = true
			}
			if len(seen) != each {
				t.Errorf("%d different replies, want %d", len(seen), each)
			}
		}
		eventually(t, func() bool {
			s := l.UDP()
			return s.Queries == clients*each && s.Replies == clients*each && s.Drops == 0 && s.QueryBytes > 0 && s.ReplyBytes > 0
		})
	})
}

func TestUDP_OnePacketAllocatesNothing(t *testing.T) {
	paths(t, func(t *testing.T, cfg Config) {
		for _, addr := range []string{"127.0.0.1:0", "[::]:0"} {
			cfg.Addrs, cfg.Handler = addrs(addr), refuse
			l := start(t, cfg)
			c := dial(t, "udp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), l.Addrs()[0].Port()))
			msg, in := query(t, 1, "a.example."), make([]byte, 512)
			most := 0.1
			if cfg.NoBatch && addr != "127.0.0.1:0" {
				most = 1.1 // the control message
			}
			if n := testing.AllocsPerRun(200, func() {
				write(t, c, msg)
				if _, err := c.Read(in); err != nil {
					t.Fatal(err)
				}
			}); n > most {
				t.Errorf("%s: %v allocations", addr, n)
			}
		}
	})
}

func TestUDP_LargeRepliesOfABatchAllLeave(t *testing.T) {
	paths(t, func(t *testing.T, cfg Config) {
		cfg.Loops = 1
		cfg.Handler = handlerFunc(func(q *wire.Query, _ wire.Verdict, dst []byte, _ func(*wire.Query, []byte)) []byte {
			return append(wire.AppendError(dst, q, 0, 0, ""), make([]byte, 50000)...)
		})
		l := start(t, cfg)
		c := dial(t, "udp", l.Addrs()[0])
		for n := range uint16(20) {
			write(t, c, query(t, n, "big.example."))
			if n%3 == 2 { // a client's buffer holds only so much
				for range 3 {
					if msg := readDatagram(t, c); len(msg) < 50000 {
						t.Fatalf("%d bytes", len(msg))
					}
				}
			}
		}
	})
}

func TestUDP_LateReplyAfterTheHandlerReturned(t *testing.T) {
	paths(t, func(t *testing.T, cfg Config) {
		later := make(chan func(), 1)
		cfg.Handler = handlerFunc(func(q *wire.Query, _ wire.Verdict, dst []byte, reply func(*wire.Query, []byte)) []byte {
			c := q.Clone()
			later <- func() { reply(c, wire.AppendError(nil, c, wire.RcodeRefused, 0, "")) }
			return nil
		})
		l := start(t, cfg)
		c := dial(t, "udp", l.Addrs()[0])
		write(t, c, query(t, 77, "late.example."))
		(<-later)()
		if msg := readDatagram(t, c); id(msg) != 77 || rcode(msg) != wire.RcodeRefused {
			t.Errorf("%x", msg)
		}
	})
}

func TestUDP_DropsResponsesAndJudgesTheRest(t *testing.T) {
	paths(t, func(t *testing.T, cfg Config) {
		cfg.Handler = refuse
		l := start(t, cfg)
		c := dial(t, "udp", l.Addrs()[0])
		response := query(t, 1, "response.example.")
		response[2] |= 0x80
		write(t, c, response)
		write(t, c, []byte("short"))
		write(t, c, nil)
		write(t, c, append(query(t, 2, "long.example."), make([]byte, maxQuery)...))
		write(t, c, append(query(t, 3, "padded.example."), 0))
		write(t, c, query(t, 4, "fine.example."))
		want := map[uint16]uint16{2: wire.RcodeFormErr, 3: wire.RcodeRefused, 4: wire.RcodeRefused}
		for range 3 {
			msg := readDatagram(t, c)
			if want[id(msg)] != rcode(msg) {
				t.Errorf("query %d: rcode %d, want %d", id(msg), rcode(msg), want[id(msg)])
			}
		}
		eventually(t, func() bool { return l.UDP().Drops == 3 })
	})
}

func TestUDP_WildcardAnswersFromTheAddressAsked(t *testing.T) {
	for _, tc := range []struct{ listen, ask string }{
		{"0.0.0.0:0", "127.0.0.5"},
		{"[::]:0", "::1"},
		{"[::]:0", "127.0.0.6"},
	} {
		paths(t, func(t *testing.T, cfg Config) {
			var mu sync.Mutex
			var local netip.Addr
			cfg.Addrs = addrs(tc.listen)
			cfg.Handler = handlerFunc(func(q *wire.Query, _ wire.Verdict, dst []byte, reply func(*wire.Query, []byte)) []byte {
				mu.Lock()
				local = q.Local
				mu.Unlock()
				if string(q.Name()) == "\x04late\x00" {
					c := q.Clone()
					go reply(c, wire.AppendError(nil, c, wire.RcodeRefused, 0, ""))
					return nil
				}
				return wire.AppendError(dst, q, wire.RcodeRefused, 0, "")
			})
			l := start(t, cfg)
			ask := netip.AddrPortFrom(netip.MustParseAddr(tc.ask), l.Addrs()[0].Port())
			c := dial(t, "udp", ask) // connected: takes replies from there only
			for _, name := range []string{"now.", "late."} {
				write(t, c, query(t, 5, name))
				if msg := readDatagram(t, c); id(msg) != 5 {
					t.Errorf("%x", msg)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if local != ask.Addr() {
				t.Errorf("Local = %v, want %v", local, ask.Addr())
			}
		})
	}
}

func TestListen_IPv6Loopback(t *testing.T) {
	l := start(t, Config{Addrs: addrs("127.0.0.1:0", "[::1]:0"), Handler: refuse})
	for _, a := range l.Addrs() {
		u := dial(t, "udp", a)
		write(t, u, query(t, 1, "a.example."))
		readDatagram(t, u)
		c := dial(t, "tcp", a)
		write(t, c, frame(query(t, 1, "a.example.")))
		readFrame(t, c)
	}
}

func TestTCP_PipelinedQueriesAreAnsweredOutOfOrder_RFC7766(t *testing.T) {
	release := make(chan struct{})
	l := start(t, Config{Handler: handlerFunc(func(q *wire.Query, _ wire.Verdict, dst []byte, reply func(*wire.Query, []byte)) []byte {
		if string(q.Name()) != "\x04slow\x00" {
			return wire.AppendError(dst, q, wire.RcodeRefused, 0, "")
		}
		c := q.Clone()
		go func() {
			<-release
			reply(c, wire.AppendError(nil, c, wire.RcodeRefused, 0, ""))
		}()
		return nil
	})})
	c := dial(t, "tcp", l.Addrs()[0])
	write(t, c, append(frame(query(t, 1, "slow.")), frame(query(t, 2, "fast."))...))
	if got := id(readFrame(t, c)); got != 2 {
		t.Errorf("first reply is to query %d, want 2", got)
	}
	close(release)
	if got := id(readFrame(t, c)); got != 1 {
		t.Errorf("second reply is to query %d, want 1", got)
	}
}

func TestTCP_HalfClosedClientGetsItsAnswers_RFC7766(t *testing.T) {
	release := make(chan struct{})
	l := start(t, Config{Handler: handlerFunc(func(q *wire.Query, _ wire.Verdict, _ []byte, reply func(*wire.Query, []byte)) []byte {
		c := q.Clone()
		go func() {
			<-release
			reply(c, wire.AppendError(nil, c, wire.RcodeRefused, 0, ""))
		}()
		return nil
	})})
	c := dial(t, "tcp", l.Addrs()[0])
	for n := range uint16(10) {
		write(t, c, frame(query(t, n, "a.")))
	}
	c.(*net.TCPConn).CloseWrite()
	close(release)
	for range 10 {
		readFrame(t, c)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the last answer: %v, want EOF", err)
	}
}

func TestTCP_ByteByByte(t *testing.T) {
	l := start(t, Config{Handler: refuse})
	c := dial(t, "tcp", l.Addrs()[0])
	c.(*net.TCPConn).SetNoDelay(true)
	for _, b := range frame(query(t, 9, "drip.example.")) {
		write(t, c, []byte{b})
	}
	if msg := readFrame(t, c); id(msg) != 9 {
		t.Errorf("%x", msg)
	}
}

func TestTCP_LargestMessageBothWays(t *testing.T) {
	l := start(t, Config{Handler: handlerFunc(func(q *wire.Query, v wire.Verdict, dst []byte, _ func(*wire.Query, []byte)) []byte {
		if v != wire.OK || len(q.Msg) != 65535 {
			t.Errorf("verdict %v of %d bytes", v, len(q.Msg))
		}
		return append(dst, bytes.Repeat([]byte{7}, 65535)...)
	})})
	c := dial(t, "tcp", l.Addrs()[0])
	msg := query(t, 9, "large.example.")
	msg = append(msg, make([]byte, 65535-len(msg))...)
	for range 3 {
		write(t, c, frame(msg))
		if got := readFrame(t, c); len(got) != 65535 || got[65534] != 7 {
			t.Errorf("%d bytes", len(got))
		}
	}
}

func TestTCP_EndsConnectionsThatSpeakNoDNS(t *testing.T) {
	response := query(t, 1, "response.example.")
	response[2] |= 0x80
	for name, b := range map[string][]byte{
		"empty frame":      {0, 0},
		"shorter header":   frame([]byte("short")),
		"response":         frame(response),
		"end in a message": {0, 50, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, Config{Handler: refuse})
			c := dial(t, "tcp", l.Addrs()[0])
			write(t, c, frame(query(t, 3, "first.example.")))
			write(t, c, b)
			c.(*net.TCPConn).CloseWrite()
			readFrame(t, c)
			if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Error("the connection goes on")
			}
		})
	}
}

func TestTCP_IdleAndSlowConnectionsAreClosed(t *testing.T) {
	for name, b := range map[string][]byte{"idle": nil, "half a message": {0, 40, 1, 2, 3}} {
		t.Run(name, func(t *testing.T) {
			l := start(t, Config{Handler: refuse, IdleTimeout: 20 * time.Millisecond, MessageTimeout: 20 * time.Millisecond})
			c := dial(t, "tcp", l.Addrs()[0])
			write(t, c, b)
			if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || os.IsTimeout(err) {
				t.Errorf("Read = %d, %v; want the end", n, err)
			}
		})
	}
}

func TestTCP_ConnectionWithAQueryInFlightIsNotIdle(t *testing.T) {
	l := start(t, Config{IdleTimeout: 10 * time.Millisecond, Handler: handlerFunc(
		func(q *wire.Query, _ wire.Verdict, _ []byte, reply func(*wire.Query, []byte)) []byte {
			c := q.Clone()
			time.AfterFunc(100*time.Millisecond, func() { reply(c, wire.AppendError(nil, c, 0, 0, "")) })
			return nil
		})})
	c := dial(t, "tcp", l.Addrs()[0])
	write(t, c, frame(query(t, 3, "slow.example.")))
	readFrame(t, c)
}

func TestTCP_ClientThatDoesNotReadHoldsUpNobody(t *testing.T) {
	const answers = 200
	replies := make(chan func(), answers)
	big := make([]byte, 60000)
	l := start(t, Config{MaxInFlight: answers, WriteTimeout: 50 * time.Millisecond, Handler: handlerFunc(
		func(q *wire.Query, _ wire.Verdict, dst []byte, reply func(*wire.Query, []byte)) []byte {
			if string(q.Name()) == "\x04fast\x00" {
				return wire.AppendError(dst, q, 0, 0, "")
			}
			c := q.Clone()
			replies <- func() { reply(c, append(wire.AppendError(nil, c, 0, 0, ""), big...)) }
			return nil
		})})
	dead := dial(t, "tcp", l.Addrs()[0])
	dead.(*net.TCPConn).SetReadBuffer(4096)
	for n := range uint16(answers) {
		write(t, dead, frame(query(t, n, "slow.")))
	}
	for range answers {
		begin := time.Now()
		(<-replies)()
		if d := time.Since(begin); d > 5*time.Second {
			t.Fatalf("reply blocked for %v", d)
		}
	}
	c := dial(t, "tcp", l.Addrs()[0])
	write(t, c, frame(query(t, 1, "fast.")))
	readFrame(t, c)
}

func TestTCP_LimitsQueriesInFlight(t *testing.T) {
	started := make(chan func(), 10)
	l := start(t, Config{MaxInFlight: 2, Handler: handlerFunc(
		func(q *wire.Query, _ wire.Verdict, _ []byte, reply func(*wire.Query, []byte)) []byte {
			c := q.Clone()
			started <- func() { reply(c, wire.AppendError(nil, c, 0, 0, "")) }
			return nil
		})})
	c := dial(t, "tcp", l.Addrs()[0])
	for n := range uint16(5) {
		write(t, c, frame(query(t, n, "a.")))
	}
	for n := range 5 {
		answer := <-started
		if len(started) > 1 {
			t.Errorf("%d queries in flight, want at most 2", len(started)+1)
		}
		answer()
		if got := id(readFrame(t, c)); got != uint16(n) {
			t.Errorf("reply %d to query %d", n, got)
		}
	}
}

func TestTCP_DroppedQueriesFreeTheirPlace(t *testing.T) {
	l := start(t, Config{MaxInFlight: 2, Handler: handlerFunc(
		func(q *wire.Query, _ wire.Verdict, dst []byte, reply func(*wire.Query, []byte)) []byte {
			if string(q.Name()) == "\x04last\x00" {
				return wire.AppendError(dst, q, 0, 0, "")
			}
			c := q.Clone()
			go reply(c, nil)
			return nil
		})})
	c := dial(t, "tcp", l.Addrs()[0])
	for n := range uint16(20) {
		write(t, c, frame(query(t, n, "dropped.")))
	}
	write(t, c, frame(query(t, 99, "last.")))
	if got := id(readFrame(t, c)); got != 99 {
		t.Errorf("reply to %d", got)
	}
}

// awaitIdle waits until the listener knows n connections and has done with each: a client has its answer a moment earlier.
func awaitIdle(t *testing.T, l *Listener, n int) {
	t.Helper()
	eventually(t, func() bool {
		idle := 0
		l.tcp.mu.Lock()
		defer l.tcp.mu.Unlock()
		for c := range l.tcp.conns {
			if !c.busy.Load() && len(c.slots) == 0 {
				idle++
			}
		}
		return idle == n
	})
}

func TestTCP_OldestIdleConnectionMakesRoom(t *testing.T) {
	for name, cfg := range map[string]Config{
		"of all":      {MaxConns: 3},
		"of loopback": {MaxConnsPerLoopback: 3},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Handler = refuse
			l := start(t, cfg)
			var conns []net.Conn
			for n := range uint16(4) {
				c := dial(t, "tcp", l.Addrs()[0])
				write(t, c, frame(query(t, n, "a.")))
				readFrame(t, c)
				conns = append(conns, c)
				awaitIdle(t, l, min(len(conns), 3))
			}
			if n, err := conns[0].Read(make([]byte, 1)); n > 0 || err == nil || os.IsTimeout(err) {
				t.Errorf("the oldest connection is still open: %v", err)
			}
			for _, c := range conns[1:] {
				write(t, c, frame(query(t, 7, "b.")))
				readFrame(t, c)
			}
		})
	}
}

func TestTCP_BusyConnectionsAreNotClosedForANewOne(t *testing.T) {
	started := make(chan func(), 1)
	l := start(t, Config{MaxConns: 1, Handler: handlerFunc(
		func(q *wire.Query, _ wire.Verdict, _ []byte, reply func(*wire.Query, []byte)) []byte {
			c := q.Clone()
			started <- func() { reply(c, wire.AppendError(nil, c, 0, 0, "")) }
			return nil
		})})
	first := dial(t, "tcp", l.Addrs()[0])
	write(t, first, frame(query(t, 1, "a.")))
	answer := <-started
	second := dial(t, "tcp", l.Addrs()[0])
	if n, err := second.Read(make([]byte, 1)); n > 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("a connection too many is kept: %v", err)
	}
	answer()
	readFrame(t, first)
}

func TestNew_TakenPortNamesItsHolder(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		t.Run(proto, func(t *testing.T) {
			var addr netip.AddrPort
			if proto == "tcp" {
				c, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				addr = addrPort(c.Addr())
			} else {
				c, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				addr = addrPort(c.LocalAddr())
			}
			_, err := New(Config{Addrs: []netip.AddrPort{addr}, Handler: refuse})
			if err == nil {
				t.Fatal("New took a taken port")
			}
			for _, want := range []string{fmt.Sprintf("%s/%s", addr, proto), fmt.Sprintf("(pid %d)", os.Getpid()), "listen.test"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestNew_SecondListenerOnTheSameAddressIsRefused(t *testing.T) {
	l := start(t, Config{Handler: refuse})
	if _, err := New(Config{Addrs: l.Addrs(), Handler: refuse}); err == nil {
		t.Fatal("a second daemon joined")
	}
}

func TestNew_WrongConfigurations(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"no handler":     {Config{Addrs: addrs("127.0.0.1:0")}, "no handler"},
		"no address":     {Config{Handler: refuse}, "no address"},
		"foreign addess": {Config{Addrs: addrs("192.0.2.1:0"), Handler: refuse}, "no interface of this host"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestFiles_HandedOverSocketsKeepServing(t *testing.T) {
	first, err := New(Config{Addrs: addrs("127.0.0.1:0", "[::1]:0"), Handler: refuse, Loops: 3})
	if err != nil {
		t.Fatal(err)
	}
	files, err := first.Files()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 8 {
		t.Errorf("%d files, want 1 TCP and 3 UDP for each address", len(files))
	}
	// What comes between the two is kept by the sockets.
	waiting := dial(t, "udp", first.Addrs()[0])
	write(t, waiting, query(t, 42, "between.example."))
	first.Close()
	second := start(t, Config{Addrs: first.Addrs(), Files: files, Handler: refuse})
	if msg := readDatagram(t, waiting); id(msg) != 42 {
		t.Errorf("%x", msg)
	}
	for i, a := range second.Addrs() {
		if a != first.Addrs()[i] {
			t.Errorf("address %v, want %v", a, first.Addrs()[i])
		}
		c := dial(t, "tcp", a)
		write(t, c, frame(query(t, 1, "a.example.")))
		readFrame(t, c)
		for n := range uint16(20) { // from ports enough to meet every socket of the group
			u := dial(t, "udp", a)
			write(t, u, query(t, n, "a.example."))
			readDatagram(t, u)
		}
	}
}

func TestFiles_WithoutAddressesTheirsAreTaken(t *testing.T) {
	first, err := New(Config{Addrs: addrs("127.0.0.1:0"), Handler: refuse})
	if err != nil {
		t.Fatal(err)
	}
	files, err := first.Files()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	second := start(t, Config{Files: files, Handler: refuse})
	if got, want := second.Addrs(), first.Addrs(); len(got) != 1 || got[0] != want[0] {
		t.Errorf("Addrs = %v, want %v", got, want)
	}
}

func TestFiles_AreServedBesideFurtherAddresses(t *testing.T) {
	first, err := New(Config{Addrs: addrs("127.0.0.1:0"), Handler: refuse})
	if err != nil {
		t.Fatal(err)
	}
	files, err := first.Files()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	second := start(t, Config{Addrs: addrs("127.0.0.1:0"), Files: files, Handler: refuse})
	if got := second.Addrs(); len(got) != 2 || got[1] != first.Addrs()[0] {
		t.Fatalf("Addrs = %v, want two, the second %v", got, first.Addrs()[0])
	}
	for n, a := range second.Addrs() {
		u := dial(t, "udp", a)
		write(t, u, query(t, uint16(n), "a.example."))
		readDatagram(t, u)
	}
}

func TestFiles_WhatCannotBeBoundBesideThemIsLeftOut(t *testing.T) {
	first, err := New(Config{Addrs: addrs("127.0.0.1:0"), Handler: refuse})
	if err != nil {
		t.Fatal(err)
	}
	files, err := first.Files()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	var log bytes.Buffer
	second := start(t, Config{Addrs: addrs("192.0.2.77:5353"), Files: files, Handler: refuse, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if got := second.Addrs(); len(got) != 1 || got[0] != first.Addrs()[0] {
		t.Errorf("Addrs = %v, want %v alone", got, first.Addrs()[0])
	}
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "192.0.2.77:5353") {
		t.Errorf("log: %s", log.String())
	}
}

func TestRun_LostListenerIsAnError(t *testing.T) {
	for _, lose := range []string{"udp", "tcp"} {
		t.Run(lose, func(t *testing.T) {
			l, err := New(Config{Addrs: addrs("127.0.0.1:0"), Handler: refuse})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- l.Run(t.Context()) }()
			if lose == "udp" {
				l.endpoints[0].udp[0].Close()
			} else {
				l.endpoints[0].tcp.Close()
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), "/"+lose+" is lost") {
				t.Errorf("Run = %v", err)
			}
		})
	}
}

func TestRun_EndsWithQueriesInFlight(t *testing.T) {
	var mu sync.Mutex
	var pending []func()
	got := make(chan struct{}, 2)
	l, err := New(Config{Addrs: addrs("127.0.0.1:0"), Handler: handlerFunc(
		func(q *wire.Query, _ wire.Verdict, _ []byte, reply func(*wire.Query, []byte)) []byte {
			c := q.Clone()
			mu.Lock()
			pending = append(pending, func() { reply(c, wire.AppendError(nil, c, 0, 0, "")) })
			mu.Unlock()
			got <- struct{}{}
			return nil
		})})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	c, u := dial(t, "tcp", l.Addrs()[0]), dial(t, "udp", l.Addrs()[0])
	write(t, c, frame(query(t, 1, "a.")))
	write(t, u, query(t, 1, "a."))
	<-got
	<-got
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	for _, f := range pending {
		f() // too late, and harmless
	}
}

func TestCollector_HasBothTransports(t *testing.T) {
	l := start(t, Config{Handler: refuse})
	u := dial(t, "udp", l.Addrs()[0])
	write(t, u, query(t, 1, "a.example."))
	readDatagram(t, u)
	eventually(t, func() bool { return l.UDP().Replies == 1 })
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(l.Collector())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, label := range m.Label {
				name += " " + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue()
		}
	}
	if got["meibo_dns_queries_total udp"] != 1 || got["meibo_dns_replies_total udp"] != 1 || got["meibo_dns_answers_total REFUSED A"] != 1 || len(got) != 13 {
		t.Errorf("%v", got)
	}
}

func BenchmarkUDP(b *testing.B) {
	for _, noBatch := range []bool{false, true} {
		b.Run(fmt.Sprintf("batch=%v", !noBatch), func(b *testing.B) {
			l, err := New(Config{Addrs: addrs("127.0.0.1:0"), Handler: refuse, NoBatch: noBatch, Loops: 1})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error)
			go func() { done <- l.Run(ctx) }()
			c := dial(b, "udp", l.Addrs()[0])
			msg, in := query(b, 1, "web.service.consul."), make([]byte, 512)
			const window = 64 // in flight
			b.ReportAllocs()
			for b.Loop() {
				for range window {
					write(b, c, msg)
				}
				for range window {
					if _, err := c.Read(in); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*window), "ns/query")
			cancel()
			<-done
		})
	}
}
