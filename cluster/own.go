package cluster

import (
	"context"

	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/view"
)

// ownRecord is the agent as the view sees it.
type ownRecord struct{ a *agent.Agent }

// Own implements view.Local.
func (o ownRecord) Own() view.Record { return view.Record(o.a.Own()) }

// agentCatalog is the catalog as the agent sees it.
type agentCatalog struct{ n *Node }

// Load implements agent.Catalog.
func (c agentCatalog) Load(ctx context.Context, node string) (agent.Remote, error) {
	r, _, err := c.n.Read(ctx, Default)
	if err != nil {
		return agent.Remote{}, err
	}
	var remote agent.Remote
	_, history := r.History(nil)
	remote.History = history.ID
	_, remote.Node = r.Node(nil, node)
	_, remote.Services = r.NodeServices(nil, node)
	_, remote.Checks = r.NodeChecks(nil, node)
	return remote, nil
}

// Apply implements agent.Catalog. It doesn't wait for lookups to show the
// command: they show what the agent holds already.
func (c agentCatalog) Apply(ctx context.Context, body catalog.Body) error {
	_, err := c.n.write(ctx, body)
	return err
}
