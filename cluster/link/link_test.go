package link

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"meibo/cluster/clustertest/logtest"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ring is a keyring of a test.
type testRing struct {
	mu      sync.Mutex
	keys    [][]byte
	changed chan struct{}
}

func newRing(keys ...string) *testRing {
	r := &testRing{}
	r.set(keys...)
	return r
}

func (r *testRing) set(keys ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = nil
	for _, k := range keys {
		r.keys = append(r.keys, []byte(k))
	}
	if r.changed != nil {
		close(r.changed)
	}
	r.changed = make(chan struct{})
}

func (r *testRing) Keys() ([][]byte, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys, r.changed
}

// host is a Link under test.
type host struct {
	*Link
	t    testing.TB
	logs *logtest.Text
	stop func()
}

const echo Protocol = "test-echo/1"

// start runs a Link on a loopback address of its own, with a handler that
// sends back what it reads.
func start(t testing.TB, name string, keys Keys, change ...func(*Config)) *host {
	t.Helper()
	h := &host{t: t, logs: new(logtest.Text)}
	cfg := Config{
		Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		Self:   Peer{ID: "id-of-" + name, Name: name, Datacenter: "dc1"},
		Keys:   keys,
		Logger: slog.New(slog.NewTextHandler(io.MultiWriter(h.logs, t.Output()), nil)).With("host", name),
	}
	for _, f := range change {
		f(&cfg)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Link = l
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	listener := l.Listener(echo)
	wg.Go(func() { serveEcho(listener) })
	wg.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	h.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(h.stop)
	return h
}

func serveEcho(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer nc.Close()
			_, _ = io.Copy(nc, nc)
		})
	}
}

func (h *host) addr() string { return h.Addr().String() }

func (h *host) mustDial(to *host) net.Conn {
	h.t.Helper()
	nc, err := h.Dial(h.t.Context(), to.addr(), echo, to.cfg.Self.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { nc.Close() })
	return nc
}

// echoes reports whether the connection works.
func echoes(nc net.Conn) error {
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := nc.Write([]byte("hello")); err != nil {
		return err
	}
	var b [5]byte
	_, err := io.ReadFull(nc, b[:])
	return err
}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

func TestLink_BothEndsKnowEachOther(t *testing.T) {
	ring := newRing("one key")
	a, b := start(t, "a", ring), start(t, "b", ring)
	listener := b.Listener("test-who/1")
	nc, err := a.Dial(t.Context(), b.addr(), "test-who/1", "id-of-b")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if p, ok := PeerOf(nc); !ok || p != b.cfg.Self {
		t.Errorf("dialler sees %+v, want %+v", p, b.cfg.Self)
	}
	if p, ok := PeerOf(accepted); !ok || p != a.cfg.Self {
		t.Errorf("listener sees %+v, want %+v", p, a.cfg.Self)
	}
}

func TestLink_WithoutKeyHostsSpeakByTheWellKnownOne(t *testing.T) {
	a, b := start(t, "a", nil), start(t, "b", newRing())
	if err := echoes(a.mustDial(b)); err != nil {
		t.Fatal(err)
	}
}

func TestLink_WrongKeyGetsNowhereAndBothLogsSaySo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		other Keys
	}{{"another key", newRing("two")}, {"no key", nil}} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := start(t, "a", tt.other, func(c *Config) { c.KeysKept = "/kept/ring" }), start(t, "b", newRing("one"))
			for range 3 {
				_, err := a.Dial(t.Context(), b.addr(), echo, "")
				if !errors.Is(err, ErrKey) {
					t.Fatalf("dial: %v, want ErrKey", err)
				}
			}
			if got := a.logs.String(); strings.Count(got, "give both the same encrypt key; this host's are those of /kept/ring") != 1 {
				t.Errorf("dialler logs %q", got)
			}
			until(t, "listener's log names the key", func() bool {
				return strings.Contains(b.logs.String(), "the keys differ")
			})
			if n := strings.Count(b.logs.String(), "the keys differ"); n != 1 {
				t.Errorf("listener says it %d times", n)
			}
		})
	}
}

