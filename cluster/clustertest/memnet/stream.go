package memnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// conn is a stream between two hosts.
type conn struct {
	net  *Network
	ends [2]*end

	// Guarded by the network's lock. dying breaks the stream when its ends have not
	// heard each other for long; nil: they do.
	dying *time.Timer
}

// end is one end of a stream, with what comes to it.
type end struct {
	conn          *conn
	host          *Host
	local, remote netip.AddrPort
	peer          *end

	// Guarded by the network's lock.
	cond     *sync.Cond  // of readers here and writers there
	segs     []segment   // on their way here, in order
	held     []segment   // that the frozen process there has yet to send
	delivery *time.Timer // of the first of segs
	ready    []byte      // to be read
	size     int         // of all that is on its way or to be read
	eof      bool
	err      error // of the stream, once all is read
	closed   bool  // by the process here
	linger0  bool
	reads    deadline
	writes   deadline
}

type kind uint8

const (
	data kind = iota
	fin
	reset
)

type segment struct {
	kind kind
	data []byte
	due  time.Time
}

// connect makes a stream.
func (n *Network) connect(a, b *Host, from, to netip.AddrPort) *conn {
	c := &conn{net: n}
	c.ends[0] = &end{conn: c, host: a, local: from, remote: to, cond: sync.NewCond(&n.mu)}
	c.ends[1] = &end{conn: c, host: b, local: to, remote: from, cond: sync.NewCond(&n.mu)}
	c.ends[0].peer, c.ends[1].peer = c.ends[1], c.ends[0]
	n.conns[c] = struct{}{}
	return c
}

// isCut reports whether what is sent to the end doesn't arrive.
func (e *end) isCut() bool {
	return e.host.off || e.peer.host.off || e.conn.net.path(e.remote, e.local).cuts(e.remote.Port(), e.local.Port())
}

// pathChanged looks whether the ends hear each other.
func (c *conn) pathChanged() {
	broken := c.ends[0].isCut() || c.ends[1].isCut()
	switch {
	case broken && c.dying == nil:
		c.dying = time.AfterFunc(c.net.DeadAfter, c.die)
	case !broken && c.dying != nil:
		c.dying.Stop()
		c.dying = nil
	}
	for _, e := range c.ends {
		if e.isCut() {
			continue
		}
		for i := range e.segs { // what met the cut is sent again
			if e.segs[i].due.Before(time.Now()) {
				e.segs[i].due = time.Now().Add(time.Duration(c.net.dice.Int64N(int64(resend))))
			}
		}
		e.arm()
	}
}

// die breaks the stream.
func (c *conn) die() {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.dying == nil {
		return
	}
	for _, e := range c.ends {
		e.fail(syscall.ETIMEDOUT)
	}
}

// fail ends the stream for this end.
func (e *end) fail(err error) {
	if e.err == nil && !e.closed {
		e.err = err
	}
	e.segs, e.held = nil, nil
	e.cond.Broadcast()
	e.peer.cond.Broadcast()
	e.forget()
}

// arrives sends a segment to the end.
func (e *end) arrives(s segment) {
	if e.closed && s.kind != data || e.err != nil {
		return
	}
	if e.peer.host.frozen {
		e.held = append(e.held, s)
		return
	}
	n := e.conn.net
	d, lost := n.takes(n.path(e.remote, e.local))
	for wait := resend; lost; wait *= 2 {
		d += wait
		_, lost = n.takes(n.path(e.remote, e.local))
	}
	if due := time.Now().Add(d); s.due.Before(due) {
		s.due = due
	}
	if i := len(e.segs); i > 0 && e.segs[i-1].due.After(s.due) {
		s.due = e.segs[i-1].due
	}
	e.segs = append(e.segs, s)
	if len(e.segs) == 1 {
		e.arm()
	}
}

// sendHeld sends what a frozen process had no time for.
func (e *end) sendHeld() {
	held := e.peer.held
	e.peer.held = nil
	for _, s := range held {
		e.peer.arrives(s)
	}
}

// arm has the first segment arrive in its time.
func (e *end) arm() {
	if len(e.segs) == 0 {
		return
	}
	d := max(0, time.Until(e.segs[0].due))
	if e.delivery == nil {
		e.delivery = time.AfterFunc(d, e.deliver)
	} else {
		e.delivery.Reset(d)
	}
}

