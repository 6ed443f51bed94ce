package forwarder_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meibo/forwarder"
	"meibo/resolver"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

// streamServer is a name server over TCP or TLS whose connections a test scripts.
type streamServer struct {
	t     *testing.T
	addr  netip.AddrPort
	udp   *net.UDPConn // the same port; says nothing unless cutting
	conns atomic.Int32
}

// newStreamServer serves each connection with handle until it returns. A nil config: TCP.
func newStreamServer(t *testing.T, config *tls.Config, handle func(c *streamConn)) *streamServer {
	t.Helper()
	l, udp := bothProtocols(t)
	s := &streamServer{t: t, addr: l.Addr().(*net.TCPAddr).AddrPort(), udp: udp}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				c := conn
				if config != nil {
					c = tls.Server(conn, config)
				}
				handle(&streamConn{c})
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		udp.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

// bothProtocols takes a port that is free for TCP and UDP.
func bothProtocols(t *testing.T) (net.Listener, *net.UDPConn) {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(l.Addr().(*net.TCPAddr).AddrPort()))
		if err == nil {
			return l, udp
		}
		l.Close() // somebody's question leaves from it
	}
	t.Fatal("no port is free for both protocols")
	return nil, nil
}

// cutting has the server cut every answer over UDP, so that it is asked for over TCP.
func (s *streamServer) cutting() *streamServer {
	udp := s.udp
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			buf[2] |= 0x82 // QR, TC
			udp.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	s.t.Cleanup(func() { udp.Close(); wg.Wait() })
	return s
}

type streamConn struct{ net.Conn }

// read returns the next question.
func (c *streamConn) read() (*dns.Msg, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	return m, m.Unpack(b)
}

// answer answers a question with an address that its name's first label says.
func (c *streamConn) answer(q *dns.Msg) error {
	m := new(dns.Msg)
	m.SetReply(q)
	rr, err := dns.NewRR(fmt.Sprintf("%s 300 IN TXT %q", q.Question[0].Name, strings.Split(q.Question[0].Name, ".")[0]))
	if err != nil {
		return err
	}
	m.Answer = []dns.RR{rr}
	b, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

func answerAll(c *streamConn) {
	for {
		q, err := c.read()
		if err != nil || c.answer(q) != nil {
			return
		}
	}
}

// askNames asks for every name at once and wants each its own answer.
func askNames(t *testing.T, f *forwarder.Forwarder, from, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			label := fmt.Sprintf("n%d", from+i)
			q := question(label+".test.", dns.TypeTXT)
			res, err := ask(t, f, q)
			if err != nil {
				t.Errorf("%s: %v", label, err)
				return
			}
			if got := text(t, q, res); !strings.Contains(got, `"`+label+`"`) {
				t.Errorf("%s: got %s", label, got)
			}
		})
	}
	wg.Wait()
}

func TestStream_IsKeptAndPipelined_RFC7766_6_2_1(t *testing.T) {
	const together = 8
	ready := make(chan struct{})
	s := newStreamServer(t, nil, func(c *streamConn) {
		var held []*dns.Msg // the first ones wait for one another, and are answered backwards
		for len(held) < together {
			q, err := c.read()
			if err != nil {
				return
			}
			held = append(held, q)
		}
		close(ready)
		for i := range held {
			if c.answer(held[together-1-i]) != nil {
				return
			}
		}
		answerAll(c)
	})
	f := run(t, forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{s.cutting().addr}}}})
	askNames(t, f, 0, together)
	<-ready
	askNames(t, f, together, 4)
	if got := s.conns.Load(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
}

func TestStream_ServersThatEndConnections_RFC7766_6_2_4(t *testing.T) {
	for name, handle := range map[string]func(c *streamConn){
		"after each answer": func(c *streamConn) {
			if q, err := c.read(); err == nil {
				c.answer(q)
			}
		},
		"after two": func(c *streamConn) {
			for range 2 {
				if q, err := c.read(); err == nil {
					c.answer(q)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStreamServer(t, nil, handle)
			f := run(t, forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{s.cutting().addr}}}})
			askNames(t, f, 0, 1)
			askNames(t, f, 1, 1)
			askNames(t, f, 2, 6)
		})
	}
}

// A connection that a firewall has forgotten costs those who are on it one timeout, and nobody after them.
func TestStream_AKeptOneThatGoesSilentIsLeft(t *testing.T) {
	var first atomic.Bool
	s := newStreamServer(t, nil, func(c *streamConn) {
		if first.CompareAndSwap(false, true) {
			for { // a probe may come first
				q, err := c.read()
				if err != nil || c.answer(q) != nil || q.Question[0].Name == "n0.test." {
					break
				}
			}
			io.Copy(io.Discard, c)
			return
		}
		answerAll(c)
	})
	f := run(t, forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{s.cutting().addr}}}})
	askNames(t, f, 0, 1)
	_, _ = ask(t, f, question("n1.test.", dns.TypeTXT)) // it waits in vain, unless a probe did before
	askNames(t, f, 2, 3)
	if got := s.conns.Load(); got > 3 { // the silent one, the next, and one that a probe may have had to itself
		t.Errorf("%d connections", got)
	}
}

