package listen

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"meibo/resolver/wire"
)

var shortages = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}

// keptBuffer is how large a buffer a connection keeps between messages, in bytes, so that a thousand idle ones are cheap.
const keptBuffer = 2048

// framePrefix is the length before each message.
const framePrefix = 2

// tcpConn is one connection. One goroutine reads its queries and writes the answers that are ready at once; answers that come later
// are queued and written by a goroutine that lives as long as there are any, so that nobody waits for a client that doesn't
// read.
type tcpConn struct {
	srv    *tcpServer
	nc     *net.TCPConn
	client netip.AddrPort
	local  netip.Addr
	slots  chan struct{} // one taken by each query until it is answered
	busy   atomic.Bool   // a message is being read or handled
	active atomic.Int64  // when something last happened, in Unix nanoseconds

	writing sync.Mutex // one message at a time

	mu     sync.Mutex // guards following
	late   []lateReply
	writer bool // a goroutine is at it
	closed bool
}

// lateReply is a frame to write.
type lateReply struct {
	frame []byte
	kind  int
}

func newTCPConn(s *tcpServer, nc *net.TCPConn) *tcpConn {
	c := &tcpConn{
		srv:    s,
		nc:     nc,
		client: addrPort(nc.RemoteAddr()),
		local:  addrPort(nc.LocalAddr()).Addr(),
		slots:  make(chan struct{}, s.cfg.MaxInFlight),
	}
	c.touch()
	return c
}

func (c *tcpConn) touch() { c.active.Store(time.Now().UnixNano()) }

// serve reads queries until the client has no more, is idle for too long or sends what is no DNS; waits for the answers that are
// still to come; and closes.
func (c *tcpConn) serve() {
	defer c.close()
	r := bufio.NewReaderSize(c.nc, 1024)
	q := wire.Query{TCP: true, Client: c.client, Local: c.local}
	reply := c.replyLate
	var in, out []byte
	for c.awaitMessage(r) {
		c.busy.Store(true)
		msg, ok := c.readMessage(r, in)
		if !ok {
			break
		}
		in = msg[:0]
		if out, ok = c.handle(&q, msg, out, reply); !ok {
			break
		}
		c.touch()
		c.busy.Store(false)
		in, out = shrink(in), shrink(out)
	}
	c.drain()
}

// shrink gives a large buffer up.
func shrink(b []byte) []byte {
	if cap(b) > keptBuffer {
		return nil
	}
	return b[:0]
}

