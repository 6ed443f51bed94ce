package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// aloneFile in the folder of consensus says that the catalog there is one that
// this host keeps for itself: it was alone, and nobody had said that it should
// begin one. A server that begins by itself takes that catalog over.
const aloneFile = "alone"

// setProvisionalAside marks the catalog that a host which is alone begins, and puts
// it aside once the host is to be a server among others: it is no part of theirs, and
// a server that led itself would never begin one with them. The server keeps its ID:
// nobody else ever had its vote.
func (c *Config) setProvisionalAside() error {
	if c.Dir == "" {
		return nil
	}
	mark := filepath.Join(c.Dir, aloneFile)
	if c.Provisional {
		if _, err := os.Stat(filepath.Join(c.Dir, raftFile)); err == nil {
			return nil // whatever it was begun as
		}
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return fmt.Errorf("make the folder of Raft's files: %w", err)
		}
		return writeID(mark, c.IDs.NodeID)
	}
	if _, err := os.Stat(mark); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if c.Network == nil || c.Begins {
		if err := os.Remove(mark); err != nil { // it is kept for others too from now on
			return fmt.Errorf("take over the catalog that this host kept for itself: %w", err)
		}
		return nil
	}
	aside := c.Dir + ".alone-" + time.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(c.Dir, aside); err != nil {
		return fmt.Errorf("put the catalog aside that this host kept for itself: %w", err)
	}
	c.IDs.Fresh = true
	c.Logger.Info("this host is to be a server of a cluster now: the catalog that it kept for itself is put aside", "aside", aside)
	return nil
}
