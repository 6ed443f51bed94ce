package forwarder

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// poolSize is how many sockets questions go out of, for each family: a power of
	// two, so that chance picks each alike.
	poolSize = 256
	// maxUses and maxAge retire a socket, and with it its port: a forger has to
	// find it again.
	maxUses = 100
	maxAge  = 10 * time.Second
	// readSlots is how many replies are read off one socket at once, sendSlots how many
	// questions are sent from one.
	readSlots = 16
	sendSlots = 32
)

// sockets is the pool that questions over UDP go out of. All sockets are watched
// by one poller, which the runtime's poller watches: one goroutine reads what
// comes, however many there are.
type sockets struct {
	chance chance
	out    outgoing

	mu     sync.Mutex // guards following; taken before a socket's, after outgoing's
	closed bool
	poller *os.File // of the epoll descriptor; nil: not yet
	epfd   int
	slots  [2][poolSize]*socket // by family
	open   map[int32]*socket    // by descriptor
	sweep  *time.Timer          // closes what is too old; nil: nothing is open
	begun  chan struct{}        // closed once there is a poller
}

func newSockets() *sockets {
	return &sockets{open: make(map[int32]*socket), begun: make(chan struct{})}
}

// socket is an unconnected UDP socket on a port of the kernel's random choice.
type socket struct {
	fd   int
	v6   bool
	born time.Time

	mu      sync.Mutex // guards following
	uses    int
	retired bool
	waiters []*waiter
	past    []uint16 // IDs whose question is over: what comes late is no forgery
}

// outgoing are questions to be sent. Who flushes first sends those that come meanwhile
// too: those of a batch go out of one socket.
type outgoing struct {
	mu      sync.Mutex // guards following, and packets, IDs and sockets of waiters
	sending bool
	waiting []*waiter

	// of who sends
	batch [sendSlots]*waiter
	msgs  [sendSlots]mmsghdr
	vec   [sendSlots]unix.Iovec
	to    [sendSlots]unix.RawSockaddrInet6
}

// send has the next flush send packet, under a random ID and from a random socket; where
// it can't, w is told. The caller must call drop.
func (p *sockets) send(w *waiter, packet []byte) {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	w.packet = packet
	p.out.waiting = append(p.out.waiting, w)
}

// flush has all sent that was asked before. Who asks must call it before waiting.
func (p *sockets) flush() {
	o := &p.out
	o.mu.Lock()
	idle := o.sending || len(o.waiting) == 0
	o.sending = o.sending || !idle
	o.mu.Unlock()
	if idle {
		return
	}
	for more := true; more; more = p.sendWaiting() {
		runtime.Gosched() // those that were started together with us have asked by then
	}
}

// sendWaiting sends a batch of what is to be sent. False: there is nothing, and who
// brings the next is to send it.
func (p *sockets) sendWaiting() (more bool) {
	defer func() {
		if err := recover(); err != nil {
			p.out.giveUp(err)
			more = false
		}
	}()
	s, n, more := p.fillBatch()
	if n > 0 {
		p.out.send(s, n)
	}
	return more
}

// giveUp makes a panic while questions were sent their error, and nobody else's.
func (o *outgoing) giveUp(err any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range slices.Concat(o.batch[:], o.waiting) {
		switch {
		case w == nil:
		case w.sock != nil:
			w.fail(panicked(w.srv.addr, err))
		default:
			w.to.told <- told{to: w.to, err: panicked(w.srv.addr, err)}
		}
	}
	clear(o.batch[:])
	o.waiting, o.sending = nil, false
}

