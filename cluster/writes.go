package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/link"
	"meibo/cluster/rpc"
)

// pathApply is the internal function that writes to the catalog.
const pathApply = "/internal/apply"

// applied is its answer.
type applied struct {
	Index uint64 `codec:"Index"`
}

// Apply carries out a command and returns its index as clients see it. A
// *catalog.Error is the state machine's refusal; catalog.ErrNoLeader means that it
// did not happen; of any other error the outcome is unknown. What body points at is
// not modified.
func (n *Node) Apply(ctx context.Context, body catalog.Body) (uint64, error) {
	index, err := n.apply(ctx, body)
	return index, rpc.RecordOutcome(ctx, err)
}

// AwaitView returns once the catalog here and lookups on this host show the write of
// that index, or after some seconds.
func (n *Node) AwaitView(ctx context.Context, index uint64) {
	if w, _ := n.network(); w != nil {
		w.feed.Await(index)
	}
	if err := n.view.Wait(ctx, index); err != nil {
		// It did happen; lookups will show it as soon as they can.
		n.logger.Warn("a write does not show in lookups yet", "index", index, "err", err)
	}
}

// apply is Apply for the agent too. A command that another host sent keeps the
// request ID that it came with.
func (n *Node) apply(ctx context.Context, body catalog.Body) (uint64, error) {
	w := n.networkToLeader()
	if w != nil {
		return w.applyRemote(ctx, body)
	}
	request, ok := rpc.NextRequestID(ctx)
	if !ok {
		request = n.requests.Next(1)
	}
	index, err := n.applyAs(ctx, request, body)
	if w, _ = n.network(); w != nil && errors.Is(err, catalog.ErrUnknownOutcome) && ctx.Err() == nil {
		// Whoever leads now carries it out, unless that has happened.
		var again error
		index, again = w.applyRemote(rpc.WithRequestID(ctx, request, nil), body)
		return index, rpc.Again(err, again)
	}
	return index, err
}

// applyAs carries out a command on this host, which leads.
func (n *Node) applyAs(ctx context.Context, request catalog.RequestID, body catalog.Body) (uint64, error) {
	s, err := n.leading(ctx)
	if err != nil {
		return 0, err
	}
	return s.Apply(ctx, request, body)
}

// networkToLeader is what a write goes through when another host leads; nil when
// this one does, or knows nobody else.
func (n *Node) networkToLeader() *network {
	w, _ := n.network()
	s, _, _ := n.running()
	if w == nil || s != nil && s.Leads() {
		return nil
	}
	return w
}

// applyRemote has the leader carry out a command, once.
func (w *network) applyRemote(ctx context.Context, body catalog.Body) (uint64, error) {
	cmd, err := catalog.Command{Time: time.Now(), Body: body}.Encode()
	if err != nil {
		return 0, err
	}
	var reply applied
	err = w.rpc.Call(ctx, true, "", pathApply, cmd, &reply)
	return reply.Index, err
}

// serveApply carries out a command of another host.
func (w *network) serveApply(ctx context.Context, from rpc.Caller, body []byte) (any, error) {
	cmd, err := catalog.Decode(body)
	if err != nil {
		return nil, err
	}
	if err := cmd.Body.Validate(); err != nil {
		return nil, &catalog.Error{Text: err.Error()}
	}
	if !from.IsServer {
		if err := mayApply(from.Peer, cmd.Body); err != nil {
			return nil, err
		}
	}
	if err := w.mayWriteFrom(from); err != nil {
		return nil, err
	}
	request, ok := rpc.NextRequestID(ctx)
	if !ok {
		request = w.node.requests.Next(1)
	}
	index, err := w.node.applyAs(ctx, request, cmd.Body)
	return applied{index}, err
}

// mayApply says why an agent may not write this: who it is comes from its
// certificate, not from what it says in the command.
func mayApply(from link.Peer, body catalog.Body) error {
	var node, id string
	switch b := body.(type) {
	case *catalog.Register:
		node, id = b.Node.Node, strings.ToLower(b.Node.ID)
		if b.Node.Agentless {
			return fmt.Errorf("%w: %s wants to register a node without an agent", catalog.ErrNotAllowed, from.Name)
		}
	case *catalog.Deregister:
		node, id = b.Node, from.ID
	case *catalog.MarkSynced:
		node, id = from.Name, strings.ToLower(b.NodeID)
	default:
		return fmt.Errorf("%w: %s is no server and wants to carry out a command of type %d", catalog.ErrNotAllowed, from.Name, body.Type())
	}
	if !strings.EqualFold(node, from.Name) || id != strings.ToLower(from.ID) {
		return fmt.Errorf("%w: %s (node ID %s) wants to write as %q (node ID %q)", catalog.ErrNotAllowed, from.Name, from.ID, node, id)
	}
	return nil
}

// mayWriteFrom refuses what a host at an address writes while the host of that ID
// lives at another: one of the two is a clone, and gossip has yet to tell them, or
// has told them. Who moved waits until gossip has seen it.
func (w *network) mayWriteFrom(from rpc.Caller) error {
	if from.Addr == "" {
		return nil
	}
	m := w.gossip.Members().ByID(from.ID)
	if m == nil || !m.Lives() || linkAddr(m) == from.Addr {
		return nil
	}
	return fmt.Errorf("%w: node ID %s is that of %s at %s, which lives, and not of %s at %s: if one is a clone, remove node-id from its data_dir and restart it", catalog.ErrNotAllowed,
		from.ID, m.Name, linkAddr(m), from.Name, from.Addr)
}
