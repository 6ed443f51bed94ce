package link

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// count is the value of a counter.
func count(t testing.TB, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%v, %d families", err, len(families))
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

func TestAdmission_Limits(t *testing.T) {
	cfg := Config{Conns: 5, ConnsPerMember: 2, HandshakesPerSource: 2, Handshakes: 2, HandshakeRate: 100, HandshakeTimeout: 5 * time.Second}
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	now := time.Unix(1000, 0)
	adm := newAdmission(&cfg)
	enter := func(from netip.Addr, want error) *place {
		t.Helper()
		p, err := adm.enter(from, now)
		if err != want {
			t.Fatalf("got %v, want %v", err, want)
		}
		return p
	}
	join := func(p *place, id string, want bool) {
		t.Helper()
		if p.join(id) != want {
			t.Errorf("joins as %s: %v, want %v", id, !want, want)
		}
		p.handshaken()
	}
	first, second := enter(a, nil), enter(a, nil)
	enter(a, errHandshakes)
	join(first, "x", true)
	join(second, "x", true)
	third, fourth := enter(a, nil), enter(b, nil) // the source is free again
	join(third, "x", false)
	join(fourth, "x", false) // wherever it comes from
	third.leave()
	fourth.leave()
	first.leave()
	fifth, sixth := enter(b, nil), enter(b, nil)
	join(fifth, "x", true)
	join(sixth, "y", true)
	last, late := enter(a, nil), enter(a, nil)
	enter(b, errConns)
	late.leave() // as when the time is up at that moment
	join(late, "z", false)
	last.leave()
	last.handshaken()
	for _, p := range []*place{second, fifth, sixth} {
		p.leave()
	}
	if adm.total != 0 || len(adm.sources)+len(adm.members) != 0 {
		t.Errorf("%d connections, sources %v, members %v are left on the books", adm.total, adm.sources, adm.members)
	}
}

// A whole fleet may have one source: each host has its stream for good, and more of
// that source come in as before.
func TestAdmission_FleetOfOneSource(t *testing.T) {
	const hosts = 5000
	slash64 := netip.MustParsePrefix("2001:db8::/64").Addr().As16()
	server := netip.MustParseAddr("2001:db8::5") // in the same /64
	for _, tt := range []struct {
		name string
		addr func(i int) netip.Addr
	}{
		{"one IPv6 /64", func(i int) netip.Addr {
			a := slash64
			a[13], a[14], a[15] = 1, byte(i>>8), byte(i)
			return netip.AddrFrom16(a)
		}},
		{"one IPv4 address behind NAT", func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Listen: netip.MustParseAddrPort("[::1]:0"), Self: Peer{"id", "n", "dc1"}}
			if err := cfg.setDefaults(); err != nil {
				t.Fatal(err)
			}
			cfg.Reserved = func(a netip.Addr) bool { return a == server }
			adm := newAdmission(&cfg)
			now := time.Unix(1000, 0)
			for i := range hosts {
				p, err := adm.enter(tt.addr(i), now)
				if err != nil {
					t.Fatalf("stream %d: %v", i, err)
				}
				if !p.join(strconv.Itoa(i)) {
					t.Fatalf("stream %d: not as a member", i)
				}
				p.handshaken()
				now = now.Add(time.Second / DefaultHandshakeRate)
			}
			// One of them leaks connections: it is bounded, and nobody else.
			for i := range DefaultConnsPerMember {
				p, err := adm.enter(tt.addr(0), now)
				if err != nil {
					t.Fatalf("leaked %d: %v", i, err)
				}
				if p.join("0") != (i < DefaultConnsPerMember-1) {
					t.Fatalf("leaked connection %d: not as a member that has %d", i, i+1)
				}
				p.handshaken()
				now = now.Add(time.Second / DefaultHandshakeRate)
			}
			// A stranger of that source begins handshakes and ends none.
			for i := range DefaultHandshakesPerSource + 1 {
				if _, err := adm.enter(tt.addr(hosts+i), now); (err != nil) != (i == DefaultHandshakesPerSource) {
					t.Fatalf("handshake %d at once of one source: %v", i, err)
				}
			}
			for _, other := range []string{"2001:db8:0:1::1", "198.51.100.1", server.String()} {
				if _, err := adm.enter(netip.MustParseAddr(other), now); err != nil {
					t.Errorf("%s meanwhile: %v", other, err)
				}
			}
		})
	}
}

