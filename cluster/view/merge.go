package view

import (
	"slices"
	"strings"

	"meibo/cluster/catalog"
)

// merged is what shows of a node.
type merged struct {
	Record
	// addresses are those of services that differ from the node's; also of
	// services whose contents are not here.
	addresses []catalog.AddressOf
	// unconfirmed are IDs of services, in order, that only earlier histories
	// know; "" stands for the node itself.
	unconfirmed []string
}

// effective returns what shows of the node with the key: what the present
// history says over what earlier ones said, the agent's word for the own node,
// and death where it is known. nil: nothing.
func (v *View) effective(key string) *merged {
	m := v.union(key)
	if key == v.ownKey {
		m = v.mergeOwn(m)
	} else if m != nil && v.cfg.NodeID != "" && strings.EqualFold(m.Node.ID, v.cfg.NodeID) {
		// This host under the name it had before.
		return nil
	}
	if m == nil {
		return nil
	}
	m.Record = *ordered(v.markLife(&m.Record))
	return m
}

// union is what histories say of a node.
func (v *View) union(key string) *merged {
	var cur *nodeRecord
	if v.current != nil {
		cur = v.current.nodes[key]
	}
	rem := v.remembered[key]
	both := overlay(cur, rem)
	if both == nil {
		return nil
	}
	m := &merged{Record: Record{Node: both.node, Checks: slices.Clip(both.checks)}}
	for _, p := range both.parts {
		m.Services = append(m.Services, p.services...)
		m.Checks = append(m.Checks, p.checks...)
	}
	m.addresses = v.addressesOf(cur, rem, both)
	if rem != nil {
		m.unconfirmed = unconfirmed(cur, m.Services)
	}
	return m
}

// addressesOf returns the addresses of a node's services. Older contents of the
// present history don't count: the base set says how it is now.
func (v *View) addressesOf(cur, rem, both *nodeRecord) []catalog.AddressOf {
	addresses := both.addresses
	known := make(set, len(addresses))
	for _, a := range addresses {
		known.add(a.ServiceID)
	}
	for _, p := range both.parts {
		if rem == nil && cur != nil && !v.current.isComplete(p.name) {
			continue
		}
		for _, s := range p.services {
			if s.Address != "" && !known.has(s.ID) {
				addresses = append(slices.Clip(addresses), catalog.AddressOf{Address: s.Address, Service: s.Service, ServiceID: s.ID})
			}
		}
	}
	return addresses
}