// authority is a certificate of one name and the pool that trusts it.
func authority(t *testing.T, name string) (*tls.Config, *x509.CertPool, [sha256.Size]byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"dot"}},
		pool, sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

func TestTLS_StrictByNameOrPin_RFC7858(t *testing.T) {
	config, pool, pin := authority(t, "dns.test")
	_, _, otherPin := authority(t, "dns.test")
	for _, tc := range []struct {
		what string
		tls  forwarder.TLS
		want string // of the error; "": an answer
	}{
		{"its name", forwarder.TLS{Name: "dns.test", Roots: pool}, ""},
		{"another name", forwarder.TLS{Name: "other.test", Roots: pool}, "not other.test"},
		{"an authority that isn't trusted", forwarder.TLS{Name: "dns.test"}, "unknown authority"},
		{"its pin", forwarder.TLS{Pins: [][32]byte{otherPin, pin}}, ""},
		{"another pin", forwarder.TLS{Pins: [][32]byte{otherPin}}, "its public key has the pin sha256/"},
		{"its name and another pin", forwarder.TLS{Name: "dns.test", Roots: pool, Pins: [][32]byte{otherPin}}, "none of those configured"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := newStreamServer(t, config, answerAll)
			var log lockedLog
			f := run(t, forwarder.Config{
				Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{s.addr}, TLS: &tc.tls}},
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			if tc.want == "" {
				askNames(t, f, 0, 5)
				if log.count("level=") != 0 {
					t.Errorf("the log has\n%s", log.String())
				}
				return
			}
			defer func() { // the reason is told at once, and once
				waitFor(t, "the log to have it", func() bool { return log.count("level=") > 0 }) // of a probe, it may be
				if log.count(tc.want) != 1 || log.count("err=") != 1 {
					t.Errorf("the log has\n%s", log.String())
				}
				waitFor(t, "the server to be left out", func() bool {
					_, _ = ask(t, f, question("n1.test.", dns.TypeTXT))
					return upstreamOf(t, f, wire.Root).Upstream.(resolver.Health).Down()
				})
				if log.count("level=") != 1 {
					t.Errorf("in the end the log has\n%s", log.String())
				}
			}()
			_, err := ask(t, f, question("n0.test.", dns.TypeTXT))
			var failure *resolver.Failure
			if !errors.As(err, &failure) || !strings.Contains(failure.Text, tc.want) || !strings.Contains(failure.Text, s.addr.String()) || failure.EDE != wire.EDENetworkError {
				t.Errorf("error %v, want one that names the server and says %q", err, tc.want)
			}
		})
	}
}

// Nothing leaves in the clear for a server that is to be asked over TLS.
func TestTLS_StrictNeverAsksInTheClear_RFC8310(t *testing.T) {
	u := resolvertest.NewUpstream(t) // UDP and TCP, no TLS
	u.Answer(www, dns.TypeA, record)
	f := run(t, forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{u.Addr()}, TLS: &forwarder.TLS{Name: "dns.test"}}}})
	if _, err := ask(t, f, question(www, dns.TypeA)); err == nil {
		t.Error("an answer of a server without TLS")
	}
	if n := len(u.Asked(www)); n != 0 {
		t.Errorf("it was asked %d times in the clear", n)
	}
}

func TestTLS_Opportunistic_RFC8310_5(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	u.Answer("n0.test.", dns.TypeTXT, `n0.test. 300 IN TXT "n0"`)
	u.Answer("n1.test.", dns.TypeTXT, `n1.test. 300 IN TXT "n1"`)
	config, _, _ := authority(t, "whoever")
	route := func(port uint16) forwarder.Config {
		return forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{u.Addr()}, TLS: &forwarder.TLS{Opportunistic: true, Port: port}}}}
	}
	// There is TLS, whoever has the certificate: nothing is asked in the clear.
	s := newStreamServer(t, config, answerAll)
	askNames(t, run(t, route(s.addr.Port())), 0, 2)
	if n := len(u.Asked("n0.test.")) + len(u.Asked("n1.test.")); n != 0 {
		t.Errorf("asked %d times in the clear beside TLS", n)
	}
	// There is none, or none that answers: the clear, at once or after its turn, and no TLS is tried for the next one.
	for name, port := range map[string]uint16{
		"refused": closedPort(t).Port(),
		"no TLS":  newStreamServer(t, nil, func(c *streamConn) { c.Write([]byte("hello\n")) }).addr.Port(),
		"silent":  newStreamServer(t, nil, func(c *streamConn) { io.Copy(io.Discard, c) }).addr.Port(),
	} {
		t.Run(name, func(t *testing.T) {
			f := run(t, route(port))
			askNames(t, f, 0, 1)
			waitFor(t, "the clear is all that is asked", func() bool {
				began := time.Now()
				askNames(t, f, 1, 1)
				return time.Since(began) < 100*time.Millisecond
			})
		})
	}
}

