package main

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"meibo/resolver/wire"
)

// flushEvery is how old figures may be.
const flushEvery = 100 * time.Millisecond

// loaders is how many goroutines of a process ask.
const loaders = 2

// counts are lookups and what became of them.
type counts struct{ lookups, late, answered, failed, stale, wrong atomic.Int64 }

// truth is which instances of a service are to be answered.
type truth struct {
	now, before atomic.Uint64
	since       atomic.Int64 // Unix nanoseconds: until then both are right; 0: nothing was ever changed
}

// kind is what is known of a name that is asked for.
type kind int

const (
	service kind = iota
	unknown
	forwarded
)

// clientAddr is who asks.
var clientAddr = netip.MustParseAddrPort("127.0.0.1:40000")

// load asks at the rate, evenly, each question of a random host.
func (p *Player) load() {
	l := loader{player: p, ranks: ranks(min(p.cfg.Fleet.Uses, p.cfg.Fleet.Services)), others: ranks(otherNames), lags: newHistogram()}
	l.query.Client, l.query.Local = clientAddr, clientAddr.Addr()
	next := time.Now()
	flushed := next
	for {
		hosts := *p.up.Load()
		rate := p.rate.Load() * int64(len(hosts))
		now := time.Now()
		if rate == 0 {
			next = now
		}
		for rate > 0 && !next.After(now) {
			_ = l.lags.RecordValue(max(1, now.Sub(next).Microseconds()))
			l.ask(hosts[rand.IntN(len(hosts))], now)
			next = next.Add(time.Second * loaders / time.Duration(rate))
		}
		if now.Sub(flushed) > flushEvery || rate == 0 {
			l.flush()
			flushed = now
		}
		time.Sleep(time.Millisecond)
	}
}

// loader is one goroutine's room.
type loader struct {
	player *Player
	query  wire.Query
	buf    [4096]byte
	ranks  []uint16 // of the services that a host uses
	others []uint16 // of names that nobody has, or of forwarded ones
	counts [6]int64
	lags   *hdrhistogram.Histogram
}

// otherNames is how many names there are that nobody has, and how many forwarded ones.
const otherNames = 1000

// ranks are drawn from: which of n names is asked for, by Zipf's law.
func ranks(n int) []uint16 {
	z := newZipf(n)
	list := make([]uint16, 1<<16)
	for i := range list {
		list[i] = uint16(z.draw((float64(i) + 0.5) / float64(len(list))))
	}
	return list
}

// ask asks a host for a name and judges the answer.
func (l *loader) ask(h *host, now time.Time) {
	p := l.player
	r := h.resolver.Load()
	if r == nil {
		return // killed meanwhile
	}
	var msg question
	switch at := rand.Float64(); {
	case at < p.cfg.Unknown:
		msg = p.unknown[l.others[rand.Uint32()>>16]]
	case at < p.cfg.Unknown+p.cfg.Forwarded:
		msg = p.forwarded[l.others[rand.Uint32()>>16]]
	default:
		msg = p.services[h.uses[l.ranks[rand.Uint32()>>16]]]
	}
	verdict := l.query.Parse(msg)
	out := r.ServeDNS(&l.query, verdict, l.buf[:0], p.late)
	l.counts[0]++
	if out == nil {
		l.counts[1]++
		return
	}
	failed, stale, wrong := p.judge(&l.query, out, now)
	l.counts[3] += failed
	l.counts[4] += stale
	l.counts[5] += wrong
}

// flush adds what was counted.
func (l *loader) flush() {
	c := &l.player.counts
	for i, to := range []*atomic.Int64{&c.lookups, &c.late, &c.answered, &c.failed, &c.stale, &c.wrong} {
		to.Add(l.counts[i])
	}
	l.counts = [6]int64{}
	l.player.mu.Lock()
	defer l.player.mu.Unlock()
	l.player.lags.Merge(l.lags)
	l.lags.Reset()
}

// late judges an answer that came later.
func (p *Player) late(q *wire.Query, msg []byte) {
	failed, stale, wrong := p.judge(q, msg, time.Now())
	p.counts.answered.Add(1)
	p.counts.failed.Add(failed)
	p.counts.stale.Add(stale)
	p.counts.wrong.Add(wrong)
}

// judge says whether a lookup failed, was answered as it would have been before a change that had been acknowledged when it
// was asked, and whether that was too long ago.
func (p *Player) judge(q *wire.Query, msg []byte, asked time.Time) (failed, stale, wrong int64) {
	k, s := subject(q)
	rcode := msg[3] & 15
	switch {
	case k == unknown && rcode != byte(wire.RcodeNXDomain),
		k != unknown && (rcode != byte(wire.RcodeSuccess) || binary.BigEndian.Uint16(msg[6:]) == 0):
		return 1, 0, 0
	case k != service:
		return 0, 0, 0
	}
	t := &p.truths[s]
	shown := p.shown(s, msg)
	since := t.since.Load()
	switch {
	case shown == t.now.Load():
		return 0, 0, 0
	case since == 0, shown != t.before.Load():
		if since != t.since.Load() || t.now.Load() == shown {
			return 0, 0, 0 // it changed meanwhile
		}
		return 0, 0, 1
	case asked.UnixNano() <= since:
		return 0, 0, 0
	case asked.UnixNano()-since > int64(p.cfg.Late):
		return 0, 1, 1
	}
	return 0, 1, 0
}

// subject is what was asked for.
func subject(q *wire.Query) (kind, int) {
	name := q.Name() // 8 "svc-0001" 7 "service"
	switch {
	case len(name) < 12 || name[1] == 'n':
		return unknown, 0
	case name[9] == 7 && name[10] == 'e':
		return forwarded, 0
	}
	n := 0
	for _, digit := range name[5:9] {
		n = n*10 + int(digit-'0')
	}
	return service, n
}

// shown is the set of instances of a service that an answer has, all bits if there is another address among them.
func (p *Player) shown(s int, msg []byte) (set uint64) {
	skip := func(i int) int {
		for msg[i] != 0 && msg[i] < 0xC0 {
			i += 1 + int(msg[i])
		}
		if msg[i] == 0 {
			return i + 1
		}
		return i + 2
	}
	at := skip(12) + 4
	for range binary.BigEndian.Uint16(msg[6:]) {
		at = skip(at)
		length := int(binary.BigEndian.Uint16(msg[at+8:]))
		if data := msg[at+10:]; binary.BigEndian.Uint16(msg[at:]) == wire.TypeA {
			i, ok := p.cfg.Fleet.instance(s, int(data[1])<<16|int(data[2])<<8|int(data[3]))
			if !ok {
				return ^uint64(0)
			}
			set |= 1 << i
		}
		at += 10 + length
	}
	return set
}

// lookup asks the host for a service and returns the instances shown.
func (h *host) lookup(s int) (shown uint64, ok bool) {
	later := make(chan []byte, 1)
	h.query.Client, h.query.Local = clientAddr, clientAddr.Addr()
	verdict := h.query.Parse(h.player.services[s])
	out := h.resolver.Load().ServeDNS(&h.query, verdict, h.buf[:0], func(_ *wire.Query, msg []byte) { later <- slices.Clone(msg) })
	if out == nil {
		out = <-later
	}
	if out[3]&15 != 0 {
		return 0, false
	}
	return h.player.shown(s, out), true
}
