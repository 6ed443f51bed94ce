package cluster

import (
	"context"
	"errors"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
	"meibo/cluster/view"
)

// heartbeat is how often the source in this process confirms what it told: well
// within view.StaleAfter.
const heartbeat = time.Second

// errBeat ends a wait for changes.
var errBeat = errors.New("heartbeat")

// source feeds the view from the store of this process.
type source struct {
	store   *state.Store
	changes *state.Subscription
	// leads reports whether what the store says is the newest there is.
	leads func() bool
}

func newSource(store *state.Store, leads func() bool) *source {
	return &source{store: store, changes: store.Subscribe(), leads: leads}
}

func (s *source) close() { s.changes.Close() }

// Next implements view.Source. A subscription begins with a resync, so the
// first batch is whole.
func (s *source) Next(ctx context.Context) (view.Batch, error) {
	wait, cancel := context.WithTimeoutCause(ctx, heartbeat, errBeat)
	defer cancel()
	c, err := s.changes.Next(wait)
	switch {
	case errors.Is(err, errBeat):
		c = state.Change{}
	case err != nil:
		return view.Batch{}, err
	}
	return s.batch(c), nil
}

// batch reads what a change names. The store may be ahead of the change by
// then; what it is ahead by is told again with its own change, so the index is
// that of the change.
func (s *source) batch(c state.Change) view.Batch {
	r := s.store.Read()
	_, history := r.History(nil)
	b := view.Batch{History: history, Whole: c.Resync, Confirmed: s.leads()}
	if c.Index > 0 {
		b.Index = history.Base + c.Index
	}
	if c.Resync {
		_, nodes := r.Nodes(nil)
		for _, n := range nodes {
			b.Nodes = append(b.Nodes, record(r, n))
		}
		return b
	}
	for _, name := range c.Records {
		if _, n := r.Node(nil, name); n != nil {
			b.Nodes = append(b.Nodes, record(r, n))
			continue
		}
		b.Gone = append(b.Gone, name)
	}
	return b
}

// record is all that a state says of a node.
func record(r *state.Read, n *catalog.Node) view.Record {
	rec := view.Record{Node: n}
	_, rec.Services = r.NodeServices(nil, n.Node)
	_, rec.Checks = r.NodeChecks(nil, n.Node)
	return rec
}