// The log says when TLS is given up, and when it is not any more.
func TestTLS_OpportunisticAgain(t *testing.T) {
	u := resolvertest.NewUpstream(t)
	for i := range 40 {
		u.Answer(fmt.Sprintf("n%d.test.", i), dns.TypeTXT, fmt.Sprintf(`n%d.test. 300 IN TXT "n%d"`, i, i))
	}
	config, _, _ := authority(t, "whoever")
	var broken atomic.Bool
	broken.Store(true)
	s := newStreamServer(t, config, func(c *streamConn) {
		if broken.Load() {
			return
		}
		if q, err := c.read(); err == nil {
			c.answer(q)
		}
	})
	var log lockedLog
	f := run(t, forwarder.Config{
		Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{u.Addr()}, TLS: &forwarder.TLS{Opportunistic: true, Port: s.addr.Port()}}},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	for round := range 2 {
		askNames(t, f, 4*round, 2)
		waitFor(t, "TLS to be given up", func() bool { return log.count("asked in the clear") == round+1 })
		f.EndClearPauses()
		askNames(t, f, 4*round+2, 1)
		if log.count("asked in the clear") != round+1 || log.count("over TLS again") != round {
			t.Errorf("the log has\n%s", log.String())
		}
		f.EndClearPauses()
		broken.Store(false)
		askNames(t, f, 4*round+3, 1)
		waitFor(t, "the log to have TLS again", func() bool { return log.count("over TLS again") == round+1 })
		broken.Store(true)
	}
	if log.count("level=") != 4 {
		t.Errorf("the log has\n%s", log.String())
	}
}

func TestTLS_SessionsAreResumed(t *testing.T) {
	config, pool, _ := authority(t, "dns.test")
	var resumed atomic.Int32
	s := newStreamServer(t, config, func(c *streamConn) {
		q, err := c.read()
		if err != nil {
			return
		}
		if c.Conn.(*tls.Conn).ConnectionState().DidResume {
			resumed.Add(1)
		}
		c.answer(q)
	})
	f := run(t, forwarder.Config{Routes: []forwarder.Route{{Suffix: wire.Root, Servers: []netip.AddrPort{s.addr}, TLS: &forwarder.TLS{Name: "dns.test", Roots: pool}}}})
	for i := range 4 {
		askNames(t, f, i, 1)
	}
	if resumed.Load() == 0 {
		t.Error("no session was resumed")
	}
}

func TestExchange_FallbackServersAreAskedLast(t *testing.T) {
	first, second, last := resolvertest.NewUpstream(t), resolvertest.NewUpstream(t), resolvertest.NewUpstream(t)
	for i, u := range []*resolvertest.Upstream{first, second, last} {
		u.Answer(www, dns.TypeA, fmt.Sprintf("%s 300 IN A 192.0.2.%d", www, i+1))
	}
	for _, mode := range []forwarder.Mode{forwarder.Fastest, forwarder.Strict, forwarder.All, forwarder.Random} {
		t.Run(string(mode), func(t *testing.T) {
			begin := len(last.Asked(www))
			f := run(t, forwarder.Config{Routes: []forwarder.Route{{
				Suffix: wire.Root, Servers: []netip.AddrPort{first.Addr(), second.Addr()}, Fallback: []netip.AddrPort{last.Addr(), first.Addr()}, Mode: mode,
			}}})
			for range 20 {
				if got, _ := mustAsk(t, f); strings.Contains(got, "192.0.2.3") {
					t.Fatalf("the fallback answered: %s", got)
				}
			}
			if n := len(last.Asked(www)) - begin; n != 0 {
				t.Errorf("the fallback was asked %d times beside living servers", n)
			}
			for _, u := range []*resolvertest.Upstream{first, second} {
				u.Set(www, dns.TypeA, resolvertest.Rule{Rcode: dns.RcodeServerFailure})
			}
			if got, _ := mustAsk(t, f); !strings.Contains(got, "192.0.2.3") {
				t.Errorf("after both failed: %s", got)
			}
			for i, u := range []*resolvertest.Upstream{first, second} {
				u.Answer(www, dns.TypeA, fmt.Sprintf("%s 300 IN A 192.0.2.%d", www, i+1))
			}
			if got, _ := mustAsk(t, f); strings.Contains(got, "192.0.2.3") {
				t.Errorf("both are back, and the fallback answers: %s", got)
			}
		})
	}
}
