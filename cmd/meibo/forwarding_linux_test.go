package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// floodUpstream answers every name with a denial that may be kept, or, once it is silent, nothing.
type floodUpstream struct {
	addr   netip.AddrPort
	silent atomic.Bool
	asked  atomic.Int64
}

func newFloodUpstream(t *testing.T, at netip.AddrPort) *floodUpstream {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	must(t, err)
	u := &floodUpstream{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	soa, err := dns.NewRR("flood.example. 300 IN SOA ns.flood.example. host.flood.example. 1 3600 600 86400 300")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			m := new(dns.Msg)
			if m.Unpack(buf[:n]) != nil || len(m.Question) != 1 {
				continue
			}
			u.asked.Add(1)
			r := new(dns.Msg)
			r.SetReply(m)
			switch name := m.Question[0].Name; {
			case u.silent.Load():
				continue
			case strings.HasSuffix(name, "flood.example."):
				r.Rcode, r.Ns = dns.RcodeNameError, []dns.RR{soa}
			case m.Question[0].Qtype == dns.TypeA:
				rr, _ := dns.NewRR(name + " 3600 IN A 192.0.2.1")
				r.Answer = []dns.RR{rr}
			}
			if b, err := r.Pack(); err == nil {
				conn.WriteToUDPAddrPort(b, from)
			}
		}
	})
	t.Cleanup(func() { conn.Close(); wg.Wait() })
	return u
}

// flood asks for names that nobody has, as fast as they are taken, until stop is closed.
func flood(t *testing.T, addr string, stop <-chan struct{}) (sent *atomic.Int64, wg *sync.WaitGroup) {
	sent, wg = new(atomic.Int64), new(sync.WaitGroup)
	m := new(dns.Msg)
	m.SetQuestion("xxxxxxxxxxxxxxxx.flood.example.", dns.TypeA)
	packet, err := m.Pack()
	must(t, err)
	for range 2 {
		wg.Go(func() {
			conn, err := net.Dial("udp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			wg.Go(func() { // what comes back makes room for more
				buf := make([]byte, 4096)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
				}
			})
			packet := slices.Clone(packet)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for range 16 {
					binary.BigEndian.PutUint16(packet, uint16(rand.Uint32()))
					copy(packet[13:], fmt.Sprintf("%016x", rand.Uint64()))
					if _, err := conn.Write(packet); err == nil {
						sent.Add(1)
					}
				}
				<-time.After(time.Millisecond) // 32,000 a second from both: more than one CPU forwards
			}
		})
	}
	return sent, wg
}

// residentMB is what the process has in memory.
func residentMB(t *testing.T, p *process) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, err := strconv.Atoi(f[1])
			must(t, err)
			return kb >> 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestRandomSubdomainFlood: names that nobody has, at full rate, while upstreams answer and while they are silent. Names in
// the cache go on being answered, memory is bounded, and when it is over nothing sticks.
func TestRandomSubdomainFlood(t *testing.T) {
	lasts, most := 2*time.Second, 150
	if verifying() {
		lasts = 60 * time.Second
	}
	u := newFloodUpstream(t, netip.MustParseAddrPort("127.0.0.1:0"))
	s := newSite(t, "")
	writeFile(t, s.dir, "conf/flood.hcl", fmt.Sprintf("recursors = [%q]", u.addr))
	p := s.start(t)
	s.up(t)
	must(t, wantAnswer(s.dns, "known.example", dns.TypeA, "A 192.0.2.1"))
	for _, silent := range []bool{false, true} {
		u.silent.Store(silent)
		stop := make(chan struct{})
		before := residentMB(t, p)
		sent, wg := flood(t, s.dns, stop)
		var took []time.Duration
		lost := 0
		for end := time.Now().Add(lasts); time.Now().Before(end); {
			began := time.Now()
			dropped, err := stubborn(s.dns, "known.example", "A 192.0.2.1")
			if err != nil {
				t.Errorf("a name in the cache, silent %v: %v", silent, err)
				break
			}
			lost += dropped
			took = append(took, time.Since(began))
			<-time.After(2 * time.Millisecond)
		}
		close(stop)
		rss := residentMB(t, p)
		if slices.Sort(took); len(took) == 0 || lost > len(took)/2 {
			t.Fatalf("silent %v: %d answers, %d datagrams lost", silent, len(took), lost)
		}
		t.Logf("upstream silent %v: %d questions in %v, %d reached it; the name in the cache %d times (%d datagrams lost), p50 %v, p99 %v; memory %d MB, before %d MB", silent,
			sent.Load(), lasts, u.asked.Load(), len(took), lost, took[len(took)/2].Round(time.Microsecond), took[len(took)*99/100].Round(time.Microsecond), rss, before)
		if rss > most {
			t.Errorf("%d MB in memory, want at most %d", rss, most)
		}
		u.silent.Store(false)
		back := eventually(t, "new names are answered again", func() error {
			return wantAnswer(s.dns, fmt.Sprintf("new%d.example", rand.Uint32()), dns.TypeA, "A 192.0.2.1")
		})
		t.Logf("new names are back after %v", back.Round(time.Millisecond))
		waitAll(t, wg)
	}
	p.Stop(t)
}

