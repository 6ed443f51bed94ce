package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var (
	addrA = netip.MustParseAddr("10.0.0.1")
	addrB = netip.MustParseAddr("10.0.0.2")
	onlyA = []netip.Addr{addrA}
	onlyB = []netip.Addr{addrB}
)

// pair is a stream between two hosts, from a to b.
type pair struct {
	*testing.T
	net      *Network
	a, b     *Host
	listener net.Listener
	ab, ba   net.Conn
}

// bubble runs f with a pair, in fake time.
func bubble(t *testing.T, f func(p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		p := &pair{T: t, net: n, a: n.Host(addrA), b: n.Host(addrB)}
		var err error
		if p.listener, err = p.b.Listen(t.Context(), "tcp", "10.0.0.2:80"); err != nil {
			t.Fatal(err)
		}
		if p.ab, err = p.a.DialContext(t.Context(), "tcp", "10.0.0.2:80"); err != nil {
			t.Fatal(err)
		}
		if p.ba, err = p.listener.Accept(); err != nil {
			t.Fatal(err)
		}
		f(p)
	})
}

func (p *pair) write(c net.Conn, text string) {
	p.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		p.Fatal(err)
	}
}

// read returns what is read within the time, and how long it took.
func (p *pair) read(c net.Conn, within time.Duration) (string, time.Duration, error) {
	p.Helper()
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(within))
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), time.Since(began), err
}

func (p *pair) reads(c net.Conn, want string, within, took time.Duration) {
	p.Helper()
	if got, d, err := p.read(c, within); got != want || err != nil || d > took {
		p.Errorf("got %q, %v after %v, want %q within %v", got, err, d, want, took)
	}
}

func (p *pair) fails(c net.Conn, want error, within time.Duration) {
	p.Helper()
	if got, d, err := p.read(c, time.Minute); !errors.Is(err, want) || d > within {
		p.Errorf("got %q, %v after %v, want %v within %v", got, err, d, want, within)
	}
}

func TestStream_CarriesBothWaysAndEnds(t *testing.T) {
	bubble(t, func(p *pair) {
		p.write(p.ab, "one")
		p.write(p.ab, "two")
		p.reads(p.ba, "onetwo", time.Second, defaultDelay)
		p.write(p.ba, "three")
		p.reads(p.ab, "three", time.Second, defaultDelay)
		if a, b := p.ab.RemoteAddr().String(), p.ba.LocalAddr().String(); a != "10.0.0.2:80" || a != b {
			p.Errorf("addresses %s and %s", a, b)
		}
		if _, ok := p.ba.RemoteAddr().(*net.TCPAddr); !ok {
			p.Errorf("address of type %T", p.ba.RemoteAddr())
		}
		p.write(p.ab, "last")
		p.ab.Close()
		p.reads(p.ba, "last", time.Second, time.Millisecond)
		p.fails(p.ba, io.EOF, time.Millisecond)
		p.ba.Close()
		time.Sleep(time.Second)
		if len(p.net.conns) != 0 {
			p.Errorf("%d streams are remembered", len(p.net.conns))
		}
	})
}

func TestStream_WriterWaitsForTheReaderOfAFullBuffer(t *testing.T) {
	bubble(t, func(p *pair) {
		sent := bytes.Repeat([]byte("0123456789"), defaultWindow/5) // two windows
		_ = p.ab.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := p.ab.Write(sent)
		if n != defaultWindow || !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Fatalf("wrote %d, %v, want a window's %d", n, err, defaultWindow)
		}
		_ = p.ab.SetWriteDeadline(time.Time{})
		go func() {
			_, _ = p.ab.Write(sent[n:])
			p.ab.Close()
		}()
		if got, err := io.ReadAll(p.ba); err != nil || !bytes.Equal(got, sent) {
			p.Errorf("read %d octets of %d, %v", len(got), len(sent), err)
		}
	})
}

