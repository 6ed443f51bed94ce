package cluster

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// raftOffer is how long a connection waits for the server of this host to take
// it; between two lives of the server there is none.
const raftOffer = time.Second

// raftPort brings Raft's connections to the server of this host, through lives
// of the network on one side and of the server on the other.
type raftPort struct {
	node *Node

	mu    sync.Mutex // guards following
	layer *raftLayer // of the running server; nil without one
}

// offer hands a connection to the running server, or closes it.
func (p *raftPort) offer(conn net.Conn) {
	p.mu.Lock()
	layer := p.layer
	p.mu.Unlock()
	if layer == nil {
		conn.Close()
		return
	}
	timer := time.NewTimer(raftOffer)
	defer timer.Stop()
	select {
	case layer.conns <- conn:
	case <-layer.closed:
		conn.Close()
	case <-timer.C:
		conn.Close()
	}
}

// open returns what one life of the server speaks through.
func (p *raftPort) open() *raftLayer {
	layer := &raftLayer{port: p, conns: make(chan net.Conn), closed: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.layer = layer
	return layer
}

// raftLayer implements consensus.StreamLayer over link.
type raftLayer struct {
	port   *raftPort
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *raftLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *raftLayer) Close() error {
	l.once.Do(func() { close(l.closed) })
	l.port.mu.Lock()
	defer l.port.mu.Unlock()
	if l.port.layer == l {
		l.port.layer = nil
	}
	return nil
}

// Addr implements net.Listener.
func (l *raftLayer) Addr() net.Addr { return raftAddress(l.port.node.raftAddr()) }

// Dial implements consensus.StreamLayer.
func (l *raftLayer) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	w, _ := l.port.node.network()
	if w == nil {
		return nil, errors.New("this host has no link to others at present")
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := w.link.Dial(ctx, addr, raftProtocol, "")
	if err != nil {
		return nil, err // not a nil *tls.Conn in an interface
	}
	return conn, nil
}

// raftAddress is host and port of a server.
type raftAddress string

// Network implements net.Addr.
func (raftAddress) Network() string { return "tcp" }

// String implements net.Addr.
func (a raftAddress) String() string { return string(a) }
