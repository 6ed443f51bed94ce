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
	// Own returns the agent's node, named Config.NodeName, services and checks as
	// they are now. It is called with the view's lock held, so the agent must not
	// hold a lock that Own takes while it calls View.OnLocalChange.
	Own() Record
}