// fillBatch moves questions from those that wait to a random socket and the batch. Where none
// waits the sender is done.
func (p *sockets) fillBatch() (s *socket, n int, more bool) {
	o := &p.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		o.sending = false
		return nil, 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v6 := o.waiting[0].srv.addr.Addr().Is6()
	s, err := p.pickLocked(int(p.chance.uint16()%poolSize), v6)
	if err != nil {
		w := o.waiting[0]
		o.waiting = slices.Delete(o.waiting, 0, 1)
		w.to.told <- told{to: w.to, err: err}
		return nil, 0, true
	}
	left := o.waiting[:0]
	for _, w := range o.waiting {
		if w.srv.addr.Addr().Is6() != v6 || n == sendSlots || n > 0 && !s.use() {
			left = append(left, w)
			continue
		}
		s.register(w, &p.chance)
		binary.BigEndian.PutUint16(w.packet, w.id)
		o.batch[n] = w
		n++
	}
	clear(o.waiting[len(left):])
	o.waiting = left
	return s, n, true
}

// send sends the batch. It doesn't block, so the scheduler need not know of it; a full
// buffer is a loss like any other.
func (o *outgoing) send(s *socket, n int) {
	for i, w := range o.batch[:n] {
		o.vec[i].Base = &w.packet[0]
		o.vec[i].SetLen(len(w.packet))
		h := &o.msgs[i].hdr
		h.Iov, h.Name = &o.vec[i], (*byte)(unsafe.Pointer(&o.to[i]))
		h.Namelen = uint32(putSockaddr(&o.to[i], w.srv.addr, s.v6))
		h.SetIovlen(1)
	}
	tries := 0
	for first := 0; first < n; {
		got, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&o.msgs[first])), uintptr(n-first),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			first, tries = first+int(got), 0
		case unix.EAGAIN, unix.ENOBUFS:
			first = n
		case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.EINTR:
			// The error of an earlier question on this socket may come first, once; of this one the poller hears.
			if tries++; tries == 2 {
				first, tries = first+1, 0
			}
		default:
			o.batch[first].fail(os.NewSyscallError("sendmmsg", errno))
			first, tries = first+1, 0
		}
	}
	clear(o.batch[:n])
}

func (w *waiter) fail(err error) {
	w.sock.mu.Lock()
	defer w.sock.mu.Unlock()
	w.complete(heard{}, err)
}

// isSent tells that w is on its way. Until then its packet belongs to who sends it.
func (p *sockets) isSent(w *waiter) bool {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	return w.sock != nil
}

// recall takes w back if it is not sent yet, or returns the socket that it is on.
func (o *outgoing) recall(w *waiter) *socket {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w.sock == nil {
		o.waiting = slices.DeleteFunc(o.waiting, func(x *waiter) bool { return x == w })
	}
	return w.sock
}

// pickLocked returns the socket of a slot, a new one if there is none or that has served
// its time, and counts its use. It is called with p.mu held.
func (p *sockets) pickLocked(slot int, v6 bool) (*socket, error) {
	family := 0
	if v6 {
		family = 1
	}
	at := &p.slots[family][slot]
	if s := *at; s != nil {
		if s.use() {
			return s, nil
		}
		*at = nil
		p.retire(s)
	}
	s, err := p.newSocket(v6)
	if err != nil {
		return nil, err
	}
	*at = s
	s.use()
	return s, nil
}

// use counts one more question, unless s is too old for it.
func (s *socket) use() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses >= maxUses || time.Since(s.born) > maxAge {
		return false
	}
	s.uses++
	return true
}

// newSocket opens a socket and has it watched.
func (p *sockets) newSocket(v6 bool) (*socket, error) {
	if err := p.begin(); err != nil {
		return nil, err
	}
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err = prepare(fd, v6); err == nil {
		err = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &socket{fd: fd, v6: v6, born: time.Now()}
	p.open[int32(fd)] = s
	if p.sweep == nil {
		p.sweep = time.AfterFunc(maxAge, p.closeOld)
	}
	return s, nil
}

// prepare binds to a random port, asks for news of refusals, and ignores those of
// path MTUs, so that forged ones can't make the server fragment (RFC 5452, fragment
// attacks).
func prepare(fd int, v6 bool) error {
	if v6 {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet6{}))
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{}))
}