// A stranger without the key connects a thousand times a second, from all over its /64.
// Members of other sources always get in, and wait for the stranger's handshakes only.
func TestAdmission_FloodOfOneSource(t *testing.T) {
	for _, tt := range []struct {
		name string
		hold time.Duration // from its turn
	}{
		{"slow handshakes", DefaultHandshakeTimeout},
		{"handshakes that fail at once", time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Listen: netip.MustParseAddrPort("[::1]:0"), Self: Peer{"id", "n", "dc1"}}
			if err := cfg.setDefaults(); err != nil {
				t.Fatal(err)
			}
			adm := newAdmission(&cfg)
			start := time.Unix(1000, 0)
			ends := make(map[*place]time.Time)
			most, longest := 0, time.Duration(0)
			for ms := range 20_000 {
				now := start.Add(time.Duration(ms) * time.Millisecond)
				for p, at := range ends {
					if !now.Before(at) {
						p.leave()
						p.handshaken()
						delete(ends, p)
					}
				}
				a := netip.MustParseAddr("2001:db8::").As16()
				a[14], a[15] = byte(ms>>8), byte(ms)
				if p, err := adm.enter(netip.AddrFrom16(a), now); err == nil {
					ends[p] = now.Add(min(p.wait+tt.hold, DefaultHandshakeTimeout))
				}
				most = max(most, len(ends))
				if ms%407 != 0 {
					continue
				}
				p, err := adm.enter(netip.MustParseAddr("192.0.2.1"), now)
				if err != nil {
					t.Fatalf("a member after %d ms: %v", ms, err)
				}
				longest = max(longest, p.wait)
				if !p.join(strconv.Itoa(ms)) {
					t.Fatal("not as a member")
				}
				p.handshaken()
			}
			if most != DefaultHandshakesPerSource {
				t.Errorf("the stranger had %d connections at once, want %d", most, DefaultHandshakesPerSource)
			}
			if want := (DefaultHandshakesPerSource + 1) * time.Second / DefaultHandshakeRate; longest > want {
				t.Errorf("members waited for %v, want %v at most", longest, want)
			}
		})
	}
}