// The dialler trusts the listener, but not the other way round: TLS 1.3 lets the
// dialler be done before it is refused.
func TestLink_DialWaitsForTheWordOfTheOtherSide(t *testing.T) {
	a, b := start(t, "a", newRing("new", "old")), start(t, "b", newRing("old"))
	_, err := a.Dial(t.Context(), b.addr(), echo, "")
	if !errors.Is(err, ErrKey) {
		t.Fatalf("dial: %v, want ErrKey", err)
	}
	until(t, "listener's log names the key", func() bool {
		return strings.Contains(b.logs.String(), "its encrypt key is not in this host's keyring")
	})
}

func TestLink_RotationOfKeysCutsNobodyUntilTheOldOneLeaves(t *testing.T) {
	ringA, ringB := newRing("old"), newRing("old")
	a, b := start(t, "a", ringA), start(t, "b", ringB)
	first := a.mustDial(b)
	steps := []struct {
		name string
		a, b []string
	}{
		{"installed at one", []string{"old", "new"}, []string{"old"}},
		{"installed at both", []string{"old", "new"}, []string{"old", "new"}},
		{"used by one", []string{"new", "old"}, []string{"old", "new"}},
		{"used by both", []string{"new", "old"}, []string{"new", "old"}},
	}
	var last net.Conn
	for _, s := range steps {
		ringA.set(s.a...)
		ringB.set(s.b...)
		last = a.mustDial(b)
		for _, nc := range []net.Conn{first, last, b.mustDial(a)} {
			if err := echoes(nc); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
		}
	}
	ringA.set("new")
	ringB.set("new")
	_ = first.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connection of the old key: read gives %v, want it cut", err)
	}
	if err := echoes(last); err != nil {
		t.Errorf("connection of the new key: %v", err)
	}
	old := start(t, "old", newRing("old"))
	if _, err := old.Dial(t.Context(), b.addr(), echo, ""); !errors.Is(err, ErrKey) {
		t.Errorf("host with the old key: %v, want ErrKey", err)
	}
}

// onDial lets a test do something while a connection is made.
type onDial struct {
	net.Dialer
	do func()
}

func (d *onDial) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, network, address)
}

func (d *onDial) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.do()
	return d.Dialer.DialContext(ctx, network, address)
}

// A handshake that began under a key which leaves the ring meanwhile is made anew.
func TestLink_DialWhileTheKeyChanges(t *testing.T) {
	ringA, ringB := newRing("old", "new"), newRing("old", "new")
	slow := &onDial{do: func() {
		ringA.set("new")
		ringB.set("new")
	}}
	a, b := start(t, "a", ringA, func(c *Config) { c.Network = slow }), start(t, "b", ringB)
	if err := echoes(a.mustDial(b)); err != nil {
		t.Error(err)
	}
}

func TestLink_DialRefusesAnotherHost(t *testing.T) {
	a, b := start(t, "a", nil), start(t, "b", nil)
	_, err := a.Dial(t.Context(), b.addr(), echo, "id-of-c")
	if !errors.Is(err, ErrMisrouted) {
		t.Fatalf("dial: %v, want ErrMisrouted", err)
	}
}

func TestLink_UnknownProtocolIsRefusedWithAWord(t *testing.T) {
	a, b := start(t, "a", nil), start(t, "b", nil)
	_, err := a.Dial(t.Context(), b.addr(), "test-absent/1", "")
	if !errors.Is(err, ErrProtocol) {
		t.Fatalf("dial: %v, want ErrProtocol", err)
	}
	l := b.Listener("test-absent/1")
	nc, err := a.Dial(t.Context(), b.addr(), "test-absent/1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	l.Close()
	if _, err = a.Dial(t.Context(), b.addr(), "test-absent/1", ""); !errors.Is(err, ErrProtocol) {
		t.Fatalf("dial after the listener closed: %v, want ErrProtocol", err)
	}
	// What nobody accepted is closed.
	_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := nc.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read gives %v, want an end", err)
	}
}

