package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"meibo/cluster/retry"
)

const (
	// maxStreams bounds streams that others open to us: push/pulls and TCP
	// pings, each of which lasts for a few round trips.
	maxStreams = 128
	// receiveBuffer is asked of the kernel for the UDP socket: 400 full packets.
	receiveBuffer = 1 << 20
	// bindTries is how often a free port is looked for that both TCP and UDP have.
	bindTries = 16
	// acceptPause is waited after an error to accept (no file descriptors).
	acceptPause = 100 * time.Millisecond
)

var errClosed = errors.New("gossip: transport is closed")

// sockets is a UDP and a TCP socket of one port. memberlist's own transport
// makes 64 KiB of garbage per packet, starts at once, and leaves its streams
// open at the end; this one doesn't.
type sockets struct {
	network   Network
	tcp       net.Listener
	udp       net.PacketConn
	advertise netip.AddrPort
	allowed   []netip.Prefix
	logger    *slog.Logger

	packets chan *memberlist.Packet
	streams chan net.Conn
	ctx     context.Context // ends with Shutdown
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex // guards following
	conns map[*conn]struct{}
	taken int // of conns, those that others opened
}

// conn is a stream that Shutdown closes.
type conn struct {
	net.Conn
	of    *sockets
	taken bool
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.forget(c)
	return c.Conn.Close()
}

// bind opens both sockets.
func bind(cfg Config) (*sockets, error) {
	ctx, stop := context.WithCancel(context.Background())
	s := &sockets{
		network: cfg.Network, allowed: cfg.Allowed, logger: cfg.Logger, conns: make(map[*conn]struct{}),
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), ctx: ctx, stop: stop,
	}
	if s.network == nil {
		s.network = kernelFor(cfg.Bind.Addr())
	}
	var err error
	for range bindTries {
		if err = s.listen(cfg.Bind); err == nil || cfg.Bind.Port() != 0 {
			break
		}
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("gossip: %w: is another agent running, or set another port (ports.serf_lan)", err)
	}
	if udp, ok := s.udp.(*net.UDPConn); ok {
		_ = udp.SetReadBuffer(receiveBuffer) // a wish: the kernel's default does for small clusters
	}
	bound := s.tcp.Addr().(*net.TCPAddr).AddrPort()
	s.advertise = netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port())
	if a := cfg.Advertise.Addr(); a.IsValid() {
		s.advertise = netip.AddrPortFrom(a.Unmap(), bound.Port())
	}
	if p := cfg.Advertise.Port(); p != 0 {
		s.advertise = netip.AddrPortFrom(s.advertise.Addr(), p)
	}
	return s, nil
}

// kernel is the kernel's Network.
type kernel struct {
	net.ListenConfig
	net.Dialer
}

// kernelFor dials from the address that packets come from: others may allow
// this one alone.
func kernelFor(at netip.Addr) *kernel {
	k := new(kernel)
	if !at.IsUnspecified() {
		k.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0))
	}
	return k
}

func (s *sockets) listen(at netip.AddrPort) (err error) {
	if s.tcp, err = s.network.Listen(s.ctx, "tcp", at.String()); err != nil {
		return err
	}
	port := s.tcp.Addr().(*net.TCPAddr).AddrPort().Port()
	if s.udp, err = s.network.ListenPacket(s.ctx, "udp", netip.AddrPortFrom(at.Addr(), port).String()); err != nil {
		return errors.Join(err, s.tcp.Close())
	}
	return nil
}

// open starts to read.
func (s *sockets) open() {
	s.wg.Go(s.receive)
	s.wg.Go(s.accept)
}

// inject gives memberlist a packet as if it came from this host.
func (s *sockets) inject(packet []byte) {
	p := &memberlist.Packet{Buf: packet, From: net.UDPAddrFromAddrPort(s.advertise), Timestamp: time.Now()}
	select {
	case s.packets <- p:
	case <-s.ctx.Done():
	}
}

func (s *sockets) receive() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		at := time.Now()
		switch {
		case s.ctx.Err() != nil:
			return
		case err != nil:
			// An ICMP error of an earlier packet, as a rule.
			s.logger.Debug("gossip: read packet", "err", err)
			continue
		case n == 0 || !s.allows(from.(*net.UDPAddr).AddrPort().Addr()):
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: at}
		select {
		case s.packets <- p:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *sockets) accept() {
	for {
		c, err := s.tcp.Accept()
		switch {
		case s.ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return
		case err != nil:
			s.logger.Warn("gossip: accept", "err", err)
			retry.Wait(s.ctx, acceptPause)
			continue
		case !s.allows(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()):
			c.Close()
			continue
		}
		tracked, err := s.track(c, true)
		if err != nil {
			continue
		}
		select {
		case s.streams <- tracked:
		case <-s.ctx.Done():
			tracked.Close()
			return
		}
	}
}

func (s *sockets) allows(from netip.Addr) bool {
	if len(s.allowed) == 0 {
		return true
	}
	for _, p := range s.allowed {
		if p.Contains(from.Unmap()) {
			return true
		}
	}
	return false
}

// track makes a stream one that Shutdown closes, or refuses it and closes it.
func (s *sockets) track(c net.Conn, taken bool) (net.Conn, error) {
	s.mu.Lock()
	full := taken && s.taken >= maxStreams
	refused := s.ctx.Err() != nil || full
	tracked := &conn{Conn: c, of: s, taken: taken}
	if !refused {
		s.conns[tracked] = struct{}{}
		if taken {
			s.taken++
		}
	}
	s.mu.Unlock()
	if !refused {
		return tracked, nil
	}
	c.Close()
	if full {
		return nil, fmt.Errorf("gossip: %d streams are open", maxStreams)
	}
	return nil, errClosed
}

func (s *sockets) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.conns[c]; !known {
		return
	}
	delete(s.conns, c)
	if c.taken {
		s.taken--
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (s *sockets) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return s.advertise.Addr().AsSlice(), int(s.advertise.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (s *sockets) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = s.udp.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

// DialTimeout implements memberlist.Transport.
func (s *sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return s.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (s *sockets) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	c, err := s.network.DialContext(ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	return s.track(c, false)
}

// PacketCh implements memberlist.Transport.
func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh implements memberlist.Transport.
func (s *sockets) StreamCh() <-chan net.Conn { return s.streams }

// Shutdown implements memberlist.Transport: it closes all and waits for what
// open started.
func (s *sockets) Shutdown() error {
	s.mu.Lock()
	s.stop()
	open := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()
	err := errors.Join(s.tcp.Close(), s.udp.Close())
	for _, c := range open {
		c.Close()
	}
	s.wg.Wait()
	return err
}
