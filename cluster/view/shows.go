package view

import (
	"maps"
	"slices"

	"meibo/cluster/catalog"
)

// What follows tells changes that can show in an answer from those that can't:
// indexes, marks of synchronisation, and what checks print.

// isSame reports whether nothing at all differs, by identity: what the catalog
// did not change is the same value.
func (m *merged) isSame(b *merged) bool {
	return m.Node == b.Node && slices.Equal(m.Services, b.Services) && slices.Equal(m.Checks, b.Checks) &&
		slices.Equal(m.addresses, b.addresses) && slices.Equal(m.unconfirmed, b.unconfirmed)
}

// sameInstances is sameRecord for instances.
func sameInstances(a, b []catalog.Instance) bool {
	return slices.EqualFunc(a, b, func(x, y catalog.Instance) bool {
		return x.Node == y.Node && x.Service == y.Service && slices.Equal(x.Checks, y.Checks)
	})
}

// nodeShowsSame reports whether two records of a node, its services left aside,
// show the same: the node and its own checks.
func nodeShowsSame(a, b *Record) bool {
	return nodesShowSame(a.Node, b.Node) && catalog.ChecksShowSame(ofNode(a.Checks), ofNode(b.Checks))
}

func ofNode(checks []*catalog.Check) []*catalog.Check {
	return slices.DeleteFunc(slices.Clone(checks), func(c *catalog.Check) bool { return c.ServiceID != "" })
}

func nodesShowSame(a, b *catalog.Node) bool {
	return a == b || a.ID == b.ID && a.Node == b.Node && a.Address == b.Address && a.Datacenter == b.Datacenter &&
		a.Agentless == b.Agentless && catalog.SameLocality(a.Locality, b.Locality) &&
		maps.Equal(a.TaggedAddresses, b.TaggedAddresses) && maps.Equal(a.Meta, b.Meta)
}

// instancesShowSame compares the services and checks; the nodes have been
// compared before.
func instancesShowSame(a, b []catalog.Instance) bool {
	return slices.EqualFunc(a, b, func(x, y catalog.Instance) bool {
		return servicesShowSame(x.Service, y.Service) && catalog.ChecksShowSame(x.Checks, y.Checks)
	})
}

func servicesShowSame(a, b *catalog.Service) bool {
	return a == b || a.ID == b.ID && a.Service == b.Service && a.Kind == b.Kind &&
		a.Address == b.Address && a.Port == b.Port && a.SocketPath == b.SocketPath && a.Weights == b.Weights &&
		slices.Equal(a.Tags, b.Tags) &&
		maps.Equal(a.TaggedAddresses, b.TaggedAddresses) && maps.Equal(a.Meta, b.Meta)
}
