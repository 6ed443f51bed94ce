package resolver

import (
	"context"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// leaves finds the first alias of an answer that leads to a name which m does not
// answer for, as an index into c.names; 0 when there is none. What m's servers say
// beyond it is not believed: a route answers for its own suffix, and the name is
// asked where it belongs. So a name of the company's DNS may lead into .consul, and
// a route's servers can't speak for the rest of the world.
func (r *Resolver) leaves(m *Mount, q *wire.Query, c *chain) int {
	t := r.table.Load()
	if len(t.bySuffix) < 2 {
		return 0
	}
	for i, name := range c.names {
		if i > 0 && !t.belongs(m, wire.NewQuery(name, q.Type)) {
			return i
		}
	}
	return 0
}

// belongs tells whether m is the first of the mounts that are asked for q and know
// its name. Parts of the default route are one. A special name belongs to whoever
// speaks of it: an upstream that knows what it stands for in its network has said so,
// and to deny it would take away a whole answer.
func (t *table) belongs(m *Mount, q *wire.Query) bool {
	var buf [8]*Mount
	for _, first := range t.appendCandidates(buf[:0], q) {
		switch {
		case first == t.whole:
		case first.Rank == RankSpecial, first.Rank == RankDefault && m.Rank == RankDefault:
			return true
		case first.Zone != nil:
			// Addresses that the catalog doesn't know, and names in the reverse zones
			// that stand for none (RFC 2317), are others'.
			if _, outcome := first.Zone.Answer(q); outcome != NotMine {
				return false
			}
		default:
			return first.Route == m.Route
		}
	}
	return false
}

// follow takes an answer on from where it left its zone or route, m.
func (r *Resolver) follow(ctx context.Context, m *Mount, q *wire.Query, x said, mark cache.Mark) served {
	ctx, cancel := timed(ctx)
	defer cancel()
	ctx, err := withTrail(ctx, q)
	if err != nil {
		return served{err: err}
	}
	next := wire.NewQuery(x.alias, q.Type)
	next.DO, next.CD = q.DO, q.CD
	s := r.lookup(ctx, next)
	if s.entry == nil {
		return served{err: s.err}
	}
	head := x.entry
	tail := r.result(next, s)
	a, err := wire.Pack(q, &wire.Reply{
		AA: head.Answer.AA() && !head.Forwarded, Rcode: tail.Answer.Rcode(),
		RRs: append(head.Answer.RRs(), rebase(head.Answer, tail.Answer)...), Rotate: true,
		Plain: !head.Answer.EDNS() || !tail.Answer.EDNS(),
	})
	if err != nil {
		return served{err: &Failure{EDE: wire.EDEOther, Text: "join the parts of an alias", Err: err}}
	}
	e := &cache.Entry{
		Answer: a, Stored: r.now(), Transient: true, Ages: head.Ages || tail.Ages, Forwarded: head.Forwarded || s.entry.Forwarded, Negative: s.entry.Negative, AD: head.AD && s.entry.AD,
		Origin: &cache.Origin{
			Deps:  [3]cache.Dep{head.Deps[0], s.entry.Deps[0], s.entry.Deps[1]},
			Mount: head.Mount, Source: head.Source + ", then " + s.entry.Source, EDE: s.entry.EDE, EDEText: s.entry.EDEText,
		},
	}
	bounded := head.Expires > 0 || tail.Life > 0
	life := tail.Life
	if head.Expires > 0 {
		life = max(head.Expires-head.Stored, 0)
		if tail.Life > 0 {
			life = min(life, tail.Life)
		}
	}
	if bounded {
		e.Expires = e.Stored + life
	}
	if head.Forwarded {
		if clean := r.screen(m, q, e, e.Stored); clean != e {
			return served{entry: clean}
		}
	}
	crowded := s.entry.Deps[2].Counter != nil || head.Deps[1].Counter != nil || head.Deps[2].Counter != nil // more counters than an entry holds
	r.store(q, e, bounded && life < time.Second || crowded || s.stale, mark)
	return served{entry: e}
}

// rebase gives the records of tail as they stand behind those of head: glue keeps
// to the record it belongs to.
func rebase(head, tail *wire.Answer) []wire.RR {
	rrs, n := tail.RRs(), len(head.RRs())
	for i := range rrs {
		if rrs[i].With > 0 {
			rrs[i].With += n
		}
	}
	return rrs
}
