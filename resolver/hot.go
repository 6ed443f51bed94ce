package resolver

import (
	"container/heap"
	"context"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

const (
	// hotHits is how often a forwarded answer must be asked for to be refreshed when its
	// time is over.
	hotHits = 3
	// hotLife is the shortest life of an answer that is refreshed: shorter ones would be
	// asked for all the time.
	hotLife = 5 * time.Second
	// maxHot bounds the answers that wait for that.
	maxHot = 8192
	// freeRefreshes may be done whatever else upstreams are asked, and one more for every
	// refreshPer questions of clients: who only refreshes would double their load.
	freeRefreshes = 64
	refreshPer    = 10
)

// hotAnswer is an answer that many ask for.
type hotAnswer struct {
	q     *wire.Query
	entry *cache.Entry
}

// trackHot takes note of an answer that has just become hot. It is called on the answer
// path: where there is no room, a client will wait for the next answer.
func (r *Resolver) trackHot(q *wire.Query, e *cache.Entry) {
	if !e.Forwarded || e.Negative || e.Expires-e.Stored < hotLife || len(r.hot) == cap(r.hot) {
		return
	}
	select {
	case r.hot <- hotAnswer{q.Clone(), e}:
	default:
	}
}

// refreshHot asks for hot answers anew at the end of their time, not before: an upstream
// that caches would give what is left of it. Whoever asks meanwhile waits for the answer
// that is on its way.
func (r *Resolver) refreshHot(ctx context.Context) {
	var waiting hotHeap
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-r.hot:
			if len(waiting) < maxHot {
				heap.Push(&waiting, h)
			}
		case <-timer.C:
		}
		now := r.now()
		for len(waiting) > 0 && waiting[0].entry.Expires <= now {
			r.refreshOne(heap.Pop(&waiting).(hotAnswer), now)
		}
		if len(waiting) > 0 {
			timer.Reset(waiting[0].entry.Expires - now)
		}
	}
}

// refreshOne asks for h anew, unless it was replaced or is no answer any more.
func (r *Resolver) refreshOne(h hotAnswer, now time.Duration) {
	if e, st := r.cfg.Cache.Peek(h.q, now); e != h.entry || st != cache.Expired {
		return
	}
	done := r.stats.refreshes.Load()
	if done >= freeRefreshes+r.stats.exchanges.Load()/refreshPer {
		return
	}
	r.stats.refreshes.Add(1)
	r.refresh(h.q, h.entry)
}

// hotHeap has the answer that ends first at its head.
type hotHeap []hotAnswer

func (h hotHeap) Len() int           { return len(h) }
func (h hotHeap) Less(i, j int) bool { return h[i].entry.Expires < h[j].entry.Expires }
func (h hotHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *hotHeap) Push(x any)        { *h = append(*h, x.(hotAnswer)) }

func (h *hotHeap) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = hotAnswer{}
	*h = (*h)[:len(*h)-1]
	return last
}
