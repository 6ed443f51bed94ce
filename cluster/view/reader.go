package view

import (
	"slices"

	"meibo/cluster/catalog"
)

// Reader reads a state as the API reads the catalog. Each query returns the
// index of the state first, never 0, and adds to ws, if not nil, the channel
// that is closed when there is a newer state: who waits for a result to change
// compares indexes. Contents that aren't here are missing, older ones are given
// for them. It is safe for concurrent use; what it returns is shared.
type Reader struct{ state *State }

var _ catalog.Reader = (*Reader)(nil)

// Reader returns the reader of the state.
func (s *State) Reader() *Reader { return &Reader{s} }

func (r *Reader) watch(ws catalog.Watch) (index uint64) {
	if ws != nil {
		ws.Add(r.state.superseded)
	}
	return max(r.state.index, 1)
}

// History is the history that the state belongs to.
func (r *Reader) History(ws catalog.Watch) (uint64, catalog.History) {
	return r.watch(ws), r.state.history
}

// Nodes returns all nodes, by name.
func (r *Reader) Nodes(ws catalog.Watch) (uint64, []*catalog.Node) {
	nodes := make([]*catalog.Node, 0, r.state.nodes.len)
	for e := range r.state.nodes.all() {
		nodes = append(nodes, e.node)
	}
	return r.watch(ws), nodes
}

// Node returns the node of that name, in any letter case, or nil.
func (r *Reader) Node(ws catalog.Watch, node string) (uint64, *catalog.Node) {
	if e := r.state.node(nameKey(node)); e != nil {
		return r.watch(ws), e.node
	}
	return r.watch(ws), nil
}

// Services returns each service's name, as it was registered, with the tags of
// its instances, each once and ordered; none where its contents aren't here.
func (r *Reader) Services(ws catalog.Watch) (uint64, map[string][]string) {
	services := make(map[string][]string, r.state.services.len)
	for e := range r.state.services.all() {
		if len(e.instances) == 0 {
			services[e.key] = []string{}
		}
		for _, in := range e.instances {
			name := in.Service.Service
			if services[name] == nil {
				services[name] = []string{}
			}
			services[name] = append(services[name], in.Service.Tags...)
		}
	}
	for name, tags := range services {
		slices.Sort(tags)
		services[name] = slices.Compact(tags)
	}
	return r.watch(ws), services
}

// ServiceInstances returns the instances of the service, in any letter case, by
// node and service ID, healthy or not. Being asked for keeps a subscription
// alive.
func (r *Reader) ServiceInstances(ws catalog.Watch, service string) (uint64, []catalog.Instance) {
	e := r.state.service(nameKey(service))
	if e == nil {
		return r.watch(ws), nil
	}
	e.mark.use()
	return r.watch(ws), e.instances
}

// ServiceNodes returns what ServiceInstances does: a state here is of all at once.
func (r *Reader) ServiceNodes(ws catalog.Watch, service string) (uint64, []catalog.Instance) {
	return r.ServiceInstances(ws, service)
}

// NodeServices returns the services on the node, by ID.
func (r *Reader) NodeServices(ws catalog.Watch, node string) (uint64, []*catalog.Service) {
	if e := r.state.node(nameKey(node)); e != nil {
		return r.watch(ws), e.services()
	}
	return r.watch(ws), nil
}

// NodeChecks returns all checks on the node, its own and its services', by ID.
func (r *Reader) NodeChecks(ws catalog.Watch, node string) (uint64, []*catalog.Check) {
	if e := r.state.node(nameKey(node)); e != nil {
		return r.watch(ws), e.checksByID()
	}
	return r.watch(ws), nil
}

// ServiceChecks returns the checks of the service's instances, without those of
// their nodes, by node and ID.
func (r *Reader) ServiceChecks(ws catalog.Watch, service string) (uint64, []*catalog.Check) {
	index, instances := r.ServiceInstances(ws, service)
	var checks []*catalog.Check
	for _, in := range instances {
		for _, c := range in.Checks {
			if c.ServiceID != "" {
				checks = append(checks, c)
			}
		}
	}
	return index, checks
}

// ChecksInState returns the checks with that status, "any" for all, by node and
// ID.
func (r *Reader) ChecksInState(ws catalog.Watch, status string) (uint64, []*catalog.Check) {
	var checks []*catalog.Check
	for e := range r.state.nodes.all() {
		for _, c := range e.checksByID() {
			if status == catalog.AnyState || c.Status == status {
				checks = append(checks, c)
			}
		}
	}
	return r.watch(ws), checks
}