// begin opens the poller. It is called with p.mu held.
func (p *sockets) begin() error {
	switch {
	case p.closed:
		return errClosed
	case p.poller != nil:
		return nil
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create", err)
	}
	unix.SetNonblock(epfd, true) // or the runtime would not watch it
	p.epfd, p.poller = epfd, os.NewFile(uintptr(epfd), "upstream sockets")
	close(p.begun)
	return nil
}

// retire closes s once nobody waits on it. It is called with p.mu held.
func (p *sockets) retire(s *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
	if len(s.waiters) == 0 {
		p.close(s)
	}
}

// close is called with p.mu and s.mu held.
func (p *sockets) close(s *socket) {
	if p.open[int32(s.fd)] == s {
		delete(p.open, int32(s.fd))
		unix.Close(s.fd)
	}
}

// closeOld retires the sockets that have served their time, though nobody has come
// across them.
func (p *sockets) closeOld() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := range p.slots {
		for i, s := range p.slots[f] {
			if s != nil && time.Since(s.born) >= maxAge {
				p.slots[f][i] = nil
				p.retire(s)
			}
		}
	}
	p.sweep = nil
	if len(p.open) > 0 && !p.closed {
		p.sweep = time.AfterFunc(maxAge/2, p.closeOld)
	}
}

// register has s know w, under a random ID that nobody else has.
func (s *socket) register(w *waiter, c *chance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := c.uint16()
	for slices.ContainsFunc(s.waiters, func(o *waiter) bool { return o.id == id }) {
		id = c.uint16()
	}
	w.id, w.sock = id, s
	s.waiters = append(s.waiters, w)
}

// drop ends the interest in replies to w and returns what came of it.
func (p *sockets) drop(w *waiter) event {
	s := p.out.recall(w)
	if s == nil {
		return event{}
	}
	s.mu.Lock()
	e := w.event
	s.waiters = slices.DeleteFunc(s.waiters, func(o *waiter) bool { return o == w })
	s.past = append(s.past, w.id)
	last := s.retired && len(s.waiters) == 0
	s.mu.Unlock()
	if last {
		p.mu.Lock()
		defer p.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		p.close(s)
	}
	return e
}

// again sends packet once more; an error shows as an event, if at all.
func (w *waiter) again(packet []byte) {
	if err := w.sock.send(packet, w.srv.addr); err != nil {
		w.fail(err)
	}
}

// send sends one datagram. It doesn't block, so the scheduler need not know of it;
// a full buffer is a loss like any other.
func (s *socket) send(packet []byte, to netip.AddrPort) error {
	var sa unix.RawSockaddrInet6
	size := putSockaddr(&sa, to, s.v6)
	// The error of an earlier question on this socket may come first, once.
	for range 2 {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(packet))), uintptr(len(packet)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(&sa)), size)
		switch errno {
		case 0, unix.EAGAIN, unix.ENOBUFS:
			return nil
		case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.EINTR:
			continue
		}
		return os.NewSyscallError("sendto", errno)
	}
	return nil // the poller hears of it
}

// putSockaddr writes an address as the socket's family has it, and returns its size.
func putSockaddr(sa *unix.RawSockaddrInet6, to netip.AddrPort, v6 bool) uintptr {
	if v6 {
		sa.Family, sa.Addr = unix.AF_INET6, to.Addr().As16()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], to.Port())
		sa.Scope_id = scopeOf(to.Addr().Zone())
		return unix.SizeofSockaddrInet6
	}
	sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
	sa4.Family, sa4.Addr = unix.AF_INET, to.Addr().As4()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa4.Port))[:], to.Port())
	return unix.SizeofSockaddrInet4
}

// scopeOf is the number of the interface that a link-local address is on.
func scopeOf(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}

// sockaddr reads an address of either family, without the interface it came by.
func sockaddr(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
}

