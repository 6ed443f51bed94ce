package gossip

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of the mailbox.
const (
	maxTurns   = 16_384 // joins, leaves, updates; beyond, memberlist's list is read anew
	maxMail    = 4_096  // messages; beyond, they are dropped
	maxHearsay = 64
)

// turn is a change of memberlist's list.
type turn struct {
	kind byte // one of those below
	node node
	dead bool // of turnSuspect: called dead
}

const (
	turnJoined byte = iota + 1
	turnLeft
	turnUpdated
	turnSuspect
	turnContest
)

// mail is a message of ours, with the time at which it came.
type mail struct {
	message
	at time.Time
}

// ack is a member's answer to a ping of memberlist's own.
type ack struct {
	name string
	addr netip.AddrPort
	rtt  time.Duration
}

// parcel is what was in the mailbox.
type parcel struct {
	turns   []turn
	mail    []mail
	acks    []ack
	hearsay []hearsay
	resync  bool // turns were lost
}

// mailbox takes what memberlist tells, in an instant and within bounds, and
// keeps it for the ledger's keeper. memberlist tells it with its own locks held.
type mailbox struct {
	ready chan struct{} // has room for one

	mu      sync.Mutex // guards following
	in      parcel
	dropped uint64
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

func (m *mailbox) poke() {
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

func (m *mailbox) turn(t turn) {
	m.mu.Lock()
	if len(m.in.turns) < maxTurns {
		m.in.turns = append(m.in.turns, t)
	} else {
		m.in.resync = true
		m.dropped++
	}
	m.mu.Unlock()
	m.poke()
}

func (m *mailbox) message(msg message, at time.Time) {
	m.mu.Lock()
	if len(m.in.mail) < maxMail {
		m.in.mail = append(m.in.mail, mail{message: msg, at: at})
	} else {
		m.dropped++
	}
	m.mu.Unlock()
	m.poke()
}

func (m *mailbox) ack(a ack) {
	m.mu.Lock()
	if len(m.in.acks) < maxMail {
		m.in.acks = append(m.in.acks, a)
	}
	m.mu.Unlock()
	m.poke()
}

func (m *mailbox) rumour(h hearsay) {
	m.mu.Lock()
	if len(m.in.hearsay) < maxHearsay {
		m.in.hearsay = append(m.in.hearsay, h)
	} else {
		m.dropped++
	}
	m.mu.Unlock()
	m.poke()
}

// take empties the mailbox.
func (m *mailbox) take() parcel {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.in
	m.in = parcel{}
	return in
}

func (m *mailbox) lost() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dropped
}