// unconfirmed returns the IDs of services that the present history doesn't have.
func unconfirmed(cur *nodeRecord, services []*catalog.Service) []string {
	var ids []string
	known := make(set)
	if cur != nil {
		known = cur.serviceIDs()
	} else {
		ids = append(ids, "")
	}
	for _, s := range services {
		if !known.has(s.ID) {
			ids = append(ids, s.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// mergeOwn puts what the agent holds in the place of what the catalog says of
// the own node. Kept of the catalog: its indexes and marks; serfHealth, which is
// others' word; the service that makes a server known, which the leader writes;
// the tags of services that allow the catalog to change them.
func (v *View) mergeOwn(theirs *merged) *merged {
	own := v.own
	if own == nil || own.Node == nil {
		return theirs
	}
	rec := new(Record)
	if theirs != nil {
		rec = &theirs.Record
	}
	services, checks := byID(rec.Services, serviceID), byID(rec.Checks, checkID)
	out := &merged{Record: Record{
		Node:     mergeNode(rec.Node, own.Node),
		Services: make([]*catalog.Service, 0, len(own.Services)+1),
		Checks:   make([]*catalog.Check, 0, len(own.Checks)+1),
	}}
	server := services[catalog.ConsulService]
	for _, svc := range own.Services {
		if svc.ID == catalog.ConsulService {
			server = nil
		}
		out.Services = append(out.Services, mergeService(services[svc.ID], svc))
	}
	if server != nil {
		out.Services = append(out.Services, server)
	}
	for _, c := range own.Checks {
		if c.CheckID != catalog.SerfHealth {
			out.Checks = append(out.Checks, mergeCheck(checks[c.CheckID], c))
		}
	}
	if c := checks[catalog.SerfHealth]; c != nil {
		out.Checks = append(out.Checks, c)
	}
	for _, svc := range out.Services {
		if svc.Address != "" {
			out.addresses = append(out.addresses, catalog.AddressOf{Address: svc.Address, Service: svc.Service, ServiceID: svc.ID})
		}
	}
	return out
}

func serviceID(s *catalog.Service) string { return s.ID }
func checkID(c *catalog.Check) string     { return c.CheckID }

func byID[T any](list []T, id func(T) string) map[string]T {
	m := make(map[string]T, len(list))
	for _, item := range list {
		m[id(item)] = item
	}
	return m
}

// mergeNode and its like return the catalog's value where it shows the same as
// the agent's: it carries the indexes, and one value stays one value.
func mergeNode(theirs, ours *catalog.Node) *catalog.Node {
	if theirs == nil {
		return ours
	}
	n := *ours
	n.CreateIndex, n.ModifyIndex = theirs.CreateIndex, theirs.ModifyIndex
	n.Synced, n.Agentless = theirs.Synced, theirs.Agentless
	if nodesShowSame(theirs, &n) {
		return theirs
	}
	return &n
}

func mergeService(theirs, ours *catalog.Service) *catalog.Service {
	if theirs == nil {
		return ours
	}
	s := *ours
	s.CreateIndex, s.ModifyIndex = theirs.CreateIndex, theirs.ModifyIndex
	if s.EnableTagOverride {
		s.Tags = theirs.Tags
	}
	if servicesShowSame(theirs, &s) && theirs.EnableTagOverride == s.EnableTagOverride && catalog.SameLocality(theirs.Locality, s.Locality) {
		return theirs
	}
	return &s
}

func mergeCheck(theirs, ours *catalog.Check) *catalog.Check {
	if theirs == nil || theirs.Status != ours.Status || theirs.Output != ours.Output || theirs.Notes != ours.Notes ||
		theirs.Name != ours.Name || theirs.ServiceID != ours.ServiceID {
		return ours
	}
	return theirs
}

func checkWithID(checks []*catalog.Check, id string) *catalog.Check {
	i := slices.IndexFunc(checks, func(c *catalog.Check) bool { return c.CheckID == id })
	if i < 0 {
		return nil
	}
	return checks[i]
}

// markLife returns the record with serfHealth critical if the node is known to
// be dead, which servers may not have heard or written down yet.
func (v *View) markLife(rec *Record) *Record {
	if life := v.life(rec.Node); life != catalog.Failed && life != catalog.Left {
		return rec
	}
	serf := checkWithID(rec.Checks, catalog.SerfHealth)
	if serf != nil && serf.Status == catalog.Critical {
		return rec
	}
	dead := catalog.Check{Node: rec.Node.Node, CheckID: catalog.SerfHealth, Name: "Serf Health Status"}
	if serf != nil {
		dead = *serf
	}
	dead.Status, dead.Output = catalog.Critical, "Agent not live or unreachable"
	marked := &Record{Node: rec.Node, Services: rec.Services}
	marked.Checks = slices.DeleteFunc(slices.Clone(rec.Checks), func(c *catalog.Check) bool { return c == serf })
	marked.Checks = append(marked.Checks, &dead)
	return marked
}

// ordered returns the record with its services and checks in the order of their
// IDs, as answers and comparisons want them.
func ordered(rec *Record) *Record {
	byService := func(a, b *catalog.Service) int { return strings.Compare(a.ID, b.ID) }
	byCheck := func(a, b *catalog.Check) int { return strings.Compare(a.CheckID, b.CheckID) }
	if slices.IsSortedFunc(rec.Services, byService) && slices.IsSortedFunc(rec.Checks, byCheck) {
		return rec
	}
	return &Record{
		Node:     rec.Node,
		Services: slices.SortedFunc(slices.Values(rec.Services), byService),
		Checks:   slices.SortedFunc(slices.Values(rec.Checks), byCheck),
	}
}
