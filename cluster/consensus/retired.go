package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// fileRetired lists the server IDs, one a line, whose files this directory
// lost. None of them may be used here again: with its files its vote is gone.
const fileRetired = "raft.spent"

// retire notes that this server's ID must not be used again, and returns why
// as [ErrIDRetired].
func (r *Replica) retire(why error) error {
	err := fmt.Errorf("%w: server %s: %w", ErrIDRetired, r.cfg.ID, why)
	if r.cfg.Dir == "" {
		return err
	}
	return errors.Join(err, appendLine(filepath.Join(r.cfg.Dir, fileRetired), r.cfg.ID))
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// checkRetired refuses an ID that was retired in this directory.
func (r *Replica) checkRetired() error {
	b, err := os.ReadFile(filepath.Join(r.cfg.Dir, fileRetired))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for id := range strings.Lines(string(b)) {
		if strings.TrimSpace(id) == r.cfg.ID {
			return fmt.Errorf("%w: server %s lost those in %s", ErrIDRetired, r.cfg.ID, r.cfg.Dir)
		}
	}
	return nil
}
