package state

import (
	"slices"

	"meibo/cluster/catalog"
)

func (w *writer) check(node, id string) *catalog.Check {
	if row := first(w.tx, tableChecks, byID, onNodeKey(node, id)); row != nil {
		return row.(*catalog.Check)
	}
	return nil
}

// checksOf returns the checks of one service on the node, or with no service
// ID those of the node itself.
func (w *writer) checksOf(node, serviceID string) []*catalog.Check {
	return collect[*catalog.Check](w.tx, tableChecks, byNodeService, onNodeKey(node, serviceID))
}

// putCheck adds or changes a check on a node that exists, of the node or of
// a service that exists.
func (w *writer) putCheck(in *catalog.Check, node string) {
	c := *in
	c.Node = w.node(node).Node
	c.ServiceName, c.ServiceTags = "", nil
	if c.ServiceID != "" {
		s := w.service(c.Node, c.ServiceID)
		c.ServiceName, c.ServiceTags = s.Service, s.Tags
	}
	c.CreateIndex, c.ModifyIndex = w.index, w.index
	old := w.check(c.Node, c.CheckID)
	if old != nil {
		c.CreateIndex = old.CreateIndex
		if sameCheck(old, &c) {
			return
		}
		w.moveCheck(old, &c)
		return
	}
	w.insert(tableChecks, &c)
	w.clearTombstone(c.Node, "", c.CheckID)
	w.touch(ixChecks, ixState(c.Status), ixNodeChecks(c.Node))
	w.touchChecked(&c, true)
}

// moveCheck replaces a check by what it became, which may be of another
// service than before.
func (w *writer) moveCheck(old, c *catalog.Check) {
	w.insert(tableChecks, c)
	w.touch(ixChecks, ixState(old.Status), ixState(c.Status), ixNodeChecks(c.Node))
	shown := old.Status != c.Status || old.ServiceID != c.ServiceID
	w.touchChecked(c, shown)
	if old.ServiceID != c.ServiceID {
		w.touchChecked(old, shown)
	}
}

// touchChecked moves the indexes of the services that a check bears on: its
// own, or all on the node. shown says whether an answer can differ; output
// and notes don't show in one.
func (w *writer) touchChecked(c *catalog.Check, shown bool) {
	if c.ServiceID == "" {
		w.touchServicesOf(c.Node, shown)
		if shown {
			w.change.addNode(c.Node)
		}
		return
	}
	if w.hasInstances(c.ServiceName) {
		w.touch(ixService(c.ServiceName))
	}
	w.change.addService(c.ServiceName, shown)
}

func (w *writer) deleteCheck(c *catalog.Check) {
	w.remove(tableChecks, c)
	w.touch(ixChecks, ixState(c.Status), ixNodeChecks(c.Node))
	w.touchChecked(c, true)
}

// sameCheck compares all but indexes.
func sameCheck(a, b *catalog.Check) bool {
	return a.Node == b.Node && a.CheckID == b.CheckID && a.Name == b.Name && a.Status == b.Status &&
		a.Notes == b.Notes && a.Output == b.Output && a.ServiceID == b.ServiceID && a.ServiceName == b.ServiceName &&
		slices.Equal(a.ServiceTags, b.ServiceTags) && a.Type == b.Type && a.Interval == b.Interval &&
		a.Timeout == b.Timeout && a.ExposedPort == b.ExposedPort && a.Definition.Equal(b.Definition)
}
