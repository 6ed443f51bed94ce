package view

import (
	"slices"
	"strings"

	"meibo/cluster/catalog"
)

// effective returns what shows of the node with the key: what the present
// history says over what earlier ones said, the agent's word for the own node,
// and death where it is known. nil: nothing.
func (v *View) effective(key string) *nodeRecord {
	m := v.union(key)
	if key == v.ownKey {
		m = v.mergeOwn(m)
	} else if m != nil && v.cfg.NodeID != "" && strings.EqualFold(m.node.ID, v.cfg.NodeID) {
		// This host under the name it had before.
		return nil
	}
	if m == nil {
		return nil
	}
	return v.markLife(m)
}

// union is what histories say of a node.
func (v *View) union(key string) *nodeRecord {
	var cur *nodeRecord
	if v.current != nil {
		cur = v.current.node(key)
	}
	rem := v.remembered[key]
	both := overlay(cur, rem)
	if both == nil {
		return nil
	}
	addresses := v.addressesOf(cur, rem, both)
	if rem == nil && len(addresses) == len(cur.addresses()) {
		return cur
	}
	m := *both
	m.setMore(addresses, nil)
	if rem != nil {
		m.setMore(addresses, unconfirmed(cur, both))
	}
	return &m
}

// addressesOf returns the addresses of a node's services. Older contents of the
// present history don't count: the base set says how it is now.
func (v *View) addressesOf(cur, rem, both *nodeRecord) []catalog.AddressOf {
	addresses := both.addresses()
	known := len(addresses)
	for _, in := range both.instances {
		s := in.service
		isKnown := func(a catalog.AddressOf) bool { return a.ServiceID == s.ID }
		if s.Address == "" || slices.ContainsFunc(addresses[:known], isKnown) || rem == nil && cur != nil && !v.current.isComplete(in.key()) {
			continue
		}
		addresses = append(slices.Clip(addresses), catalog.AddressOf{Address: s.Address, Service: s.Service, ServiceID: s.ID})
	}
	return addresses
}

// unconfirmed returns the IDs of services that the present history doesn't have.
func unconfirmed(cur, both *nodeRecord) []string {
	var ids []string
	known := make(set)
	if cur != nil {
		known = cur.serviceIDs()
	} else {
		ids = append(ids, "")
	}
	for _, in := range both.instances {
		if id := in.service.ID; !known.has(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// mergeOwn puts what the agent holds in the place of what the catalog says of
// the own node. Kept of the catalog: its indexes and marks; serfHealth, which is
// others' word; the service that makes a server known, which the leader writes;
// the tags of services that allow the catalog to change them.
func (v *View) mergeOwn(theirs *nodeRecord) *nodeRecord {
	own := v.own
	if own == nil || own.Node == nil {
		return theirs
	}
	if theirs == nil {
		theirs = new(nodeRecord)
	}
	services, checks := byID(theirs.services(), serviceID), byID(theirs.allChecks(), checkID)
	outServices := make([]*catalog.Service, 0, len(own.Services)+1)
	outChecks := make([]*catalog.Check, 0, len(own.Checks)+1)
	server := services[catalog.ConsulService]
	for _, svc := range own.Services {
		if svc.ID == catalog.ConsulService {
			server = nil
		}
		outServices = append(outServices, mergeService(services[svc.ID], svc))
	}
	if server != nil {
		outServices = append(outServices, server)
	}
	for _, c := range own.Checks {
		if c.CheckID != catalog.SerfHealth {
			outChecks = append(outChecks, mergeCheck(checks[c.CheckID], c))
		}
	}
	if c := checks[catalog.SerfHealth]; c != nil {
		outChecks = append(outChecks, c)
	}
	var addresses []catalog.AddressOf
	for _, svc := range outServices {
		if svc.Address != "" {
			addresses = append(addresses, catalog.AddressOf{Address: svc.Address, Service: svc.Service, ServiceID: svc.ID})
		}
	}
	return newRecord(v.ownKey, mergeNode(theirs.node, own.Node), outServices, outChecks, addresses)
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
func (v *View) markLife(rec *nodeRecord) *nodeRecord {
	if life := v.life(rec.node); life != catalog.Failed && life != catalog.Left {
		return rec
	}
	serf := checkWithID(rec.checks, catalog.SerfHealth)
	if serf != nil && serf.Status == catalog.Critical {
		return rec
	}
	dead := catalog.Check{Node: rec.node.Node, CheckID: catalog.SerfHealth, Name: "Serf Health Status"}
	if serf != nil {
		dead = *serf
	}
	dead.Status, dead.Output = catalog.Critical, "Agent not live or unreachable"
	checks := slices.DeleteFunc(slices.Clone(rec.checks), func(c *catalog.Check) bool { return c == serf })
	return rec.withChecks(append(checks, &dead))
}
