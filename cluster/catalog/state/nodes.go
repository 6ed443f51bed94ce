//lint:file-ignore ST1005 clients compare these texts with Consul's, capitals included

package state

import (
	"fmt"
	"maps"
	"strings"

	"meibo/cluster/catalog"
)

func (w *writer) node(name string) *catalog.Node {
	if row := first(w.tx, tableNodes, byID, nodeKey(name)); row != nil {
		return row.(*catalog.Node)
	}
	return nil
}

func (w *writer) nodeByID(id string) *catalog.Node {
	if row := first(w.tx, tableNodes, byUUID, key(fold(id))); row != nil {
		return row.(*catalog.Node)
	}
	return nil
}

// register carries out a normalized registration: node, service, checks. What
// can be refused is checked first.
func (w *writer) register(r *catalog.Register) error {
	renamed, err := w.checkNodeName(r)
	if err != nil {
		return err
	}
	dead := w.deadHolder(r)
	if err := w.checkServices(r, renamed != nil || dead != nil); err != nil {
		return err
	}
	for _, n := range []*catalog.Node{renamed, dead} {
		if n != nil {
			w.deleteNode(n)
		}
	}
	w.putNode(r, renamed)
	if r.Service != nil {
		w.putService(r.Service, r.Node.Node)
	}
	for _, c := range r.Checks {
		w.putCheck(c, r.Node.Node)
	}
	return nil
}

// checkNodeName applies Consul's rules for who may have a name, and returns
// the node that the registration renames, if it does. A registration that
// leaves the node's record alone is not judged.
func (w *writer) checkNodeName(r *catalog.Register) (renamed *catalog.Node, err error) {
	holder := w.node(r.Node.Node)
	if r.Node.ID == "" || (holder != nil && r.SkipNodeUpdate) {
		return nil, nil
	}
	same := w.nodeByID(r.Node.ID)
	if same != nil && strings.EqualFold(same.Node, r.Node.Node) {
		return nil, nil
	}
	// A record without ID may be adopted by a new node, not by a renamed one.
	if err := w.checkReserved(holder, r, same == nil); err != nil {
		if same != nil {
			return nil, fmt.Errorf("Error while renaming Node ID: %q (%s): %w", r.Node.ID, r.Node.Address, err)
		}
		return nil, fmt.Errorf("Error while renaming Node ID: %q: %w", r.Node.ID, err)
	}
	return same, nil
}

// checkReserved refuses a name held by a living node with another ID. One
// without serfHealth is nobody's agent and may be taken over.
func (w *writer) checkReserved(holder *catalog.Node, r *catalog.Register, adopt bool) error {
	if holder == nil || strings.EqualFold(holder.ID, r.Node.ID) || (holder.ID == "" && adopt) {
		return nil
	}
	health := w.check(holder.Node, catalog.SerfHealth)
	if health == nil || health.Status == catalog.Critical {
		return nil
	}
	return fmt.Errorf("Node name %s is reserved by node %s with name %s (%s)", r.Node.Node, holder.ID, holder.Node, holder.Address)
}

// deadHolder returns the dead node of another ID whose name the registration
// takes, if there is one. What was on it was another host's and goes with it: it
// must not be taken for alive because its successor is. Consul leaves that to
// the successor's next full sync. A node that never was a member is nobody's
// successor's to judge, and keeps what it has.
func (w *writer) deadHolder(r *catalog.Register) *catalog.Node {
	holder := w.node(r.Node.Node)
	if holder == nil || r.SkipNodeUpdate || holder.ID == "" || r.Node.ID == "" || strings.EqualFold(holder.ID, r.Node.ID) {
		return nil
	}
	if w.check(holder.Node, catalog.SerfHealth) == nil {
		return nil
	}
	return holder // checkNodeName has seen that it is dead
}

// checkServices refuses checks of services that neither exist nor come along.
func (w *writer) checkServices(r *catalog.Register, renamed bool) error {
	for _, c := range r.Checks {
		switch {
		case c.ServiceID == "":
		case r.Service != nil && r.Service.ID == c.ServiceID:
		case renamed || w.service(r.Node.Node, c.ServiceID) == nil:
			return fmt.Errorf("Missing service registration: check %q names service ID %q, which node %q does not have", c.CheckID, c.ServiceID, r.Node.Node)
		}
	}
	return nil
}

// putNode adds or changes the node's record. renamed is its record under a
// former name.
func (w *writer) putNode(r *catalog.Register, renamed *catalog.Node) {
	old := w.node(r.Node.Node)
	if old != nil && r.SkipNodeUpdate {
		return
	}
	n := r.Node // a copy; the maps are the command's own
	n.Synced, n.CreateIndex, n.ModifyIndex = "", w.index, w.index
	if renamed != nil {
		n.CreateIndex, n.Synced = renamed.CreateIndex, renamed.Synced
		n.Agentless = n.Agentless && renamed.Agentless
	}
	if old != nil {
		n.CreateIndex = old.CreateIndex
		if n.ID == "" {
			n.ID, n.Node = old.ID, old.Node // a caller that doesn't know the ID takes neither away
		}
		if old.ID == n.ID { // else an agent of another node answered
			n.Synced, n.Agentless = old.Synced, n.Agentless && old.Agentless
		}
		w.updateNode(old, &n)
		return
	}
	w.insert(tableNodes, &n)
	w.clearTombstone(n.Node, "", "")
	w.touch(ixNodes, ixNodeServices(n.Node), ixNodeChecks(n.Node))
	w.change.addNode(n.Node)
	w.change.NodeNames = true
}

func (w *writer) updateNode(old, n *catalog.Node) {
	if sameNode(old, n) {
		n.ModifyIndex = old.ModifyIndex
		if old.Synced != n.Synced || old.Agentless != n.Agentless {
			w.insert(tableNodes, n)
			w.change.addMarked(n.Node)
		}
		return
	}
	w.insert(tableNodes, n)
	w.touch(ixNodes, ixNodeServices(n.Node))
	w.touchServicesOf(n.Node, true)
	w.change.addNode(n.Node)
	if old.Node != n.Node || old.ID != n.ID {
		w.change.NodeNames = true
	}
}

// sameNode compares what clients see of a node.
func sameNode(a, b *catalog.Node) bool {
	return a.ID == b.ID && a.Node == b.Node && a.Address == b.Address && a.Datacenter == b.Datacenter &&
		catalog.SameLocality(a.Locality, b.Locality) &&
		maps.Equal(a.TaggedAddresses, b.TaggedAddresses) && maps.Equal(a.Meta, b.Meta)
}

// touchServicesOf moves the index of every service on the node, and tells
// the feed: shown says whether an answer can differ.
func (w *writer) touchServicesOf(node string, shown bool) {
	for _, s := range w.servicesOn(node) {
		w.touch(ixService(s.Service))
		w.change.addService(s.Service, shown)
	}
}

// deleteNode removes the node and all that is on it.
func (w *writer) deleteNode(n *catalog.Node) {
	for _, s := range w.servicesOn(n.Node) {
		w.deleteService(s)
	}
	for _, c := range w.checksOf(n.Node, "") {
		w.deleteCheck(c)
	}
	w.remove(tableNodes, n)
	w.dropIndex(ixNodeServices(n.Node))
	w.dropIndex(ixNodeChecks(n.Node))
	w.touch(ixNodes, ixNodesGone)
	w.change.addNode(n.Node)
	w.change.NodeNames = true
}
