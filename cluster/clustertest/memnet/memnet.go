// Package memnet is a network in memory for tests: hosts with addresses, TCP and
// UDP between them, and the faults that networks and hosts have. In a bubble of
// testing/synctest it takes fake time.
//
// It is modelled on what a kernel does, seen from a process. What is written to a
// stream goes into a bounded buffer and arrives after the path's delay, in order;
// what was lost, or met a cut, is sent again. A stream whose peer can't be reached
// and heard for [Network.DeadAfter] is an error at both ends, as with
// TCP_USER_TIMEOUT and keepalives. A packet arrives, or doesn't.
//
// A host is a machine with one process. The process can be killed (the kernel then
// closes its streams, and refuses new ones), or frozen: its kernel acknowledges what
// comes, but the process reads and sends nothing until it is thawed. (Its timers run
// on, though: a bubble has one clock.) The machine can be switched off, and another
// can take its address.
//
// All chance comes from one seed; what is left to Go is the order of what happens
// at the same instant.
package memnet

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// received is how much of packets a socket holds.
	received = 1 << 20
	// backlog is how many streams wait to be accepted.
	backlog = 128
	// resend is after how long a lost segment is sent again; dials is how often a
	// lost request for a stream is made.
	resend = 200 * time.Millisecond
	dials  = 7
	// firstPort is where free ports are looked for.
	firstPort = 32768

	defaultWindow    = 4 << 20
	defaultDelay     = 500 * time.Microsecond
	defaultDeadAfter = 3 * time.Second
	defaultRedial    = time.Second
)

// Path is what befalls what one host sends to another.
type Path struct {
	// Cut lets nothing through; with Port only nothing from or to that port.
	Cut  bool
	Port uint16
	// Delay is the time that everything takes; 0: half a millisecond. Up to
	// Jitter is added to it, by chance.
	Delay, Jitter time.Duration
	// Loss is the part of packets and segments that are lost: 1 is a cut.
	Loss float64
}

func (p Path) cuts(a, b uint16) bool {
	return p.Loss >= 1 || p.Cut && (p.Port == 0 || p.Port == a || p.Port == b)
}

// Network is a number of hosts. Its methods and theirs are safe for concurrent use.
type Network struct {
	// DeadAfter is after how long a stream breaks whose peer isn't heard: 3 s.
	DeadAfter time.Duration
	// Redial is after how long a lost request for a stream is made again: 1 s.
	Redial time.Duration
	// Window is how many bytes a stream takes that nobody has read yet: 4 MB, what
	// two kernels buffer at most.
	Window int
	// Tap, if not nil, is shown every packet that is sent, lost or not. It must
	// not call the network. All four are set before the network is used.
	Tap func(from, to netip.AddrPort, packet []byte)

	mu    sync.Mutex // guards following, and all below; held for moments
	dice  *rand.Rand
	hosts map[netip.Addr]*Host
	all   Path // where paths has none
	paths map[[2]netip.Addr]Path
	conns map[*conn]struct{}
}

// New makes a network without hosts.
func New(seed uint64) *Network {
	return &Network{
		DeadAfter: defaultDeadAfter, Redial: defaultRedial, Window: defaultWindow,
		dice: rand.New(rand.NewPCG(seed, 1)), hosts: make(map[netip.Addr]*Host), paths: make(map[[2]netip.Addr]Path), conns: make(map[*conn]struct{}),
	}
}

// Set makes p the path from each of the hosts to each of the others, in this
// direction alone; nobody is cut off from himself.
func (n *Network) Set(from, to []netip.Addr, p Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range from {
		for _, b := range to {
			if a != b {
				n.paths[[2]netip.Addr{a, b}] = p
			}
		}
	}
	n.pathsChanged()
}

// SetBoth is Set in both directions.
func (n *Network) SetBoth(a, b []netip.Addr, p Path) {
	n.Set(a, b, p)
	n.Set(b, a, p)
}

// SetAll makes p the path from every host to every other, those to come among them,
// that Set has said nothing of.
func (n *Network) SetAll(p Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = p
	n.pathsChanged()
}

