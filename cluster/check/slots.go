package check

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultSlots is how many checks of one kind begin at once on one host: forks
// and handshakes cost more than a check that starts a moment later.
const DefaultSlots = 64

// holdSlot is how long a run keeps its slot at most. What still runs then waits
// for its target, which costs this host next to nothing, and must not make
// others wait for it as well.
const holdSlot = 100 * time.Millisecond

// Slots bounds how many checks of a kind begin at once, so that a host that
// starts, or a hundred checks of one interval, don't do all their work in one
// moment. How many run is bounded by how many there are. It is shared by
// runners; its methods may be called concurrently.
type Slots struct {
	kinds map[Kind]*slots // never changed
}

type slots struct {
	free             chan struct{}
	running, waiting atomic.Int64
}

// NewSlots returns room for n runs of each kind to begin at once, DefaultSlots
// if n is not positive.
func NewSlots(n int) *Slots {
	if n <= 0 {
		n = DefaultSlots
	}
	s := &Slots{kinds: map[Kind]*slots{}}
	for _, k := range []Kind{KindScript, KindHTTP, KindTCP, KindUDP, KindGRPC, KindH2Ping, KindOSService} {
		s.kinds[k] = &slots{free: make(chan struct{}, n)}
	}
	return s
}

// Load is what checks of one kind do at a moment.
type Load struct {
	Kind    Kind
	Running int // of them
	Waiting int // for others to begin
}

// Loads returns the load by kind, of every kind that runs, in no order.
func (s *Slots) Loads() []Load {
	var all []Load
	for kind, of := range s.kinds {
		all = append(all, Load{kind, int(of.running.Load()), int(of.waiting.Load())})
	}
	return all
}

// acquire waits for a slot of the kind. done, which is nil if ctx ended first, is
// to be called once at the end of the run.
func (s *Slots) acquire(ctx context.Context, kind Kind) (done func()) {
	of := s.kinds[kind]
	of.waiting.Add(1)
	defer of.waiting.Add(-1)
	select {
	case of.free <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	of.running.Add(1)
	giveBack := sync.OnceFunc(func() { <-of.free })
	early := time.AfterFunc(holdSlot, giveBack)
	return func() {
		early.Stop()
		giveBack()
		of.running.Add(-1)
	}
}