// awaitMessage waits for the first byte of a message. A connection with queries in flight is not idle.
func (c *tcpConn) awaitMessage(r *bufio.Reader) bool {
	for {
		idle := time.Unix(0, c.active.Load()).Add(c.srv.cfg.IdleTimeout)
		if len(c.slots) > 0 {
			idle = time.Now().Add(c.srv.cfg.IdleTimeout)
		}
		c.nc.SetReadDeadline(idle)
		if c.srv.stopping() { // asked after the deadline was set, which may have undone that of shutdown
			return false
		}
		_, err := r.Peek(1)
		if err == nil {
			return true
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		last := time.Unix(0, c.active.Load())
		if len(c.slots) == 0 && time.Since(last) >= c.srv.cfg.IdleTimeout {
			return false
		}
	}
}

// readMessage reads a message into buf or a larger one. An empty message ends the connection.
func (c *tcpConn) readMessage(r *bufio.Reader, buf []byte) ([]byte, bool) {
	c.nc.SetReadDeadline(time.Now().Add(c.srv.cfg.MessageTimeout))
	var prefix [framePrefix]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(prefix[:]))
	if n == 0 {
		return nil, false
	}
	if cap(buf) < n {
		buf = make([]byte, max(n, 512))
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err == nil
}

// handle lets the handler answer a message, and writes the answer if it is ready. It returns the buffer that was used, and false when
// the client speaks no DNS, doesn't read, or the listener stops.
func (c *tcpConn) handle(q *wire.Query, msg, out []byte, reply func(*wire.Query, []byte)) ([]byte, bool) {
	n := &c.srv.opened
	n.queries.Add(1)
	n.bytesIn.Add(uint64(len(msg)))
	v := q.Parse(msg)
	if v == wire.Drop {
		n.drops.Add(1)
		return out, false
	}
	if !c.acquireSlot() {
		n.drops.Add(1)
		return out, false
	}
	if cap(out) < framePrefix {
		out = make([]byte, 0, 512)
	}
	frame := c.srv.cfg.Handler.ServeDNS(q, v, out[:framePrefix], reply)
	if frame == nil {
		return out, true // it will call reply
	}
	defer c.freeSlot()
	if len(frame) == framePrefix {
		n.drops.Add(1)
		return frame, true
	}
	return frame, c.write(frame, kindOf(q, v, frame[framePrefix:]))
}

// acquireSlot waits until the connection may have one more query in flight.
func (c *tcpConn) acquireSlot() bool {
	select {
	case c.slots <- struct{}{}:
		return true
	default:
	}
	select {
	case c.slots <- struct{}{}:
		return true
	case <-c.srv.stop:
		return false
	}
}

func (c *tcpConn) freeSlot() {
	c.touch()
	select {
	case <-c.slots:
	default: // drain has taken it, or a handler called reply twice
	}
}

// replyLate takes an answer that was not ready at once. It does not block.
func (c *tcpConn) replyLate(q *wire.Query, msg []byte) {
	if len(msg) == 0 {
		c.srv.opened.drops.Add(1)
		c.freeSlot()
		return
	}
	frame := append(make([]byte, framePrefix, framePrefix+len(msg)), msg...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.srv.opened.drops.Add(1)
		return
	}
	c.late = append(c.late, lateReply{frame, kindOf(q, wire.OK, msg)})
	if !c.writer {
		c.writer = true
		c.srv.wg.Go(c.writeLate) // serve runs until closed is set, so the group is not waited out yet
	}
}

// writeLate writes queued answers until there are none.
func (c *tcpConn) writeLate() {
	for {
		c.mu.Lock()
		if len(c.late) == 0 {
			c.writer, c.late = false, nil
			c.mu.Unlock()
			return
		}
		r := c.late[0]
		c.late = c.late[1:]
		c.mu.Unlock()
		c.write(r.frame, r.kind)
		c.freeSlot()
	}
}

// write writes a frame, its length filled in, in one piece. A client that doesn't take it in time loses the connection.
func (c *tcpConn) write(frame []byte, kind int) bool {
	n := len(frame) - framePrefix
	binary.BigEndian.PutUint16(frame, uint16(n))
	c.writing.Lock()
	defer c.writing.Unlock()
	c.nc.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout))
	if _, err := c.nc.Write(frame); err != nil {
		c.srv.opened.drops.Add(1)
		c.nc.Close()
		return false
	}
	c.srv.opened.replies.Add(1)
	c.srv.opened.kinds[kind].Add(1)
	c.srv.opened.bytesOut.Add(uint64(n))
	return true
}

// drain waits until the queries in flight are answered: a client may close its side once it has asked all it wants (RFC 7766
// section 6.2.4). It takes every slot, which it can once all are free.
func (c *tcpConn) drain() {
	timeout := time.NewTimer(c.srv.cfg.IdleTimeout)
	defer timeout.Stop()
	stop := c.srv.stop
	for range cap(c.slots) {
		select {
		case c.slots <- struct{}{}:
			continue
		default:
		}
		for taken := false; !taken; {
			select {
			case c.slots <- struct{}{}:
				taken = true
			case <-timeout.C:
				return
			case <-stop:
				timeout.Reset(drainTimeout)
				stop = nil
			}
		}
	}
}

func (c *tcpConn) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.srv.remove(c)
	c.nc.Close()
}
