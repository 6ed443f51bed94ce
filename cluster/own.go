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
	if w := c.n.toOthers(); w != nil {
		var remote agent.Remote
		err := w.carrier.Call(ctx, true, "", pathLoad, &loadRequest{Node: node}, &remote)
		return remote, err
	}
	r, err := c.n.readLeading(ctx)
	if err != nil {
		return agent.Remote{}, err
	}
	return remoteOf(r, node), nil
}

// Apply implements agent.Catalog. It doesn't wait for lookups to show the
// command: they show what the agent holds already.
func (c agentCatalog) Apply(ctx context.Context, body catalog.Body) error {
	_, err := c.n.write(ctx, body)
	return err
}
