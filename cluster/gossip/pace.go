package gossip

import (
	"reflect"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// tellLinger is for how long memberlist's rounds of telling go on after its queue
// was last seen with something in it.
const tellLinger = time.Second

// rounds has memberlist sleep while it has nothing to do. Its tickers wake the process
// ten times a second to tell what is queued, which at rest is nothing, and twice to
// probe, whoever there is. They are reached by name through reflection: where
// memberlist's fields are others, all is as without. To go: a memberlist that waits
// for its queue, and a field of Config for a common clock.
type rounds struct {
	probe, tell         *time.Ticker // memberlist's; nil: not found
	probeEach, tellEach time.Duration
	queues              []*memberlist.TransmitLimitedQueue

	mu      sync.Mutex // guards following
	until   time.Time  // tell goes on till then
	telling bool
	probing bool // there are others
}

// newRounds is called before anybody else knows ml.
func newRounds(ml *memberlist.Memberlist, cfg Tuning, own *memberlist.TransmitLimitedQueue) *rounds {
	r := &rounds{probeEach: cfg.ProbeInterval, tellEach: cfg.Interval, telling: true, probing: true}
	v := reflect.ValueOf(ml).Elem()
	tickers, queue := v.FieldByName("tickers"), v.FieldByName("broadcasts")
	if !tickers.IsValid() || tickers.Type() != reflect.TypeFor[[]*time.Ticker]() || tickers.Len() != 2 ||
		!queue.IsValid() || queue.Type() != reflect.TypeFor[*memberlist.TransmitLimitedQueue]() {
		return r
	}
	r.probe = (*time.Ticker)(tickers.Index(0).UnsafePointer())
	r.tell = (*time.Ticker)(tickers.Index(1).UnsafePointer())
	r.queues = []*memberlist.TransmitLimitedQueue{own, (*memberlist.TransmitLimitedQueue)(queue.UnsafePointer())}
	return r
}

// follow has memberlist tell while something is queued, and probe while there are
// others. It is called each turn, so that both wake this process together with it.
func (r *rounds) follow(now time.Time, others bool) {
	if r.tell == nil {
		return
	}
	queued := false
	for _, q := range r.queues {
		queued = queued || q.NumQueued() > 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if queued {
		r.until = now.Add(tellLinger)
	}
	r.setTelling(others && now.Before(r.until)) // alone, what is queued stays so
	if others != r.probing {
		if r.probing = others; others {
			r.probe.Reset(r.probeEach)
		} else {
			r.probe.Stop()
		}
	}
}

// hasten has memberlist tell from now on: something is about to be queued.
func (r *rounds) hasten() {
	if r.tell == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Now().Add(tellLinger)
	r.setTelling(r.probing)
}

func (r *rounds) setTelling(telling bool) {
	switch {
	case telling == r.telling:
		return
	case telling:
		r.tell.Reset(r.tellEach)
	default:
		r.tell.Stop()
	}
	r.telling = telling
}
