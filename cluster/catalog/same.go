package catalog

import (
	"maps"
	"slices"
)

// SameService reports whether two records of a service differ in nothing but node and
// indexes.
func SameService(a, b *Service) bool {
	return a.ID == b.ID && a.Service == b.Service && a.Kind == b.Kind &&
		a.Address == b.Address && a.Port == b.Port && a.SocketPath == b.SocketPath &&
		a.Weights == b.Weights && a.EnableTagOverride == b.EnableTagOverride &&
		SameLocality(a.Locality, b.Locality) &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.TaggedAddresses, b.TaggedAddresses) && maps.Equal(a.Meta, b.Meta)
}