// Heal makes all paths as they were at first.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = Path{}
	clear(n.paths)
	n.pathsChanged()
}

func (n *Network) pathsChanged() {
	for c := range n.conns {
		c.pathChanged()
	}
}

// takes is how long the next thing takes from one host to another; lost says that
// it doesn't arrive.
func (n *Network) takes(p Path) (d time.Duration, lost bool) {
	if d = p.Delay; d == 0 {
		d = defaultDelay
	}
	if p.Jitter > 0 {
		d += time.Duration(n.dice.Int64N(int64(p.Jitter)))
	}
	return d, p.Loss > 0 && n.dice.Float64() < p.Loss
}

// Host is a machine on a network, and the process on it.
type Host struct {
	net  *Network
	addr netip.Addr

	// Guarded by the network's lock.
	dead, off, frozen bool
	port              uint16
	listeners         map[uint16]*listener
	sockets           map[uint16]*packetConn
	thawed            *sync.Cond
}

// Host starts a process on the machine with the address, which is switched on, or put
// on the network if there is none. A process that still runs there is killed.
func (n *Network) Host(addr netip.Addr) *Host {
	h := &Host{net: n, addr: addr, port: firstPort, listeners: make(map[uint16]*listener), sockets: make(map[uint16]*packetConn)}
	h.thawed = sync.NewCond(&n.mu)
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.hosts[addr]; old != nil {
		old.kill()
		old.switchOn()
	}
	n.hosts[addr] = h
	return h
}

// Addr is the host's address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Kill ends the process as SIGKILL does. The kernel tells its peers.
func (h *Host) Kill() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.kill()
}

func (h *Host) kill() {
	if h.dead {
		return
	}
	h.dead = true
	for e := range h.ends() {
		e.peer.held = nil // it never came to that
	}
	h.thaw()
	for _, l := range h.listeners {
		l.close()
	}
	for _, s := range h.sockets {
		s.close()
	}
	for e := range h.ends() {
		e.linger0 = e.linger0 || len(e.ready) > 0
		e.close()
	}
}

// ends are the host's ends of streams.
func (h *Host) ends() iter.Seq[*end] {
	return func(yield func(*end) bool) {
		for c := range h.net.conns {
			for _, e := range c.ends {
				if e.host == h && !yield(e) {
					return
				}
			}
		}
	}
}

// SwitchOff takes the machine's power: nobody hears anything of it any more. What it
// had sent and was not yet there is lost.
func (h *Host) SwitchOff() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.kill()
	h.off = true
	for e := range h.ends() {
		e.peer.segs = nil
		e.conn.pathChanged()
	}
}

// switchOn gives the machine its power back. It knows nothing of the streams of
// before, and says so when it is spoken to.
func (h *Host) switchOn() {
	if !h.off {
		return
	}
	h.off = false
	for e := range h.ends() {
		e.conn.pathChanged()
		e.peer.arrives(segment{kind: reset, due: time.Now().Add(h.net.Redial)})
	}
}

// Freeze stops the process, as SIGSTOP does, or has it go on.
func (h *Host) Freeze(frozen bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	switch {
	case h.dead:
	case frozen:
		h.frozen = true
	default:
		h.thaw()
	}
}

func (h *Host) thaw() {
	if !h.frozen {
		return
	}
	h.frozen = false
	h.thawed.Broadcast()
	for e := range h.ends() {
		e.sendHeld()
		e.cond.Broadcast()
	}
}

// await blocks while the process is frozen.
func (h *Host) await() {
	for h.frozen {
		h.thawed.Wait()
	}
}

// free finds a port that nothing uses.
func (h *Host) free() uint16 {
	for {
		if h.port++; h.port < firstPort {
			h.port = firstPort
		}
		if h.listeners[h.port] == nil && h.sockets[h.port] == nil {
			return h.port
		}
	}
}

