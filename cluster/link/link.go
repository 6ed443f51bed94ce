// Package link is how hosts of one cluster speak to each other: one TCP port,
// TLS 1.3 with both sides authenticated, and ALPN to name the protocol that a connection is
// for. Each protocol has connections of
// its own, so that a heartbeat never waits behind a snapshot.
//
// The one secret of a cluster, its gossip key, makes all of it. HKDF of each key
// of the ring seeds an Ed25519 certificate authority, the same on every host;
// each process makes itself a leaf that names its node ID, name and datacenter,
// signed by the authority of the primary key. All authorities of the ring are
// trusted. Nothing depends on the clock: a leaf is good for as long as its key is
// in the ring, and when a key leaves, so do the connections that hang on it.
// There are no session tickets, which would outlive a key.
//
// Without a key the well-known key takes its place. It is printed in this source:
// such links are encrypted, and authenticate nobody.
//
// What is proven is membership, not a role: whoever holds the secret can pose as
// any host, a server included. A second secret, for servers alone, would be a
// second ring here.
//
// Before authentication all is bounded: handshakes at once, their rate, their time,
// and those at once of one source, an address or of IPv6 a /64. So a source without
// the key has a fourth of the handshakes at most, and no connection beyond the
// time-out of one. What is authenticated is counted by node ID and no longer by
// source: all hosts of a datacenter may share one /64, or one address behind NAT. A
// stranger among them can keep members of that source from new connections, but not
// others, nor servers that have an address of their own, nor what is connected. With
// the well-known key everybody is a member, and may take connections until all are
// taken.
//
// The package must not know what is carried.
package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Protocol is what a connection is for, its name in ALPN.
type Protocol string

// HTTP is the protocol of [Link.Transport] and [Link.Serve].
const HTTP Protocol = "h2"

// Keys is the ring of secrets, the primary first. The channel is closed when
// that has changed. No key at all stands for the well-known one.
type Keys interface {
	Keys() (keys [][]byte, changed <-chan struct{})
}

// Limits that hold when [Config] leaves them zero.
const (
	DefaultHandshakes          = 128 // at once; each costs some 40 KiB and 1 ms of CPU
	DefaultHandshakeRate       = 100 // each second: 5,000 hosts are back within a minute
	DefaultHandshakeTimeout    = 5 * time.Second
	DefaultConns               = 20_000
	DefaultConnsPerMember      = 512
	DefaultHandshakesPerSource = 32 // so that one host cannot take all places
	DefaultBacklog             = 64
)

// Network is where a Link listens and dials, as net.ListenConfig and net.Dialer
// do it.
type Network interface {
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// sockets is the kernel's Network.
type sockets struct {
	net.ListenConfig
	from netip.Addr // connections leave from it, where it may be
}

// DialContext implements Network. Connections leave from the address that this host
// listens on, as those of Consul do: others know a server by it before it has proven
// anything.
func (s *sockets) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: s.KeepAliveConfig, Control: s.Control}
	to, err := netip.ParseAddrPort(address)
	if from := s.from; err == nil && from.IsValid() && !from.IsUnspecified() &&
		from.Is4() == to.Addr().Unmap().Is4() && (to.Addr().IsLoopback() || !from.IsLoopback()) {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return d.DialContext(ctx, network, address)
}

// Config is what a Link is made from. Listen and Self are required.
type Config struct {
	// Listen is the address and port; port 0 takes a free one. If it names one address,
	// connections to other hosts leave from there.
	Listen netip.AddrPort
	// Self is what this process proves to be; all three fields are required.
	Self Peer
	// Keys is the ring; nil stands for the well-known key.
	Keys Keys
	// Network opens the connections; nil: the kernel's, with the options by which
	// a dead peer is found.
	Network Network
	// KeysKept is the file that holds Keys, for the log; "" for none.
	KeysKept string

	// Handshakes bounds those at once, HandshakeRate those that begin in a
	// second (as many may come at once after a pause), HandshakeTimeout each.
	Handshakes       int
	HandshakeRate    int
	HandshakeTimeout time.Duration
	// Conns bounds connections that were accepted, HandshakesPerSource those from
	// one address (IPv6: one /64) that have not proven anything yet, and
	// ConnsPerMember those that have proven to come from one node ID.
	Conns, ConnsPerMember, HandshakesPerSource int
	// Reserved reports whether connections from an address are admitted in a lane of
	// their own, as wide as that of all other hosts: those of servers, whose votes
	// must not wait behind thousands of agents. nil: none are. It must not block.
	Reserved func(netip.Addr) bool
	// Backlog bounds the connections that wait for Accept, per protocol.
	Backlog int

	Logger *slog.Logger // nil discards
}

// Link is one host's end of all its links. Its methods may be called at any
// time, by several goroutines at once.
type Link struct {
	cfg       Config
	logger    *slog.Logger
	listener  net.Listener
	network   Network
	transport *http.Transport
	admission *admission
	complain  complaints
	metrics   *metrics

	state atomic.Pointer[state]

	mu       sync.Mutex // guards following, and changes of state
	handlers map[Protocol]*handler
	conns    map[*conn]struct{} // authenticated, either direction
	closed   bool
}

