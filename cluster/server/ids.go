package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"meibo/cluster/atomicfile"
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

// IDs are what the server of a host is called in the servers' configuration, over its
// lives: by the node ID, unless it has had Raft files under that one, which are gone.
// Then it could vote twice, and vote away what was acknowledged: it gets an ID that
// has never voted. It is for one goroutine.
type IDs struct {
	NodeID string
	// Fresh says that NodeID was made by this start of the process: nobody has seen it
	// before.
	Fresh bool
	// Fixed says that this host is no server to others, and NodeID is its ID always.
	Fixed  bool
	Logger *slog.Logger

	next string // to be used where the one before is retired
}

// current is the ID for a life of the server whose files are in dir.
func (i *IDs) current(dir string) (string, error) {
	switch {
	case i.Fixed:
		return i.NodeID, nil
	case dir == "" && i.next != "":
		return i.next, nil
	case dir == "":
		return i.NodeID, nil
	}
	path := filepath.Join(dir, serverIDFile)
	kept, err := readID(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, raftFile)); err == nil {
		if kept == "" {
			kept = i.NodeID
		}
		return kept, nil
	}
	if kept == "" && i.Fresh {
		return i.NodeID, nil
	}
	if i.next == "" {
		i.next = catalog.NewUUID()
		if kept != "" {
			i.Logger.Warn("Raft files are gone, this server comes back under a new ID, without a vote at first", "before", kept, "id", i.next)
		}
	}
	return i.next, i.save(dir)
}

// Retire gives the server whose files are in dir, "" for none, an ID that has never
// voted, for its next life.
func (i *IDs) Retire(dir string) error {
	i.Fresh, i.next = false, catalog.NewUUID()
	if dir == "" {
		return nil
	}
	return i.save(dir)
}

func (i *IDs) save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of Raft's files: %w", err)
	}
	return writeID(filepath.Join(dir, serverIDFile), i.next)
}

// writeID writes the file whole or not at all.
func writeID(path, id string) error {
	if err := atomicfile.Write(path, []byte(id+"\n")); err != nil {
		return fmt.Errorf("write server ID: %w", err)
	}
	return nil
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

// readPeersFile reads peers.json; nothing if there is none.
func readPeersFile(dir string) ([]consensus.Server, error) {
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

// removePeersFile removes peers.json once it has been taken, so that it isn't again.
func removePeersFile(dir string) error {
	if dir == "" {
		return nil
	}
	return atomicfile.Remove(filepath.Join(dir, peersFile))
}