func TestAdmission_RateIsEvenAfterABurst(t *testing.T) {
	server := netip.MustParseAddr("2001:db8::1") // known by all of its address, though counted by the /64
	cfg := Config{Conns: 350, HandshakesPerSource: 1e6, Handshakes: 1, HandshakeRate: 100, HandshakeTimeout: 5 * time.Second}
	cfg.Reserved = func(a netip.Addr) bool { return a == server }
	adm := newAdmission(&cfg)
	now := time.Unix(1000, 0)
	var waits []time.Duration
	for {
		p, err := adm.enter(netip.Addr{}, now)
		if err != nil {
			if err != errRate && len(waits) < 350 {
				t.Fatal(err)
			}
			break
		}
		waits = append(waits, p.wait)
	}
	// A second's worth at once, then one each 10 ms, for half of the time-out.
	if len(waits) != 100+250 || waits[99] != 0 || waits[100] != 10*time.Millisecond || waits[349] != 2500*time.Millisecond {
		t.Errorf("%d got in, the 100th waits %v, the 101st %v, the last %v", len(waits), waits[99], waits[100], waits[len(waits)-1])
	}
	// Servers wait for none of them, neither for a turn nor for a slot.
	adm.shared.slots <- struct{}{}
	for i := range 100 {
		p, err := adm.enter(server, now)
		if err != nil || p.wait != 0 {
			t.Fatalf("connection %d of a server: %+v, %v; want at once", i, p, err)
		}
		release, err := p.turn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
}

func TestAccept_SilentConnectionsDoNotShutOutOthers(t *testing.T) {
	b := start(t, "b", nil, func(c *Config) {
		c.HandshakesPerSource, c.HandshakeTimeout = 4, 500*time.Millisecond
	})
	a := start(t, "a", nil)
	for range 8 {
		if nc, err := net.Dial("tcp", b.addr()); err == nil { // else it was dropped at once
			defer nc.Close()
		}
	}
	until(t, "half of them are dropped", func() bool {
		return count(t, b.metrics.shut.WithLabelValues("handshakes")) == 4
	})
	dialer := a.network.(*sockets)
	dialer.from = netip.MustParseAddr("127.0.0.9") // another source
	if err := echoes(a.mustDial(b)); err != nil {
		t.Fatal(err)
	}
	until(t, "the silent ones time out", func() bool {
		return count(t, b.metrics.failed.WithLabelValues("timeout")) == 4
	})
	dialer.from = netip.Addr{}
	if err := echoes(a.mustDial(b)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.logs.String(), "did not finish its handshake"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestAccept_ConnectionsAreCountedByMember(t *testing.T) {
	b := start(t, "b", nil, func(c *Config) { c.ConnsPerMember = 2 })
	a, other := start(t, "a", nil), start(t, "other", nil) // of one address
	first := a.mustDial(b)
	a.mustDial(b)
	_, err := a.Dial(t.Context(), b.addr(), echo, "")
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "limits.rpc_max_conns_per_client") {
		t.Errorf("got %v", err)
	}
	if err := echoes(other.mustDial(b)); err != nil {
		t.Errorf("another host: %v", err)
	}
	first.Close()
	until(t, "its place is free", func() bool {
		nc, err := a.Dial(t.Context(), b.addr(), echo, "")
		if err != nil {
			return false
		}
		nc.Close()
		return true
	})
}

func TestDial_LeavesFromTheAddressListenedOn(t *testing.T) {
	for _, tt := range []struct{ listen, want string }{
		{"127.0.0.9:0", "127.0.0.9"},
		{"0.0.0.0:0", "127.0.0.1"},
		{"[::1]:0", "127.0.0.1"}, // another family: the kernel's choice
	} {
		var from netip.Addr
		b := start(t, "b", nil, func(c *Config) {
			c.Reserved = func(a netip.Addr) bool { from = a; return true }
		})
		a := start(t, "a", nil, func(c *Config) { c.Listen = netip.MustParseAddrPort(tt.listen) })
		if err := echoes(a.mustDial(b)); err != nil {
			t.Fatal(err)
		}
		if from.String() != tt.want {
			t.Errorf("a host that listens on %s is seen as %s, want %s", tt.listen, from, tt.want)
		}
	}
}

func TestAccept_StrangersGetNowhere(t *testing.T) {
	authority, id, _ := authorityOf([]byte("key"))
	good, err := newLeaf(Peer{"id-of-x", "x", "dc1"}, authority, id)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		cfg    *tls.Config // nil: no TLS
		reason string
	}{
		{"no TLS", nil, "tls"},
		{"no certificate", &tls.Config{NextProtos: []string{string(echo)}}, "certificate"},
		{"own certificate", &tls.Config{NextProtos: []string{string(echo)}, Certificates: []tls.Certificate{forged(t, nil)}}, "certificate"},
		{"forged certificate", &tls.Config{NextProtos: []string{string(echo)}, Certificates: []tls.Certificate{forged(t, id[:])}}, "key"},
		{"no protocol", &tls.Config{Certificates: []tls.Certificate{good}}, "protocol"},
		{"unknown protocol", &tls.Config{NextProtos: []string{"x"}, Certificates: []tls.Certificate{good}}, "protocol"},
		{"TLS 1.2", &tls.Config{NextProtos: []string{string(echo)}, Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12}, "tls"},
		{"two certificates", &tls.Config{NextProtos: []string{string(echo)}, Certificates: []tls.Certificate{{
			Certificate: [][]byte{good.Certificate[0], good.Certificate[0]}, PrivateKey: good.PrivateKey}}}, "certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := start(t, "b", newRing("key"))
			nc, err := net.Dial("tcp", b.addr())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if tt.cfg != nil {
				tt.cfg.InsecureSkipVerify = true
				nc = tls.Client(nc, tt.cfg)
			}
			_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = nc.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			if n, err := nc.Read(make([]byte, 100)); err == nil && tt.cfg != nil {
				t.Errorf("read %d bytes", n)
			}
			until(t, "counted as "+tt.reason, func() bool {
				return count(t, b.metrics.failed.WithLabelValues(tt.reason)) == 1
			})
			until(t, "logged", func() bool { return strings.Contains(b.logs.String(), "a host was refused") })
		})
	}
}

// forged is a certificate signed by nobody of the cluster, whatever it says.
func forged(t testing.TB, authority []byte) tls.Certificate {
	t.Helper()
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: always, NotAfter: never, AuthorityKeyId: authority,
		Subject: pkix.Name{CommonName: "x", OrganizationalUnit: []string{"dc1"}, SerialNumber: "id-of-x"},
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: "meibo link"}, SubjectKeyId: authority}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// relay passes bytes on, keeps what clients sent, and can freeze: then it takes
// everything and passes nothing, as a stopped process does.
type relay struct {
	net.Listener
	to     string
	frozen chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex // guards following
	sent  bytes.Buffer
	conns []net.Conn
}

