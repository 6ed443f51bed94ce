package listen

import (
	"context"
	"encoding/binary"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"meibo/resolver/wire"
)

const (
	slots     = 32           // datagrams of a batch; more gains nothing, since the loop is back for them in microseconds
	arenaSize = 2 * maxReply // room for the replies of a batch; what doesn't fit is sent in two calls
)

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}

// batch is what one loop receives into and sends from. The headers point at the rest of it.
type batch struct {
	in       [slots]mmsghdr
	inVec    [slots]unix.Iovec
	from     [slots]unix.RawSockaddrInet6 // of either family
	control  [slots][oobSize]byte
	messages []byte

	outbox
}

func newBatch() *batch {
	b := &batch{messages: make([]byte, slots*(maxQuery+1))}
	b.outbox.init(arenaSize)
	for i := range slots {
		b.inVec[i].Base = &b.messages[i*(maxQuery+1)]
		b.inVec[i].SetLen(maxQuery + 1)
		h := &b.in[i].hdr
		h.Iov, h.Name, h.Control = &b.inVec[i], (*byte)(unsafe.Pointer(&b.from[i])), &b.control[i][0]
		h.SetIovlen(1)
	}
	b.reset(slots)
	return b
}

// reset gives the first n headers to receive with their room back.
func (b *batch) reset(n int) {
	for i := range n {
		h := &b.in[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(oobSize)
	}
}

// receive receives and answers until ctx ends or the socket fails.
func (s *udpSocket) receive(ctx context.Context) error {
	if s.cfg.NoBatch {
		return s.receiveEach(ctx)
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var (
		b    = newBatch()
		io   = batchIO{b: b, raw: raw}
		q    wire.Query
		fail failures
	)
	io.init()
	for ctx.Err() == nil {
		n, err := io.receive()
		if err != nil {
			if !fail.again(ctx, err) {
				return err
			}
			continue
		}
		fail.none()
		var t tally
		for i := range n {
			s.answerSlot(b, i, &q, &t)
			if arenaSize-b.used < maxReply || b.ready == slots {
				t.drops += b.send(raw)
			}
		}
		t.drops += b.send(raw)
		t.flush(&s.loop)
		b.reset(n)
	}
	return nil
}

// answerSlot lets the handler answer the i-th datagram of a batch, and readies the reply.
func (s *udpSocket) answerSlot(b *batch, i int, q *wire.Query, t *tally) {
	in := &b.in[i]
	msg := b.messages[i*(maxQuery+1):][:in.n]
	q.Client = sockaddr(&b.from[i])
	q.Local = s.local
	if !s.local.IsValid() {
		q.Local = askedAddr(b.control[i][:in.hdr.Controllen])
	}
	reply := s.answer(q, msg, len(msg) > maxQuery, b.arena[b.used:b.used:arenaSize], t)
	if len(reply) == 0 {
		return
	}
	t.replies++
	t.replied(kindOf(q, t.verdict, reply), &s.loop)
	t.bytesOut += len(reply)
	b.used += len(reply)
	// Back to where it came from.
	b.add(reply, in.hdr.Name, in.hdr.Namelen, s.source(q), s.v6)
}

// source is the address to send a reply to q from, invalid where the socket has but one.
func (s *udpSocket) source(q *wire.Query) netip.Addr {
	if s.local.IsValid() {
		return netip.Addr{}
	}
	return q.Local
}

// sockaddr reads an address of either family, an IPv4 one as such.
func sockaddr(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	addr := netip.AddrFrom16(sa.Addr).Unmap()
	if sa.Scope_id != 0 {
		addr = addr.WithZone(strconv.Itoa(int(sa.Scope_id))) // link-local clients only
	}
	return netip.AddrPortFrom(addr, port)
}

// batchIO makes the calls to receive. Its function is made once, since a closure for each call would be garbage.
type batchIO struct {
	b         *batch
	raw       syscall.RawConn
	receiveFn func(fd uintptr) bool

	got   int // of the last call
	errno syscall.Errno
}

func (io *batchIO) init() {
	io.receiveFn = func(fd uintptr) bool {
		io.got, io.errno = mmsg(unix.SYS_RECVMMSG, fd, io.b.in[:])
		return io.errno != unix.EAGAIN
	}
}

// mmsg receives or sends messages without waiting. The call doesn't block, so the scheduler need not know of it.
func mmsg(trap, fd uintptr, m []mmsghdr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// receive waits for datagrams and returns how many there are.
func (io *batchIO) receive() (int, error) {
	if err := io.raw.Read(io.receiveFn); err != nil {
		return 0, err
	}
	if io.errno != 0 {
		return 0, io.errno
	}
	return io.got, nil
}

// outbox is datagrams that are sent in one call. The headers point at the rest of it.
type outbox struct {
	out        [slots]mmsghdr
	outVec     [slots]unix.Iovec
	outControl [slots][oobSize]byte
	arena      []byte

	used  int // bytes of arena
	ready int // messages to send

	sendFn func(fd uintptr) bool // made once, as a closure for each call would be garbage
	first  int                   // message to send next
	got    int                   // of the last call
	errno  syscall.Errno
}

func (o *outbox) init(room int) {
	o.arena = make([]byte, 0, room)
	for i := range slots {
		o.out[i].hdr.Iov = &o.outVec[i]
		o.out[i].hdr.SetIovlen(1)
	}
	o.sendFn = func(fd uintptr) bool {
		o.got, o.errno = mmsg(unix.SYS_SENDMMSG, fd, o.out[o.first:o.ready])
		return o.errno != unix.EAGAIN
	}
}

// add readies msg, which lies in the arena, to an address; from one of this host, if it is valid.
func (o *outbox) add(msg []byte, to *byte, toLen uint32, from netip.Addr, v6 bool) {
	vec, h := &o.outVec[o.ready], &o.out[o.ready].hdr
	vec.Base = &msg[0]
	vec.SetLen(len(msg))
	h.Name, h.Namelen = to, toLen
	h.Control = nil
	h.SetControllen(0)
	if from.IsValid() {
		oob := appendSource(o.outControl[o.ready][:0], from, v6)
		h.Control = &oob[0]
		h.SetControllen(len(oob))
	}
	o.ready++
}

// send sends what is ready, and returns how many messages could not be sent: those are passed over.
func (o *outbox) send(raw syscall.RawConn) (lost int) {
	for o.first = 0; o.first < o.ready; {
		if err := raw.Write(o.sendFn); err != nil {
			lost += o.ready - o.first
			break
		}
		if o.errno != 0 { // the first of them is at fault
			lost++
			o.first++
			continue
		}
		o.first += o.got
	}
	o.used, o.ready = 0, 0
	return lost
}

// lateRoom is room for late replies of the usual size; a longer one goes alone.
const lateRoom = slots * 512

// lateReplies are those that come from elsewhere than the loop. Who brings the first sends for all that come meanwhile.
type lateReplies struct {
	raw syscall.RawConn

	mu      sync.Mutex // guards following, but what is being sent
	sending bool
	filling *lateBox // nil: no reply was late yet
	sent    *lateBox
}

// lateBox is an outbox that holds its addresses.
type lateBox struct {
	outbox
	to [slots]unix.RawSockaddrInet6
}

// sendLate sends a reply that comes from elsewhere, now or with others.
func (s *udpSocket) sendLate(q *wire.Query, msg []byte, kind int) {
	l := &s.replies
	l.mu.Lock()
	if !s.addLate(q, msg) {
		l.mu.Unlock()
		s.send(q, msg, kind, &s.late)
		return
	}
	s.late.replies.Add(1)
	s.late.kinds[kind].Add(1)
	s.late.bytesOut.Add(uint64(len(msg)))
	if l.sending {
		l.mu.Unlock()
		return
	}
	for l.sending = true; l.filling.ready > 0; {
		l.mu.Unlock()
		runtime.Gosched() // those that were woken together with us have theirs by then
		l.mu.Lock()
		l.filling, l.sent = l.sent, l.filling
		l.mu.Unlock()
		s.late.drops.Add(uint64(l.sent.send(l.raw)))
		l.mu.Lock()
	}
	l.sending = false
	l.mu.Unlock()
}

// addLate copies a reply to those that are to be sent, if there is room. It is called with replies.mu held.
func (s *udpSocket) addLate(q *wire.Query, msg []byte) bool {
	l := &s.replies
	if l.filling == nil {
		if s.cfg.NoBatch {
			return false
		}
		raw, err := s.conn.SyscallConn()
		if err != nil {
			return false
		}
		l.raw, l.filling, l.sent = raw, new(lateBox), new(lateBox)
		l.filling.init(lateRoom)
		l.sent.init(lateRoom)
	}
	b := l.filling
	if b.ready == slots || lateRoom-b.used < len(msg) {
		return false
	}
	at := b.arena[b.used : b.used+len(msg) : lateRoom]
	b.used += copy(at, msg)
	to := &b.to[b.ready]
	b.add(at, (*byte)(unsafe.Pointer(to)), putSockaddr(to, q.Client, s.v6), s.source(q), s.v6)
	return true
}

// putSockaddr writes an address as a socket of a family has it, and returns its size.
func putSockaddr(sa *unix.RawSockaddrInet6, to netip.AddrPort, v6 bool) uint32 {
	if !v6 {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa4.Port))[:], to.Port())
		return unix.SizeofSockaddrInet4
	}
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], to.Port())
	if zone := to.Addr().Zone(); zone != "" {
		n, _ := strconv.ParseUint(zone, 10, 32) // as sockaddr has written it
		sa.Scope_id = uint32(n)
	}
	return unix.SizeofSockaddrInet6
}
