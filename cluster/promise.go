package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"meibo/cluster/atomicfile"
	"os"
	"path/filepath"
)

// promiseFile is the file beside consensus's that keeps the promise of a server
// without a cluster; see bootstrap.
const promiseFile = "bootstrap.json"

// promise names the server that may begin a cluster.
type promise struct {
	NodeID string `codec:"NodeID" json:"node_id"`
	RaftID string `codec:"RaftID" json:"raft_id"`
	Name   string `codec:"Name" json:"name"`
	Addr   string `codec:"Addr" json:"addr"`
}

// promiseStore keeps a promise over a crash.
type promiseStore interface {
	// load returns what was saved last, the zero value if nothing was.
	load() (promise, error)
	// save returns when load will find it again, whatever happens. The zero
	// value may come back: a promise is asked about again.
	save(promise) error
}

// inMemory is for a host that keeps nothing: when it ends it is another one.
type inMemory struct{}

func (inMemory) load() (promise, error) { return promise{}, nil }
func (inMemory) save(promise) error     { return nil }

// promiseIn keeps the promise in a file of this path.
type promiseIn string

func (p promiseIn) load() (promise, error) {
	path := string(p)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return promise{}, nil
	}
	if err != nil {
		return promise{}, fmt.Errorf("read to whom this server is promised: %w", err)
	}
	return decodePromise(path, data)
}

func decodePromise(path string, data []byte) (promise, error) {
	var to promise
	err := json.Unmarshal(data, &to)
	if err == nil && to.RaftID == "" {
		err = errors.New("names no server")
	}
	if err != nil {
		return promise{}, fmt.Errorf("read to whom this server is promised: %s: %w: remove the file if the other servers have no cluster, or are about to add this one", path, err)
	}
	return to, nil
}

// save writes the file whole or not at all; for the zero value it removes it.
func (p promiseIn) save(to promise) (err error) {
	path := string(p)
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep to whom this server is promised: %w", err)
		}
	}()
	if to == (promise{}) {
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
