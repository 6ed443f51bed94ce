package fleet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"
)

// TestFleet_ReplayedTrafficChangesNothing records all that hosts say to one another while one of them dies, is forced out,
// comes back, leaves and comes back again; and then sends it all once more, many times, before and after that host has
// started again: datagrams and frames as they were, and what went over connections on new ones.
func TestFleet_ReplayedTrafficChangesNothing(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 3)
		thief := f.stranger("x1", 31, "")
		f.start()
		tape := newTape()
		f.net.Watch(tape.record)
		origin := f.agents()[2]
		f.goAndReturn(origin)
		f.net.Watch(nil)
		streams := tape.streams()
		for _, when := range []string{"at once", "after the host of origin has started again"} {
			before := f.standing()
			frames := f.replay(tape, thief, streams)
			if after := f.standing(); !maps.Equal(before, after) {
				t.Errorf("%s: the members' states were\n%v\nand are after the replay\n%v", when, before, after)
			}
			t.Logf("%s: %d frames and %d connections sent again", when, frames, len(streams))
			f.restart(origin)
			f.whole()
			f.steady()
		}
		f.client.settled()
		f.client.check()
	})
}

// goAndReturn has the host be killed, forced out, come back, leave and come back.
func (f *fleet) goAndReturn(h *fleetHost) {
	f.t.Helper()
	by := f.servers()[0]
	h.kill()
	f.state(h, "failed")
	if out, err := by.meibo("force-leave", h.name); err != nil {
		f.t.Fatalf("force-leave: %v\n%s", err, out)
	}
	f.state(h, "left")
	h.up()
	f.whole()
	f.client.ended(h)
	if out, err := h.meibo("leave"); err != nil {
		f.t.Fatalf("leave: %v\n%s", err, out)
	}
	<-h.proc.Done
	h.proc = nil
	f.state(h, "left")
	h.up()
	f.whole()
	f.client.settled()
	f.steady()
}

// state waits until every other host says that the host is in that state.
func (f *fleet) state(h *fleetHost, want string) {
	f.t.Helper()
	hosttest.Eventually(f.t, h.name+" is "+want+" everywhere", func() error {
		for _, o := range f.others(h) {
			members, err := o.members()
			if err != nil || members[h.name].State != want {
				return fmt.Errorf("%s says %v, %v", o.name, members[h.name], err)
			}
		}
		return nil
	})
}

// steady waits until gossip says of every member what is believed of it: that it is alive.
func (f *fleet) steady() {
	f.t.Helper()
	hosttest.Eventually(f.t, "gossip says that all are alive", func() error {
		for _, o := range f.hosts {
			members, err := o.members()
			if err != nil {
				return err
			}
			for name, m := range members {
				if m.State != "alive" || m.Told != "alive" {
					return fmt.Errorf("%s says that %s is %v", o.name, name, m)
				}
			}
		}
		return nil
	})
}

// memberState is what a host makes of a member.
type memberState struct {
	State, Told, Since string
	Flaps              int
}

func (h *fleetHost) members() (map[string]memberState, error) {
	var standing struct {
		Members []struct {
			Name string
			memberState
		}
	}
	err := h.get("/v1/meibo/members", &standing)
	states := map[string]memberState{}
	for _, m := range standing.Members {
		states[m.Name] = m.memberState
	}
	return states, err
}

// standing is in what state each host holds each, and since when.
func (f *fleet) standing() map[string]string {
	f.t.Helper()
	all := map[string]string{}
	for _, h := range f.hosts {
		members, err := h.members()
		hosttest.Must(f.t, err)
		for name, m := range members {
			all[h.name+" of "+name] = fmt.Sprintf("%s since %s, flaps %d", m.State, m.Since, m.Flaps)
		}
	}
	return all
}

