package consensus

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// network is one in memory, whose ways between two hosts can be cut, slow, or
// lossy, each direction apart. A cut holds what was sent, as TCP would send it
// again; so does loss, for a while.
type network struct {
	mu     sync.Mutex // guards following
	hosts  map[string]*host
	ways   map[[2]string]way
	halves []*half
	moved  chan struct{} // closed when a way changes
	dice   *rand.Rand
	dials  int // connections that were made
}

type way struct {
	cut   bool
	delay time.Duration
	loss  float64
}

// leastDelay is how long each packet takes, so that there is always something
// on its way when a fault strikes.
const leastDelay = time.Millisecond

// resent is when TCP sends again what was lost.
const resent = 200 * time.Millisecond

func newNetwork(seed uint64) *network {
	return &network{hosts: make(map[string]*host), ways: make(map[[2]string]way), moved: make(chan struct{}), dice: rand.New(rand.NewPCG(seed, 1))}
}

// set changes the way from one host to another.
func (n *network) set(from, to string, w way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ways[[2]string{from, to}] = w
	close(n.moved)
	n.moved = make(chan struct{})
}

// apart cuts a host off from all others, both ways, or joins it to them again.
func (n *network) apart(name string, cut bool) {
	for _, other := range n.names() {
		if other != name {
			n.set(name, other, way{cut: cut})
			n.set(other, name, way{cut: cut})
		}
	}
}

// lose drops what a host has sent and nobody has read yet, as when it lost its
// power.
func (n *network) lose(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.halves {
		if h.from == name {
			h.mu.Lock()
			h.sent = nil
			h.mu.Unlock()
		}
	}
}

func (n *network) all(w way) {
	for _, a := range n.names() {
		for _, b := range n.names() {
			if a != b {
				n.set(a, b, w)
			}
		}
	}
}

func (n *network) names() (names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range n.hosts {
		names = append(names, name)
	}
	return names
}

// way returns the way, how long the next packet takes, and a channel that is
// closed when that changes.
func (n *network) way(from, to string) (w way, takes time.Duration, moved <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w = n.ways[[2]string{from, to}]
	takes = max(w.delay, leastDelay)
	for w.loss > 0 && n.dice.Float64() < w.loss {
		takes += resent
	}
	return w, takes, n.moved
}

