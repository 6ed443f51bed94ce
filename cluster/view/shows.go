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
func (r *nodeRecord) isSame(b *nodeRecord) bool {
	return r == b || r.node == b.node && slices.Equal(r.checks, b.checks) && sameInstances(r.instances, b.instances) &&
		slices.Equal(r.addresses(), b.addresses()) && slices.Equal(r.unconfirmed(), b.unconfirmed())
}

// sameInstances is isSame for instances on one node.
func sameInstances(a, b []instance) bool {
	return slices.EqualFunc(a, b, func(x, y instance) bool {
		return x.service == y.service && slices.Equal(x.checks, y.checks)
	})
}

// nodeShowsSame reports whether two records of a node, its services left aside,
// show the same: the node and its own checks.
func nodeShowsSame(a, b *nodeRecord) bool {
	return nodesShowSame(a.node, b.node) && catalog.ChecksShowSame(a.checks, b.checks)
}

func nodesShowSame(a, b *catalog.Node) bool {
	return a == b || a.ID == b.ID && a.Node == b.Node && a.Address == b.Address && a.Datacenter == b.Datacenter &&
		a.Agentless == b.Agentless && catalog.SameLocality(a.Locality, b.Locality) &&
		maps.Equal(a.TaggedAddresses, b.TaggedAddresses) && maps.Equal(a.Meta, b.Meta)
}

// instancesShowSame compares the services and checks; the nodes have been
// compared before.
func instancesShowSame(a, b []instance) bool {
	return slices.EqualFunc(a, b, func(x, y instance) bool {
		return servicesShowSame(x.service, y.service) && catalog.ChecksShowSame(x.checks, y.checks)
	})
}

func servicesShowSame(a, b *catalog.Service) bool {
	return a == b || a.ID == b.ID && a.Service == b.Service && a.Kind == b.Kind &&
		a.Address == b.Address && a.Port == b.Port && a.SocketPath == b.SocketPath && a.Weights == b.Weights &&
		slices.Equal(a.Tags, b.Tags) &&
		maps.Equal(a.TaggedAddresses, b.TaggedAddresses) && maps.Equal(a.Meta, b.Meta)
}
