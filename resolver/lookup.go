package resolver

import (
	"context"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// Lookup answers a question of our own (a zone that chases an alias, the control
// interface, tests) as a client would have it answered: from the cache, a zone or
// an upstream, or with the expired answer when upstreams fail. Within a Zone's
// Resolve it must be given Resolve's ctx, which carries the chain of aliases:
// chains deeper than 8 and loops are cut. The TTLs of the answer are aged; Life
// says how long what is built from it may be kept, 0 when no time bounds it. It
// blocks until ctx ends, at most for the deadline of a flight. An error has a
// *Failure in its chain, or says that the name has no route.
func (r *Resolver) Lookup(ctx context.Context, q *wire.Query) (Result, error) {
	s := r.lookup(ctx, q)
	if s.entry == nil {
		return Result{}, s.err
	}
	return r.result(q, s), nil
}

func (r *Resolver) lookup(ctx context.Context, q *wire.Query) served {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Deadline)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	began := r.now()
	expired, st := r.cfg.Cache.Get(q, began)
	if st == cache.Fresh {
		return served{entry: expired}
	}
	defer func() { r.stats.waited.observe(r.now() - began) }()
	if expired == nil {
		return r.resolve(ctx, q)
	}
	return r.resolveOrStale(ctx, q, expired)
}

// resolveOrStale resolves q, but waits no longer than a client would for whom
// there is an expired answer.
func (r *Resolver) resolveOrStale(ctx context.Context, q *wire.Query, expired *cache.Entry) served {
	q = q.Clone()
	came := make(chan served, 1)
	if !r.start(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.Deadline)
		defer cancel()
		defer context.AfterFunc(r.ctx, cancel)()
		came <- r.resolve(ctx, q)
	}) {
		return r.fallback(served{err: errClosed}, expired)
	}
	wait := time.NewTimer(r.cfg.StaleWait)
	defer wait.Stop()
	for {
		select {
		case s := <-came:
			return r.fallback(s, expired)
		case <-wait.C:
			if s := r.fallback(served{err: errLate}, expired); s.stale {
				return s
			} // else the answer to come is all there is
		case <-ctx.Done():
			return served{err: ctx.Err()}
		}
	}
}

// result is what the caller of Lookup gets of s: TTLs as a client sees them.
func (r *Resolver) result(q *wire.Query, s served) Result {
	e, now := s.entry, r.now()
	res := Result{
		Answer: e.Answer, Deps: [2]cache.Dep{e.Deps[0], e.Deps[1]}, Ages: e.Ages, AD: e.AD,
		Source: e.Source, EDE: e.EDE, EDEText: e.EDEText,
	}
	switch {
	case s.stale:
		res.Life = staleTTL * time.Second
	case e.Expires > 0:
		res.Life = max(e.Expires-now, 1)
	}
	if !s.stale && e.Age(now) == 0 {
		return res
	}
	if aged, err := wire.ParseAnswer(r.append(nil, q, s, now)); err == nil {
		res.Answer = aged
	}
	return res
}
