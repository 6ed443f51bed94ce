package state

import (
	"slices"

	"meibo/cluster/catalog"
)

func (w *writer) service(node, id string) *catalog.Service {
	if row := first(w.tx, tableServices, byID, onNodeKey(node, id)); row != nil {
		return row.(*catalog.Service)
	}
	return nil
}

func (w *writer) servicesOn(node string) []*catalog.Service {
	return collect[*catalog.Service](w.tx, tableServices, byID+"_prefix", nodeKey(node))
}

func (w *writer) hasInstances(name string) bool {
	return first(w.tx, tableServices, byName, nodeKey(name)) != nil
}

// putService adds or changes an instance on a node that exists.
func (w *writer) putService(in *catalog.Service, node string) {
	s := *in
	s.Node = w.node(node).Node // as the node's record spells it
	s.CreateIndex, s.ModifyIndex = w.index, w.index
	old := w.service(s.Node, s.ID)
	if old != nil {
		s.CreateIndex = old.CreateIndex
		if catalog.SameService(old, &s) {
			return
		}
		if fold(old.Service) != fold(s.Service) {
			w.removeInstance(old)
		}
	}
	if !w.hasInstances(s.Service) {
		w.change.ServiceNames = true
	}
	w.insert(tableServices, &s)
	w.clearTombstone(s.Node, s.ID, "")
	w.touch(ixService(s.Service), ixNodeServices(s.Node))
	if old == nil || old.Service != s.Service || !slices.Equal(old.Tags, s.Tags) {
		w.touch(ixServices)
	}
	w.change.addService(s.Service, true)
	w.followService(&s)
}

// followService writes the service's name and tags into its checks.
func (w *writer) followService(s *catalog.Service) {
	for _, c := range w.checksOf(s.Node, s.ID) {
		w.putCheck(c, s.Node)
	}
}

// removeInstance takes the row out and says so to all who see its name.
func (w *writer) removeInstance(s *catalog.Service) {
	w.remove(tableServices, s)
	w.touch(ixServices, ixNodeServices(s.Node))
	w.change.addService(s.Service, true)
	if w.hasInstances(s.Service) {
		w.touch(ixService(s.Service))
		return
	}
	w.dropIndex(ixService(s.Service))
	w.touch(ixServicesGone)
	w.change.ServiceNames = true
}

// deleteService removes an instance and its checks.
func (w *writer) deleteService(s *catalog.Service) {
	for _, c := range w.checksOf(s.Node, s.ID) {
		w.deleteCheck(c)
	}
	w.removeInstance(s)
}