func newRelay(t testing.TB, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, to: to, frozen: make(chan struct{})}
	r.wg.Go(r.run)
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, nc := range r.conns {
			nc.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) run() {
	for {
		in, err := r.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.to)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		r.wg.Go(func() { r.pass(out, in, true) })
		r.wg.Go(func() { r.pass(in, out, false) })
	}
}

func (r *relay) pass(to, from net.Conn, keep bool) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			to.Close()
			return
		}
		select {
		case <-r.frozen:
			continue
		default:
		}
		if keep {
			r.mu.Lock()
			r.sent.Write(buf[:n])
			r.mu.Unlock()
		}
		if _, err := to.Write(buf[:n]); err != nil {
			from.Close()
			return
		}
	}
}

func TestAccept_ReplayedTrafficReachesNobody(t *testing.T) {
	ring := newRing("key")
	a, b := start(t, "a", ring), start(t, "b", ring)
	heard := b.Listener("test-heard/1")
	r := newRelay(t, b.addr())
	nc, err := a.Dial(t.Context(), r.Listener.Addr().String(), "test-heard/1", "id-of-b")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write([]byte("drop everything")); err != nil {
		t.Fatal(err)
	}
	first, err := heard.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := io.ReadFull(first, make([]byte, 15)); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	recorded := bytes.Clone(r.sent.Bytes())
	r.mu.Unlock()
	accepted := count(t, b.metrics.accepted)
	for range 20 {
		again, err := net.Dial("tcp", b.addr())
		if err != nil {
			t.Fatal(err)
		}
		_ = again.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = again.Write(recorded)
		_, _ = io.Copy(io.Discard, again) // until it is cut
		again.Close()
	}
	if n := count(t, b.metrics.accepted) - accepted; n != 0 {
		t.Errorf("%v replays were accepted", n)
	}
}

// serveHTTP has the host answer requests of others until the test ends.
func (h *host) serveHTTP(handler http.HandlerFunc) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, handler) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("serve: %v", err)
		}
	})
	until(h.t, "h2 is served", func() bool { return h.handler(HTTP) != nil })
}

func get(t testing.TB, h *host, addr string) error {
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := h.Transport().RoundTrip(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func TestTransport_FrozenServerIsAnErrorWithin3s(t *testing.T) {
	a, b := start(t, "a", nil), start(t, "b", nil)
	asked := make(chan struct{}, 1)
	b.serveHTTP(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done() // a blocking query
	})
	r := newRelay(t, b.addr())
	failed := make(chan error, 1)
	go func() { failed <- get(t, a, r.Listener.Addr().String()) }()
	<-asked
	close(r.frozen)
	frozen := time.Now()
	if err := <-failed; err == nil {
		t.Fatal("no error")
	}
	if d := time.Since(frozen); d > deadAfter+2*time.Second { // two for a busy machine
		t.Errorf("found after %v, want %v", d, deadAfter)
	} else {
		t.Logf("found after %v", d)
	}
}

func TestTransport_ConnectionsEndWithTheirKey(t *testing.T) {
	ringA, ringB := newRing("old", "new"), newRing("old", "new")
	a, b := start(t, "a", ringA), start(t, "b", ringB)
	asked := make(chan struct{}, 1)
	b.serveHTTP(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
			<-r.Context().Done()
		default:
		}
	})
	failed := make(chan error, 1)
	go func() { failed <- get(t, a, b.addr()) }()
	<-asked
	ringA.set("new")
	if err := <-failed; err == nil {
		t.Fatal("a request outlived its key")
	}
	ringB.set("new", "old")
	asked <- struct{}{} // the next is answered at once
	if err := get(t, a, b.addr()); err != nil {
		t.Fatalf("by the new key: %v", err)
	}
}

