package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"meibo/cluster/catalog"
	"meibo/cluster/consensus"
)

const (
	// serverIDFile in the folder of consensus holds the server's ID, where that
	// isn't the node's.
	serverIDFile = "server-id"
	// raftFile is what says that consensus has files.
	raftFile = "raft.db"
	// peersFile in the folder of consensus replaces the servers' configuration
	// when it is opened, as Consul's does.
	peersFile = "peers.json"
)

// serverID is what this server is called in the servers' configuration: the node
// ID, unless it has had Raft files under that one, which are gone. Then it could
// vote twice, and vote away what was acknowledged: it gets an ID that has never
// voted.
func (n *Node) serverID(dir string) (string, error) {
	switch {
	case !n.cfg.Server:
		return n.cfg.NodeID, nil
	case dir == "" && n.fallback != "":
		return n.fallback, nil
	case dir == "":
		return n.cfg.NodeID, nil
	}
	path := filepath.Join(dir, serverIDFile)
	kept, err := readID(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, raftFile)); err == nil {
		if kept == "" {
			kept = n.cfg.NodeID
		}
		return kept, nil
	}
	if kept == "" && n.fresh {
		return n.cfg.NodeID, nil
	}
	if n.fallback == "" {
		n.fallback = catalog.NewUUID()
		if kept != "" {
			n.logger.Warn("Raft files are gone, this server comes back under a new ID, without a vote at first", "before", kept, "id", n.fallback)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the folder of Raft's files: %w", err)
	}
	return n.fallback, writeNodeID(path, n.fallback)
}

// changeServerID gives this server an ID that has never voted, for its next
// life.
func (n *Node) changeServerID() error {
	n.fresh, n.fallback = false, catalog.NewUUID()
	if n.cfg.DataDir == "" {
		return nil
	}
	dir := filepath.Join(n.cfg.DataDir, raftDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of Raft's files: %w", err)
	}
	return writeNodeID(filepath.Join(dir, serverIDFile), n.fallback)
}

// readID returns the UUID that a file holds; "" if there is no file.
func readID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read server ID: %w", err)
	}
	id := string(bytes.TrimSpace(data))
	if !catalog.IsUUID(id) {
		return "", fmt.Errorf("read server ID: %s holds %.40q, which is not a UUID: remove the file to get a new ID", path, id)
	}
	return id, nil
}

// peer is one server in peers.json, in Consul's form.
type peer struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	NonVoter bool   `json:"non_voter"`
}

// readPeers reads peers.json; nothing if there is none.
func readPeers(dir string) ([]consensus.Server, error) {
	if dir == "" {
		return nil, nil
	}
	path := filepath.Join(dir, peersFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var peers []peer
	if err := json.Unmarshal(data, &peers); err != nil {
		return nil, fmt.Errorf(`read %s: %w: want [{"id": "…", "address": "host:port", "non_voter": false}, …]`, path, err)
	}
	servers := make([]consensus.Server, 0, len(peers))
	for _, p := range peers {
		if p.ID == "" || p.Address == "" {
			return nil, fmt.Errorf("read %s: a server needs id and address, got %+v", path, p)
		}
		servers = append(servers, consensus.Server{ID: p.ID, Addr: p.Address, Voter: !p.NonVoter})
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("read %s: it names no server", path)
	}
	return servers, nil
}

// dropPeers removes peers.json once it has been taken, so that it isn't again.
func (n *Node) dropPeers() error {
	if n.cfg.DataDir == "" {
		return nil
	}
	err := os.Remove(filepath.Join(n.cfg.DataDir, raftDir, peersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
