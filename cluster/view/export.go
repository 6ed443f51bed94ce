package view

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"meibo/cluster/catalog"
)

// Export is what a view knows, apart from what the own agent holds, in a form
// that can leave the process: it is kept in a file and told to neighbours. What
// it points at is shared and never modified; its slices and maps are its own.
type Export struct {
	// Current is what the history told that the view follows, Remembered what
	// is left of earlier ones (VIEWS rules 16 and 17).
	Current, Remembered Layer
	// Asked says when the contents of a service, by its name in lower case,
	// were last asked for. Contents of a name that isn't here count as asked
	// for now.
	Asked map[string]time.Time
	// Lives is what gossip says of nodes.
	Lives []LifeOf
}

// Layer is what one history told, or the part of it that is still known, as an
// update. Reset says that Nodes and Names are all there were, a base set; of
// Remembered, that nothing is missing from it that living hosts have still to
// tell. Parts of services that Complete doesn't name are older ones. Names, and
// those in Parts and Complete, are in lower case.
type Layer struct {
	catalog.Update
	// ConfirmedAt is when a server that has a leader last vouched for it; zero:
	// never.
	ConfirmedAt time.Time
}

// LifeOf is what is known of one node being alive.
type LifeOf struct {
	NodeID, Name string
	Life         catalog.Life
	Since        time.Time // zero: unknown
}

// IsEmpty reports whether the export says nothing.
func (e *Export) IsEmpty() bool {
	return e == nil || e.Current.isEmpty() && e.Remembered.isEmpty()
}

func (l *Layer) isEmpty() bool { return !l.Reset && l.IsEmpty() }

// Only returns the part of the export that is about one service, in any letter
// case: its instances and the nodes they are on, without a base set. It is what
// a host that misses one name asks its neighbour for (VIEWS rule 11).
func (e *Export) Only(service string) *Export {
	key := nameKey(service)
	only := &Export{Current: e.Current.only(key), Remembered: e.Remembered.only(key), Asked: map[string]time.Time{}}
	if at, ok := e.Asked[key]; ok {
		only.Asked[key] = at
	}
	ids := make(map[string]bool)
	for _, n := range slices.Concat(only.Current.Nodes, only.Remembered.Nodes) {
		ids[nameKey(n.Node.ID)] = true
	}
	for _, l := range e.Lives {
		if ids[nameKey(l.NodeID)] {
			only.Lives = append(only.Lives, l)
		}
	}
	return only
}

func (l *Layer) only(key string) Layer {
	only := Layer{ConfirmedAt: l.ConfirmedAt}
	only.History, only.Index = l.History, l.Index
	if slices.Contains(l.Names, key) {
		only.Names = []string{key}
	}
	if slices.Contains(l.Complete, key) || l.Whole && only.Names != nil {
		only.Complete = []string{key}
	}
	nodes := make(map[string]bool)
	for _, p := range l.Parts {
		if p.Service == key {
			only.Parts = append(only.Parts, p)
			nodes[nameKey(p.Node)] = true
		}
	}
	for _, n := range l.Nodes {
		if nodes[nameKey(n.Node.Node)] {
			only.Nodes = append(only.Nodes, n)
		}
	}
	return only
}

// dropUnasked drops contents that nobody asked for within keep before now
// (VIEWS rule 25); the names stay. Contents of a history that tells everything
// are kept: they cost no question. A time that is still to come, as after a boot
// with a dead clock, counts as now. What was never asked for is counted from now.
func (e *Export) dropUnasked(now time.Time, keep time.Duration) {
	old := make(map[string]bool)
	for name, at := range e.Asked {
		if now.Sub(at) > keep {
			old[name] = true
		}
	}
	layers := []*Layer{&e.Current, &e.Remembered}
	if e.Current.Whole {
		layers = layers[1:]
	}
	for _, l := range layers {
		l.Complete = slices.DeleteFunc(l.Complete, func(name string) bool { return old[name] })
		l.Parts = slices.DeleteFunc(l.Parts, func(p catalog.Part) bool { return old[p.Service] })
	}
	e.countFrom(now)
}

// boundContents keeps contents of what the present history tells up to so many
// instances, those of the services that were asked for last, if there are more: a
// neighbour would hold them all, and asks by name for what else it needs.
func (e *Export) boundContents(instances int) {
	c := &e.Current
	if len(c.Parts) <= instances {
		return
	}
	sizes := make(map[string]int)
	for _, p := range c.Parts {
		sizes[p.Service] += len(p.Services)
	}
	newestFirst := slices.SortedFunc(maps.Keys(e.Asked), func(a, b string) int {
		return cmp.Or(e.Asked[b].Compare(e.Asked[a]), strings.Compare(a, b))
	})
	kept := make(set)
	for _, name := range newestFirst {
		if instances -= sizes[name]; instances < 0 {
			break
		}
		kept.add(name)
	}
	if c.Whole {
		c.Whole, c.Complete = false, slices.Clone(c.Names)
	}
	c.Complete = slices.DeleteFunc(c.Complete, func(name string) bool { return !kept.has(name) })
	c.Parts = slices.DeleteFunc(c.Parts, func(p catalog.Part) bool { return !kept.has(p.Service) })
	maps.DeleteFunc(e.Asked, func(name string, _ time.Time) bool { return sizes[name] > 0 && !kept.has(name) })
}

// countFrom notes contents that were never asked for as asked for now, and
// forgets when others were that aren't here.
func (e *Export) countFrom(now time.Time) {
	asked := make(map[string]time.Time)
	note := func(name string) {
		at, ok := e.Asked[name]
		if !ok {
			at = now
		}
		asked[name] = at
	}
	for _, l := range []*Layer{&e.Current, &e.Remembered} {
		for _, name := range l.Complete {
			note(name)
		}
		for _, p := range l.Parts {
			note(p.Service)
		}
	}
	e.Asked = asked
}