// Listen is that of net.ListenConfig, for TCP and an address of the host.
func (h *Host) Listen(_ context.Context, network, address string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	port := at.Port()
	if port == 0 {
		port = h.free()
	}
	l := &listener{host: h, at: netip.AddrPortFrom(at.Addr(), port), cond: sync.NewCond(&h.net.mu)}
	switch {
	case h.dead:
		return nil, l.failed("listen", net.ErrClosed)
	case h.listeners[port] != nil:
		return nil, l.failed("listen", os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	h.listeners[port] = l
	return l, nil
}

type listener struct {
	host *Host
	at   netip.AddrPort

	// Guarded by the network's lock.
	cond   *sync.Cond
	queue  []*end
	closed bool
}

func (l *listener) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: err}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	for {
		l.host.await()
		switch {
		case l.closed:
			return nil, l.failed("accept", net.ErrClosed)
		case len(l.queue) > 0:
			e := l.queue[0]
			l.queue = slices.Delete(l.queue, 0, 1) // and no longer held: with hundreds of hosts, what streams carried is much
			return e, nil
		}
		l.cond.Wait()
	}
}

// Close implements net.Listener. Streams that nobody accepted are reset.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return l.failed("close", net.ErrClosed)
	}
	l.close()
	return nil
}

func (l *listener) close() {
	l.closed = true
	if l.host.listeners[l.at.Port()] == l {
		delete(l.host.listeners, l.at.Port())
	}
	for _, e := range l.queue {
		e.linger0 = true
		e.close()
	}
	l.queue = nil
	l.cond.Broadcast()
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// DialContext is that of net.Dialer, for TCP.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	failed := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	for range dials * int(max(1, defaultRedial/h.net.Redial)) {
		e, pause, err := h.dial(ctx, to)
		if e != nil {
			return e, nil
		}
		if err == nil && pause > 0 {
			err = sleep(ctx, pause)
		}
		if err != nil {
			return nil, failed(err)
		}
	}
	return nil, failed(os.NewSyscallError("connect", syscall.ETIMEDOUT))
}

// dial asks for a stream once. After the pause it is of use to ask again.
func (h *Host) dial(ctx context.Context, to netip.AddrPort) (*end, time.Duration, error) {
	n := h.net
	n.mu.Lock()
	h.await()
	if h.dead {
		n.mu.Unlock()
		return nil, 0, net.ErrClosed
	}
	from := netip.AddrPortFrom(h.addr, h.free())
	there, back := n.path(from, to), n.path(to, from)
	d, lost := n.takes(there)
	e, lostBack := n.takes(back)
	other := n.hosts[to.Addr()]
	inVain := lost || lostBack || there.cuts(from.Port(), to.Port()) || other == nil || other.off
	n.mu.Unlock()
	if inVain {
		return nil, n.Redial, nil
	}
	if err := sleep(ctx, d); err != nil {
		return nil, 0, err
	}

	n.mu.Lock()
	l := other.listeners[to.Port()]
	var c *conn
	switch {
	case other.off, l != nil && len(l.queue) >= backlog, n.path(to, from).cuts(to.Port(), from.Port()):
		n.mu.Unlock()
		return nil, n.Redial, nil
	case l != nil:
		c = n.connect(h, other, from, to)
		l.queue = append(l.queue, c.ends[1])
		l.cond.Signal()
	}
	n.mu.Unlock()
	err := sleep(ctx, e)
	switch {
	case err != nil && c != nil:
		_ = c.ends[0].Close()
		return nil, 0, err
	case err != nil:
		return nil, 0, err
	case c == nil:
		return nil, 0, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	return c.ends[0], 0, nil
}

func (n *Network) path(from, to netip.AddrPort) Path {
	a, b := from.Addr(), to.Addr()
	if p, ok := n.paths[[2]netip.Addr{a, b}]; ok {
		return p
	}
	if a == b {
		return Path{}
	}
	return n.all
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// ListenPacket is that of net.ListenConfig, for UDP and an address of the host.
func (h *Host) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	port := at.Port()
	if port == 0 {
		port = h.free()
	}
	s := &packetConn{host: h, at: netip.AddrPortFrom(h.addr, port), cond: sync.NewCond(&h.net.mu)}
	switch {
	case h.dead:
		return nil, s.failed("listen", net.ErrClosed)
	case h.sockets[port] != nil:
		return nil, s.failed("listen", os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	h.sockets[port] = s
	return s, nil
}

type packet struct {
	from netip.AddrPort
	data []byte
}

type packetConn struct {
	host *Host
	at   netip.AddrPort

	// Guarded by the network's lock.
	cond   *sync.Cond
	queue  []packet
	bytes  int
	closed bool
	until  deadline
}

func (s *packetConn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Addr: s.LocalAddr(), Err: err}
}

// WriteTo implements net.PacketConn.
func (s *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, s.failed("write", fmt.Errorf("no address of UDP: %v", addr))
	}
	to := netip.AddrPortFrom(udp.AddrPort().Addr().Unmap(), udp.AddrPort().Port())
	n := s.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.closed {
		return 0, s.failed("write", net.ErrClosed)
	}
	if n.Tap != nil {
		n.Tap(s.at, to, b)
	}
	p := n.path(s.at, to)
	d, lost := n.takes(p)
	if lost || s.host.frozen || p.cuts(s.at.Port(), to.Port()) {
		return len(b), nil
	}
	sent := packet{s.at, append([]byte(nil), b...)}
	time.AfterFunc(d, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if other := n.hosts[to.Addr()]; other != nil && !other.off && !s.host.off && !n.path(s.at, to).cuts(s.at.Port(), to.Port()) {
			other.sockets[to.Port()].arrives(sent)
		}
	})
	return len(b), nil
}

