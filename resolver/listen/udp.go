package listen

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"meibo/resolver/wire"
)

// maxQuery is the longest datagram read, in bytes. A question with every option that exists takes a few hundred; what is longer is
// answered FORMERR.
const maxQuery = 4096

// maxReply is the room a handler has to append to, in bytes.
const maxReply = 65535

// udpSocket is one socket and its loop.
type udpSocket struct {
	cfg      *Config
	conn     *net.UDPConn
	local    netip.Addr // bound to; invalid if unspecified: then each datagram says
	v6       bool       // the socket is of AF_INET6
	dual     bool
	loop     counters // moved by the loop alone
	late     counters // moved by replies from elsewhere
	lateFunc func(q *wire.Query, msg []byte)
}

func newUDPSocket(cfg *Config, e *endpoint, conn *net.UDPConn) *udpSocket {
	s := &udpSocket{cfg: cfg, conn: conn, v6: !e.addr.Addr().Is4(), dual: e.dual}
	if a := e.addr.Addr(); !a.IsUnspecified() {
		s.local = a
	}
	s.lateFunc = s.reply
	return s
}

// serve receives and answers until ctx ends.
func (s *udpSocket) serve(ctx context.Context) error {
	err := s.receive(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return &lostError{network: "udp", addr: s.conn.LocalAddr(), err: err}
}

// receiveEach is the loop that works on every system: a datagram at a time.
func (s *udpSocket) receiveEach(ctx context.Context) error {
	var (
		q    wire.Query
		in   = make([]byte, maxQuery+1) // one more than is taken, to notice what is longer
		out  = make([]byte, 0, maxReply)
		oob  = make([]byte, oobSize)
		fail failures
	)
	for ctx.Err() == nil {
		n, oobn, _, client, err := s.conn.ReadMsgUDPAddrPort(in, oob)
		if err != nil {
			if !fail.again(ctx, err) {
				return err
			}
			continue
		}
		fail.none()
		q.Client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
		q.Local = s.local
		if !s.local.IsValid() {
			q.Local = destAddr(oob[:oobn])
		}
		var t tally
		reply := s.answer(&q, in[:n], n > maxQuery, out, &t)
		t.flush(&s.loop)
		if len(reply) > 0 {
			s.send(&q, reply, kindOf(&q, t.verdict, reply), &s.loop)
		}
	}
	return nil
}

// tally is counts of a loop that are not added up yet.
type tally struct {
	queries, replies, drops, bytesIn, bytesOut int

	verdict wire.Verdict // of the last query
	kind    int          // of the last replies, run of them in a row
	run     int
}

// replied counts a reply: as of a batch most are of one kind, each kind in a row is added up once.
func (t *tally) replied(kind int, c *counters) {
	if kind != t.kind && t.run > 0 {
		c.kinds[t.kind].Add(uint64(t.run))
		t.run = 0
	}
	t.kind = kind
	t.run++
}

func (t *tally) flush(c *counters) {
	if t.run > 0 {
		c.kinds[t.kind].Add(uint64(t.run))
	}
	c.queries.Add(uint64(t.queries))
	c.replies.Add(uint64(t.replies))
	c.drops.Add(uint64(t.drops))
	c.bytesIn.Add(uint64(t.bytesIn))
	c.bytesOut.Add(uint64(t.bytesOut))
}

// answer lets the handler answer one datagram, which q's addresses belong to.
func (s *udpSocket) answer(q *wire.Query, msg []byte, tooLong bool, out []byte, t *tally) []byte {
	t.queries++
	t.bytesIn += len(msg)
	v := q.Parse(msg)
	if v == wire.Drop {
		t.drops++
		return nil
	}
	if tooLong {
		v = wire.FormErr
	}
	t.verdict = v
	return s.cfg.Handler.ServeDNS(q, v, out, s.lateFunc)
}

// reply sends what the handler did not answer in place.
func (s *udpSocket) reply(q *wire.Query, msg []byte) {
	if len(msg) == 0 {
		s.late.drops.Add(1)
		return
	}
	s.send(q, msg, kindOf(q, wire.OK, msg), &s.late)
}

// send sends one datagram to q's client from the address that it asked. A reply that can't be sent is lost, as it may be on its
// way; the client asks again.
func (s *udpSocket) send(q *wire.Query, msg []byte, kind int, c *counters) {
	var (
		space [oobSize]byte
		oob   []byte
	)
	if !s.local.IsValid() && q.Local.IsValid() {
		oob = appendSource(space[:0], q.Local, s.v6)
	}
	if _, _, err := s.conn.WriteMsgUDPAddrPort(msg, oob, q.Client); err != nil {
		c.drops.Add(1)
		return
	}
	c.replies.Add(1)
	c.kinds[kind].Add(1)
	c.bytesOut.Add(uint64(len(msg)))
}

// failures tells an error that passes from a socket that is lost.
type failures struct {
	run   int
	since time.Time
}

// lostAfter is how long every receive must fail until the socket is given up. Memory may be short for a while.
const lostAfter = 10 * time.Second

func (f *failures) none() { f.run = 0 }

// again waits a little, longer with each failure in a row, and reports whether to try again.
func (f *failures) again(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.ENOTSOCK) {
		return false
	}
	if f.run == 0 {
		f.since = time.Now()
	}
	if f.run++; time.Since(f.since) > lostAfter {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(min(time.Duration(f.run)*5*time.Millisecond, time.Second)):
		return true
	}
}
