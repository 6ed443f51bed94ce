package forwarder

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meibo/resolver/wire"
)

// startSockets is a pool whose replies are heard until the test ends.
func startSockets(t *testing.T) *sockets {
	p := newSockets()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { p.run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.open) > 0 {
			t.Errorf("%d sockets are left open", len(p.open))
		}
	})
	return p
}

// peer is a server that the test plays itself.
func peer(t *testing.T) (*net.UDPConn, *server) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, newServer(nil, conn.LocalAddr().(*net.UDPAddr).AddrPort(), nil)
}

// testWaiter is a waiter and what it is told through.
type testWaiter struct {
	*waiter
	told <-chan told
}

func waiterFor(s *server) testWaiter {
	name, _ := wire.ParseName("www.test.")
	ch := make(chan told, 1)
	return testWaiter{newWaiter(&attempt{srv: s, q: wire.NewQuery(name, dns.TypeA), told: ch}), ch}
}

// asked asks s for www.test A; from is where the question came from.
func asked(t *testing.T, p *sockets, conn *net.UDPConn, s *server) (w testWaiter, from netip.AddrPort) {
	t.Helper()
	w = waiterFor(s)
	p.send(w.waiter, wire.AppendQuery(nil, w.q, 0, false))
	p.flush()
	buf := make([]byte, 512)
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil || binary.BigEndian.Uint16(buf[:n]) != w.id {
		t.Fatalf("the question: %d octets, %v", n, err)
	}
	return w, from
}

// replyTo is a reply to w, its ID off by so much.
func replyTo(w testWaiter, off uint16) []byte {
	msg := wire.AppendQuery(nil, w.q, w.id+off, false)
	msg[2] |= 0x80
	return msg
}

func outcome(t *testing.T, w testWaiter) event {
	t.Helper()
	select {
	case <-w.told:
		w.sock.mu.Lock()
		defer w.sock.mu.Unlock()
		return w.event
	case <-time.After(5 * time.Second):
		t.Fatal("nothing came of the question")
	}
	return event{}
}

func TestSockets_ReplyCountsByAddressPortAndID_RFC5452(t *testing.T) {
	p := startSockets(t)
	conn, s := peer(t)
	stranger, _ := peer(t)
	w, from := asked(t, p, conn, s)
	defer p.drop(w.waiter)
	for range maxMismatches + 5 { // no guesses at this question: they are not from where it went
		stranger.WriteToUDPAddrPort(replyTo(w, 0), from)
	}
	for range maxMismatches - 1 {
		conn.WriteToUDPAddrPort(replyTo(w, 1), from)
	}
	conn.WriteToUDPAddrPort(replyTo(w, 0), from)
	if e := outcome(t, w); e.err != nil || e.answer == nil {
		t.Errorf("the right reply among wrong ones: %+v", e)
	}
	if n := s.mismatches.Load(); n != maxMismatches-1 {
		t.Errorf("%d mismatches, want %d", n, maxMismatches-1)
	}

	w, from = asked(t, p, conn, s)
	defer p.drop(w.waiter)
	for range maxMismatches {
		conn.WriteToUDPAddrPort(replyTo(w, 1), from)
	}
	if e := outcome(t, w); e.err != nil || e.answer != nil || e.fault != nil {
		t.Errorf("after twenty guesses: %+v, want the end of UDP", e)
	}
}

// What comes after its question is over is late, and no guess at another one on the same socket.
func TestSockets_LateRepliesAreNoGuesses(t *testing.T) {
	p := startSockets(t)
	conn, s := peer(t)
	old, from := asked(t, p, conn, s)
	p.drop(old.waiter)
	w := waiterFor(s)
	old.sock.register(w.waiter, &p.chance)
	defer p.drop(w.waiter)
	for range 2 * maxMismatches {
		conn.WriteToUDPAddrPort(replyTo(old, 0), from)
	}
	conn.WriteToUDPAddrPort(replyTo(w, 0), from)
	if e := outcome(t, w); e.answer == nil {
		t.Errorf("got %+v", e)
	}
	if n := s.mismatches.Load(); n != 0 {
		t.Errorf("%d mismatches", n)
	}
}

// A refusal is told of the question that was refused, at once, whoever shares its socket.
func TestSockets_RefusalIsOfItsQuestionAlone(t *testing.T) {
	p := startSockets(t)
	conn, s := peer(t)
	closed, gone := peer(t)
	closed.Close()
	kept, from := asked(t, p, conn, s)
	defer p.drop(kept.waiter)
	for range 5 {
		w := waiterFor(gone)
		kept.sock.register(w.waiter, &p.chance)
		if err := kept.sock.send(wire.AppendQuery(nil, w.q, w.id, false), gone.addr); err != nil {
			t.Fatal(err)
		}
		if e := outcome(t, w); !errors.Is(e.err, syscall.ECONNREFUSED) {
			t.Errorf("got %+v, want a refusal", e)
		}
		p.drop(w.waiter)
	}
	// What is pending on the socket must not cost the next question to somebody else.
	if err := kept.sock.send(wire.AppendQuery(nil, kept.q, kept.id, false), s.addr); err != nil {
		t.Error(err)
	}
	conn.WriteToUDPAddrPort(replyTo(kept, 0), from)
	if e := outcome(t, kept); e.answer == nil {
		t.Errorf("the question to the other server: %+v", e)
	}
}

