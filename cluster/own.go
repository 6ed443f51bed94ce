package cluster

import (
	"context"
	"sync"
	"time"

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
	if w := c.n.networkToLeader(); w != nil {
		var remote agent.Remote
		err := w.rpc.Call(ctx, true, "", pathLoad, &loadRequest{Node: node}, &remote)
		return remote, err
	}
	r, err := c.n.readLeading(ctx)
	if err != nil {
		return agent.Remote{}, err
	}
	return remoteOf(r, node), nil
}

// hasNodeWait bounds the question of [Node.CatalogHasNode].
const hasNodeWait = 2 * time.Second

// CatalogHasNode reports whether the leader's catalog has the node, whatever this
// host's view shows by now; false while there is no leader to ask.
func (n *Node) CatalogHasNode(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, hasNodeWait)
	defer cancel()
	remote, err := agentCatalog{n}.Load(ctx, name)
	return err == nil && remote.Node != nil
}

// Apply implements agent.Catalog. It doesn't wait for lookups to show the
// command: they show what the agent holds already.
func (c agentCatalog) Apply(ctx context.Context, body catalog.Body) error {
	c.n.goodbye.mu.RLock()
	defer c.n.goodbye.mu.RUnlock()
	if c.n.goodbye.said {
		return agent.ErrLeft
	}
	_, err := c.n.apply(ctx, body)
	return err
}

// goodbye keeps the agent of a host that leaves from registering it again once
// it has been deregistered.
type goodbye struct {
	mu   sync.RWMutex // held for reading by each write of the agent
	said bool
}

// set returns when no write of the agent is under way any more. To set false is
// to stay after all.
func (g *goodbye) set(said bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.said = said
}
