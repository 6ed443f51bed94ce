package state

import (
	"fmt"
	"slices"

	"github.com/hashicorp/go-memdb"

	"meibo/cluster/catalog"
)

// Read is a read transaction: one state of the catalog that doesn't change.
// It is cheap, needs no closing, and is safe for concurrent use. What it
// returns is shared: don't change it.
//
// Each query returns the index of its result first (never 0, as clients see
// it, base included) and adds to ws, if not nil, the channels that are closed
// when that result may have changed. A query for what isn't there has the
// index at which something of that kind last went away; who waits on it
// should go on waiting while it still isn't there.
type Read struct {
	tx       *memdb.Txn
	meta     metaRow
	replaced <-chan struct{}
}

var _ catalog.Reader = (*Read)(nil)

// Read begins a read transaction.
func (s *Store) Read() *Read {
	db := s.db.Load()
	tx := db.mem.Txn(false)
	return &Read{tx: tx, meta: loadMeta(tx), replaced: db.replaced}
}

// Applied is the Raft index of the last command that the state includes.
func (r *Read) Applied() uint64 { return r.meta.Applied }

// LastIndex is the largest index that the state may have shown to a client.
func (r *Read) LastIndex() uint64 { return max(r.meta.Last, 1) }

// History is the present history, the zero value before the first.
func (r *Read) History(ws catalog.Watch) (uint64, catalog.History) {
	r.watch(ws)
	return max(r.meta.Floor, 1), r.meta.History
}

func (r *Read) watch(ws catalog.Watch) {
	if ws != nil {
		ws.Add(r.replaced)
	}
}

// index is that of the first of keys that exists.
func (r *Read) index(ws catalog.Watch, keys ...string) uint64 {
	r.watch(ws)
	for _, k := range keys {
		if v, ok := watchIndex(r.tx, ws, k); ok {
			return max(v, r.meta.Floor, 1)
		}
	}
	return max(r.meta.Floor, 1)
}

// Nodes returns all nodes, by name.
func (r *Read) Nodes(ws catalog.Watch) (uint64, []*catalog.Node) {
	return r.index(ws, ixNodes), all[*catalog.Node](r.tx, tableNodes)
}

// Node returns the node of that name, in any letter case, or nil.
func (r *Read) Node(ws catalog.Watch, name string) (uint64, *catalog.Node) {
	return r.oneNode(ws, byID, nodeKey(name))
}

// NodeByID returns the node with that ID, or nil.
func (r *Read) NodeByID(ws catalog.Watch, id string) (uint64, *catalog.Node) {
	return r.oneNode(ws, byUUID, key(fold(id)))
}

func (r *Read) oneNode(ws catalog.Watch, index string, k []byte) (uint64, *catalog.Node) {
	ch, row, err := r.tx.FirstWatch(tableNodes, index, k)
	if err != nil {
		panic(fmt.Errorf("read nodes by %s: %w", index, err))
	}
	if ws != nil {
		ws.Add(ch)
	}
	if row == nil {
		return r.index(ws, ixNodesGone), nil
	}
	r.watch(ws)
	n := row.(*catalog.Node)
	return max(n.ModifyIndex, r.meta.Floor, 1), n
}

// Services returns each service name, as it was registered, with the tags of
// its instances, each once and ordered. The lists are not nil.
func (r *Read) Services(ws catalog.Watch) (uint64, map[string][]string) {
	tags := make(map[string][]string)
	for _, s := range all[*catalog.Service](r.tx, tableServices) {
		t := tags[s.Service]
		if t == nil {
			t = []string{}
		}
		tags[s.Service] = append(t, s.Tags...)
	}
	for name, t := range tags {
		slices.Sort(t)
		tags[name] = slices.Compact(t)
	}
	return r.index(ws, ixServices), tags
}

// ServiceInstances returns the instances of the service, in any letter case,
// ordered by node and service ID, healthy or not.
func (r *Read) ServiceInstances(ws catalog.Watch, name string) (uint64, []catalog.Instance) {
	index := r.index(ws, ixService(name), ixServicesGone)
	var instances []catalog.Instance
	for _, s := range collect[*catalog.Service](r.tx, tableServices, byName, nodeKey(name)) {
		instances = append(instances, r.instance(s))
	}
	return index, instances
}

// ServiceNodes returns the instances of the service as ServiceInstances does, but
// without their checks. The index moves with checks, too; who watches sleeps
// while nothing else changes, as in Consul.
func (r *Read) ServiceNodes(ws catalog.Watch, name string) (uint64, []catalog.Instance) {
	r.watch(ws)
	it, err := r.tx.Get(tableServices, byName, nodeKey(name))
	if err != nil {
		panic(fmt.Errorf("read services by name: %w", err))
	}
	if ws != nil {
		ws.Add(it.WatchCh())
	}
	var instances []catalog.Instance
	for row := it.Next(); row != nil; row = it.Next() {
		s := row.(*catalog.Service)
		_, n := r.oneNode(ws, byID, nodeKey(s.Node))
		instances = append(instances, catalog.Instance{Node: n, Service: s})
	}
	return r.index(nil, ixService(name), ixServicesGone), instances
}

func (r *Read) instance(s *catalog.Service) catalog.Instance {
	n := first(r.tx, tableNodes, byID, nodeKey(s.Node)).(*catalog.Node)
	checks := collect[*catalog.Check](r.tx, tableChecks, byNodeService, onNodeKey(s.Node, ""))
	checks = append(checks, collect[*catalog.Check](r.tx, tableChecks, byNodeService, onNodeKey(s.Node, s.ID))...)
	return catalog.Instance{Node: n, Service: s, Checks: checks}
}

// NodeServices returns the services on the node, by ID.
func (r *Read) NodeServices(ws catalog.Watch, node string) (uint64, []*catalog.Service) {
	return r.index(ws, ixNodeServices(node), ixNodesGone),
		collect[*catalog.Service](r.tx, tableServices, byID+"_prefix", nodeKey(node))
}

// NodeChecks returns all checks on the node, its own and its services', by ID.
func (r *Read) NodeChecks(ws catalog.Watch, node string) (uint64, []*catalog.Check) {
	return r.index(ws, ixNodeChecks(node), ixNodesGone),
		collect[*catalog.Check](r.tx, tableChecks, byID+"_prefix", nodeKey(node))
}

// ServiceChecks returns the checks of the service's instances, without those
// of their nodes, by node and ID.
func (r *Read) ServiceChecks(ws catalog.Watch, name string) (uint64, []*catalog.Check) {
	return r.index(ws, ixService(name), ixServicesGone),
		collect[*catalog.Check](r.tx, tableChecks, byName, nodeKey(name))
}

// ChecksInState returns the checks with that status, by node and ID.
func (r *Read) ChecksInState(ws catalog.Watch, status string) (uint64, []*catalog.Check) {
	switch status {
	case catalog.AnyState:
		return r.index(ws, ixChecks), all[*catalog.Check](r.tx, tableChecks)
	case catalog.Passing:
		var passing []*catalog.Check
		for _, c := range all[*catalog.Check](r.tx, tableChecks) {
			if c.Status == status {
				passing = append(passing, c)
			}
		}
		return r.index(ws, ixState(status)), passing
	}
	return r.index(ws, ixState(status)), collect[*catalog.Check](r.tx, tableChecks, byStatus, key(status))
}

// Tombstones returns what was deregistered and may be remembered elsewhere, by name.
func (r *Read) Tombstones(ws catalog.Watch) (uint64, []*catalog.Tombstone) {
	return r.index(ws, ixTombstones), all[*catalog.Tombstone](r.tx, tableTombstones)
}
