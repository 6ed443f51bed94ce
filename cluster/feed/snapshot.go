package feed

import (
	"maps"
	"slices"
	"sync"

	"meibo/cluster/catalog"
)

// snapshot is what a server has to tell: every thing in its newest form, in the
// order of the last change. One goroutine changes it (see follow.go), streams
// read it.
type snapshot struct {
	mu      sync.RWMutex // guards following
	history catalog.History
	index   uint64
	whole   bool // every host is told everything
	entries *entries
	behind  bool // the store went back: look at everything once it is past
}

// entries are all there is of one history.
type entries struct {
	journal  journal
	nodes    map[string]*nodeEntries    // by node key
	services map[string]*serviceEntries // by name
	tombs    map[catalog.Tombstone]*entry
	// floor is the first index from which on the journal lacks nothing.
	floor uint64
	size  int64 // bytes of what is there, encoded

	spans    []span      // in order
	departed []departure // in order; some may have come back
	gone     int         // entries that are gone
}

type nodeEntries struct {
	node  *entry            // nil while only parts are edited
	parts map[string]*entry // by service
}

type serviceEntries struct {
	name  *entry
	parts map[string]*entry // by node key
	live  int               // parts that are there
}

// departure says that an entry went at an index.
type departure struct {
	entry *entry
	index uint64
}

func (p *snapshot) isWhole() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.whole
}

// at returns the index that the snapshot shows.
func (p *snapshot) at() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.index
}

// measure returns the size of the catalog as it is told.
func (p *snapshot) measure() (size int64, whole bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.entries == nil {
		return 0, false
	}
	return p.entries.size, p.whole
}

func newEntries(floor uint64) *entries {
	return &entries{
		nodes:    make(map[string]*nodeEntries),
		services: make(map[string]*serviceEntries),
		tombs:    make(map[catalog.Tombstone]*entry),
		floor:    floor,
	}
}

func (t *entries) node(key string) *nodeEntries {
	n := t.nodes[key]
	if n == nil {
		n = &nodeEntries{parts: make(map[string]*entry)}
		t.nodes[key] = n
	}
	return n
}

func (t *entries) service(name string) *serviceEntries {
	s := t.services[name]
	if s == nil {
		s = &serviceEntries{parts: make(map[string]*entry)}
		t.services[name] = s
	}
	return s
}

// edit is an entry as it will be, in the place of one that may be there.
type edit struct {
	next entry
	// quiet edits change what is told next time, and are nothing to tell: the
	// output of checks alone.
	quiet bool
}

// apply carries out edits at an index and returns what they touched.
func (t *entries) apply(edits []edit, index uint64) touched {
	var to touched
	for i := range edits {
		t.put(&edits[i], index, &to)
	}
	for _, name := range slices.Sorted(maps.Keys(to.parts)) {
		t.updateName(name, index, &to)
	}
	return to
}

// touched says whom a change concerns.
type touched struct {
	base  bool            // every host
	parts map[string]bool // those that have subscribed to these services
}

func (to *touched) add(e *entry) {
	if e.kind != ofPart {
		to.base = true
		return
	}
	if to.parts == nil {
		to.parts = make(map[string]bool)
	}
	to.parts[e.name] = true
}

// put makes an edit.
func (t *entries) put(ed *edit, index uint64, to *touched) {
	e := t.find(&ed.next)
	known := e != nil
	if !known {
		e = &entry{gone: true}
	}
	was, older, newer, at := e.gone, e.older, e.newer, e.index
	t.size -= e.weight()
	*e = ed.next
	e.older, e.newer, e.index = older, newer, at
	t.size += e.weight()
	t.replace(e, was)
	if ed.quiet {
		return
	}
	t.journal.move(e, index)
	t.countGone(e, known && was, index)
	to.add(e)
}

// find returns the entry in whose place next is; nil if there is none.
func (t *entries) find(next *entry) *entry {
	switch next.kind {
	case ofNode:
		return t.node(next.node).node
	case ofPart:
		return t.node(next.node).parts[next.name]
	case ofName:
		return t.service(next.name).name
	}
	return t.tombs[*next.tomb]
}

// replace makes the entry one that is found.
func (t *entries) replace(e *entry, wasGone bool) {
	switch e.kind {
	case ofNode:
		t.node(e.node).node = e
	case ofPart:
		t.replacePart(e, wasGone)
	case ofName:
		t.service(e.name).name = e
	case ofTombstone:
		t.tombs[*e.tomb] = e
	}
}

// replacePart counts how many parts of a service are there.
func (t *entries) replacePart(e *entry, wasGone bool) {
	s := t.service(e.name)
	t.node(e.node).parts[e.name], s.parts[e.node] = e, e
	if wasGone && !e.gone {
		s.live++
	} else if !wasGone && e.gone {
		s.live--
	}
}

// updateName makes the name of a service appear or go with its parts.
func (t *entries) updateName(name string, index uint64, to *touched) {
	s := t.service(name)
	there := s.name != nil && !s.name.gone
	if there == (s.live > 0) {
		return
	}
	ed := edit{next: entry{kind: ofName, name: name, gone: there}}
	ed.next.encode()
	t.put(&ed, index, to)
}

// countGone keeps the number of departures within bounds. wasGone: before, and
// known as such.
func (t *entries) countGone(e *entry, wasGone bool, index uint64) {
	if wasGone {
		t.gone--
	}
	if e.gone {
		t.gone++
		t.departed = append(t.departed, departure{e, index})
	}
}

