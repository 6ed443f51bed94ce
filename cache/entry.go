package cache

import (
	"sync/atomic"
	"time"
	"unsafe"

	"meibo/resolver/wire"
)

// Dep is a counter an answer was made under and the value it had then. Whoever
// builds the answer reads the value before the data it counts; the answer is
// good only while the counter still has that value. A nil Counter depends on
// nothing.
type Dep struct {
	Counter *atomic.Uint64
	Value   uint64
}

// Moved tells whether the counter has left the value the answer was made under.
func (d Dep) Moved() bool { return d.Counter != nil && d.Counter.Load() != d.Value }

// Origin is what many answers have in common: who gave them, and what they rest on. It is
// immutable, and entries share it (Put).
type Origin struct {
	// Deps must all stand still for the entry to count: those of a zone's answer
	// are two, and an alias that leads from a route into a zone adds the route's.
	Deps [3]Dep
	// Mount names the zone or route that answered, and Source says where the
	// answer came from, both for people: "view", "hosts", "upstream 192.0.2.1:53".
	Mount, Source string
	// EDE and EDEText are the Extended DNS Error (RFC 8914) kept with the answer.
	EDEText string
	EDE     uint16
}

// Moved tells whether a counter that answers were made under has moved: they are wrong
// now, or may be.
func (o *Origin) Moved() bool { return o.Deps[0].Moved() || o.Deps[1].Moved() || o.Deps[2].Moved() }

func (o *Origin) size() int { return int(unsafe.Sizeof(*o)) + len(o.EDEText) }

// Entry is one cached answer. It is immutable once it was given to Put.
type Entry struct {
	// Answer is to the question that the entry is put under.
	Answer *wire.Answer
	*Origin
	// Stored and Expires are boot times (BootTime). Expires 0 means that the
	// entry lives until a Dep moves.
	Stored, Expires time.Duration
	// Ages is true for answers whose TTLs count down, those from upstream.
	Ages bool
	// NameError is true for an NXDOMAIN of the asked name itself, which denies
	// every type of that name (RFC 2308 section 5).
	NameError bool
	// AD is true when the upstream vouched for the answer and is trusted to.
	AD bool
	// Forwarded is true for answers that an upstream has a part in by a route: they
	// are for those alone who may have questions forwarded.
	Forwarded bool
	// Transient is true for answers that end with the process: a zone, a second route or a
	// filter had a part in them.
	Transient bool
	// Negative is true for NXDOMAIN and for answers without the type asked.
	Negative bool
}

// Age is the number of whole seconds to take off the TTLs at boot time now: 0
// for an answer that does not age.
func (e *Entry) Age(now time.Duration) uint32 {
	if !e.Ages || now <= e.Stored {
		return 0
	}
	return uint32((now - e.Stored) / time.Second)
}

// State is what a lookup found.
type State uint8

const (
	// Miss: nothing usable.
	Miss State = iota
	// Fresh: the entry may be served as it is.
	Fresh
	// Expired: its time is over and it is kept for the case that no upstream
	// answers (RFC 8767). Its counters stand still.
	Expired
)

// String names the state for people.
func (s State) String() string {
	switch s {
	case Fresh:
		return "fresh"
	case Expired:
		return "expired"
	}
	return "miss"
}

// state judges e at boot time now, with expired entries kept for stale.
func (e *Entry) state(now, stale time.Duration) State {
	if e.Moved() {
		return Miss
	}
	if e.Expires == 0 || now < e.Expires {
		return Fresh
	}
	if now < e.Expires+stale {
		return Expired
	}
	return Miss
}
