package link

import (
	"crypto/tls"
	"net"
	"sync"
)

// conn is the transport below a TLS connection: it knows who is at the other end
// once that is proven, and takes itself off the books when it is closed.
type conn struct {
	net.Conn
	once sync.Once
	err  error

	mu      sync.Mutex // guards following
	onClose func(*conn)
	closed  bool

	// Set once, after the handshake and before the connection is handed out.
	peer        Peer
	own, theirs keyID
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.err = c.Conn.Close()
		c.mu.Lock()
		leave := c.onClose
		c.closed = true
		c.mu.Unlock()
		if leave != nil {
			leave(c)
		}
	})
	return c.err
}

// atClose has Close call f in place of what it would have called; false: it is closed
// already, and called that.
func (c *conn) atClose(f func(*conn)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.onClose = f
	}
	return !c.closed
}

// abort closes the socket without a word and leaves the books alone: whoever
// uses the connection gets an error and closes it.
func (c *conn) abort() error {
	if tcp, ok := c.Conn.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	return c.Conn.Close()
}

// identify notes who is at the other end of a finished handshake.
func (c *conn) identify(st *state, cs tls.ConnectionState) error {
	peer, theirs, err := st.ring.verify(cs.PeerCertificates)
	c.peer, c.own, c.theirs = peer, st.ring.primary, theirs
	return err
}

// PeerOf is who is at the other end of a connection that a Link accepted or
// dialled; false for any other.
func PeerOf(nc net.Conn) (Peer, bool) {
	tc, ok := nc.(*tls.Conn)
	if !ok {
		return Peer{}, false
	}
	c, ok := tc.NetConn().(*conn)
	if !ok || c.peer.ID == "" {
		return Peer{}, false
	}
	return c.peer, true
}
