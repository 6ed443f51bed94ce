package server

import (
	"context"
	"net"
	"sync"
	"time"
)

// offerTimeout is how long a connection of another server waits to be accepted.
const offerTimeout = time.Second

// streamLayer implements consensus.StreamLayer over link, which hands connections of
// others to [Server.Offer].
type streamLayer struct {
	addr   string
	dial   func(ctx context.Context, addr string) (net.Conn, error)
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newStreamLayer(addr string, dial func(context.Context, string) (net.Conn, error)) *streamLayer {
	return &streamLayer{addr: addr, dial: dial, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Offer hands Raft's connection of another server to this one, or closes it.
func (s *Server) Offer(conn net.Conn) {
	if s.layer == nil {
		conn.Close()
		return
	}
	timer := time.NewTimer(offerTimeout)
	defer timer.Stop()
	select {
	case s.layer.conns <- conn:
		return
	case <-s.layer.closed:
	case <-timer.C:
	}
	conn.Close()
}

// Accept implements net.Listener.
func (l *streamLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *streamLayer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *streamLayer) Addr() net.Addr { return raftAddress(l.addr) }

// Dial implements consensus.StreamLayer.
func (l *streamLayer) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.dial(ctx, addr)
}

// raftAddress is host and port of a server.
type raftAddress string

// Network implements net.Addr.
func (raftAddress) Network() string { return "tcp" }

// String implements net.Addr.
func (a raftAddress) String() string { return string(a) }
