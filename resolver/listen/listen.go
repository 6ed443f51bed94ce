// Package listen is the DNS sockets of the daemon: UDP and TCP on every address, bound here or handed over by systemd
// or by a former self.
//
// Each UDP socket has one loop that receives a batch of datagrams, lets the [Handler] answer each in place, and sends
// what is ready in one call; nothing is handed to a goroutine. A reply that comes later is sent by whoever has it. On TCP a
// connection has one goroutine that reads; answers leave in the order in which they are ready (RFC 7766 section 7).
//
// [New] binds, TCP first and without SO_REUSEPORT: that is the lock against a second daemon, which could otherwise join the
// group of UDP sockets unseen. [Listener.Run] serves until its context ends, or a socket is lost.
//
// The package knows queries as bytes with a verdict. What is answered, cached or refused is the Handler's business.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"meibo/resolver/wire"
)

// Handler answers queries. Its method is called from many goroutines at once.
type Handler interface {
	// ServeDNS appends the reply to dst and returns the result. Or it returns nil and calls reply once, later and from any
	// goroutine, with nil for a message that gets no reply: a TCP connection counts the query until then. A query with
	// the verdict Drop is never shown to it. q and dst are borrowed until ServeDNS returns; reply wants the clone of q that
	// the handler kept, and borrows msg until it returns. reply does not block.
	ServeDNS(q *wire.Query, v wire.Verdict, dst []byte, reply func(q *wire.Query, msg []byte)) []byte
}

// Defaults of Config.
const (
	DefaultMaxConns            = 1000             // a stub needs one; a few hundred programs on a host may each keep one
	DefaultMaxConnsPerSource   = 20               // another host
	DefaultMaxConnsPerLoopback = 256              // every program of this host is the same source
	DefaultMaxInFlight         = 64               // of one connection; then it is not read until one is answered
	DefaultIdleTimeout         = 10 * time.Second // RFC 7766 section 6.2.3 asks for a few seconds
	DefaultMessageTimeout      = 3 * time.Second  // from a message's first byte to its last
	DefaultWriteTimeout        = 3 * time.Second  // for a client that doesn't read
	maxLoops                   = 4                // more receive loops for an address only wake each other
)

// Config of a Listener. The zero value of each field but Handler and Addrs is usable.
type Config struct {
	// Addrs are listened on, UDP and TCP each. Port 0 takes a free port, the same for both. An unspecified address answers
	// from the address that was asked.
	Addrs   []netip.AddrPort
	Handler Handler
	Logger  *slog.Logger // nil: discard
	// Files are sockets handed over, UDP and TCP: all are served, those of Addrs in place of ones that would be bound. New
	// takes them over and closes them.
	Files []*os.File

	Loops               int // UDP sockets of an address, if none is handed over; 0: the number of CPUs, at most 4
	NoBatch             bool
	MaxConns            int // TCP connections; the one idle for longest makes room for a new one
	MaxConnsPerSource   int // of one address
	MaxConnsPerLoopback int // of one loopback address
	MaxInFlight         int // queries of a connection not answered yet
	IdleTimeout         time.Duration
	MessageTimeout      time.Duration
	WriteTimeout        time.Duration
}

func (c *Config) setDefaults() error {
	if c.Handler == nil {
		return errors.New("listen: no handler")
	}
	if len(c.Addrs) == 0 && len(c.Files) == 0 {
		return errors.New("listen: no address to listen on")
	}
	for _, a := range c.Addrs {
		if !a.IsValid() {
			return errors.New("listen: an address to listen on is not valid")
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		n      *int
		normal int
	}{
		{&c.Loops, min(runtime.NumCPU(), maxLoops)}, {&c.MaxConns, DefaultMaxConns}, {&c.MaxConnsPerSource, DefaultMaxConnsPerSource},
		{&c.MaxConnsPerLoopback, DefaultMaxConnsPerLoopback}, {&c.MaxInFlight, DefaultMaxInFlight},
	} {
		if *d.n <= 0 {
			*d.n = d.normal
		}
	}
	for _, d := range []struct {
		t      *time.Duration
		normal time.Duration
	}{{&c.IdleTimeout, DefaultIdleTimeout}, {&c.MessageTimeout, DefaultMessageTimeout}, {&c.WriteTimeout, DefaultWriteTimeout}} {
		if *d.t <= 0 {
			*d.t = d.normal
		}
	}
	return nil
}

// Listener is a set of bound sockets. New binds them, Run serves them once.
type Listener struct {
	cfg       Config
	endpoints []*endpoint
	udp       []*udpSocket
	tcp       *tcpServer
}

// New takes over the files and binds what they don't cover. A taken port is an error that says who holds it. On an error
// nothing stays bound.
func New(cfg Config) (*Listener, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	endpoints, err := bindAll(&cfg)
	if err != nil {
		return nil, err
	}
	l := &Listener{cfg: cfg, endpoints: endpoints}
	l.tcp = newTCPServer(&l.cfg)
	for _, e := range endpoints {
		for _, conn := range e.udp {
			l.udp = append(l.udp, newUDPSocket(&l.cfg, e, conn))
		}
	}
	return l, nil
}

// Addrs returns the addresses listened on, in the order of Config.Addrs, with the ports that were free for port 0.
func (l *Listener) Addrs() []netip.AddrPort {
	out := make([]netip.AddrPort, len(l.endpoints))
	for i, e := range l.endpoints {
		out[i] = e.addr
	}
	return out
}

// Files returns duplicates of all sockets, TCP before UDP for each address, to hand over to another process. The caller closes
// them.
func (l *Listener) Files() ([]*os.File, error) {
	var out []*os.File
	add := func(s interface{ File() (*os.File, error) }) error {
		f, err := s.File()
		if err == nil {
			out = append(out, f)
		}
		return err
	}
	var err error
	for _, e := range l.endpoints {
		err = errors.Join(err, add(e.tcp))
		for _, u := range e.udp {
			err = errors.Join(err, add(u))
		}
	}
	if err != nil {
		for _, f := range out {
			f.Close()
		}
		return nil, fmt.Errorf("duplicate the DNS sockets: %w", err)
	}
	return out, nil
}

// Close closes the sockets of a Listener that is not run.
func (l *Listener) Close() { closeAll(l.endpoints) }

// Run serves until ctx ends, and then returns nil when all it started has ended; queries on TCP connections that were taken by then
// have a moment to be answered. It returns an error when a socket fails for good.
func (l *Listener) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	serve := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				cancel(err)
			}
		})
	}
	for _, u := range l.udp {
		serve(u.serve)
	}
	for _, e := range l.endpoints {
		serve(func(ctx context.Context) error { return l.tcp.accept(ctx, e.tcp) })
	}
	<-ctx.Done()
	for _, u := range l.udp {
		u.conn.SetReadDeadline(time.Unix(1, 0))
	}
	for _, e := range l.endpoints {
		e.tcp.SetDeadline(time.Unix(1, 0))
	}
	wg.Wait()
	l.tcp.shutdown()
	closeAll(l.endpoints)
	var lost *lostError
	if errors.As(context.Cause(ctx), &lost) {
		return lost
	}
	return nil
}

// lostError says that a socket can't be served any more.
type lostError struct {
	network string
	addr    net.Addr
	err     error
}

func (e *lostError) Error() string {
	return fmt.Sprintf("DNS socket %s/%s is lost: %v", e.addr, e.network, e.err)
}

func (e *lostError) Unwrap() error { return e.err }
