// Package netswitch is the network between hosts that tests make: a switch in this
// process. Each host has a network namespace with one TAP device in it, and the switch
// holds the other end, so that any frame of any pair can be dropped or held up without
// asking the kernel for a queueing discipline or a packet filter that it may not have.
package netswitch

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Path is what happens to frames from one host to another.
type Path struct {
	Cut   bool
	Loss  float64 // of 1
	Delay time.Duration
	Port  uint16 // if set, only UDP and this port of TCP fare so
}

// concerns reports whether the path is one for this frame.
func (p Path) concerns(frame []byte) bool {
	const ipv4, minimum = 0x0800, 14 + 20 + 4
	if p.Port == 0 {
		return true
	}
	if len(frame) < minimum || binary.BigEndian.Uint16(frame[12:]) != ipv4 {
		return false
	}
	packet := frame[14:]
	header := int(packet[0]&15) * 4
	switch packet[9] {
	case unix.IPPROTO_UDP:
		return true
	case unix.IPPROTO_TCP:
		if len(packet) < header+4 {
			return false
		}
		segment := packet[header:]
		return binary.BigEndian.Uint16(segment) == p.Port || binary.BigEndian.Uint16(segment[2:]) == p.Port
	}
	return false
}

// Switch forwards frames by the last octet of their destination's MAC address.
type Switch struct {
	mu    sync.Mutex // guards following
	ports map[byte]*os.File
	paths map[[2]byte]Path
	late  frameHeap
	rng   *rand.Rand
	see   func(from, to byte, frame []byte) // is shown each frame that is forwarded; nil: nobody

	wake chan struct{}
	stop chan struct{}
	wg   sync.WaitGroup
}

// New starts a switch, which ends with the test.
func New(t *testing.T) *Switch {
	s := &Switch{
		ports: map[byte]*os.File{}, paths: map[[2]byte]Path{}, rng: rand.New(rand.NewPCG(1, 2)),
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	s.wg.Go(s.deliverLate)
	t.Cleanup(func() {
		close(s.stop)
		s.mu.Lock()
		for _, f := range s.ports {
			f.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

// Set changes what happens to frames from one host to another.
func (s *Switch) Set(from, to byte, p Path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[[2]byte{from, to}] = p
}

// SetBoth is Set in both directions.
func (s *Switch) SetBoth(a, b byte, p Path) {
	s.Set(a, b, p)
	s.Set(b, a, p)
}

// Watch shows each frame that is forwarded to see, which must not keep it; nil ends that.
func (s *Switch) Watch(see func(from, to byte, frame []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.see = see
}

// Inject delivers a frame to a host once more.
func (s *Switch) Inject(to byte, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.ports[to].Write(frame)
}

// Heal forgets all that was set.
func (s *Switch) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.paths)
}

// Attach makes a host on the switch, a network namespace with the address, and returns what its thread is told to do;
// arrange, if not nil, is the first thing that runs there.
func (s *Switch) Attach(t *testing.T, n byte, addr netip.Addr, arrange func() error) (do chan func()) {
	t.Helper()
	do = make(chan func())
	ready := make(chan error)
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = s.plug(n, addr)
		}
		if err == nil && arrange != nil {
			err = arrange()
		}
		ready <- err
		for f := range do {
			f()
		}
	})
	t.Cleanup(func() { close(do); wg.Wait() })
	if err := <-ready; err != nil {
		t.Skipf("this machine lets this user have no network of hosts (%v): run as root with /dev/net/tun", err)
	}
	return do
}

// plug makes the calling thread's network namespace a host on the switch: a device eth0 with an address of a /24.
func (s *Switch) plug(n byte, addr netip.Addr) error {
	f, err := openTAP("eth0")
	if err != nil {
		return err
	}
	if err := configure("eth0", n, addr); err != nil {
		f.Close()
		return err
	}
	s.mu.Lock()
	s.ports[n] = f
	s.mu.Unlock()
	s.wg.Go(func() { s.forward(n, f) })
	return nil
}

func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && os.Getuid() == 0 {
		node := filepath.Join(os.TempDir(), fmt.Sprintf("tun-%d", os.Getpid()))
		if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err == nil {
			defer os.Remove(node)
		}
		fd, err = unix.Open(node, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make a TAP device: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// configure gives the device in this thread's namespace its addresses and sets it and loopback up.
func configure(name string, n byte, addr netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(setMAC(fd, name, n), SetAddr(fd, name, addr), setUp(fd, name), setUp(fd, "lo"))
}

// SetAddr gives a device an IPv4 address of a /24; NAME:1 is a second address of the device NAME.
func SetAddr(fd int, name string, addr netip.Addr) error {
	return errors.Join(
		setDevice(fd, name, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(addr.AsSlice()) }),
		setDevice(fd, name, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 0}) }),
	)
}

func setUp(fd int, name string) error {
	return setDevice(fd, name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil })
}

func setDevice(fd int, name string, call uint, edit func(*unix.Ifreq) error) error {
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = edit(req)
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, call, req)
	}
	return err
}

// forward reads a host's frames until its device is closed.
func (s *Switch) forward(from byte, f *os.File) {
	buf := make([]byte, 65536)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		if n < 14 {
			continue
		}
		s.send(from, buf[:n])
	}
}

func (s *Switch) send(from byte, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	broadcast := frame[0]&1 == 1
	for to, port := range s.ports {
		if to == from || !broadcast && frame[5] != to {
			continue
		}
		if s.see != nil {
			s.see(from, to, frame)
		}
		p := s.paths[[2]byte{from, to}]
		if !p.concerns(frame) {
			p = Path{}
		}
		switch {
		case p.Cut, p.Loss > 0 && s.rng.Float64() < p.Loss:
		case p.Delay > 0:
			heap.Push(&s.late, lateFrame{time.Now().Add(p.Delay), append([]byte(nil), frame...), port})
			select {
			case s.wake <- struct{}{}:
			default:
			}
		default:
			_, _ = port.Write(frame) // a full or closed device loses it, as wires do
		}
	}
}

// deliverLate hands over what was held up.
func (s *Switch) deliverLate() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		wait := time.Hour
		for len(s.late) > 0 {
			if wait = time.Until(s.late[0].at); wait > 0 {
				break
			}
			late := heap.Pop(&s.late).(lateFrame)
			_, _ = late.port.Write(late.frame)
			wait = time.Hour
		}
		s.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-s.stop:
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}

type lateFrame struct {
	at    time.Time
	frame []byte
	port  *os.File
}

type frameHeap []lateFrame

func (h frameHeap) Len() int           { return len(h) }
func (h frameHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h frameHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *frameHeap) Push(x any)        { *h = append(*h, x.(lateFrame)) }
func (h *frameHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// HostAddr is the address of the n-th host.
func HostAddr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, n}) }