// inbox is what replies are read into.
type inbox struct {
	in   [readSlots]mmsghdr
	vec  [readSlots]unix.Iovec
	from [readSlots]unix.RawSockaddrInet6
	data [readSlots][readBuffer]byte
	oob  [128]byte
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

func newInbox() *inbox {
	b := new(inbox)
	for i := range readSlots {
		b.vec[i].Base = &b.data[i][0]
		b.vec[i].SetLen(readBuffer)
		h := &b.in[i].hdr
		h.Iov, h.Name, h.Namelen = &b.vec[i], (*byte)(unsafe.Pointer(&b.from[i])), unix.SizeofSockaddrInet6
		h.SetIovlen(1)
	}
	return b
}

// run reads replies until ctx ends, then closes all sockets. Nobody may ask any
// more by then.
func (p *sockets) run(ctx context.Context) {
	defer p.shut()
	select {
	case <-ctx.Done():
		return
	case <-p.begun:
	}
	defer context.AfterFunc(ctx, func() { p.poller.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := p.poller.SyscallConn()
	if err != nil {
		return
	}
	var events [64]unix.EpollEvent
	box := newInbox()
	// Only the end of ctx ends the read.
	raw.Read(func(fd uintptr) bool {
		for {
			n := poll(fd, events[:])
			for i := range events[:n] {
				p.ready(&events[i], box)
			}
			if n == 0 {
				return false
			}
		}
	})
}

func poll(fd uintptr, events []unix.EpollEvent) int {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EINTR:
			continue
		}
		return 0
	}
}

// ready reads a socket that has something.
func (p *sockets) ready(e *unix.EpollEvent, box *inbox) {
	p.mu.Lock()
	s := p.open[e.Fd]
	p.mu.Unlock()
	if s == nil {
		return
	}
	if e.Events&unix.EPOLLERR != 0 {
		s.readErrors(box)
	}
	if e.Events&unix.EPOLLIN != 0 {
		s.read(box)
	}
}

// read reads what is there: a few at a time, the poller tells of more.
func (s *socket) read(box *inbox) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&box.in[0])), readSlots, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return
	}
	for i := range box.in[:n] {
		from := sockaddr(&box.from[i])
		s.dispatch(from, box.data[i][:box.in[i].n])
		box.in[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
}

// dispatch gives a packet to the question that it belongs to by its ID, if it comes
// from where that was asked (RFC 5452 section 9.1).
func (s *socket) dispatch(from netip.AddrPort, msg []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(msg) < 2 {
		return
	}
	id := binary.BigEndian.Uint16(msg)
	for _, w := range s.waiters {
		if w.id == id && w.srv.bare == from {
			w.hear(msg)
			return
		}
	}
	if slices.Contains(s.past, id) {
		return
	}
	for _, w := range s.waiters {
		if w.srv.bare == from {
			w.mismatch()
		}
	}
}

// readErrors reads what the network says of questions: nobody there, no way there.
// It repeats the question, and so says which.
func (s *socket) readErrors(box *inbox) {
	for {
		var h unix.Msghdr
		h.Iov, h.Name, h.Namelen = &box.vec[0], (*byte)(unsafe.Pointer(&box.from[0])), unix.SizeofSockaddrInet6
		h.SetIovlen(1)
		h.Control = &box.oob[0]
		h.SetControllen(len(box.oob))
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errno != 0 {
			// Its error is pending beside the queue, and was read with it or is by this.
			unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
			return
		}
		if err := queuedError(box.oob[:h.Controllen]); err != nil && n >= 2 {
			s.refused(sockaddr(&box.from[0]), binary.BigEndian.Uint16(box.data[0][:]), err)
		}
	}
}

func (s *socket) refused(to netip.AddrPort, id uint16, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.waiters {
		if w.id == id && w.srv.bare == to {
			w.complete(heard{}, os.NewSyscallError("sendto", err))
		}
	}
}

// queuedError reads a struct sock_extended_err.
func queuedError(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if (v4 || v6) && len(m.Data) >= 4 {
			if errno := syscall.Errno(binary.NativeEndian.Uint32(m.Data)); errno != unix.EMSGSIZE {
				return errno
			}
		}
	}
	return nil
}

func (p *sockets) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	for _, s := range p.open {
		s.mu.Lock()
		p.close(s)
		s.mu.Unlock()
	}
	if p.poller != nil {
		p.poller.Close()
	}
}