// stubborn asks as a stub resolver does, again when nothing comes: a queue of the kernel's that a flood has filled loses
// datagrams. It returns how many.
func stubborn(addr, name, want string) (lost int, err error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	client := dns.Client{Timeout: 250 * time.Millisecond}
	for ; lost < 8; lost++ {
		reply, _, err := client.Exchange(m, addr)
		if err != nil {
			continue
		}
		if got := strings.Join(answers(reply), ", "); got != want {
			return lost, fmt.Errorf("%s: got %s %s, want %s", name, dns.RcodeToString[reply.Rcode], got, want)
		}
		return lost, nil
	}
	return lost, fmt.Errorf("%s: nothing came for %d questions", name, lost)
}

// waitAll waits for a flood to end.
func waitAll(t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the flood does not end")
	}
}

// TestNetworkDownAndUp takes the way to the upstream away: what is known is answered, what isn't fails at once, and all is
// back within a second and a half of the network. The long form, with nothing beside it, judges the times.
func TestNetworkDownAndUp(t *testing.T) {
	inHost(t, func(t *testing.T) {
		const addr = "10.99.0.1"
		setAlias(t, addr)
		newFloodUpstream(t, netip.AddrPortFrom(netip.MustParseAddr(addr), 53))
		s := newSite(t, "")
		writeFile(t, s.dir, "conf/down.hcl", fmt.Sprintf("recursors = [%q]", addr))
		p := s.start(t)
		s.up(t)
		must(t, wantAnswer(s.dns, "known.example", dns.TypeA, "A 192.0.2.1"))
		for round := range 2 {
			setAlias(t, "")
			began := time.Now()
			reply, err := ask(s.dns, "udp", fmt.Sprintf("unknown%d.example", round), dns.TypeA)
			must(t, err)
			if took := time.Since(began); reply.Rcode != dns.RcodeServerFailure || verifying() && took > time.Second {
				t.Errorf("without a network: %s after %v", dns.RcodeToString[reply.Rcode], took)
			}
			must(t, wantAnswer(s.dns, "known.example", dns.TypeA, "A 192.0.2.1"))
			for range 20 { // enough to make it dead
				_, _ = ask(s.dns, "udp", fmt.Sprintf("unknown%d.example", rand.Uint32()), dns.TypeA)
			}
			<-time.After(3 * time.Second) // probes back off meanwhile
			setAlias(t, addr)
			back := eventually(t, "new names are answered again", func() error {
				return wantAnswer(s.dns, fmt.Sprintf("new%d.example", rand.Uint32()), dns.TypeA, "A 192.0.2.1")
			})
			t.Logf("new names are back %v after the network", back.Round(time.Millisecond))
			if verifying() && back > 1500*time.Millisecond {
				t.Errorf("%v until new names were answered", back)
			}
		}
		p.Stop(t)
	})
}

// setAlias gives the loopback interface a second address, "" takes it away.
func setAlias(t *testing.T, addr string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo:1")
	must(t, err)
	if addr == "" {
		req.SetUint16(0)
		must(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req))
		return
	}
	ip := netip.MustParseAddr(addr).As4()
	must(t, req.SetInet4Addr(ip[:]))
	must(t, unix.IoctlIfreq(fd, unix.SIOCSIFADDR, req))
}
