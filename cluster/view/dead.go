package view

import (
	"strings"

	"meibo/cluster/catalog"
)

// CatalogSaysDead reports whether the catalog, leaving aside what gossip says
// here, holds the node with the ID for dead.
func (v *View) CatalogSaysDead(nodeID string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.current == nil {
		return false
	}
	key, ok := v.Load().ids.Get([]byte(strings.ToLower(nodeID)))
	if !ok {
		return false
	}
	node := v.current.nodes[key.(string)]
	if node == nil {
		return false
	}
	for _, c := range node.checks {
		if c.CheckID == catalog.SerfHealth {
			return c.Status == catalog.Critical
		}
	}
	return false
}