// forget drops the oldest departures beyond limit. Whose cursor lies before one
// of them can't be told of it any more.
func (t *entries) forget(limit int) {
	n := 0
	for ; n < len(t.departed) && (t.gone > limit || !t.departed[n].counts()); n++ {
		d := t.departed[n]
		if !d.counts() {
			continue // came back, or went again later
		}
		t.gone--
		t.floor = max(t.floor, d.index)
		t.drop(d.entry)
	}
	clear(t.departed[:n])
	t.departed = t.departed[n:]
	if len(t.departed) > 2*limit+64 {
		t.departed = slices.DeleteFunc(t.departed, func(d departure) bool { return !d.counts() })
	}
}

func (d departure) counts() bool { return d.entry.gone && d.entry.index == d.index }

// drop forgets an entry that is gone.
func (t *entries) drop(e *entry) {
	t.journal.remove(e)
	switch e.kind {
	case ofNode:
		t.nodes[e.node].node = nil
	case ofPart:
		delete(t.nodes[e.node].parts, e.name)
		delete(t.services[e.name].parts, e.node)
	case ofName:
		t.services[e.name].name = nil
	}
	if n := t.nodes[e.node]; n != nil && n.node == nil && len(n.parts) == 0 {
		delete(t.nodes, e.node)
	}
	if s := t.services[e.name]; s != nil && s.name == nil && len(s.parts) == 0 {
		delete(t.services, e.name)
	}
}

// setTombstones makes the tombstones those of the list.
func (t *entries) setTombstones(list []*catalog.Tombstone, index uint64, to *touched) {
	now := make(map[catalog.Tombstone]bool, len(list))
	for _, tomb := range list {
		now[*tomb] = true
		if t.tombs[*tomb] == nil {
			ed := edit{next: entry{kind: ofTombstone, tomb: tomb}}
			ed.next.encode()
			t.put(&ed, index, to)
		}
	}
	for _, key := range slices.Collect(maps.Keys(t.tombs)) {
		if !now[key] { // what it spoke of was registered: the registration is told
			t.journal.remove(t.tombs[key])
			delete(t.tombs, key)
		}
	}
}

// cursor is where a stream is: what its host has been told.
type cursor struct {
	history catalog.History
	index   uint64
	whole   bool
	anew    bool // it wants everything anew
	all     bool // it is told everything whatever the size
	names   map[string]struct{}
	asked   map[string]struct{} // of names: those to be told in full
}

// advance moves a cursor to the present: it calls tell for each entry that the
// host must hear of and complete for each service that was told in full, and
// writes the head of the update into u, the history with a Reset alone. leader
// says whether this server hears from one. Until it may tell anything (VIEWS.md
// 13, 14) the update is what the host knows already, and not confirmed.
func (p *snapshot) advance(at *cursor, leader bool, u *catalog.Update, tell func(*entry), complete func(string)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	same := at.history.ID == p.history.ID
	if p.history.ID == "" || (!same && !leader) || (same && at.index > p.index) {
		u.Index, u.Whole = at.index, at.whole
		return
	}
	whole := p.whole || at.all
	inside := p.entries.spanAround(at.index)
	reset := !same || at.anew || at.whole != whole || at.index < p.entries.floor || (inside != nil && inside.all)
	switch {
	case reset:
		p.entries.tellAll(at, whole, tell, complete)
	case inside != nil:
		p.entries.tellInside(at, inside, tell)
		fallthrough
	default:
		p.entries.tellSince(at, tell, complete)
	}
	at.history, at.index, at.whole, at.anew, at.asked = p.history, p.index, whole, false, nil
	if reset {
		u.History = p.history
	}
	u.Index, u.Reset, u.Whole, u.Confirmed = p.index, reset, whole, leader
}

// tellAll tells the base set and the contents that the cursor is due.
func (t *entries) tellAll(at *cursor, whole bool, tell func(*entry), complete func(string)) {
	for e := t.journal.newest; e != nil; e = e.older {
		if e.gone {
			continue
		}
		if _, wanted := at.names[e.name]; whole || wanted || e.kind != ofPart {
			tell(e)
		}
	}
	done := at.names
	if whole {
		done = at.asked
	}
	for _, name := range slices.Sorted(maps.Keys(done)) {
		complete(name)
	}
}

// tellSince tells what changed after the cursor, and names newly asked for.
func (t *entries) tellSince(at *cursor, tell func(*entry), complete func(string)) {
	for e := t.journal.newest; e != nil && e.index > at.index; e = e.older {
		if e.kind != ofPart || t.concerns(at, e) {
			tell(e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(at.asked)) {
		if s := t.services[name]; s != nil {
			for _, e := range s.parts {
				if !e.gone {
					tell(e)
				}
			}
		}
		complete(name)
	}
}

// concerns reports whether a part that changed is to be told by itself.
func (t *entries) concerns(at *cursor, e *entry) bool {
	if _, asked := at.asked[e.name]; asked {
		return false // told in full
	}
	if e.gone {
		if n := t.nodes[e.node].node; n != nil && n.gone && n.index > at.index {
			return false // gone with its node
		}
	}
	_, wanted := at.names[e.name]
	return wanted || at.whole
}
