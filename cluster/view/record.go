package view

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"meibo/cluster/catalog"
)

// nodeRecord is what one history says of one node, or what shows of it: where
// nobody else speaks of a node, one record is both. It is never modified once it is
// in a replica or a state.
type nodeRecord struct {
	key       string
	node      *catalog.Node
	checks    []*catalog.Check // the node's own, by ID
	instances []instance       // by service key and ID
	more      *more            // nil: nothing
}

// instance is a service on a node and the checks that bear on it, as an answer has
// them: those of the node, then its own, by ID.
type instance struct {
	service *catalog.Service
	checks  []*catalog.Check
}

// more is what few nodes have.
type more struct {
	// addresses are those of services that differ from the node's; also of
	// services whose contents are not here.
	addresses []catalog.AddressOf
	// unconfirmed are, in what shows, IDs of services, in order, that only
	// earlier histories know; "" stands for the node itself.
	unconfirmed []string
}

// newRecord returns a record of what is on a node: services, their checks, and its
// own. It modifies none of them, and may keep checks.
func newRecord(key string, node *catalog.Node, services []*catalog.Service, checks []*catalog.Check, addresses []catalog.AddressOf) *nodeRecord {
	r := &nodeRecord{key: key, node: node}
	checks = inOrder(checks, compareChecks)
	own := 0
	for own < len(checks) && checks[own].ServiceID == "" {
		own++
	}
	r.checks = slices.Clip(checks[:own])
	r.instances = r.instancesOf(services, checks[own:])
	r.setMore(addresses, nil)
	return r
}

func (r *nodeRecord) setMore(addresses []catalog.AddressOf, unconfirmed []string) {
	r.more = nil
	if len(addresses)+len(unconfirmed) > 0 {
		r.more = &more{addresses, unconfirmed}
	}
}

func (r *nodeRecord) addresses() []catalog.AddressOf {
	if r.more == nil {
		return nil
	}
	return r.more.addresses
}

func (r *nodeRecord) unconfirmed() []string {
	if r.more == nil {
		return nil
	}
	return r.more.unconfirmed
}

// instancesOf returns services on the node with their checks.
func (r *nodeRecord) instancesOf(services []*catalog.Service, checks []*catalog.Check) []instance {
	if len(services) == 0 {
		return nil
	}
	checks = inOrder(checks, compareChecks)
	list := make([]instance, 0, len(services))
	for _, s := range services {
		at := func(c *catalog.Check, id string) int { return strings.Compare(c.ServiceID, id) }
		from, _ := slices.BinarySearchFunc(checks, s.ID, at)
		to := from
		for to < len(checks) && checks[to].ServiceID == s.ID {
			to++
		}
		list = append(list, instance{s, joined(r.checks, checks[from:to])})
	}
	slices.SortFunc(list, compareInstances)
	return list
}

// joined returns a node's checks and those of a service on it.
func joined(ofNode, ofService []*catalog.Check) []*catalog.Check {
	if len(ofService) == 0 {
		return slices.Clip(ofNode)
	}
	return slices.Concat(ofNode, ofService)
}

// checksOf returns the checks of an instance without the node's.
func (r *nodeRecord) checksOf(in instance) []*catalog.Check { return in.checks[len(r.checks):] }

// allChecks returns the checks of the node and of all on it, in a list of its own.
func (r *nodeRecord) allChecks() []*catalog.Check {
	all := slices.Clone(r.checks)
	for _, in := range r.instances {
		all = append(all, r.checksOf(in)...)
	}
	return all
}

// checksByID returns the checks of the node and of all on it, by ID.
func (r *nodeRecord) checksByID() []*catalog.Check {
	return inOrder(r.allChecks(), func(a, b *catalog.Check) int { return strings.Compare(a.CheckID, b.CheckID) })
}

// services returns what is on the node, by ID.
func (r *nodeRecord) services() []*catalog.Service {
	list := make([]*catalog.Service, len(r.instances))
	for i, in := range r.instances {
		list[i] = in.service
	}
	return inOrder(list, func(a, b *catalog.Service) int { return strings.Compare(a.ID, b.ID) })
}

// service returns the service with the ID, nil if there is none.
func (r *nodeRecord) service(id string) *catalog.Service {
	i := slices.IndexFunc(r.instances, func(in instance) bool { return in.service.ID == id })
	if i < 0 {
		return nil
	}
	return r.instances[i].service
}

// part returns what the node has of a service.
func (r *nodeRecord) part(key string) []instance {
	if len(r.instances) == 0 {
		return nil
	}
	from, to := r.find(key)
	return r.instances[from:to]
}

func (r *nodeRecord) find(key string) (from, to int) {
	from, _ = slices.BinarySearchFunc(r.instances, key, func(in instance, key string) int { return compareKey(in.service.Service, key) })
	for to = from; to < len(r.instances) && r.instances[to].key() == key; {
		to++
	}
	return from, to
}

// parts returns what the node has of each service, by key.
func (r *nodeRecord) parts() iter.Seq2[string, []instance] {
	return func(yield func(string, []instance) bool) {
		for rest := r.instances; len(rest) > 0; {
			key := rest[0].key()
			n := partLen(rest, key)
			if !yield(key, rest[:n]) {
				return
			}
			rest = rest[n:]
		}
	}
}

// partLen returns how many instances at the beginning of the list are of the
// service.
func partLen(list []instance, key string) (n int) {
	for n < len(list) && list[n].key() == key {
		n++
	}
	return n
}

// with returns the record with what it has of one service replaced.
func (r *nodeRecord) with(key string, part []instance) *nodeRecord {
	from, to := r.find(key)
	next := *r
	next.instances = slices.Concat(r.instances[:from], part, r.instances[to:])
	return &next
}

// withChecks returns the record with other checks of the node's own.
func (r *nodeRecord) withChecks(checks []*catalog.Check) *nodeRecord {
	next := *r
	next.checks = inOrder(slices.Clip(checks), compareChecks)
	next.instances = next.adopted(r.instances, r)
	return &next
}

// adopted returns instances of another record of the node as this one has them.
func (r *nodeRecord) adopted(list []instance, from *nodeRecord) []instance {
	if len(list) == 0 || slices.Equal(r.checks, from.checks) {
		return list
	}
	own := make([]instance, len(list))
	for i, in := range list {
		own[i] = instance{in.service, joined(r.checks, from.checksOf(in))}
	}
	return own
}

func (in instance) key() string { return nameKey(in.service.Service) }

func compareInstances(a, b instance) int {
	return cmp.Or(strings.Compare(a.key(), b.key()), strings.Compare(a.service.ID, b.service.ID))
}

// compareChecks puts the node's checks first, then those of one service after the
// other.
func compareChecks(a, b *catalog.Check) int {
	return cmp.Or(strings.Compare(a.ServiceID, b.ServiceID), strings.Compare(a.CheckID, b.CheckID))
}

// inOrder returns the list in order, which may be the list itself.
func inOrder[T any](list []T, compare func(a, b T) int) []T {
	if slices.IsSortedFunc(list, compare) {
		return list
	}
	return slices.SortedStableFunc(slices.Values(list), compare)
}