func TestListener_LaterOneTakesThePlace(t *testing.T) {
	a, b := start(t, "a", nil), start(t, "b", nil)
	former := b.Listener("test-twice/1")
	next := b.Listener("test-twice/1")
	if _, err := former.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("former listener: %v", err)
	}
	former.Close() // of no effect on the next
	nc, err := a.Dial(t.Context(), b.addr(), "test-twice/1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	accepted, err := next.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted.Close()
}

func TestListener_QueueIsBounded(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", nil, func(c *Config) { c.Backlog = 2 })
	l := b.Listener("test-slow/1")
	dial := func() error {
		nc, err := a.Dial(t.Context(), b.addr(), "test-slow/1", "")
		if err == nil {
			t.Cleanup(func() { nc.Close() })
		}
		return err
	}
	for range 2 {
		if err := dial(); err != nil {
			t.Fatal(err)
		}
	}
	if err := dial(); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "wait already") {
		t.Fatalf("third: %v, want ErrRefused with the reason", err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := dial(); err != nil {
		t.Fatalf("after one was accepted: %v", err)
	}
}

// The time for a handshake may be over in the very moment in which it has succeeded.
func TestAccept_WhoIsClosedWhileItJoinsIsNotKept(t *testing.T) {
	h := start(t, "a", nil)
	here, there := net.Pipe()
	defer there.Close()
	place, err := h.admission.enter(netip.MustParseAddr("192.0.2.1"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	st := h.current()
	c := &conn{Conn: here, peer: Peer{ID: "id-of-b"}, own: st.ring.primary, theirs: st.ring.primary,
		onClose: func(*conn) { left++ }}
	_ = c.Close()
	if err := h.join(t.Context(), tls.Server(c, st.server), c, place, echo); err == nil {
		t.Error("a closed connection was handed over")
	}
	_ = c.Close()
	place.leave()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.conns) != 0 || left != 1 {
		t.Errorf("%d connections are on the books, its place was given back %d times", len(h.conns), left)
	}
	books := prometheus.NewRegistry()
	books.MustRegister(h.metrics.conns)
	families, err := books.Gather()
	if err != nil || len(families) != 1 || families[0].GetMetric()[0].GetGauge().GetValue() != 0 {
		t.Errorf("%v are counted, %v", families, err)
	}
}

func TestRun_EndClosesEverything(t *testing.T) {
	a, b := start(t, "a", nil), start(t, "b", nil)
	nc := a.mustDial(b)
	l := b.Listener("test-end/1")
	b.stop()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := b.Listener("test-late/1").Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept of a late listener: %v", err)
	}
	if err := echoes(nc); err == nil {
		t.Error("a connection outlived Run")
	}
	if _, err := b.Dial(t.Context(), a.addr(), echo, ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial: %v", err)
	}
}

func TestNew_SaysWhatIsWrong(t *testing.T) {
	good := Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Self: Peer{"id", "name", "dc"}}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no address", func(c *Config) { c.Listen = netip.AddrPort{} }, "no address"},
		{"no name", func(c *Config) { c.Self.Name = "" }, "node name is empty"},
		{"odd name", func(c *Config) { c.Self.Name = "a\nb" }, "cannot be printed"},
		{"long name", func(c *Config) { c.Self.Name = strings.Repeat("a", 256) }, "more than 255"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestServe_TellsHandlersWhoAsks(t *testing.T) {
	ring := newRing("key")
	a, b := start(t, "a", ring), start(t, "b", ring)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := b.Serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, _ := PeerFrom(r.Context())
			_, _ = io.WriteString(w, r.Proto+" "+p.Name)
		}))
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	defer wg.Wait()
	defer cancel()
	until(t, "h2 is served", func() bool { return b.handler(HTTP) != nil })
	res, err := (&http.Client{Transport: a.Transport()}).Get("https://" + b.addr() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != "HTTP/2.0 a" {
		t.Errorf("got %q", body)
	}
}
