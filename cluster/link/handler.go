package link

import (
	"crypto/tls"
	"net"
	"sync"
)

// handler is the listener for one protocol.
type handler struct {
	link     *Link
	protocol Protocol
	places   chan struct{} // one token for each connection that waits or will
	queue    chan *tls.Conn
	done     chan struct{}
	once     sync.Once
}

// Listener is where connections for the protocol arrive, as *tls.Conn whose
// handshake is done. While there is none, hosts that ask for the protocol are
// refused. A second one for a protocol takes the place of the first, whose
// Accept fails then with net.ErrClosed, as it does once Run has ended. Whoever
// accepts a connection closes it.
func (l *Link) Listener(p Protocol) net.Listener {
	n := &handler{
		link: l, protocol: p,
		places: make(chan struct{}, l.cfg.Backlog), queue: make(chan *tls.Conn, l.cfg.Backlog),
		done: make(chan struct{}),
	}
	l.mu.Lock()
	former := l.handlers[p]
	if l.closed {
		former = n
	} else {
		l.handlers[p] = n
		l.state.Store(l.state.Load().withProtocols(l.protocolsLocked()))
	}
	l.mu.Unlock()
	if former != nil {
		former.end()
	}
	return n
}

// Accept implements net.Listener.
func (n *handler) Accept() (net.Conn, error) {
	select {
	case <-n.done:
		return nil, net.ErrClosed
	case tc := <-n.queue:
		<-n.places
		return tc, nil
	}
}

// Close implements net.Listener. Connections that nobody accepted are closed.
func (n *handler) Close() error {
	l := n.link
	l.mu.Lock()
	if l.handlers[n.protocol] == n {
		delete(l.handlers, n.protocol)
		l.state.Store(l.state.Load().withProtocols(l.protocolsLocked()))
	}
	l.mu.Unlock()
	n.end()
	return nil
}

// end makes Accept fail and closes what waits.
func (n *handler) end() {
	n.once.Do(func() { close(n.done) })
	for {
		select {
		case tc := <-n.queue:
			_ = tc.NetConn().Close()
		default:
			return
		}
	}
}

// Addr implements net.Listener.
func (n *handler) Addr() net.Addr { return n.link.listener.Addr() }

// reserve takes a place for one connection; false: too many wait.
func (n *handler) reserve() bool {
	select {
	case n.places <- struct{}{}:
		return true
	default:
		return false
	}
}

// give hands over a connection that a place was reserved for.
func (n *handler) give(tc *tls.Conn) {
	n.queue <- tc // has room: as many as places
	select {
	case <-n.done:
		n.end() // it may have come after the last look
	default:
	}
}

// handler is who listens for the protocol now, or nil.
func (l *Link) handler(p Protocol) *handler {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.handlers[p]
}
