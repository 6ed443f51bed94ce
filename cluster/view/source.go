package view

import (
	"context"

	"meibo/cluster/catalog"
)

// Record is all that is known of one node. It and what it points at are shared
// and never modified.
type Record struct {
	Node     *catalog.Node
	Services []*catalog.Service
	// Checks holds the node's checks and those of its services.
	Checks []*catalog.Check
}

// Batch is what a source has to tell since the last one.
type Batch struct {
	// History and Index say which state of the catalog the batch leads to.
	// Index is as clients see it, the history's base added, so that it never
	// goes back.
	History catalog.History
	Index   uint64
	// Whole says that Nodes is everything there is, as after a start or a gap.
	// Otherwise a node that isn't named is as it was.
	Whole bool
	// Nodes are the nodes that changed, each as it is now.
	Nodes []Record
	// Gone names the nodes that are no more.
	Gone []string
	// Confirmed says that a server that has a leader vouches for this batch:
	// the view is fresh from now on. A batch that holds nothing else is a
	// heartbeat.
	Confirmed bool
}

// Source is where changes of the catalog come from: the state machine of this
// process, or a stream from a server.
type Source interface {
	// Next blocks until there is something to tell, ctx ends, or the source is
	// lost; then it says so by an error and is not asked again. The first batch
	// of a source is Whole. Of several changes of one node only the newest need
	// be told. It is called from one goroutine.
	Next(ctx context.Context) (Batch, error)
}

// Local is what this host's own agent holds. It takes the place of what the
// catalog says of this node.
type Local interface {
	// Own returns the agent's node, services and checks as they are now. It is
	// called with the view's lock held, so the agent must not hold a lock that
	// Own takes while it calls View.OnLocalChange.
	Own() Record
}

// Life is what is known of a node being alive.
type Life uint8

const (
	// NeverSeen is not dead: nobody has said anything of the node yet.
	NeverSeen Life = iota
	// Alive nodes answer.
	Alive
	// Suspect nodes are said to be dead, unconfirmed; they count as alive.
	Suspect
	// Failed nodes are dead, confirmed: their serfHealth is critical here
	// whatever the catalog says of it.
	Failed
	// Left nodes went of their own will or were reaped.
	Left
)

// Liveness is who knows which nodes are alive. Each claim that reaches the view
// has been confirmed before; changes are told by View.OnLifeChange.
type Liveness interface {
	// Life returns what is known of the node with the ID. It does not block.
	Life(nodeID string) Life
}
