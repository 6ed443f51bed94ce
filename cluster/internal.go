package cluster

import (
	"context"
	"errors"
	"net/http"
	"time"

	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/rpc"
	"meibo/cluster/server"
)

// What hosts ask of one another besides the catalog's API.
const (
	pathLoad    = "/internal/load"
	pathKeyring = "/internal/keyring"
	pathHeld    = "/internal/held"
)

type (
	loadRequest struct {
		Node string `codec:"Node"`
	}
	keyringRequest struct {
		Op  KeyringOp `codec:"Op"`
		Key string    `codec:"Key"`
	}
	heldRequest struct {
		NodeID string `codec:"NodeID"`
	}
	heldAnswer struct {
		Until int64 `codec:"Until"` // in Unix milliseconds; 0: it isn't
		Flaps int   `codec:"Flaps"`
	}
)

// errNoServer refuses what only servers answer.
var errNoServer = errors.New("this host runs no server at present")

// ServeCatalog has h answer the requests about the catalog that other hosts
// carry here.
func (n *Node) ServeCatalog(h http.Handler) { n.api.Store(&h) }

func (n *Node) catalogHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := n.api.Load()
		if h == nil {
			http.Error(w, "this host does not serve the catalog yet", http.StatusServiceUnavailable)
			return
		}
		(*h).ServeHTTP(w, r)
	})
}

// internal is what hosts may ask of this one, by path.
func (w *network) internal() map[string]rpc.HandlerFunc {
	n := w.node
	all := map[string]rpc.HandlerFunc{
		pathApply: w.serveApply, pathLoad: n.loadFor, pathKeyring: n.keyringFor,
		pathHeld: n.heldFor,
	}
	for _, path := range server.Paths {
		all[path] = n.serveServers(path)
	}
	return all
}

// loadFor tells what the catalog holds of a node.
func (n *Node) loadFor(ctx context.Context, _ rpc.Caller, body []byte) (any, error) {
	var req loadRequest
	if err := rpc.Decode(body, &req); err != nil {
		return nil, err
	}
	r, err := n.readLeading(ctx)
	if err != nil {
		return nil, err
	}
	return remoteOf(r, req.Node), nil
}

func (n *Node) keyringFor(_ context.Context, _ rpc.Caller, body []byte) (any, error) {
	var req keyringRequest
	if err := rpc.Decode(body, &req); err != nil {
		return nil, err
	}
	return n.ownKeyring(req.Op, req.Key), nil
}

// heldFor tells until when this host holds another one down.
func (n *Node) heldFor(_ context.Context, _ rpc.Caller, body []byte) (any, error) {
	var req heldRequest
	if err := rpc.Decode(body, &req); err != nil {
		return nil, err
	}
	var answer heldAnswer
	if m := n.MemberOf(req.NodeID); m != nil {
		answer.Flaps = m.Flaps
		if !m.HeldUntil.IsZero() {
			answer.Until = m.HeldUntil.UnixMilli()
		}
	}
	return &answer, nil
}

// HeldDown asks the leader until when it holds this host down, and how often it
// was gone lately; the zero time: it doesn't, or there is nobody to ask.
func (n *Node) HeldDown(ctx context.Context) (until time.Time, flaps int) {
	w, _ := n.network()
	if w == nil {
		return time.Time{}, 0
	}
	var answer heldAnswer
	if err := w.rpc.Call(ctx, true, "", pathHeld, &heldRequest{NodeID: n.cfg.NodeID}, &answer); err != nil || answer.Until == 0 {
		return time.Time{}, answer.Flaps
	}
	return time.UnixMilli(answer.Until), answer.Flaps
}

// remoteOf is what a state of the catalog says of a node, for its agent.
func remoteOf(r catalog.Reader, node string) agent.Remote {
	var remote agent.Remote
	_, history := r.History(nil)
	remote.History = history.ID
	_, remote.Node = r.Node(nil, node)
	_, remote.Services = r.NodeServices(nil, node)
	_, remote.Checks = r.NodeChecks(nil, node)
	return remote
}