func (e *end) deliver() {
	e.conn.net.mu.Lock()
	defer e.conn.net.mu.Unlock()
	if e.isCut() {
		return // pathChanged goes on
	}
	now := time.Now()
	for len(e.segs) > 0 && !e.segs[0].due.After(now) {
		s := e.segs[0]
		e.segs = e.segs[1:]
		switch {
		case s.kind == reset:
			e.fail(syscall.ECONNRESET)
		case e.closed: // nobody is there to take it
			if s.kind == data {
				e.peer.arrives(segment{kind: reset})
			}
		case s.kind == fin:
			e.eof = true
		default:
			e.ready = append(e.ready, s.data...)
		}
	}
	e.cond.Broadcast()
	e.arm()
	e.forget()
}

// forget takes a stream off the network that nothing happens on any more.
func (e *end) forget() {
	c := e.conn
	for _, e := range c.ends {
		if !e.closed && e.err == nil || len(e.segs)+len(e.held) > 0 {
			return
		}
	}
	if c.dying != nil {
		c.dying.Stop()
		c.dying = nil
	}
	delete(c.net.conns, c)
}

func (e *end) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: e.LocalAddr(), Addr: e.RemoteAddr(), Err: err}
}

// Read implements net.Conn.
func (e *end) Read(b []byte) (int, error) {
	e.conn.net.mu.Lock()
	defer e.conn.net.mu.Unlock()
	for {
		switch {
		case e.closed:
			return 0, e.failed("read", net.ErrClosed)
		case e.host.frozen:
		case e.reads.isOver():
			return 0, e.failed("read", os.ErrDeadlineExceeded)
		case len(e.ready) > 0:
			n := copy(b, e.ready)
			if e.ready = e.ready[n:]; len(e.ready) == 0 {
				e.ready = nil
			}
			e.size -= n
			e.cond.Broadcast()
			return n, nil
		case e.err != nil:
			return 0, e.failed("read", os.NewSyscallError("read", e.err))
		case e.eof:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		e.cond.Wait()
	}
}

// Write implements net.Conn.
func (e *end) Write(b []byte) (int, error) {
	e.conn.net.mu.Lock()
	defer e.conn.net.mu.Unlock()
	written := 0
	for {
		switch {
		case e.closed:
			return written, e.failed("write", net.ErrClosed)
		case e.writes.isOver():
			return written, e.failed("write", os.ErrDeadlineExceeded)
		case e.err != nil:
			return written, e.failed("write", os.NewSyscallError("write", e.err))
		}
		if room := e.conn.net.Window - e.peer.size; room > 0 && len(b) > 0 {
			part := b[:min(room, len(b))]
			b = b[len(part):]
			written += len(part)
			e.peer.size += len(part)
			e.peer.arrives(segment{kind: data, data: append([]byte(nil), part...)})
		}
		if len(b) == 0 {
			return written, nil
		}
		e.peer.cond.Wait()
	}
}

// Close implements net.Conn.
func (e *end) Close() error {
	e.conn.net.mu.Lock()
	defer e.conn.net.mu.Unlock()
	if e.closed {
		return e.failed("close", net.ErrClosed)
	}
	e.close()
	return nil
}

func (e *end) close() {
	if e.closed {
		return
	}
	e.closed = true
	kind := fin
	if e.linger0 {
		kind = reset
		if !e.host.off {
			e.peer.segs = nil
		}
	}
	if e.err == nil {
		e.peer.arrives(segment{kind: kind})
	}
	e.ready = nil
	e.reads.set(e.cond, time.Time{})
	e.writes.set(e.peer.cond, time.Time{})
	e.forget()
}

// SetLinger is that of net.TCPConn: with 0 Close resets the stream.
func (e *end) SetLinger(sec int) error {
	e.conn.net.mu.Lock()
	defer e.conn.net.mu.Unlock()
	e.linger0 = sec == 0
	return nil
}

// LocalAddr implements net.Conn.
func (e *end) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(e.local) }

// RemoteAddr implements net.Conn.
func (e *end) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(e.remote) }

// SetDeadline implements net.Conn.
func (e *end) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (e *end) SetReadDeadline(t time.Time) error {
	e.conn.net.mu.Lock()
	defer e.conn.net.mu.Unlock()
	e.reads.set(e.cond, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (e *end) SetWriteDeadline(t time.Time) error {
	e.conn.net.mu.Lock()
	defer e.conn.net.mu.Unlock()
	e.writes.set(e.peer.cond, t)
	return nil
}
