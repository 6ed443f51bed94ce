package view

import (
	"slices"
	"strings"

	"meibo/cluster/catalog"
)

// effective returns what shows of the node with the key: what the catalog says,
// the agent's word for the own node, and death where it is known. nil: nothing.
func (v *View) effective(key string) *Record {
	rec := v.catalog[key]
	if key == v.ownKey {
		rec = mergeOwn(rec, v.own)
	} else if rec != nil && v.cfg.NodeID != "" && strings.EqualFold(rec.Node.ID, v.cfg.NodeID) {
		// This host under the name it had before.
		return nil
	}
	if rec == nil {
		return nil
	}
	return ordered(v.markLife(rec))
}

// mergeOwn puts what the agent holds in the place of what the catalog says of
// the own node. Kept of the catalog: its indexes and marks; serfHealth, which is
// others' word; the service that makes a server known, which the leader writes;
// the tags of services that allow the catalog to change them.
func mergeOwn(rec, own *Record) *Record {
	if own == nil || own.Node == nil {
		return rec
	}
	if rec == nil {
		rec = new(Record)
	}
	services, checks := byID(rec.Services, serviceID), byID(rec.Checks, checkID)
	merged := &Record{
		Node:     mergeNode(rec.Node, own.Node),
		Services: make([]*catalog.Service, 0, len(own.Services)+1),
		Checks:   make([]*catalog.Check, 0, len(own.Checks)+1),
	}
	server := services[catalog.ConsulService]
	for _, svc := range own.Services {
		if svc.ID == catalog.ConsulService {
			server = nil
		}
		merged.Services = append(merged.Services, mergeService(services[svc.ID], svc))
	}
	if server != nil {
		merged.Services = append(merged.Services, server)
	}
	for _, c := range own.Checks {
		if c.CheckID != catalog.SerfHealth {
			merged.Checks = append(merged.Checks, mergeCheck(checks[c.CheckID], c))
		}
	}
	if c := checks[catalog.SerfHealth]; c != nil {
		merged.Checks = append(merged.Checks, c)
	}
	return merged
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
	if servicesShowSame(theirs, &s) && theirs.EnableTagOverride == s.EnableTagOverride {
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
	if v.cfg.Liveness == nil || rec.Node.ID == "" || v.cfg.Liveness.Life(rec.Node.ID) != Failed {
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
