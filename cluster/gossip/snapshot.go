package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"meibo/cluster/membership"
)

const (
	snapshotFile    = "members.json"
	snapshotVersion = 1
	// snapshotMost bounds the file that is read: membership.MaxMembers with full tags.
	snapshotMost = 32 << 20
	// snapshotEvery is how often it is written, when something has changed.
	snapshotEvery = 5 * time.Second
)

// parseSnapshot reads the file's contents.
func parseSnapshot(data []byte) (membership.Snapshot, error) {
	var s membership.Snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return membership.Snapshot{}, err
	}
	if s.Version != snapshotVersion {
		return membership.Snapshot{}, fmt.Errorf("version %d, this is version %d", s.Version, snapshotVersion)
	}
	if len(s.Members) > membership.MaxMembers || len(s.Gone) > membership.MaxMembers {
		return membership.Snapshot{}, fmt.Errorf("%d members, at most %d are kept", len(s.Members), membership.MaxMembers)
	}
	for _, k := range s.Members {
		if id := k.Tags[membership.TagID]; k.Name == "" || id == "" || len(k.Name) > maxName || len(id) > maxName || !k.Addr.IsValid() {
			return membership.Snapshot{}, fmt.Errorf("member %.40q has no name, ID or address", k.Name)
		}
	}
	return s, nil
}

// readSnapshot reads what is kept in dir. A damaged file is set aside: the
// cluster is found by other ways.
func readSnapshot(dir string) (s membership.Snapshot, aside string, err error) {
	path := filepath.Join(dir, snapshotFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return membership.Snapshot{}, "", nil
	}
	var data []byte
	if err == nil && info.Size() > snapshotMost {
		err = fmt.Errorf("%d bytes", info.Size())
	} else if err == nil {
		if data, err = os.ReadFile(path); err != nil {
			return membership.Snapshot{}, "", fmt.Errorf("read members: %w", err)
		}
		s, err = parseSnapshot(data)
	}
	if err == nil {
		return s, "", nil
	}
	aside = path + ".bad-" + time.Now().UTC().Format("20060102T150405")
	return membership.Snapshot{}, aside, errors.Join(fmt.Errorf("members in %s: %w", path, err), os.Rename(path, aside))
}

// writeSnapshot keeps the members in dir.
func writeSnapshot(dir string, s membership.Snapshot) error {
	s.Version = snapshotVersion
	data, err := json.Marshal(s)
	if err == nil {
		err = writeFile(filepath.Join(dir, snapshotFile), data)
	}
	if err != nil {
		return fmt.Errorf("write members: %w", err)
	}
	return nil
}
