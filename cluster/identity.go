package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"meibo/cluster/atomicfile"
	"meibo/cluster/catalog"
)

// nodeIDFile is the file in DataDir that holds the node ID, as Consul names it.
const nodeIDFile = "node-id"

// loadNodeID returns the ID kept in dir; "" if none is.
func loadNodeID(dir string) (string, error) {
	path := filepath.Join(dir, nodeIDFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read node ID: %w", err)
	}
	id := strings.ToLower(strings.TrimSpace(string(data)))
	if !catalog.IsUUID(id) {
		return "", fmt.Errorf("read node ID: %s holds %.40q, which is not a UUID: remove the file to get a new ID", path, id)
	}
	return id, nil
}

// ensureNodeID makes sure that dir holds id. An ID that is there already must be
// the same: two identities can't share what else is in the folder.
func ensureNodeID(dir, id string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make data_dir: %w", err)
	}
	switch kept, err := loadNodeID(dir); {
	case err != nil:
		return err
	case kept == id:
		return nil
	case kept != "":
		return fmt.Errorf("data_dir %s belongs to node ID %s, this process runs as %s: restart it, or set node_id", dir, kept, id)
	}
	return writeNodeID(filepath.Join(dir, nodeIDFile), id)
}

// writeNodeID writes the file whole or not at all.
func writeNodeID(path, id string) error {
	if err := atomicfile.Write(path, []byte(id+"\n")); err != nil {
		return fmt.Errorf("write node ID: %w", err)
	}
	return nil
}