func TestStream_CutHoldsWhatIsSentAndBreaksAfterAWhile(t *testing.T) {
	bubble(t, func(p *pair) {
		p.net.Set(onlyA, onlyB, Path{Cut: true})
		p.write(p.ab, "held")
		if got, _, err := p.read(p.ba, 2*time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
			p.Errorf("got %q, %v over a cut path", got, err)
		}
		p.net.Heal()
		p.reads(p.ba, "held", time.Second, resend)

		p.net.Set(onlyB, onlyA, Path{Cut: true}) // acknowledgements don't come through
		p.write(p.ab, "arrives")
		p.reads(p.ba, "arrives", time.Second, defaultDelay)
		p.fails(p.ab, syscall.ETIMEDOUT, defaultDeadAfter)
		p.fails(p.ba, syscall.ETIMEDOUT, 0)
		if _, err := p.ab.Write([]byte("x")); !errors.Is(err, syscall.ETIMEDOUT) {
			p.Errorf("write: %v", err)
		}
	})
}

func TestStream_LossAndJitterKeepTheOrder(t *testing.T) {
	bubble(t, func(p *pair) {
		p.net.SetBoth(onlyA, onlyB, Path{Delay: 10 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.3})
		var sent []byte
		for i := range 200 {
			sent = append(sent, byte(i))
			p.write(p.ab, string(sent[i:]))
		}
		began := time.Now()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(p.ba, got); err != nil || !bytes.Equal(got, sent) {
			p.Errorf("got %v, %v", got, err)
		}
		if d := time.Since(began); d < 10*time.Millisecond+resend {
			p.Errorf("all was there after %v: nothing was lost", d)
		}
	})
}

func TestKill_ClosesStreamsAndRefusesNewOnes(t *testing.T) {
	bubble(t, func(p *pair) {
		p.write(p.ba, "said before")
		p.b.Kill()
		p.reads(p.ab, "said before", time.Second, defaultDelay)
		p.fails(p.ab, io.EOF, defaultDelay)
		p.write(p.ab, "to nobody")
		time.Sleep(time.Second)
		if _, err := p.ab.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			p.Errorf("write to a killed process: %v", err)
		}
		if _, err := p.a.DialContext(p.Context(), "tcp", "10.0.0.2:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			p.Errorf("dial: %v", err)
		}
		if _, err := p.listener.Accept(); !errors.Is(err, net.ErrClosed) {
			p.Errorf("accept: %v", err)
		}
		if _, err := p.b.DialContext(p.Context(), "tcp", "10.0.0.1:80"); !errors.Is(err, net.ErrClosed) {
			p.Errorf("a killed process dials: %v", err)
		}
	})
	bubble(t, func(p *pair) {
		p.write(p.ab, "never read")
		time.Sleep(time.Second)
		p.b.Kill()
		p.fails(p.ab, syscall.ECONNRESET, defaultDelay)
	})
}

func TestSwitchOff_NobodyHearsOfIt(t *testing.T) {
	bubble(t, func(p *pair) {
		p.write(p.ba, "lost")
		p.b.SwitchOff()
		ctx, cancel := context.WithTimeout(p.Context(), time.Second)
		defer cancel()
		if _, err := p.a.DialContext(ctx, "tcp", "10.0.0.2:80"); !errors.Is(err, context.DeadlineExceeded) {
			p.Errorf("dial: %v", err)
		}
		p.fails(p.ab, syscall.ETIMEDOUT, 2*time.Second)
	})
	bubble(t, func(p *pair) {
		p.b.SwitchOff()
		time.Sleep(time.Second)
		again := p.net.Host(addrB)
		p.fails(p.ab, syscall.ECONNRESET, 2*time.Second)
		if _, err := again.Listen(p.Context(), "tcp", "10.0.0.2:80"); err != nil {
			p.Error(err)
		}
		if _, err := p.a.DialContext(p.Context(), "tcp", "10.0.0.2:80"); err != nil {
			p.Error(err)
		}
	})
}

func TestFreeze_KernelTakesAndProcessSaysNothing(t *testing.T) {
	bubble(t, func(p *pair) {
		p.b.Freeze(true)
		p.write(p.ab, "taken")
		second, err := p.a.DialContext(p.Context(), "tcp", "10.0.0.2:80")
		if err != nil {
			p.Fatal(err)
		}
		defer second.Close()
		p.write(p.ba, "once awake")
		go func() {
			time.Sleep(10 * time.Second)
			p.b.Freeze(false)
		}()
		began := time.Now()
		p.reads(p.ba, "taken", time.Minute, 10*time.Second)
		if d := time.Since(began); d != 10*time.Second {
			p.Errorf("read after %v", d)
		}
		p.reads(p.ab, "once awake", time.Second, defaultDelay)
	})
	bubble(t, func(p *pair) {
		p.b.Freeze(true)
		p.write(p.ba, "never")
		p.b.Kill()
		p.fails(p.ab, io.EOF, defaultDelay)
	})
}

