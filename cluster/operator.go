package cluster

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/leader"
	"meibo/cluster/membership"
	"meibo/cluster/retry"
	"meibo/cluster/rpc"
	"meibo/cluster/server"
)

// RaftConfiguration returns the servers' configuration and the index of the
// entry in the log that made it. catalog.ErrNoLeader on a host that has none.
func (n *Node) RaftConfiguration() ([]server.RaftServer, uint64, error) {
	s, _, _ := n.running()
	if s == nil {
		return nil, 0, catalog.ErrNoLeader
	}
	servers, index := s.Configuration()
	return servers, index, nil
}

// RemovePeer takes a server out of the configuration, by its ID or, where that
// is empty, by its address. Only the leader can: catalog.ErrNoLeader.
// server.ErrUnknownServer if there is none.
func (n *Node) RemovePeer(ctx context.Context, id, addr string) error {
	s, err := n.leading(ctx)
	if err != nil {
		return err
	}
	return s.RemovePeer(ctx, id, addr)
}

// TransferLeader hands leadership to the server of that ID, or to any. Only the
// leader can: catalog.ErrNoLeader. server.ErrUnknownServer if there is none.
func (n *Node) TransferLeader(ctx context.Context, id string) error {
	s, err := n.leading(ctx)
	if err != nil {
		return err
	}
	return s.TransferLeader(ctx, id)
}

// AutopilotConfig is how the servers are tended, as this server's catalog has it:
// nil right after it began. catalog.ErrNoLeader on a host that is no server.
func (n *Node) AutopilotConfig() (*catalog.Autopilot, error) {
	s, _, _ := n.running()
	if s == nil {
		return nil, catalog.ErrNoLeader
	}
	_, c := s.Read().Autopilot(nil)
	return c, nil
}

// AutopilotHealth is what the leader knows of the servers. catalog.ErrNoLeader on
// any other host.
func (n *Node) AutopilotHealth() (leader.AutopilotHealth, error) {
	s, _, _ := n.running()
	if s == nil {
		return leader.AutopilotHealth{}, catalog.ErrNoLeader
	}
	return s.AutopilotHealth()
}

// KeyringOp is what to do with the keys of gossip and link.
type KeyringOp string

// The operations.
const (
	KeyringList    KeyringOp = "list"
	KeyringInstall KeyringOp = "install"
	KeyringUse     KeyringOp = "use"
	KeyringRemove  KeyringOp = "remove"
)

// KeyringAnswer is what one host said.
type KeyringAnswer struct {
	Node string
	Err  string   // why it could not do it; empty: it did
	Down bool     // the host is failed, and was not asked
	Keys []string // in base64, the primary first
}

// keyringTimeout bounds the wait for one host, keyringAgain is how long after a
// lost answer it is asked again, keyringAtOnce how many are asked at a time.
const (
	keyringTimeout = 5 * time.Second
	keyringAgain   = 50 * time.Millisecond
	keyringAtOnce  = 32
)

// Keyring carries out op, with a key in base64, on every living member of the
// cluster, or on this host alone, and returns what each said.
func (n *Node) Keyring(ctx context.Context, op KeyringOp, key string, alone bool) ([]KeyringAnswer, error) {
	if op != KeyringList {
		if _, err := base64.StdEncoding.DecodeString(key); err != nil || key == "" {
			return nil, fmt.Errorf("the key must be base64 of 16, 24 or 32 bytes: %q isn't", key)
		}
	}
	w, _ := n.network()
	if w == nil || alone {
		return []KeyringAnswer{n.ownKeyring(op, key)}, nil
	}
	var (
		mu      sync.Mutex // guards answers
		answers []KeyringAnswer
		wg      sync.WaitGroup
		slots   = make(chan struct{}, keyringAtOnce)
	)
	for _, m := range n.Members() {
		if m.ID == n.cfg.NodeID || m.Status == membership.Left || m.Status == membership.NeverSeen {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			answer := w.askKeyring(ctx, m, op, key)
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, answer)
		})
	}
	wg.Wait()
	// This host comes last: connections under a key that it removes are cut.
	return append(answers, n.ownKeyring(op, key)), nil
}

// askKeyring has one member carry out op. A member that removes a key cuts the
// connections under it, maybe before its answer is out, so it is asked again; a
// connection that is cut may still be the one that the next try takes. Every op
// may be carried out twice.
func (w *network) askKeyring(ctx context.Context, m *Member, op KeyringOp, key string) KeyringAnswer {
	answer := KeyringAnswer{Node: m.Name}
	if m.Status == membership.Failed && m.HeldUntil.IsZero() { // one that is held down answers
		answer.Down = true
		return answer
	}
	ctx, cancel := context.WithTimeout(ctx, keyringTimeout)
	defer cancel()
	ask := func() error {
		return w.rpc.Call(ctx, false, linkAddr(m), pathKeyring, &keyringRequest{Op: op, Key: key}, &answer)
	}
	err := ask()
	var lost *rpc.LostError
	for errors.As(err, &lost) && lost.Sent && retry.Wait(ctx, keyringAgain) {
		err = ask()
	}
	if err != nil {
		answer.Err = err.Error()
	}
	answer.Node = m.Name
	return answer
}

// ownKeyring carries out op on this host.
func (n *Node) ownKeyring(op KeyringOp, key string) KeyringAnswer {
	answer := KeyringAnswer{Node: n.cfg.NodeName}
	if keys, _ := n.keyring.Keys(); len(keys) == 0 {
		// The first key must be there before hosts meet: one that began to
		// encrypt by itself would be alone. The words are Serf's.
		answer.Err = "Keyring is empty (encryption not enabled)"
		return answer
	}
	raw, _ := base64.StdEncoding.DecodeString(key)
	var err error
	switch op {
	case KeyringList:
	case KeyringInstall:
		err = n.keyring.Install(raw)
	case KeyringUse:
		err = n.keyring.Use(raw)
	case KeyringRemove:
		err = n.keyring.Remove(raw)
	default:
		err = fmt.Errorf("unknown keyring operation %q", op)
	}
	if err != nil {
		answer.Err = err.Error()
	} else if op != KeyringList {
		n.logger.Info("keyring changed", "op", op)
	}
	keys, _ := n.keyring.Keys()
	for _, k := range keys {
		answer.Keys = append(answer.Keys, base64.StdEncoding.EncodeToString(k))
	}
	return answer
}
