package catalog

// Known says what a host knows of a name.
type Known uint8

const (
	// NotYet: the name exists, or may exist, and its contents are not here.
	NotYet Known = iota
	// Present: the contents are here.
	Present
	// Absent: the name does not exist.
	Absent
)

// Owner is what has an address: a node, or a service on it when Service is not
// nil.
type Owner struct {
	Node    *Node
	Service *Service
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
)

// Liveness is who knows which nodes are alive. Each claim that reaches the view
// has been confirmed before; changes are told by view's OnLifeChange.
type Liveness interface {
	// Life returns what is known of the node with the ID. It does not block.
	Life(nodeID string) Life
}
