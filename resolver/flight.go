package resolver

import (
	"sync"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// flight is one question being resolved for all clients that ask it.
type flight struct {
	key     question
	q       *wire.Query
	expired *cache.Entry // to fall back on, or nil

	// guarded by flightTable.mu
	waiters []waiter
	late    bool // its waiters were given the expired answer, later ones are at once
}

// waiter is a client of a flight; q is a clone.
type waiter struct {
	q     *wire.Query
	since time.Duration
	reply func(q *wire.Query, msg []byte)
}

// flightTable holds the flights under way.
type flightTable struct {
	mu      sync.Mutex
	flights map[question]*flight
	waiting int // clients, on all flights
}

func (t *flightTable) init() { t.flights = make(map[question]*flight) }

// joining is what came of joining a flight.
type joining uint8

const (
	joined   joining = iota // the flight will answer
	opened                  // the same, and the caller must start it
	tooLate                 // the flight is late; the expired answer it has is due now
	crowded                 // as many clients wait as may, for this or in all
	overfull                // there are as many flights as may be
)

// join adds w to the flight of k, or opens one.
func (t *flightTable) join(k question, w waiter, expired *cache.Entry, cfg *Config) (*flight, joining) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.flights[k]; f != nil {
		switch {
		case f.late && !f.expired.Moved(): // else the answer to come is all there is
			return f, tooLate
		// One name takes half of the room at most, or a storm for it would keep all others out.
		case t.waiting >= cfg.MaxWaiters, len(f.waiters) > cfg.MaxWaiters/2:
			return f, crowded
		}
		f.waiters = append(f.waiters, w)
		t.waiting++
		return f, joined
	}
	if t.waiting >= cfg.MaxWaiters {
		return nil, crowded
	}
	f := t.openLocked(k, w.q, expired, cfg)
	if f == nil {
		return nil, overfull
	}
	f.waiters = append(f.waiters, w)
	t.waiting++
	return f, opened
}

// openLocked adds a flight without waiters; nil: there are as many as may be.
func (t *flightTable) openLocked(k question, q *wire.Query, expired *cache.Entry, cfg *Config) *flight {
	if len(t.flights) >= cfg.MaxFlights {
		return nil
	}
	f := &flight{key: k, q: q, expired: expired}
	t.flights[k] = f
	return f
}

// openEmpty opens a flight for nobody, unless there is one for k already.
func (t *flightTable) openEmpty(k question, q *wire.Query, expired *cache.Entry, cfg *Config) *flight {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flights[k] != nil {
		return nil
	}
	return t.openLocked(k, q.Clone(), expired, cfg)
}

// complete ends the joining of f and returns its waiters.
func (t *flightTable) complete(f *flight) []waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.flights, f.key)
	return t.removeWaitersLocked(f)
}

// delay marks f late and returns its waiters, who wait no longer.
func (t *flightTable) delay(f *flight) []waiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.late = true
	return t.removeWaitersLocked(f)
}

// removeWaitersLocked takes the waiters off f.
func (t *flightTable) removeWaitersLocked(f *flight) []waiter {
	ws := f.waiters
	f.waiters = nil
	t.waiting -= len(ws)
	return ws
}

func (t *flightTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flights)
}

// join makes q's client wait for a flight, or says at once why it can't.
func (r *Resolver) join(q *wire.Query, expired *cache.Entry, now time.Duration, dst []byte, reply func(*wire.Query, []byte)) []byte {
	k := questionOf(q)
	k.stranger = !r.mayRecurse(q)
	f, how := r.flights.join(k, waiter{q.Clone(), now, reply}, expired, &r.cfg)
	switch how {
	case joined:
		r.stats.joined.Add(1)
		return nil
	case opened:
		r.stats.flights.Add(1)
		if !r.start(func() { r.fly(f) }) {
			r.deliver(r.flights.complete(f), served{err: errClosed})
		}
		return nil
	case tooLate:
		return r.append(dst, q, r.fallback(served{err: errLate}, f.expired), now)
	case crowded:
		r.stats.crowded.Add(1)
		return r.append(dst, q, r.fallback(served{err: errCrowded}, expired), now)
	}
	r.stats.overfull.Add(1)
	return r.append(dst, q, r.fallback(served{err: errBusy}, expired), now)
}

// refresh starts a flight without a client, for a question that was answered with
// its expired answer. It does nothing when one is under way or there are too many.
func (r *Resolver) refresh(q *wire.Query, expired *cache.Entry) {
	f := r.flights.openEmpty(questionOf(q), q, expired, &r.cfg)
	if f == nil {
		return
	}
	r.stats.flights.Add(1)
	if !r.start(func() { r.fly(f) }) {
		r.flights.complete(f)
	}
}

// fly resolves f's question and answers its waiters. Whoever joined is answered
// from a state no older than the moment of joining: if the answer's counters
// moved while it was made, or the table was replaced, it is made again, after
// joining has ended.
func (r *Resolver) fly(f *flight) {
	ctx := within{r.ctx, time.Now().Add(r.cfg.Deadline)}
	if f.expired != nil {
		defer r.after(r.cfg.StaleWait, func() { r.overdue(f) })()
	}
	by := r.table.Load()
	s := r.resolve(ctx, f.q)
	ws := r.flights.complete(f)
	for range 2 {
		now := r.table.Load()
		if len(ws) == 0 || now == by && (s.entry == nil || !s.entry.Moved()) {
			break
		}
		by, s = now, r.resolve(ctx, f.q)
	}
	r.deliver(ws, r.fallback(s, f.expired))
}

// overdue gives the waiters of a late flight its expired answer, while it goes on
// (RFC 8767 section 5, the client response timer).
func (r *Resolver) overdue(f *flight) {
	s := r.fallback(served{err: errLate}, f.expired)
	if !s.stale {
		return // the answer to come is all there is
	}
	r.deliver(r.flights.delay(f), s)
}

// after runs f after d unless the returned function is called before; Run waits
// for it. It is called within a flight.
func (r *Resolver) after(d time.Duration, f func()) (stop func()) {
	r.wg.Add(1)
	t := time.AfterFunc(d, func() { r.guarded(f) })
	return func() {
		if t.Stop() {
			r.wg.Done()
		}
	}
}

// replyRoom is what answers are rendered into that come late: most fit.
const replyRoom = 1232

var replies = sync.Pool{New: func() any { return new([replyRoom]byte) }}

// deliver renders s for each waiter.
func (r *Resolver) deliver(ws []waiter, s served) {
	if len(ws) == 0 {
		return
	}
	now := r.now()
	room := replies.Get().(*[replyRoom]byte)
	defer replies.Put(room) // reply only borrows it
	for _, w := range ws {
		r.stats.waited.observe(now - w.since)
		w.reply(w.q, r.render(room[:0], w.q, s, now))
	}
}

// render is append, and SERVFAIL where that panics.
func (r *Resolver) render(dst []byte, q *wire.Query, s served, now time.Duration) (msg []byte) {
	defer func() {
		if p := recover(); p != nil {
			r.panicked(q, p)
			msg = wire.AppendError(dst, q, wire.RcodeServFail, wire.EDEOther, textPanic)
		}
	}()
	return r.append(dst, q, s, now)
}
