package gossip

import (
	"sync"
	"time"

	"meibo/cluster/membership"
)

// Bounds of the inbox.
const (
	maxChanges  = 16_384 // of memberlist's list; beyond, the whole list is read anew
	maxMessages = 4_096  // beyond, they are dropped
	maxStates   = 64     // of push/pulls
)

// event is something that the members are told of.
type event func(m *membership.Machine, now time.Time)

// inbox takes what memberlist tells, in an instant and within bounds, and keeps
// it for the goroutine that tells the members. memberlist tells it with its own
// locks held.
type inbox struct {
	ready chan struct{} // has room for one

	mu      sync.Mutex // guards following
	events  []event
	states  int  // among events
	resync  bool // changes were lost
	dropped uint64
}

func (b *inbox) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// put keeps an event unless most are there.
func (b *inbox) put(most int, e event) {
	b.mu.Lock()
	if len(b.events) < most {
		b.events = append(b.events, e)
	} else {
		b.dropped++
		b.resync = b.resync || most == maxChanges
	}
	b.mu.Unlock()
	b.wake()
}

// putState keeps what another host told in a push/pull.
func (b *inbox) putState(e event) {
	b.mu.Lock()
	if b.states < maxStates {
		b.events = append(b.events, e)
		b.states++
	} else {
		b.dropped++
	}
	b.mu.Unlock()
	b.wake()
}

// drain empties the inbox.
func (b *inbox) drain() (events []event, resync bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events, resync = b.events, b.resync
	b.events, b.states, b.resync = nil, 0, false
	return events, resync
}

func (b *inbox) lost() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}
