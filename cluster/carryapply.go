package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/link"
)

// pathApply is the internal function that writes to the catalog.
const pathApply = "/internal/apply"

// applied is its answer.
type applied struct {
	Index uint64 `codec:"Index"`
}

// apply has the leader carry out a command, once, and returns its index as
// clients see it.
func (c *carrier) apply(ctx context.Context, body catalog.Body) (uint64, error) {
	cmd, err := catalog.Command{Time: time.Now(), Body: body}.Encode()
	if err != nil {
		return 0, err
	}
	var reply applied
	err = c.Call(ctx, true, "", pathApply, cmd, &reply)
	return reply.Index, err
}

// applyHandler answers pathApply with what a server does to write; a host that is
// no server may write what is its own.
func (c *carrier) applyHandler(apply func(context.Context, catalog.Body) (uint64, error)) internalHandler {
	return func(ctx context.Context, from link.Peer, body []byte) (any, error) {
		cmd, err := catalog.Decode(body)
		if err != nil {
			return nil, err
		}
		if err := cmd.Body.Validate(); err != nil {
			return nil, &catalog.Error{Text: err.Error()}
		}
		if !c.isServer(from) {
			if err := mayApply(from, cmd.Body); err != nil {
				return nil, err
			}
		}
		index, err := apply(ctx, cmd.Body)
		return applied{index}, err
	}
}

// mayApply says why an agent may not write this: who it is comes from its
// certificate, not from what it says in the command.
func mayApply(from link.Peer, body catalog.Body) error {
	var node, id string
	switch b := body.(type) {
	case *catalog.Register:
		node, id = b.Node.Node, strings.ToLower(b.Node.ID)
		if b.Node.Agentless {
			return fmt.Errorf("%w: %s wants to register a node without an agent", ErrNotAllowed, from.Name)
		}
	case *catalog.Deregister:
		node, id = b.Node, from.ID
	case *catalog.MarkSynced:
		node, id = from.Name, strings.ToLower(b.NodeID)
	default:
		return fmt.Errorf("%w: %s is no server and wants to carry out a command of type %d", ErrNotAllowed, from.Name, body.Type())
	}
	if !strings.EqualFold(node, from.Name) || id != strings.ToLower(from.ID) {
		return fmt.Errorf("%w: %s (node ID %s) wants to write as %q (node ID %q)", ErrNotAllowed, from.Name, from.ID, node, id)
	}
	return nil
}
