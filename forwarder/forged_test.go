package forwarder_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meibo/forwarder"
	"meibo/resolver/wire"
)

// TestForgedReplies_NoneIsAccepted has somebody who sends from the upstream's own address guess ports and IDs while questions
// are kept open. A guess is right once in 1.8 billion (RFC 5452 section 7): ten million, in the long form, find nothing.
func TestForgedReplies_NoneIsAccepted(t *testing.T) {
	forged, perRound := 200_000, 100_000
	if os.Getenv("MEIBO_VERIFY") != "" {
		forged, perRound = 10_000_000, 400_000
	}
	const open = 64
	low, high := 32768, 60999
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(b), &low, &high)
	}
	// Who guesses twenty times at one question has it asked over TCP, where the truth is to be had.
	tcp := newStreamServer(t, nil, func(c *streamConn) {
		for {
			m, err := c.read()
			if err != nil {
				return
			}
			b := replyTo(m, "198.51.100.1")
			if _, err := c.Write(append([]byte{byte(len(b) >> 8), byte(len(b))}, b...)); err != nil {
				return
			}
		}
	})
	addr := tcp.addr
	conn := tcp.udp
	type asked struct {
		from netip.AddrPort
		m    *dns.Msg
	}
	held := make(chan asked, 4096)
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			m := new(dns.Msg)
			if m.Unpack(bytes.Clone(buf[:n])) != nil || len(m.Question) != 1 {
				continue
			}
			if m.Question[0].Qtype != dns.TypeA { // a probe
				conn.WriteToUDPAddrPort(replyTo(m, "198.51.100.1"), from)
				continue
			}
			select {
			case held <- asked{from, m}:
			default:
			}
		}
	})
	t.Cleanup(func() { conn.Close(); reading.Wait() })
	f := run(t, forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{addr}}}})

	var accepted, answered atomic.Int64
	began, sent := time.Now(), 0
	for round := 0; sent < forged; round++ {
		var asking sync.WaitGroup
		lies := make([][]byte, open)
		for i := range open {
			name := fmt.Sprintf("n%d.r%d.test.", i, round)
			m := new(dns.Msg)
			m.SetQuestion(name, dns.TypeA)
			lies[i] = replyTo(m, "203.0.113.66")
			asking.Go(func() {
				q := question(name, dns.TypeA)
				res, err := ask(t, f, q)
				switch {
				case err != nil:
					t.Errorf("%s: %v", name, err)
				case strings.Contains(text(t, q, res), "203.0.113.66"):
					accepted.Add(1)
				default:
					answered.Add(1)
				}
			})
		}
		waitFor(t, "the questions are under way", func() bool { return len(held) >= open })
		var forging sync.WaitGroup
		for w := range 2 {
			forging.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				for range perRound / 2 {
					lie := bytes.Clone(lies[rng.IntN(open)])
					id := rng.Uint32()
					lie[0], lie[1] = byte(id>>8), byte(id)
					conn.WriteToUDPAddrPort(lie, netip.AddrPortFrom(addr.Addr(), uint16(low+rng.IntN(high-low+1))))
				}
			})
		}
		forging.Wait()
		sent += perRound
		for done := false; !done; { // the truth, late
			select {
			case a := <-held:
				conn.WriteToUDPAddrPort(replyTo(a.m, "198.51.100.1"), a.from)
			default:
				done = true
			}
		}
		asking.Wait()
	}
	t.Logf("%d forged replies in %v, %d accepted; %d questions were answered", sent, time.Since(began).Round(time.Millisecond), accepted.Load(), answered.Load())
	if n := accepted.Load(); n > 0 {
		t.Errorf("%d forged replies were accepted", n)
	}
}

// replyTo answers with an address.
func replyTo(m *dns.Msg, addr string) []byte {
	r := new(dns.Msg)
	r.SetReply(m)
	rr, err := dns.NewRR(m.Question[0].Name + " 300 IN A " + addr)
	if err != nil {
		panic(err)
	}
	if m.Question[0].Qtype == dns.TypeA {
		r.Answer = []dns.RR{rr}
	}
	b, err := r.Pack()
	if err != nil {
		panic(err)
	}
	return b
}
