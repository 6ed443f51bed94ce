package view

import "meibo/cluster/catalog"

// CatalogSaysDead reports whether the catalog, leaving aside what gossip says
// here, holds the node with the ID for dead.
func (v *View) CatalogSaysDead(nodeID string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.current == nil {
		return false
	}
	key, ok := nodeWithID(v.Load().ids, nodeID)
	if !ok {
		return false
	}
	node := v.current.node(key)
	if node == nil {
		return false
	}
	serf := checkWithID(node.checks, catalog.SerfHealth)
	return serf != nil && serf.Status == catalog.Critical
}
