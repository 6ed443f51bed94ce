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

// Source is where changes of the catalog come from: the state machine of this
// process, or a stream from a server.
type Source interface {
	// Next blocks until there is something to tell, ctx ends, or the source is
	// lost; then it says so by an error and is not asked again. The first
	// update is a Reset, unless the source goes on where View.Resume said. It
	// is called from one goroutine.
	Next(ctx context.Context) (catalog.Update, error)
	// Subscribe asks for the contents of services, by name in lower case;
	// Unsubscribe ends that. A name that is subscribed to already costs
	// nothing. Neither blocks nor calls the view; they are called one at a
	// time, beside Next.
	Subscribe(names ...string)
	Unsubscribe(names ...string)
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
	// Left nodes went of their own will or were reaped. What only earlier
	// histories know of them is forgotten; what this one has until it hears of
	// it shows as of a dead node.
	Left

	numLives // how many there are
)

// Liveness is who knows which nodes are alive. Each claim that reaches the view
// has been confirmed before; changes are told by View.OnLifeChange.
type Liveness interface {
	// Life returns what is known of the node with the ID. It does not block.
	Life(nodeID string) Life
}
