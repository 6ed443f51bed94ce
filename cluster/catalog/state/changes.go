package state

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// maxPending bounds how many names a subscription holds for a reader that
// doesn't come; past it the reader is told to look at everything.
const maxPending = 4096

// Change says what may differ between one state of the store and a later
// one. Names are in lower case, ordered, and include what is gone.
type Change struct {
	// Index is the Raft index of the last command in it: read a transaction
	// of at least that [Read.Applied].
	Index uint64
	// Services are those whose answers can differ.
	Services []string
	// Details are services of which only what no answer shows differs:
	// output and notes of checks. None is in Services too.
	Details []string
	// Nodes are those whose record or own health differs.
	Nodes []string
	// Marked are nodes whose Synced or Agentless mark, or a tombstone of
	// which, differs.
	Marked []string
	// Records are the nodes of which anything at all differs: the record, a
	// mark, a service or a check on it. A reader that keeps whole nodes needs
	// no more.
	Records []string
	// ServiceNames and NodeNames say that the set of names differs.
	ServiceNames, NodeNames bool
	// History says that a new history began.
	History bool
	// Resync says that anything may differ; the lists are empty then.
	Resync bool

	services map[string]bool // name to "an answer can differ"
	nodes    map[string]struct{}
	marked   map[string]struct{}
	records  map[string]struct{}
}

func (c *Change) addService(name string, shown bool) {
	if c.services == nil {
		c.services = make(map[string]bool)
	}
	c.services[fold(name)] = c.services[fold(name)] || shown
}

func (c *Change) addNode(name string)   { addName(&c.nodes, name) }
func (c *Change) addMarked(name string) { addName(&c.marked, name) }

func (c *Change) addRecord(name string) {
	addName(&c.records, name)
}

func addName(set *map[string]struct{}, name string) {
	if *set == nil {
		*set = make(map[string]struct{})
	}
	(*set)[fold(name)] = struct{}{}
}

// merge adds a later change to c.
func (c *Change) merge(later *Change) {
	c.Index = later.Index
	c.ServiceNames = c.ServiceNames || later.ServiceNames
	c.NodeNames = c.NodeNames || later.NodeNames
	c.History = c.History || later.History
	c.Resync = c.Resync || later.Resync
	for name, shown := range later.services {
		c.addService(name, shown)
	}
	for name := range later.nodes {
		c.addNode(name)
	}
	for name := range later.marked {
		c.addMarked(name)
	}
	for name := range later.records {
		c.addRecord(name)
	}
	if len(c.services)+len(c.nodes)+len(c.marked)+len(c.records) > maxPending {
		c.Resync = true
	}
	if c.Resync {
		c.services, c.nodes, c.marked, c.records = nil, nil, nil, nil
	}
}

// finish fills the exported lists.
func (c *Change) finish() {
	for _, name := range slices.Sorted(maps.Keys(c.services)) {
		if c.services[name] {
			c.Services = append(c.Services, name)
		} else {
			c.Details = append(c.Details, name)
		}
	}
	c.Nodes = slices.Sorted(maps.Keys(c.nodes))
	c.Marked = slices.Sorted(maps.Keys(c.marked))
	c.Records = slices.Sorted(maps.Keys(c.records))
	c.services, c.nodes, c.marked, c.records = nil, nil, nil, nil
}

// feed hands changes to subscriptions in the order they were applied.
type feed struct {
	mu   sync.Mutex // guards following
	subs map[*Subscription]struct{}
}

// Subscription collects changes for one reader. What comes while the reader
// is busy is merged, so that the store never waits and memory is bounded.
type Subscription struct {
	feed  *feed
	ready chan struct{} // holds one token while pending is not empty

	mu      sync.Mutex // guards following
	pending Change
}

// Subscribe begins a subscription. The first change it gives is a Resync, so
// a reader needs no other way to begin. Close it when done.
func (s *Store) Subscribe() *Subscription {
	sub := &Subscription{feed: &s.feed, ready: make(chan struct{}, 1)}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	// Under the lock: a command that this index leaves out is published after.
	sub.add(&Change{Index: s.Read().Applied(), Resync: true})
	if s.feed.subs == nil {
		s.feed.subs = make(map[*Subscription]struct{})
	}
	s.feed.subs[sub] = struct{}{}
	return sub
}

// Close ends the subscription. Next must not be waiting.
func (sub *Subscription) Close() {
	sub.feed.mu.Lock()
	defer sub.feed.mu.Unlock()
	delete(sub.feed.subs, sub)
}

// Next waits for a change and returns all that came since the last call, as
// one. Its error is ctx's. Only one goroutine may call it.
func (sub *Subscription) Next(ctx context.Context) (Change, error) {
	select {
	case <-ctx.Done():
		return Change{}, context.Cause(ctx)
	case <-sub.ready:
	}
	sub.mu.Lock()
	c := sub.pending
	sub.pending = Change{}
	sub.mu.Unlock()
	c.finish()
	return c, nil
}

func (sub *Subscription) add(c *Change) {
	sub.mu.Lock()
	sub.pending.merge(c)
	sub.mu.Unlock()
	select {
	case sub.ready <- struct{}{}:
	default:
	}
}

func (f *feed) publish(c Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for sub := range f.subs {
		sub.add(&c)
	}
}
