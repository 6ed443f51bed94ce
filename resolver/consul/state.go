package consul

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"meibo/cluster/catalog"
	"meibo/resolver"
	"meibo/resolver/wire"
)

// State is one immutable state of the catalog as this host knows it. All its
// methods are safe for concurrent use and answer from memory. What they return
// is shared: never modified by anyone.
//
// Counters only grow. Whoever publishes a state does so before it moves the
// counters that the change touches, and moves a name's counter once more when
// the name is retired; a cached answer that holds a counter and the value it
// had is good while they are equal.
type State interface {
	// Service returns every instance of the named service, healthy or not.
	// Letter case does not matter. The counter is the name's own; it is nil
	// when no such name is known to exist.
	Service(name string) (instances []catalog.Instance, counter *atomic.Uint64, known catalog.Known)
	// Node returns the named node. Letter case does not matter, dots in the
	// name are allowed. The counter is as for Service.
	Node(name string) (node *catalog.Node, counter *atomic.Uint64, known catalog.Known)
	// NodeByIDPrefix returns the one node whose ID begins with the prefix
	// (hexadecimal digits and hyphens, any case); ok is false when there is
	// none or more than one.
	NodeByIDPrefix(prefix string) (node *catalog.Node, ok bool)
	// AddressOwner returns who has an address: a node, else a service with
	// that address of its own.
	AddressOwner(addr netip.Addr) (owner catalog.Owner, ok bool)

	// Any is moved by every change of the catalog that can show in an answer.
	Any() *atomic.Uint64
	// Names is moved when a service or node name begins or ceases to exist,
	// and when the base set first arrives.
	Names() *atomic.Uint64
	// Addresses is moved when an address gets, loses or changes its owner.
	Addresses() *atomic.Uint64
	// Epoch is moved by configuration and by the view turning stale or fresh.
	Epoch() *atomic.Uint64

	// HasBase reports whether the set of names that exist has ever been
	// learned. Until then nothing may be denied.
	HasBase() bool
	// Expecting reports whether what the state knows may be less than what others
	// do, who are about to be heard: names that don't exist are then NotYet, and
	// worth a short wait. Names is moved when that ends.
	Expecting() bool
	// Fresh reports whether a server that has a leader confirmed the state
	// lately. Epoch is moved when that changes.
	Fresh() bool
	// Confirmed returns when a server that has a leader last confirmed what the
	// state says of other hosts; the zero time if none ever did. It is asked
	// for while the state isn't fresh.
	Confirmed() time.Time
	// Unconfirmed reports whether only an earlier history of the catalog, or another
	// host's word, knows of a service, by its ID, on a node; or of the node itself,
	// for no ID (VIEWS rule 17). The counters of both move when that changes.
	Unconfirmed(node, serviceID string) bool
	// Older returns the instances that a service whose contents are NotYet had
	// when they were last known (VIEWS rule 11); ok is false if they never were.
	Older(name string) (instances []catalog.Instance, ok bool)
}

// Chaser asks a question as a client would, to follow a name that a service or
// node has for an address. The resolver's Lookup is one.
type Chaser func(ctx context.Context, q *wire.Query) (resolver.Result, error)
