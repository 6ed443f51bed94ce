package consensus

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// keyIdentity is the stable store's key of an identity.
var keyIdentity = []byte("Identity")

// record is what the Raft files say of whom they belong to.
type record struct {
	// Server is the ID under which the vote in these files was given.
	Server string
	// Cluster is the ID of the bootstrap that the log comes from.
	Cluster string
	// Recovery is the fingerprint of the configuration that replaced the
	// former one last, if any did.
	Recovery string `json:",omitempty"`
}

// identity is the record of this server, in memory and in the stable store.
// A server without a cluster belongs to the first whose leader calls on it.
type identity struct {
	mu     sync.Mutex // guards following
	record record
	write  func([]byte) error // nil while the store isn't open
}

// load reads the record, which must be that of the server called id.
func (i *identity) load(stable raft.StableStore, id, dir string) error {
	b, err := stable.Get(keyIdentity)
	if err != nil && err.Error() != errNotFound.Error() {
		return err
	}
	rec := record{Server: id}
	if err == nil && len(b) > 0 {
		if err := json.Unmarshal(b, &rec); err != nil {
			return fmt.Errorf("%w: identity in %s: %w", ErrDamaged, dir, err)
		}
	}
	if rec.Server != id {
		return fmt.Errorf("%w: those in %s to %s, and this server is %s: give it that ID again, or move the directory away and add this server under its new ID", ErrOtherID, dir, rec.Server, id)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.record = rec
	i.write = func(b []byte) error { return protect(func() error { return stable.Set(keyIdentity, b) }) }
	return nil
}

// cluster returns the cluster's ID, empty if there is none yet.
func (i *identity) cluster() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.record.Cluster
}

func (i *identity) recovery() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.record.Recovery
}

// errOtherCluster says that this server belongs to another cluster by now.
var errOtherCluster = errors.New("this server belongs to another cluster")

// adopt makes this server one of the cluster, for good.
func (i *identity) adopt(cluster string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch i.record.Cluster {
	case cluster:
		return nil
	case "":
		rec := i.record
		rec.Cluster = cluster
		return i.saveLocked(rec)
	}
	return errOtherCluster
}

// begin has f make a cluster, and gives that a new ID. What asks for the ID
// meanwhile waits.
func (i *identity) begin(f func() error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.record.Cluster != "" {
		return ErrNotEmpty
	}
	if err := f(); err != nil {
		return err
	}
	rec := i.record
	rec.Cluster = rand.Text()
	return i.saveLocked(rec)
}

// recovered notes a recovery. All servers that recover with one list from
// one cluster come to the same new one; who did not recover is refused, or
// those could go on by the former configuration.
func (i *identity) recovered(fingerprint string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	rec := i.record
	rec.Cluster, rec.Recovery = digest(rec.Cluster, fingerprint), fingerprint
	return i.saveLocked(rec)
}

func (i *identity) saveLocked(rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if i.write == nil {
		return errNotRunning
	}
	if err := i.write(b); err != nil {
		return fmt.Errorf("write the cluster's ID: %w", err)
	}
	i.record = rec
	return nil
}

// fingerprint is the same for equal configurations.
func fingerprint(servers []Server) string {
	var lines []string
	for _, s := range servers {
		lines = append(lines, fmt.Sprintf("%q %q %t", s.ID, s.Addr, s.Voter))
	}
	slices.Sort(lines)
	return digest(lines...)
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return fmt.Sprintf("%x", sum[:16])
}