func TestServe_HeadersAreBounded(t *testing.T) {
	a, b := start(t, "a", nil), start(t, "b", nil)
	b.serveHTTP(func(http.ResponseWriter, *http.Request) {})
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+b.addr()+"/", nil)
	r.Header.Set("X-Long", strings.Repeat("x", 2*MaxHeader))
	res, err := a.Transport().RoundTrip(r)
	if err == nil {
		defer res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("got %v", res.Status)
		}
	}
	if err := get(t, a, b.addr()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// CVE-2023-44487: a member opens streams and resets them at once. The handlers at
// work stay bounded, and others are answered.
func TestServe_RapidResetHurtsNobodyElse(t *testing.T) {
	a, b := start(t, "a", nil), start(t, "b", nil)
	var mu sync.Mutex
	now, most := 0, 0
	b.serveHTTP(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
		mu.Lock()
		now--
		mu.Unlock()
	})
	nc, err := a.Dial(t.Context(), b.addr(), HTTP, "")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	go func() { _, _ = io.Copy(io.Discard, nc) }()
	_, _ = io.WriteString(nc, http2.ClientPreface)
	framer := http2.NewFramer(nc, nil)
	_ = framer.WriteSettings()
	var header bytes.Buffer
	enc := hpack.NewEncoder(&header)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "b"}, {":path", "/slow"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}) // stateless
	}
	for i := range 20_000 {
		id := uint32(2*i + 1)
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: header.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
			break // cut off, as it should
		}
		if err := framer.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
			break
		}
	}
	if err := get(t, a, b.addr()); err != nil {
		t.Errorf("another connection meanwhile: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if most > MaxStreams+1 {
		t.Errorf("%d handlers were at work at once", most)
	}
}

func FuzzVerify(f *testing.F) {
	authority, id, _ := authorityOf([]byte("key"))
	r := &ring{authorities: map[keyID]ed25519.PublicKey{id: authority.Public().(ed25519.PublicKey)}, primary: id}
	leaf, err := newLeaf(Peer{"7f3c2c1e-8a5d-4f7e-9b0a-1c2d3e4f5a6b", "web-1", "dc1"}, authority, id)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf.Certificate[0])
	f.Add(forged(f, id[:]).Certificate[0])
	f.Add(forged(f, nil).Certificate[0])
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		p, _, err := r.verify([]*x509.Certificate{cert})
		if err == nil && p.validate() != nil {
			t.Errorf("took %+v", p)
		}
		if err == nil && !bytes.Equal(cert.RawTBSCertificate, leaf.Leaf.RawTBSCertificate) {
			if cert.Issuer.CommonName != "meibo link" {
				t.Errorf("took what the authority never signed: %+v", p)
			}
		}
		_, _ = peerIn(cert) // signed or not, it only reads
	})
}

func FuzzReadJoinAck(f *testing.F) {
	f.Add(joinAck())
	f.Add(refusal("too many connections"))
	f.Add([]byte{5, 'a'})
	f.Fuzz(func(t *testing.T, data []byte) {
		err := readJoinAck(bytes.NewReader(data))
		if (err == nil) != (len(data) > 0 && data[0] == 0) {
			t.Errorf("%q: %v", data, err)
		}
	})
}

func TestAuthority_IsTheSameOnEveryHost(t *testing.T) {
	_, id, err := authorityOf([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	// What this program released must speak to the next one.
	if got, want := id.String(), "c044b024"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVerify_NamesOneHost(t *testing.T) {
	authority, id, _ := authorityOf([]byte("key"))
	r := &ring{authorities: map[keyID]ed25519.PublicKey{id: authority.Public().(ed25519.PublicKey)}}
	subject := pkix.Name{CommonName: "x", OrganizationalUnit: []string{"dc1"}, SerialNumber: "id"}
	for _, tt := range []struct {
		name   string
		change func(*x509.Certificate)
		ok     bool
	}{
		{"good", func(*x509.Certificate) {}, true},
		{"long over, by the clock", func(c *x509.Certificate) { c.NotAfter = always.Add(time.Second) }, true},
		{"two datacenters", func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"a", "b"} }, false},
		{"no ID", func(c *x509.Certificate) { c.Subject.SerialNumber = "" }, false},
		{"a DNS name too", func(c *x509.Certificate) { c.DNSNames = []string{"y"} }, false},
		{"an authority", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, false},
		{"a line break", func(c *x509.Certificate) { c.Subject.CommonName = "x\ny" }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			public, _, _ := ed25519.GenerateKey(rand.Reader)
			template := &x509.Certificate{Subject: subject, NotBefore: always, NotAfter: never}
			tt.change(template)
			der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{SubjectKeyId: id[:]}, public, authority)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err = r.verify([]*x509.Certificate{cert}); (err == nil) != tt.ok || err != nil && !errors.Is(err, errCertificate) {
				t.Errorf("got %v, want ok %v", err, tt.ok)
			}
		})
	}
}
