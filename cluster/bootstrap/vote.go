package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"meibo/cluster/atomicfile"
)

// FileName is the file beside consensus's that keeps the vote of a server
// without a cluster.
const FileName = "bootstrap.json"

// Vote names the server that may begin a cluster.
type Vote struct {
	NodeID string `codec:"NodeID" json:"node_id"`
	RaftID string `codec:"RaftID" json:"raft_id"`
	Name   string `codec:"Name" json:"name"`
	Addr   string `codec:"Addr" json:"addr"`
}

// VoteStore keeps a vote over a crash.
type VoteStore interface {
	// Load returns what was saved last, the zero value if nothing was.
	Load() (Vote, error)
	// Save returns when Load will find it again, whatever happens. The zero
	// value may come back: what became of a vote is asked again.
	Save(Vote) error
}

// Memory is for a host that keeps nothing: when it ends it is another one.
type Memory struct{}

// Load implements VoteStore.
func (Memory) Load() (Vote, error) { return Vote{}, nil }

// Save implements VoteStore.
func (Memory) Save(Vote) error { return nil }

// File keeps the vote in a file of this path.
type File string

// Load implements VoteStore.
func (p File) Load() (Vote, error) {
	path := string(p)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Vote{}, nil
	}
	if err != nil {
		return Vote{}, fmt.Errorf("read whom this server voted for: %w", err)
	}
	return decodeVote(path, data)
}

func decodeVote(path string, data []byte) (Vote, error) {
	var to Vote
	err := json.Unmarshal(data, &to)
	if err == nil && to.RaftID == "" {
		err = errors.New("names no server")
	}
	if err != nil {
		return Vote{}, fmt.Errorf("read whom this server voted for: %s: %w: remove the file if the other servers have no cluster, or are about to add this one", path, err)
	}
	return to, nil
}

// save writes the file whole or not at all; for the zero value it removes it.
func (p File) Save(to Vote) (err error) {
	path := string(p)
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep whom this server voted for: %w", err)
		}
	}()
	if to == (Vote{}) {
		return atomicfile.Remove(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	data, err := json.Marshal(to)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'))
}
