package catalog

// Update is what a host is told of the catalog since the last one: by the state
// machine in its own process, or by a server over the network. Updates of one
// stream follow one another without gaps. Everything it points at is shared and
// never modified.
//
// A host knows two things. The base set, always whole: which nodes there are and
// which names of services. And contents, of the services that it subscribed to,
// or of all (Whole): the instances, node by node.
type Update struct {
	// History and Index say which state of the catalog the update leads to.
	// Index is as clients see it, the history's base added.
	History History
	Index   uint64
	// Reset says that Nodes and Names are all there are: a stream's first
	// update, unless it resumes where the host's knowledge ends, and the first
	// after a gap. Contents that were known are void, but for those told here.
	Reset bool
	// Whole says that the contents of every service are told, subscribed to or
	// not, from this update on. It changes only in a Reset.
	Whole bool

	// Nodes are those that began or changed, each as it is now.
	Nodes []NodeState
	// GoneNodes names those that are no more, with all that was on them.
	GoneNodes []string
	// Names are names of services that began to exist; GoneNames ceased to.
	Names, GoneNames []string

	// Parts are changes of contents.
	Parts []Part
	// Complete names the services all of whose instances are in Parts: those
	// on nodes that it doesn't name are no more. It answers a subscription,
	// with no Parts for a service that doesn't exist.
	Complete []string

	// Tombstones say what hosts that remember it from an earlier history must
	// forget.
	Tombstones []Tombstone
	// Confirmed says that a server that has a leader vouches for this state.
	// An update that holds nothing else is a heartbeat.
	Confirmed bool
}

// IsEmpty reports whether the update holds nothing: then what stands over it is
// all that it tells.
func (u *Update) IsEmpty() bool {
	return len(u.Nodes)+len(u.GoneNodes)+len(u.Names)+len(u.GoneNames)+len(u.Parts)+len(u.Complete)+len(u.Tombstones) == 0
}

// NodeState is what every host knows of a node.
type NodeState struct {
	Node *Node
	// Checks are the node's own, its services' not among them.
	Checks []*Check
	// Addresses are those of services on the node that differ from its own.
	Addresses []AddressOf
}

// AddressOf says that a service has an address of its own.
type AddressOf struct {
	Address   string `codec:"Address"` // as registered: an IP address or a name
	Service   string `codec:"Service"` // its name
	ServiceID string `codec:"ServiceID"`
}

// Part is all that one node has of one service.
type Part struct {
	Node    string // as its record spells it
	Service string // the name, lower case
	// Services are the instances by ID; none: the service has left the node.
	Services []*Service
	Checks   []*Check // those of the instances
}
