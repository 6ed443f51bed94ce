package listen

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strconv"
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

	out        [slots]mmsghdr
	outVec     [slots]unix.Iovec
	outControl [slots][oobSize]byte
	arena      []byte

	used  int // bytes of arena
	ready int // messages to send
}

func newBatch() *batch {
	b := &batch{messages: make([]byte, slots*(maxQuery+1)), arena: make([]byte, 0, arenaSize)}
	for i := range slots {
		b.inVec[i].Base = &b.messages[i*(maxQuery+1)]
		b.inVec[i].SetLen(maxQuery + 1)
		h := &b.in[i].hdr
		h.Iov, h.Name, h.Control = &b.inVec[i], (*byte)(unsafe.Pointer(&b.from[i])), &b.control[i][0]
		h.SetIovlen(1)
		b.out[i].hdr.Iov = &b.outVec[i]
		b.out[i].hdr.SetIovlen(1)
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
				t.drops += io.send()
			}
		}
		t.drops += io.send()
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
		q.Local = destAddr(b.control[i][:in.hdr.Controllen])
	}
	reply := s.answer(q, msg, len(msg) > maxQuery, b.arena[b.used:b.used:arenaSize], t)
	if len(reply) == 0 {
		return
	}
	t.replies++
	t.replied(kindOf(q, t.verdict, reply), &s.loop)
	t.bytesOut += len(reply)
	b.used += len(reply)
	vec, h := &b.outVec[b.ready], &b.out[b.ready].hdr
	vec.Base = &reply[0]
	vec.SetLen(len(reply))
	h.Name, h.Namelen = in.hdr.Name, in.hdr.Namelen // back to where it came from
	h.Control = nil
	h.SetControllen(0)
	if !s.local.IsValid() && q.Local.IsValid() {
		oob := appendSource(b.outControl[b.ready][:0], q.Local, s.v6)
		h.Control = &oob[0]
		h.SetControllen(len(oob))
	}
	b.ready++
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

// batchIO makes the calls. Its functions are made once, since a closure for each call would be garbage.
type batchIO struct {
	b                 *batch
	raw               syscall.RawConn
	receiveFn, sendFn func(fd uintptr) bool

	got   int // of the last call
	errno syscall.Errno
	first int // message to send next
}

func (io *batchIO) init() {
	io.receiveFn = func(fd uintptr) bool {
		io.got, io.errno = mmsg(unix.SYS_RECVMMSG, fd, io.b.in[:])
		return io.errno != unix.EAGAIN
	}
	io.sendFn = func(fd uintptr) bool {
		io.got, io.errno = mmsg(unix.SYS_SENDMMSG, fd, io.b.out[io.first:io.b.ready])
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

// send sends what is ready, and returns how many messages could not be sent: those are passed over.
func (io *batchIO) send() (lost int) {
	b := io.b
	for io.first = 0; io.first < b.ready; {
		if err := io.raw.Write(io.sendFn); err != nil {
			lost += b.ready - io.first
			break
		}
		if io.errno != 0 { // the first of them is at fault
			lost++
			io.first++
			continue
		}
		io.first += io.got
	}
	b.used, b.ready = 0, 0
	return lost
}