// replay sends again what is on tape, several thousand frames at least, and returns how many.
func (f *fleet) replay(tape *tape, thief *fleetHost, streams []stream) int {
	rounds := max(1, 4000*times(25)/max(1, len(tape.frames)))
	for range rounds {
		for i, frame := range tape.frames {
			f.net.Inject(frame.to, frame.data)
			if i%100 == 99 {
				hosttest.Pause(5 * time.Millisecond) // or the devices' queues are full and lose the rest
			}
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, s := range streams {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			thief.say(s)
		})
	}
	wg.Wait()
	f.client.soak(2 * time.Second) // for what was said to go round
	return rounds * len(tape.frames)
}

// say opens a connection and says on it what somebody said once.
func (h *fleetHost) say(s stream) {
	var conn net.Conn
	var err error
	h.inside(func() {
		conn, err = net.DialTimeout("tcp", fmt.Sprintf("%s:%d", netswitch.HostAddr(s.to), s.port), time.Second)
	})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := conn.Write(s.said); err == nil {
		_, _ = conn.Read(make([]byte, 4096))
	}
}

// tape holds frames of gossip and link in the order in which they were sent.
type tape struct {
	mu     sync.Mutex // guards frames
	frames []taped
}

type taped struct {
	to   byte
	data []byte
}

// tapeMost bounds what is recorded.
const tapeMost = 200_000

func newTape() *tape { return &tape{} }

func (r *tape) record(_, to byte, frame []byte) {
	p, ok := parsePacket(frame)
	if !ok || !p.between(8300) && !p.between(8301) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.frames) < tapeMost {
		r.frames = append(r.frames, taped{to, bytes.Clone(frame)})
	}
}

// stream is what one end of a connection said to a port, from its first byte on.
type stream struct {
	to   byte
	port uint16
	said []byte
}

// streams puts together what those who opened connections said on them.
func (r *tape) streams() []stream {
	type key struct {
		from, to   byte
		sport, dst uint16
	}
	type flow struct {
		start    uint32
		segments map[uint32][]byte
	}
	open := map[key]*flow{} // by addresses and ports, the newest
	var all []stream
	finish := func(k key, fl *flow) {
		var said []byte
		for next := fl.start; ; {
			data, ok := fl.segments[next]
			if !ok {
				break
			}
			said = append(said, data...)
			next += uint32(len(data))
		}
		if len(said) > 0 {
			all = append(all, stream{k.to, k.dst, said})
		}
	}
	for _, frame := range r.frames {
		p, ok := parsePacket(frame.data)
		if !ok || p.proto != 6 || p.dport != 8300 && p.dport != 8301 {
			continue
		}
		k := key{from: p.from, to: frame.to, sport: p.sport, dst: p.dport}
		if p.syn {
			if old := open[k]; old != nil {
				finish(k, old)
			}
			open[k] = &flow{start: p.seq + 1, segments: map[uint32][]byte{}}
		} else if fl := open[k]; fl != nil && len(p.payload) > 0 {
			fl.segments[p.seq] = p.payload
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(open), func(a, b key) int { return int(a.sport) - int(b.sport) }) {
		finish(k, open[k])
	}
	return all
}

// packet is what is read of a frame.
type packet struct {
	proto        byte
	from         byte
	sport, dport uint16
	seq          uint32
	syn          bool
	payload      []byte
}

func (p packet) between(port uint16) bool { return p.sport == port || p.dport == port }

// parsePacket reads a frame with UDP or TCP over IPv4.
func parsePacket(frame []byte) (p packet, ok bool) {
	if len(frame) < 14+20 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return p, false
	}
	ip := frame[14:]
	head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if total > len(ip) || total < head+8 {
		return p, false
	}
	p.proto, p.from = ip[9], ip[15]
	segment := ip[head:total]
	p.sport, p.dport = binary.BigEndian.Uint16(segment), binary.BigEndian.Uint16(segment[2:])
	switch {
	case p.proto == 17:
		p.payload = segment[8:]
		return p, true
	case p.proto != 6 || len(segment) < 20:
		return p, false
	}
	p.seq, p.syn = binary.BigEndian.Uint32(segment[4:]), segment[13]&2 != 0
	if offset := int(segment[12]>>4) * 4; offset <= len(segment) {
		p.payload = segment[offset:]
	}
	return p, true
}
