package view

import (
	"slices"
	"time"

	"meibo/cluster/catalog"
)

// Image is what a view knows, apart from what the own agent holds, in a form
// that can leave the process: it is kept in a file and told to neighbours. What
// it points at is shared and never modified; its slices and maps are its own.
type Image struct {
	// Current is what the history told that the view follows, Remembered what
	// is left of earlier ones (VIEWS rules 16 and 17).
	Current, Remembered Told
	// Asked says when the contents of a service, by its name in lower case,
	// were last asked for. Contents of a name that isn't here count as asked
	// for now.
	Asked map[string]time.Time
	// Lives is what gossip says of nodes.
	Lives []LifeOf
}

// Told is what a history told, or the part of it that is still known.
type Told struct {
	History catalog.History
	// Index is as clients see it, the history's base added.
	Index uint64
	// Confirmed is when a server that has a leader last vouched for it; zero:
	// never.
	Confirmed time.Time
	// Base says that Nodes and Names are all there were; of Remembered, that
	// nothing is missing from it that living hosts have still to tell.
	Base bool
	// Whole says that the contents of every service are here.
	Whole bool

	Nodes []catalog.NodeState
	Names []string // of services, in lower case
	// Parts are contents; Complete names the services, in lower case, all of
	// whose instances are among them.
	Parts    []catalog.Part
	Complete []string
	// Tombstones say what must not be remembered of earlier histories.
	Tombstones []catalog.Tombstone
}

// LifeOf is what is known of one node being alive.
type LifeOf struct {
	NodeID, Name string
	Life         Life
	Since        time.Time // zero: unknown
}

// IsEmpty reports whether the image says nothing.
func (i *Image) IsEmpty() bool {
	return i == nil || i.Current.isEmpty() && i.Remembered.isEmpty()
}

func (t *Told) isEmpty() bool {
	return !t.Base && len(t.Nodes) == 0 && len(t.Names) == 0 && len(t.Parts) == 0 && len(t.Complete) == 0
}

// Only returns the part of the image that is about one service, in any letter
// case: its instances and the nodes they are on, without a base set. It is what
// a host that misses one name asks its neighbour for (VIEWS rule 11).
func (i *Image) Only(service string) *Image {
	key := nameKey(service)
	only := &Image{Current: i.Current.only(key), Remembered: i.Remembered.only(key), Asked: map[string]time.Time{}}
	if at, ok := i.Asked[key]; ok {
		only.Asked[key] = at
	}
	ids := make(map[string]bool)
	for _, n := range slices.Concat(only.Current.Nodes, only.Remembered.Nodes) {
		ids[nameKey(n.Node.ID)] = true
	}
	for _, l := range i.Lives {
		if ids[nameKey(l.NodeID)] {
			only.Lives = append(only.Lives, l)
		}
	}
	return only
}

func (t *Told) only(key string) Told {
	only := Told{History: t.History, Index: t.Index, Confirmed: t.Confirmed}
	if slices.Contains(t.Names, key) {
		only.Names = []string{key}
	}
	if slices.Contains(t.Complete, key) || t.Whole && only.Names != nil {
		only.Complete = []string{key}
	}
	nodes := make(map[string]bool)
	for _, p := range t.Parts {
		if p.Service == key {
			only.Parts = append(only.Parts, p)
			nodes[nameKey(p.Node)] = true
		}
	}
	for _, n := range t.Nodes {
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
func (i *Image) dropUnasked(now time.Time, keep time.Duration) {
	old := make(map[string]bool)
	for name, at := range i.Asked {
		if now.Sub(at) > keep {
			old[name] = true
		}
	}
	told := []*Told{&i.Current, &i.Remembered}
	if i.Current.Whole {
		told = told[1:]
	}
	for _, t := range told {
		t.Complete = slices.DeleteFunc(t.Complete, func(name string) bool { return old[name] })
		t.Parts = slices.DeleteFunc(t.Parts, func(p catalog.Part) bool { return old[p.Service] })
	}
	i.countFrom(now)
}

// countFrom notes contents that were never asked for as asked for now, and
// forgets when others were that aren't here.
func (i *Image) countFrom(now time.Time) {
	asked := make(map[string]time.Time)
	note := func(name string) {
		at, ok := i.Asked[name]
		if !ok {
			at = now
		}
		asked[name] = at
	}
	for _, t := range []*Told{&i.Current, &i.Remembered} {
		for _, name := range t.Complete {
			note(name)
		}
		for _, p := range t.Parts {
			note(p.Service)
		}
	}
	i.Asked = asked
}
