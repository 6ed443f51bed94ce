package resolver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// resolve takes q to its answer, waiting where it must. It serves flights and
// Lookup; a panic below it becomes an error.
func (r *Resolver) resolve(ctx context.Context, q *wire.Query) (s served) {
	defer func() {
		if p := recover(); p != nil {
			r.panicked(q, p)
			s = served{err: errPanic}
		}
	}()
	mark := r.cfg.Cache.Mark(q)
	now := r.now()
	e, st := r.cfg.Cache.Peek(q, now)
	if st == cache.Fresh {
		return served{entry: e}
	}
	var p passed
	var buf [8]*Mount
	for _, m := range r.table.Load().appendCandidates(buf[:0], q) {
		if m.Upstream != nil {
			return r.queryUpstream(ctx, m, q, p, e, now, mark)
		}
		s, mine := r.queryZone(ctx, m, q, &p, mark)
		if mine {
			return s
		}
	}
	return served{err: errNoRoute}
}

// queryZone lets a zone answer, in place or after waiting. False: not its name, and p has
// what it said of that.
func (r *Resolver) queryZone(ctx context.Context, m *Mount, q *wire.Query, p *passed, mark cache.Mark) (served, bool) {
	outer := ctx
	res, outcome := m.Zone.Answer(q)
	if outcome == NotMine {
		p.by(&res)
		return served{}, false
	}
	if outcome == Later {
		ctx, cancel := timed(ctx)
		defer cancel()
		ctx, err := withTrail(ctx, q)
		if err != nil {
			return served{err: err}, true
		}
		res, err = m.Zone.Resolve(ctx, q)
		switch {
		case errors.Is(err, ErrNotMine):
			p.by(&res)
			return served{}, false
		case err != nil:
			return served{err: timeLimit(ctx, err, m)}, true
		}
	}
	e := zoneEntry(m, q, &res, *p, r.now())
	if res.Alias != "" {
		return r.follow(outer, m, q, said{e, res.Alias}, mark), true
	}
	r.store(q, e, res.NoStore, mark)
	return served{entry: e}, true
}

// within says by when what is done for a flight is to end. It has no timer, which most
// flights have no use for: an Upstream keeps to Deadline by a timer of its own, and who
// can't is given what timed makes of it.
type within struct {
	context.Context
	until time.Time
}

// Deadline implements context.Context.
func (w within) Deadline() (time.Time, bool) { return w.until, true }

// timed is ctx, ended when its time is over. cancel must be called.
func timed(ctx context.Context) (_ context.Context, cancel context.CancelFunc) {
	if w, ok := ctx.(within); ok {
		return context.WithDeadline(w.Context, w.until)
	}
	return ctx, func() {}
}

// timeLimit says which limit an error that is only "deadline exceeded" means.
func timeLimit(ctx context.Context, err error, m *Mount) error {
	var f *Failure
	if ctx.Err() == nil || errors.As(err, &f) {
		return err
	}
	if cause := context.Cause(ctx); errors.As(cause, &f) {
		return f
	}
	return &Failure{EDE: wire.EDENoReachable, Text: m.Name + " did not answer in time", Err: err}
}

// queryUpstream has a route's servers answer q, of which zones said p.
func (r *Resolver) queryUpstream(ctx context.Context, m *Mount, q *wire.Query, p passed, expired *cache.Entry, now time.Duration, mark cache.Mark) served {
	if !r.mayRecurse(q) {
		return served{err: errNotAllowed}
	}
	if !q.RD {
		return served{err: errNoRecursion}
	}
	if e, ok := r.unasked(m, q, p, now); ok {
		return served{entry: e}
	}
	if err, known := r.failures.recall(q, now, expired); known {
		return served{err: err}
	}
	if e, ok := r.denied(m, q, p, expired, now); ok {
		return served{entry: e}
	}
	x, err := r.exchange(ctx, m, q, p, mark)
	if err != nil {
		return served{err: timeLimit(ctx, err, m)}
	}
	if x.alias != "" {
		return r.follow(ctx, m, q, x, mark)
	}
	return served{entry: x.entry}
}

// denied answers q from an NXDOMAIN that the same route gave for another type of
// the name (RFC 2308 section 5), with q's own question. A name that had an answer
// of this type is asked for again: servers that deny one type wrongly exist.
func (r *Resolver) denied(m *Mount, q *wire.Query, p passed, expired *cache.Entry, now time.Duration) (*cache.Entry, bool) {
	if expired != nil || p.exists {
		return nil, false
	}
	mark := r.cfg.Cache.Mark(q)
	e, ok := r.cfg.Cache.Denial(q, now)
	if !ok || e.Deps[0].Counter != m.Route {
		return nil, false
	}
	a, err := wire.Pack(q, &wire.Reply{Rcode: wire.RcodeNXDomain, RRs: e.Answer.RRs(), Plain: !e.Answer.EDNS()})
	if err != nil {
		return nil, false
	}
	c, o := *e, *e.Origin
	if o.EDE == 0 {
		o.EDE, o.EDEText = e.Answer.EDE()
	}
	c.Answer, c.Origin, c.NameError = a, &o, false
	r.cfg.Cache.Put(q, &c, mark)
	return &c, true
}

// trail is the chain of questions that led to a Lookup, newest first.
type trail struct {
	of    question
	depth int
	up    *trail
}

type trailKey struct{}

// withTrail notes that q is being resolved below ctx. It fails when q is being
// resolved already, or the chain is too long.
func withTrail(ctx context.Context, q *wire.Query) (context.Context, error) {
	up, _ := ctx.Value(trailKey{}).(*trail)
	t := &trail{of: questionOf(q), depth: 1, up: up}
	if up != nil {
		t.depth = up.depth + 1
	}
	for p := up; p != nil; p = p.up {
		if p.of == t.of {
			return nil, &Failure{EDE: wire.EDEInvalidData, Text: fmt.Sprintf("aliases lead back to %s", wire.Name(t.of.name))}
		}
	}
	if t.depth > maxChase {
		return nil, &Failure{EDE: wire.EDEInvalidData, Text: fmt.Sprintf("more than %d aliases in a row, the last is %s", maxChase, wire.Name(t.of.name))}
	}
	return context.WithValue(ctx, trailKey{}, t), nil
}
