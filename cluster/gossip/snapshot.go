package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const (
	snapshotFile    = "members.json"
	snapshotVersion = 1
	// snapshotMost bounds the file that is read: maxMembers with full tags.
	snapshotMost = 32 << 20
	// snapshotEvery is how often it is written, when something has changed.
	snapshotEvery = 5 * time.Second
)

// snapshot is the list of members as it is kept over a restart.
type snapshot struct {
	Version int
	Clock   uint64
	Left    bool                 `json:",omitempty"` // this host left on purpose
	Members []kept               `json:",omitempty"`
	Gone    map[string]time.Time `json:",omitempty"` // IDs that count as left
}

type kept struct {
	Name   string
	Addr   netip.AddrPort
	Tags   map[string]string
	Life   uint64
	Status string
	Since  time.Time
}

// parseSnapshot reads the file's contents.
func parseSnapshot(data []byte) (snapshot, error) {
	var s snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return snapshot{}, err
	}
	if s.Version != snapshotVersion {
		return snapshot{}, fmt.Errorf("version %d, this is version %d", s.Version, snapshotVersion)
	}
	if len(s.Members) > maxMembers || len(s.Gone) > maxGone {
		return snapshot{}, fmt.Errorf("%d members, at most %d are kept", len(s.Members), maxMembers)
	}
	for _, k := range s.Members {
		if id := k.Tags[tagID]; k.Name == "" || id == "" || len(k.Name) > maxName || len(id) > maxName || !k.Addr.IsValid() {
			return snapshot{}, fmt.Errorf("member %.40q has no name, ID or address", k.Name)
		}
	}
	return s, nil
}

// readSnapshot reads what is kept in dir. A damaged file is set aside: the
// cluster is found by other ways.
func readSnapshot(dir string) (s snapshot, aside string, err error) {
	path := filepath.Join(dir, snapshotFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return snapshot{}, "", nil
	}
	var data []byte
	if err == nil && info.Size() > snapshotMost {
		err = fmt.Errorf("%d bytes", info.Size())
	} else if err == nil {
		if data, err = os.ReadFile(path); err != nil {
			return snapshot{}, "", fmt.Errorf("read members: %w", err)
		}
		s, err = parseSnapshot(data)
	}
	if err == nil {
		return s, "", nil
	}
	aside = path + ".bad-" + time.Now().UTC().Format("20060102T150405")
	return snapshot{}, aside, errors.Join(fmt.Errorf("members in %s: %w", path, err), os.Rename(path, aside))
}

func (s snapshot) write(dir string) error {
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

// keep returns the members as they are to be kept.
func (l *ledger) keep() snapshot {
	s := snapshot{Clock: l.clock, Left: l.self.Status == Left, Gone: make(map[string]time.Time, len(l.gone))}
	for id, at := range l.gone {
		s.Gone[id] = at
	}
	for _, r := range l.byName {
		status := r.Status
		if status == Suspect || status == NeverSeen {
			status = Alive // not confirmed
		}
		s.Members = append(s.Members, kept{
			Name: r.Name, Addr: r.at(), Tags: r.Tags, Life: r.life, Status: status.String(), Since: r.Since,
		})
	}
	return s
}

// load takes the members of a snapshot: they are what they were, until somebody
// says otherwise.
func (l *ledger) load(now time.Time, s snapshot) {
	l.clock = max(l.clock, s.Clock)
	for id, at := range s.Gone {
		l.gone[id] = at
		l.out.lives[id] = struct{}{}
	}
	for _, k := range s.Members {
		id := k.Tags[tagID]
		if k.Name == l.self.Name || id == l.self.ID || l.byName[k.Name] != nil || l.byID[id] != nil {
			continue
		}
		r := l.add(node{name: k.Name, addr: k.Addr, meta: meta{life: k.Life, tags: k.Tags}})
		delete(l.gone, id)
		r.Since = k.Since
		switch k.Status {
		case Failed.String():
			r.Status, r.dead, r.settled, r.diedAt = Failed, true, true, k.Since
		case Left.String():
			r.Status, r.Told = Left, Left
		default:
			r.Status, r.aliveFrom = Alive, k.Since
		}
	}
}