func TestSetLinger_ResetsTheStream(t *testing.T) {
	bubble(t, func(p *pair) {
		_ = p.ab.(*end).SetLinger(0)
		p.ab.Close()
		p.fails(p.ba, syscall.ECONNRESET, defaultDelay)
	})
}

func TestDial_WaitsForALostRequest(t *testing.T) {
	bubble(t, func(p *pair) {
		p.net.SetBoth(onlyA, onlyB, Path{Cut: true, Port: 80})
		go func() {
			time.Sleep(1500 * time.Millisecond)
			p.net.Heal()
		}()
		began := time.Now()
		if _, err := p.a.DialContext(p.Context(), "tcp", "10.0.0.2:80"); err != nil || time.Since(began) < 2*defaultRedial {
			p.Errorf("%v after %v", err, time.Since(began))
		}
		if _, err := p.b.Listen(p.Context(), "tcp", "10.0.0.2:80"); !errors.Is(err, syscall.EADDRINUSE) {
			p.Errorf("listen: %v", err)
		}
	})
}

func TestPacket_ArrivesOrNot(t *testing.T) {
	bubble(t, func(p *pair) {
		a, err := p.a.ListenPacket(p.Context(), "udp", "10.0.0.1:0")
		if err != nil {
			p.Fatal(err)
		}
		b, err := p.b.ListenPacket(p.Context(), "udp", "10.0.0.2:53")
		if err != nil {
			p.Fatal(err)
		}
		arrives := func() bool {
			p.Helper()
			if _, err := a.WriteTo([]byte("hello"), b.LocalAddr()); err != nil {
				p.Fatal(err)
			}
			buf := make([]byte, 10)
			_ = b.SetReadDeadline(time.Now().Add(time.Second))
			n, from, err := b.ReadFrom(buf)
			if err != nil {
				return false
			}
			if string(buf[:n]) != "hello" || from.String() != a.LocalAddr().String() {
				p.Errorf("got %q from %v", buf[:n], from)
			}
			return true
		}
		if !arrives() {
			p.Error("nothing came")
		}
		p.net.Set(onlyA, onlyB, Path{Cut: true, Port: 54})
		if !arrives() {
			p.Error("a cut of another port cuts this one")
		}
		p.net.Set(onlyA, onlyB, Path{Cut: true, Port: 53})
		if arrives() {
			p.Error("a cut path carries")
		}
		p.net.Set(onlyA, onlyB, Path{Loss: 0.5})
		came := 0
		for range 100 {
			if arrives() {
				came++
			}
		}
		if came < 30 || came > 70 {
			p.Errorf("%d of 100 came where half are lost", came)
		}
		p.net.Heal()
		p.b.Kill()
		if arrives() {
			p.Error("a killed process hears")
		}
	})
}

// What is said of all holds for hosts that come later, not for whom something else was
// said of, and for nobody's own packets.
func TestSetAll_HoldsWhereNothingElseIsSaid(t *testing.T) {
	bubble(t, func(p *pair) {
		p.net.Set(onlyA, onlyB, Path{Delay: time.Millisecond})
		p.net.SetAll(Path{Delay: time.Second})
		c := p.net.Host(netip.MustParseAddr("10.0.0.3"))
		from := func(h *Host) net.PacketConn {
			s, err := h.ListenPacket(p.Context(), "udp", netip.AddrPortFrom(h.Addr(), 53).String())
			if err != nil {
				p.Fatal(err)
			}
			return s
		}
		a, b, atC := from(p.a), from(p.b), from(c)
		for _, tt := range []struct {
			from, to net.PacketConn
			want     time.Duration
		}{{a, b, time.Millisecond}, {b, a, time.Second}, {a, atC, time.Second}, {a, a, defaultDelay}} {
			began := time.Now()
			if _, err := tt.from.WriteTo([]byte("x"), tt.to.LocalAddr()); err != nil {
				p.Fatal(err)
			}
			if _, _, err := tt.to.ReadFrom(make([]byte, 10)); err != nil || time.Since(began) != tt.want {
				p.Errorf("%v to %v: after %v, %v, want %v", tt.from.LocalAddr(), tt.to.LocalAddr(), time.Since(began), err, tt.want)
			}
		}
	})
}