func TestSockets_AreRetiredByUseAndByAge(t *testing.T) {
	p := startSockets(t)
	conn, s := peer(t)
	first, err := p.pick(7, false)
	if err != nil {
		t.Fatal(err)
	}
	for range maxUses - 1 {
		if again, _ := p.pick(7, false); again != first {
			t.Fatal("another socket before its time")
		}
	}
	if second, _ := p.pick(7, false); second == first {
		t.Error("the same socket for more than its uses")
	}
	if isOpen(p, first) {
		t.Error("nobody waits on the retired socket, and it is open")
	}

	// One that somebody waits on stays until then.
	w, from := asked(t, p, conn, s)
	p.agesAll()
	p.closeOld()
	if !isOpen(p, w.sock) {
		t.Error("a socket with a question is closed")
	}
	conn.WriteToUDPAddrPort(replyTo(w, 0), from)
	if e := outcome(t, w); e.answer == nil {
		t.Errorf("got %+v", e)
	}
	p.drop(w.waiter)
	if isOpen(p, w.sock) {
		t.Error("the retired socket is open after its last question")
	}

	third, _ := p.pick(7, false)
	p.agesAll()
	if fourth, _ := p.pick(7, false); fourth == third {
		t.Error("a socket beyond its age")
	}
	p.agesAll()
	p.closeOld()
	if n := len(p.open); n != 0 {
		t.Errorf("%d sockets are open after all are too old", n)
	}
}

func TestSockets_AfterTheEndNothingIsOpened(t *testing.T) {
	p := newSockets()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.run(ctx)
	if _, err := p.pick(1, false); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
	_, s := peer(t)
	w := waiterFor(s)
	p.send(w.waiter, wire.AppendQuery(nil, w.q, 0, false))
	p.flush()
	if got := <-w.told; !errors.Is(got.err, errClosed) {
		t.Errorf("a question: %+v", got)
	}
	p.drop(w.waiter)
}

// What is asked together goes out of few sockets, each with an ID of its own, and no socket is used more than it may be.
func TestSockets_QuestionsAreSentInBatches(t *testing.T) {
	p := startSockets(t)
	conn, s := peer(t)
	conn.SetReadBuffer(1 << 20)
	uses := map[uint16]int{} // by port
	for range 20 {
		var ws []testWaiter
		for range 2*sendSlots + 6 {
			w := waiterFor(s)
			p.send(w.waiter, wire.AppendQuery(nil, w.q, 0, false))
			ws = append(ws, w)
		}
		p.flush()
		ports, buf := map[uint16]bool{}, make([]byte, 512)
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		for i := range ws {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatalf("%d of %d questions: %v", i, len(ws), err)
			}
			ports[from.Port()] = true
			uses[from.Port()]++
			buf[2] |= 0x80
			conn.WriteToUDPAddrPort(buf[:n], from)
		}
		if n := len(ports); n > 6 { // three batches, each of which may meet a socket that is used up but for a few
			t.Errorf("%d questions out of %d sockets", len(ws), n)
		}
		for _, w := range ws {
			if e := outcome(t, w); e.answer == nil {
				t.Fatalf("got %+v", e)
			}
			p.drop(w.waiter)
		}
	}
	for port, n := range uses {
		if n > maxUses {
			t.Errorf("port %d was used %d times", port, n)
		}
	}
}

func TestSockets_DroppedBeforeItIsSent(t *testing.T) {
	p := startSockets(t)
	conn, s := peer(t)
	w := waiterFor(s)
	p.send(w.waiter, wire.AppendQuery(nil, w.q, 0, false))
	p.drop(w.waiter)
	other, _ := asked(t, p, conn, s) // the first that arrives is this one
	p.drop(other.waiter)
	if w.sock != nil {
		t.Error("it was sent")
	}
}

func TestSockets_APanicWhileSendingIsTheErrorOfItsQuestions(t *testing.T) {
	p := startSockets(t)
	conn, s := peer(t)
	first, second := waiterFor(s), waiterFor(s)
	p.send(first.waiter, wire.AppendQuery(nil, first.q, 0, false))
	p.send(second.waiter, nil) // no packet at all
	p.flush()
	for _, w := range []testWaiter{first, second} {
		if e := outcome(t, w); e.err == nil || !strings.Contains(e.err.Error(), "panic") {
			t.Errorf("got %+v", e)
		}
		p.drop(w.waiter)
	}
	other, _ := asked(t, p, conn, s) // goes on
	p.drop(other.waiter)
}

func (p *sockets) pick(slot int, v6 bool) (*socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pickLocked(slot, v6)
}

// agesAll makes all sockets that are in use too old.
func (p *sockets) agesAll() {
	for f := range p.slots {
		for _, s := range p.slots[f] {
			if s != nil {
				s.born = s.born.Add(-maxAge - time.Second)
			}
		}
	}
}

func isOpen(p *sockets, s *socket) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[int32(s.fd)] == s
}