// host is a stream layer.
type host struct {
	net    *network
	name   string
	coming chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// host puts a host into the network, in the place of a former of that name.
func (n *network) host(name string) *host {
	h := &host{net: n, name: name, coming: make(chan net.Conn, 64), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name] = h
	return h
}

func (h *host) Addr() net.Addr { return address(h.name) }

func (h *host) Accept() (net.Conn, error) {
	select {
	case c := <-h.coming:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *host) Close() error {
	h.once.Do(func() { close(h.closed) })
	for {
		select {
		case c := <-h.coming:
			_ = c.Close()
		default:
			return nil
		}
	}
}

func (h *host) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	late := time.After(timeout)
	for _, leg := range [][2]string{{h.name, addr}, {addr, h.name}} {
		for {
			w, takes, moved := h.net.way(leg[0], leg[1])
			if !w.cut {
				time.Sleep(takes)
				break
			}
			select {
			case <-moved:
			case <-late:
				return nil, os.ErrDeadlineExceeded
			}
		}
	}
	h.net.mu.Lock()
	to := h.net.hosts[addr]
	h.net.mu.Unlock()
	if to == nil {
		return nil, errors.New("no route to host")
	}
	there, back := newHalf(h.net, h.name, addr), newHalf(h.net, addr, h.name)
	h.net.mu.Lock()
	h.net.halves = append(h.net.halves, there, back)
	h.net.dials++
	h.net.mu.Unlock()
	a, b := &end{in: back, out: there}, &end{in: there, out: back}
	select {
	case <-to.closed:
		return nil, errors.New("connection refused")
	default:
	}
	select {
	case to.coming <- b:
		return a, nil
	case <-to.closed:
		return nil, errors.New("connection refused")
	case <-late:
		return nil, os.ErrDeadlineExceeded
	}
}

// half is one direction of a connection.
type half struct {
	net      *network
	from, to string

	mu     sync.Mutex // guards following
	sent   []packet
	fin    bool // nothing more is sent
	closed bool // the reader has closed
	wake   chan struct{}
	until  time.Time // read deadline
}

type packet struct {
	at   time.Time
	data []byte
}

func newHalf(n *network, from, to string) *half {
	return &half{net: n, from: from, to: to, wake: make(chan struct{})}
}

func (h *half) wakeLocked() {
	close(h.wake)
	h.wake = make(chan struct{})
}

func (h *half) write(b []byte) (int, error) {
	_, takes, _ := h.net.way(h.from, h.to)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fin {
		return 0, net.ErrClosed
	}
	at := time.Now().Add(takes)
	if n := len(h.sent); n > 0 && h.sent[n-1].at.After(at) {
		at = h.sent[n-1].at
	}
	h.sent = append(h.sent, packet{at, append([]byte(nil), b...)})
	h.wakeLocked()
	return len(b), nil
}

func (h *half) read(b []byte) (int, error) {
	for {
		w, _, moved := h.net.way(h.from, h.to)
		h.mu.Lock()
		now := time.Now()
		var due <-chan time.Time
		switch {
		case h.closed:
			h.mu.Unlock()
			return 0, net.ErrClosed
		case !h.until.IsZero() && !now.Before(h.until):
			h.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case w.cut:
		case len(h.sent) > 0 && !h.sent[0].at.After(now):
			n := copy(b, h.sent[0].data)
			if h.sent[0].data = h.sent[0].data[n:]; len(h.sent[0].data) == 0 {
				h.sent = h.sent[1:]
			}
			h.mu.Unlock()
			return n, nil
		case len(h.sent) > 0:
			due = time.After(h.sent[0].at.Sub(now))
		case h.fin:
			h.mu.Unlock()
			return 0, io.EOF
		}
		var late <-chan time.Time
		if !h.until.IsZero() {
			late = time.After(h.until.Sub(now))
		}
		wake := h.wake
		h.mu.Unlock()
		select {
		case <-wake:
		case <-moved:
		case <-due:
		case <-late:
		}
	}
}

// end is one end of a connection.
type end struct{ in, out *half }

func (e *end) Read(b []byte) (int, error)  { return e.in.read(b) }
func (e *end) Write(b []byte) (int, error) { return e.out.write(b) }

func (e *end) Close() error {
	e.in.mu.Lock()
	e.in.closed = true
	e.in.wakeLocked()
	e.in.mu.Unlock()
	e.out.mu.Lock()
	e.out.fin = true
	e.out.wakeLocked()
	e.out.mu.Unlock()
	return nil
}

func (e *end) LocalAddr() net.Addr                { return address(e.in.to) }
func (e *end) RemoteAddr() net.Addr               { return address(e.in.from) }
func (e *end) SetWriteDeadline(t time.Time) error { return nil }
func (e *end) SetDeadline(t time.Time) error      { return e.SetReadDeadline(t) }

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	e.in.until = t
	e.in.wakeLocked()
	return nil
}

func TestNetwork_CutsDelaysAndHeals(t *testing.T) {
	n := newNetwork(1)
	a, b := n.host("a"), n.host("b")
	c, err := a.Dial("b", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := b.Accept()
	n.set("a", "b", way{cut: true})
	fmt.Fprint(c, "held")
	_ = d.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := d.Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("over a cut way: got %v", err)
	}
	if _, err := a.Dial("b", time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("dial over a cut way: got %v", err)
	}
	_ = d.SetReadDeadline(time.Time{})
	n.set("a", "b", way{})
	buf := make([]byte, 9)
	if m, err := d.Read(buf); err != nil || string(buf[:m]) != "held" {
		t.Errorf("healed: got %q, %v", buf[:m], err)
	}
	_ = c.Close()
	if _, err := d.Read(buf); err != io.EOF {
		t.Errorf("closed: got %v", err)
	}
}