// New checks cfg and binds the port. It starts nothing: connections wait in the
// kernel for Run, and Dial works at once. Close releases a Link that is never run.
func New(cfg Config) (*Link, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	l := &Link{
		cfg: cfg, logger: cfg.Logger, metrics: newMetrics(),
		handlers: make(map[Protocol]*handler), conns: make(map[*conn]struct{}),
	}
	l.admission = newAdmission(&cfg)
	if l.network = cfg.Network; l.network == nil {
		l.network = &sockets{
			net.ListenConfig{KeepAliveConfig: keepAlive, Control: setUserTimeout},
			cfg.Listen.Addr().Unmap(),
		}
	}
	l.transport = l.newTransport()
	st, err := l.newState()
	if err != nil {
		return nil, err
	}
	l.state.Store(st)
	if st.ring.wellKnown {
		l.logger.Info("links between hosts use the well-known key: they are encrypted, but anybody may join")
	}
	if l.listener, err = l.network.Listen(context.Background(), "tcp", cfg.Listen.String()); err != nil {
		return nil, fmt.Errorf("link: listen on %s (ports.server, bind_addr): %w", cfg.Listen, err)
	}
	return l, nil
}

func (c *Config) setDefaults() error {
	if !c.Listen.IsValid() {
		return errors.New("link: no address to listen on")
	}
	if err := c.Self.validate(); err != nil {
		return fmt.Errorf("link: this host cannot name itself in a certificate: %w", err)
	}
	for _, d := range []struct {
		field *int
		value int
	}{
		{&c.Handshakes, DefaultHandshakes}, {&c.HandshakeRate, DefaultHandshakeRate},
		{&c.Conns, DefaultConns}, {&c.ConnsPerMember, DefaultConnsPerMember},
		{&c.HandshakesPerSource, DefaultHandshakesPerSource}, {&c.Backlog, DefaultBacklog},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Addr is the address bound.
func (l *Link) Addr() netip.AddrPort {
	return l.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Run accepts connections and hands each to its protocol's listener, and cuts
// those whose key has left the ring. It returns when ctx has ended (nil) or the
// port is lost, with every connection of this Link closed, in either direction,
// and every listener too.
func (l *Link) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { l.watchKeys(ctx) })
	unbind := context.AfterFunc(ctx, func() { _ = l.listener.Close() })
	err := l.accept(ctx, &wg)
	unbind()
	cancel()
	closing := l.Close()
	wg.Wait()
	if err != nil {
		return errors.Join(err, closing)
	}
	return nil
}

// Close releases the port and closes every connection and listener; Dial fails
// from then on.
func (l *Link) Close() error {
	l.mu.Lock()
	l.closed = true
	conns, handlers := l.conns, l.handlers
	l.conns, l.handlers = make(map[*conn]struct{}), make(map[Protocol]*handler)
	l.mu.Unlock()
	err := l.listener.Close()
	for _, p := range handlers {
		p.end()
	}
	for c := range conns {
		_ = c.Close()
	}
	l.transport.CloseIdleConnections()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// watchKeys takes every change of the ring.
func (l *Link) watchKeys(ctx context.Context) {
	for {
		st := l.current()
		select {
		case <-ctx.Done():
			return
		case <-st.ring.changed:
		}
	}
}

// current is the state after all changes of the ring until now.
func (l *Link) current() *state {
	st := l.state.Load()
	select {
	case <-st.ring.changed:
		return l.turn()
	default:
		return st
	}
}

// turn takes a changed ring: a new leaf, and an end to the connections that hang
// on a key that is no more.
func (l *Link) turn() *state {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.state.Load()
	select {
	case <-old.ring.changed:
	default:
		return old // somebody else was here first
	}
	st, err := l.newState()
	if err != nil {
		// No key can do that; if it happens, the keys of before are better than none.
		l.logger.Error("links keep the keys of before", "err", err)
		_, changed := l.keys()
		st = old.with(changed)
	}
	l.state.Store(st)
	cut := 0
	for c := range l.conns {
		if !st.ring.holds(c.own) || !st.ring.holds(c.theirs) {
			delete(l.conns, c)
			cut++
			_ = c.abort() // never waits
		}
	}
	l.metrics.cut.Add(float64(cut))
	l.logger.Info("links took a changed keyring", "keys", len(st.ring.authorities), "cut", cut)
	return st
}

// register takes a connection among those that end with their keys.
func (l *Link) register(c *conn) error {
	st := l.current()
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.state.Load(); s != st {
		st = s
	}
	switch {
	case l.closed:
		return net.ErrClosed
	case !st.ring.holds(c.own), !st.ring.holds(c.theirs):
		return fmt.Errorf("%w: the key has just left the keyring", ErrKey)
	}
	l.conns[c] = struct{}{}
	return nil
}

func (l *Link) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}
