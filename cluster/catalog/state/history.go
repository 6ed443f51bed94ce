package state

import (
	"fmt"
	"strings"

	"meibo/cluster/catalog"
)

// deregister removes what is named. A tombstone tells those who remember it
// from another history, which may be hosts that are away at present, unless
// this history is known to hold all there is of the node: then what it doesn't
// name isn't there.
func (w *writer) deregister(d *catalog.Deregister) {
	n := w.node(d.Node)
	switch {
	case d.NodeID != "" && (n == nil || !strings.EqualFold(n.ID, d.NodeID)):
		return
	case d.ServiceID != "":
		if s := w.service(d.Node, d.ServiceID); s != nil {
			w.deleteService(s)
		}
	case d.CheckID != "":
		if c := w.check(d.Node, d.CheckID); c != nil {
			w.deleteCheck(c)
		}
	default:
		if n != nil {
			w.deleteNode(n)
		}
		n = nil
	}
	if w.isComplete(n) {
		return
	}
	if d.ServiceID != "" {
		w.putTombstone(d.Node, d.ServiceID, "")
	} else {
		w.putTombstone(d.Node, "", d.CheckID)
	}
}

// isComplete reports whether the catalog is known to hold all there is of
// the node in this history.
func (w *writer) isComplete(n *catalog.Node) bool {
	return n != nil && n.Synced != "" && n.Synced == w.meta.History.ID
}

// forget removes the node and tells every host to.
func (w *writer) forget(f *catalog.Forget) {
	if n := w.node(f.Node); n != nil {
		w.deleteNode(n)
	}
	w.putTombstone(f.Node, "", "")
}

func (w *writer) putTombstone(node, serviceID, checkID string) {
	k := tombstoneKey(node, serviceID, checkID)
	if old := first(w.tx, tableTombstones, byID, k); old == nil {
		w.meta.Tombstones++
	}
	w.insert(tableTombstones, &catalog.Tombstone{Node: node, ServiceID: serviceID, CheckID: checkID, Index: w.index})
	w.touch(ixTombstones)
	w.change.addMarked(node)
	for w.meta.Tombstones > maxTombstones {
		w.dropTombstone(first(w.tx, tableTombstones, byIndex+"_prefix", []byte{}).(*catalog.Tombstone))
	}
}

// clearTombstone takes back what was said of a thing that is registered now.
func (w *writer) clearTombstone(node, serviceID, checkID string) {
	if row := first(w.tx, tableTombstones, byID, tombstoneKey(node, serviceID, checkID)); row != nil {
		w.dropTombstone(row.(*catalog.Tombstone))
		w.touch(ixTombstones)
		w.change.addMarked(node)
	}
}

func (w *writer) dropTombstone(t *catalog.Tombstone) {
	w.remove(tableTombstones, t)
	w.meta.Tombstones--
}

// beginHistory begins a new history. Rows keep the indexes they were shown
// with, which are all below what comes.
func (w *writer) beginHistory(b *catalog.BeginHistory) error {
	if b.ID == w.meta.History.ID {
		return nil
	}
	index := b.Base + w.meta.Applied
	if index <= w.meta.Last || index > catalog.MaxIndex {
		return fmt.Errorf("begin history %s: base %d puts the index at %d, want above %d and below 2^53", b.ID, b.Base, index, w.meta.Last)
	}
	w.meta.History = catalog.History{ID: b.ID, Base: b.Base, Provisional: b.Provisional}
	w.index, w.meta.Last, w.meta.Floor = index, index, index
	w.change.History = true
	return nil
}

// markSynced notes that the node's agent has told all it has. A mark for
// another history than the present is late and refused.
func (w *writer) markSynced(m *catalog.MarkSynced) error {
	if m.History != w.meta.History.ID {
		return fmt.Errorf("mark synced: history %s is not the present one, %q", m.History, w.meta.History.ID)
	}
	old := w.nodeByID(m.NodeID)
	if old == nil {
		return fmt.Errorf("mark synced: no node has the ID %s", m.NodeID)
	}
	if old.Synced == m.History && !old.Agentless {
		return nil
	}
	n := *old
	n.Synced, n.Agentless = m.History, false
	w.insert(tableNodes, &n)
	w.change.addMarked(n.Node)
	return nil
}
