package resolver

import (
	"errors"
	"fmt"
	"slices"

	"meibo/resolver/wire"
)

// table is a Table made ready for lookups.
type table struct {
	whole    *Mount // nil: none
	bySuffix map[string][]*Mount
	deepest  int // labels of the longest suffix
}

// compile validates t and orders its mounts.
func compile(t Table) (*table, error) {
	c := &table{bySuffix: make(map[string][]*Mount, len(t.Mounts))}
	if t.Whole != nil {
		c.whole = &Mount{Zone: t.Whole, Name: "hosts and static records"}
	}
	for i := range t.Mounts {
		m := t.Mounts[i]
		if err := m.check(); err != nil {
			return nil, err
		}
		suffix := string(m.Suffix.Lower())
		c.bySuffix[suffix] = append(c.bySuffix[suffix], &m)
		c.deepest = max(c.deepest, len(m.Suffix.Labels()))
	}
	for _, ms := range c.bySuffix {
		slices.SortStableFunc(ms, func(a, b *Mount) int { return int(a.Rank) - int(b.Rank) })
	}
	return c, nil
}

func (m *Mount) check() error {
	switch {
	case m.Suffix == "":
		return fmt.Errorf("mount %q has no suffix (the root is a single zero octet)", m.Name)
	case (m.Zone == nil) == (m.Upstream == nil):
		return fmt.Errorf("mount %q at %s wants either a zone or an upstream", m.Name, m.Suffix)
	case m.Upstream != nil && m.Route == nil:
		return fmt.Errorf("mount %q at %s has an upstream without the counter of its route", m.Name, m.Suffix)
	}
	return nil
}

// appendCandidates appends who may answer q, in the order they are asked: whole
// names, then the mounts from the longest suffix to the shortest, by rank within
// one. A DS record belongs to the parent's side of a cut, so for DS the zone or
// route of that very name comes last (RFC 4035 section 3.1.4.1).
func (t *table) appendCandidates(dst []*Mount, q *wire.Query) []*Mount {
	name := q.Name()
	if len(name) == 0 {
		return dst // a question without a name has no zone
	}
	if t.whole != nil {
		dst = append(dst, t.whole)
	}
	labels := 0
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		labels++
	}
	var own []*Mount
	for i := 0; ; i += 1 + int(name[i]) {
		if labels <= t.deepest {
			ms := t.bySuffix[string(name[i:])]
			if i == 0 && q.Type == wire.TypeDS && labels > 0 {
				own = ms
			} else {
				dst = append(dst, ms...)
			}
		}
		if name[i] == 0 {
			break
		}
		labels--
	}
	return append(dst, own...)
}

// SetTable replaces the table. Names whose mount came, went or changed its kind
// are dropped from the cache; a route that only changed its servers is expected
// to have had its counter bumped by whoever changed it. Flights under way finish
// by the old table and what they bring is not kept.
func (r *Resolver) SetTable(t Table) error {
	next, err := compile(t)
	if err != nil {
		return fmt.Errorf("set the table of zones and routes: %w", err)
	}
	prev := r.table.Swap(next)
	r.failures.clear()
	for suffix := range changed(prev, next) {
		r.cfg.Cache.DropSuffix(wire.Name(suffix))
	}
	return nil
}

// changed is the set of suffixes whose mounts differ between two tables.
func changed(a, b *table) map[string]struct{} {
	out := map[string]struct{}{}
	for suffix, ms := range a.bySuffix {
		if !slices.EqualFunc(ms, b.bySuffix[suffix], sameMount) {
			out[suffix] = struct{}{}
		}
	}
	for suffix := range b.bySuffix {
		if a.bySuffix[suffix] == nil {
			out[suffix] = struct{}{}
		}
	}
	return out
}

// sameMount compares what decides whether cached answers stay right. Zones are
// compared by name only: their answers carry counters of their own.
func sameMount(a, b *Mount) bool {
	return a.Rank == b.Rank && a.Name == b.Name && a.Route == b.Route && (a.Zone == nil) == (b.Zone == nil)
}

var errNoCache = errors.New("resolver: Config.Cache is required")