// Inject has a packet arrive as if it had come from somewhere.
func (n *Network) Inject(from, to netip.AddrPort, data []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[to.Addr()]; h != nil && !h.off {
		h.sockets[to.Port()].arrives(packet{from, append([]byte(nil), data...)})
	}
}

func (s *packetConn) arrives(p packet) {
	if s == nil || s.bytes+len(p.data) > received {
		return
	}
	s.queue = append(s.queue, p)
	s.bytes += len(p.data)
	s.cond.Signal()
}

// ReadFrom implements net.PacketConn.
func (s *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	for {
		s.host.await()
		switch {
		case s.closed:
			return 0, nil, s.failed("read", net.ErrClosed)
		case s.until.isOver():
			return 0, nil, s.failed("read", os.ErrDeadlineExceeded)
		case len(s.queue) > 0:
			p := s.queue[0]
			s.queue[0] = packet{}
			s.queue = s.queue[1:]
			s.bytes -= len(p.data)
			return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
		}
		s.cond.Wait()
	}
}

// Close implements net.PacketConn.
func (s *packetConn) Close() error {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	if s.closed {
		return s.failed("close", net.ErrClosed)
	}
	s.close()
	return nil
}

func (s *packetConn) close() {
	s.closed = true
	if s.host.sockets[s.at.Port()] == s {
		delete(s.host.sockets, s.at.Port())
	}
	s.until.set(s.cond, time.Time{})
	s.cond.Broadcast()
}

// LocalAddr implements net.PacketConn.
func (s *packetConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.at) }

// SetDeadline implements net.PacketConn.
func (s *packetConn) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn: nothing waits.
func (s *packetConn) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (s *packetConn) SetReadDeadline(t time.Time) error {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	s.until.set(s.cond, t)
	return nil
}

// deadline is one of a socket, guarded by the network's lock.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) isOver() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set wakes who waits now, and again when the time has come.
func (d *deadline) set(cond *sync.Cond, t time.Time) {
	d.at = t
	if d.timer != nil {
		d.timer.Stop()
	}
	if left := time.Until(t); !t.IsZero() && left > 0 {
		if d.timer == nil {
			d.timer = time.AfterFunc(left, func() {
				cond.L.Lock()
				defer cond.L.Unlock()
				cond.Broadcast()
			})
		} else {
			d.timer.Reset(left)
		}
	}
	cond.Broadcast()
}
