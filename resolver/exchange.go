package resolver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"meibo/cache"
	"meibo/resolver/wire"
)

// exchangeKey tells exchanges apart: the same question to the same route.
type exchangeKey struct {
	question
	route *atomic.Uint64
}

// exchange is one question at an upstream. Clients and zones that chase an alias
// may want the same one at once; asking twice would double a forger's chances
// (RFC 5452 section 5).
type exchange struct {
	done chan struct{} // nil: nobody waits; guarded by exchangeTable.mu until it is over
	said
	err       error
	abandoned bool // whoever led it gave up, which says nothing of the upstream
}

// said is what a route answered: all of it, or up to an alias that leads out of
// the route.
type said struct {
	entry *cache.Entry
	alias wire.Name // where it leads, or empty
}

type exchangeTable struct {
	mu      sync.Mutex
	running map[exchangeKey]*exchange
}

func (t *exchangeTable) init() { t.running = make(map[exchangeKey]*exchange) }

// enter returns the exchange of k, and whether the caller leads it.
func (t *exchangeTable) enter(k exchangeKey) (*exchange, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x, ok := t.running[k]; ok {
		if x.done == nil {
			x.done = make(chan struct{})
		}
		return x, false
	}
	x := new(exchange)
	t.running[k] = x
	return x, true
}

func (t *exchangeTable) leave(k exchangeKey, x *exchange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.running, k)
	if x.done != nil {
		close(x.done)
	}
}

// exchange asks m's upstream, together with whoever asks the same now.
func (r *Resolver) exchange(ctx context.Context, m *Mount, q *wire.Query, p passed, mark cache.Mark) (said, error) {
	k := exchangeKey{questionOf(q), m.Route}
	for {
		x, leader := r.exchanges.enter(k)
		if leader {
			r.lead(ctx, k, x, m, q, p, mark)
			return x.said, x.err
		}
		select {
		case <-x.done:
		case <-ctx.Done():
			return said{}, ctx.Err()
		}
		if !x.abandoned && (x.entry == nil || !x.entry.Moved()) {
			return x.said, x.err
		}
	}
}

// lead does the exchange and fills x, a panic of the upstream included.
func (r *Resolver) lead(ctx context.Context, k exchangeKey, x *exchange, m *Mount, q *wire.Query, p passed, mark cache.Mark) {
	x.err = errPanic // unless it is overwritten
	defer r.exchanges.leave(k, x)
	deps := [3]cache.Dep{{Counter: m.Route, Value: m.Route.Load()}, p.dep} // before asking
	r.stats.exchanges.Add(1)
	res, err := m.Upstream.Exchange(ctx, q)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		x.err, x.abandoned = err, true
		return
	}
	x.said, x.err = r.accept(m, q, res, err, p, deps, mark)
}

// accept judges what an upstream said, and stores it or remembers the failure.
func (r *Resolver) accept(m *Mount, q *wire.Query, res Result, err error, p passed, deps [3]cache.Dep, mark cache.Mark) (said, error) {
	now := r.now()
	if err != nil {
		r.failures.record(q, now, deps[0], err)
		return said{}, err
	}
	j := r.judge(m, q, res.Answer)
	if j.err != nil {
		r.failures.record(q, now, deps[0], j.err)
		return said{}, j.err
	}
	if res.EDE == 0 {
		res.EDE, res.EDEText = res.Answer.EDE()
	}
	if p.exists && j.nameError {
		j.answer, j.nameError = noData(q, j.answer), false
	}
	e := &cache.Entry{
		Answer: j.answer, Stored: now, Expires: now + j.life, Ages: true, Forwarded: true,
		NameError: j.nameError, Negative: j.negative, AD: res.AD,
		Origin: &cache.Origin{Deps: deps, Mount: m.Name, Source: res.Source, EDE: res.EDE, EDEText: res.EDEText},
	}
	if j.bad {
		err := &badAnswer{e}
		if e.EDE == 0 { // the client is to know who failed
			e.EDE, e.EDEText = wire.EDEOther, err.Error()
			if e.Answer.Rcode() == wire.RcodeServFail {
				e.EDE = wire.EDENoReachable
			}
		}
		r.failures.record(q, now, deps[0], err)
		return said{}, err
	}
	r.failures.forget(q)
	if clean := r.screen(m, q, e, now); clean != e {
		r.store(q, clean, false, mark)
		return said{entry: clean}, nil
	}
	r.store(q, e, res.NoStore || j.life <= 0 || j.alias != "", mark)
	return said{e, j.alias}, nil
}
