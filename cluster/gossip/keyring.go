package gossip

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"meibo/cluster/atomicfile"
)

// maxKeys bounds a ring: each packet is tried with every key.
const maxKeys = 16

// Keyring holds the keys of the cluster: the first, the primary, encrypts; all
// decrypt. It is kept in a file as Consul keeps serf/local.keyring: a JSON list
// of base64, the primary first. What became of it, which Consul's file has no
// room for, is in another file beside it. Safe for concurrent use; a nil Keyring
// is empty.
type Keyring struct {
	path   string // "": in memory only
	notice string // what became of the configured key, if that should be known

	mu      sync.Mutex // guards following
	keys    [][]byte   // never changed in place
	past    past
	changed chan struct{}

	told atomic.Pointer[[]byte] // the orders, encoded: read without waiting for a disk
}

// past is what is remembered of a ring.
type past struct {
	// Met says that with these keys others were met.
	Met bool
	// Orders are the last ones given about keys that were removed at some time, the
	// latest last. Hosts tell them to each other: the latest about a key holds.
	Orders []keyOrder `json:",omitempty"`
	// Removed are hashes that a file without orders has; they are read only.
	Removed []string `json:",omitempty"`

	known bool // false for a ring of Consul's, or of a meibo that kept no past
}

// keyOrder says that a key was removed, or installed again.
type keyOrder struct {
	Hash    string // SHA-256 of the key, in hex
	At      uint64 // of a Lamport clock that runs with Unix milliseconds
	Removed bool
}

// maxOrders bounds how many orders are remembered.
const maxOrders = 64

func hashOf(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// removed reports whether the last order about a key was to remove it.
func (p past) removed(key []byte) bool {
	i := p.find(hashOf(key))
	return i >= 0 && p.Orders[i].Removed
}

func (p past) find(hash string) int {
	return slices.IndexFunc(p.Orders, func(o keyOrder) bool { return o.Hash == hash })
}

// with is the past with one order more, if that is later than the one there is
// about its key.
func (p past) with(o keyOrder) past {
	i := p.find(o.Hash)
	if i >= 0 && p.Orders[i].At >= o.At {
		return p
	}
	p.Orders = slices.Clone(p.Orders)
	if i >= 0 {
		p.Orders = slices.Delete(p.Orders, i, i+1)
	}
	p.Orders = append(p.Orders, o)
	slices.SortStableFunc(p.Orders, func(a, b keyOrder) int { return cmp.Compare(a.At, b.At) })
	p.Orders = p.Orders[max(0, len(p.Orders)-maxOrders):]
	return p
}

// next is the time of an order given now: later than all that are known, and than
// those of a host that knows fewer.
func (p past) next() uint64 {
	at := uint64(time.Now().UnixMilli())
	if n := len(p.Orders); n > 0 {
		at = max(at, p.Orders[n-1].At+1)
	}
	return at
}

// OpenKeyring reads the ring kept at path ("": none is kept) and adds initial,
// the configured key (nil: none). Where the file has keys already, the
// configured one can decrypt, and is no longer the primary; a new file begins
// with it. A ring that has met nobody gives way to another configured key: it
// may have been a slip. A key that was removed is not added again. [Keyring.Notice]
// says so.
func OpenKeyring(path string, initial []byte) (*Keyring, error) {
	k := &Keyring{path: path, changed: make(chan struct{})}
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read keyring: %w", err)
		}
		if err == nil {
			if k.keys, err = parseKeyring(data); err != nil {
				return nil, fmt.Errorf("keyring %s: %w: mend it, or remove it to begin with the configured key", path, err)
			}
			k.past = readPast(k.pastPath())
			k.publishOrders()
		} else {
			k.past.known = true
		}
	}
	switch {
	case len(initial) == 0, hasKey(k.keys, initial):
	case k.past.removed(initial):
		k.notice = "the configured key (encrypt) was removed from the cluster's keyring and is not used: configure one that `meibo keyring list` shows"
	case len(k.keys) > 0 && k.past.known && !k.past.Met:
		k.notice = "the kept keyring has never met anybody and gives way to the configured key (encrypt)"
		k.keys = [][]byte{bytes.Clone(initial)}
		return k, k.write(k.keys)
	default:
		return k, k.Install(initial)
	}
	return k, nil
}

// Notice says what became of the configured key when the ring was opened, if that
// was not what one would expect; else it is empty.
func (k *Keyring) Notice() string { return k.notice }

// Path is where the ring is kept; "" if it isn't.
func (k *Keyring) Path() string {
	if k == nil {
		return ""
	}
	return k.path
}

func (k *Keyring) pastPath() string { return pastOf(k.path) }

func pastOf(path string) string { return path + ".past" }

// WasRemoved reports whether the ring kept at path remembers that key was removed from
// the cluster's. What can't be read doesn't.
func WasRemoved(path string, key []byte) bool {
	p := readPast(pastOf(path))
	return p.removed(key)
}

// readPast reads what is remembered of a ring. What can't be read is not known.
func readPast(path string) (p past) {
	data, err := os.ReadFile(path)
	p.known = err == nil && json.Unmarshal(data, &p) == nil
	for i, hash := range p.Removed {
		p = p.with(keyOrder{Hash: hash, At: uint64(i) + 1, Removed: true})
	}
	p.Removed = nil
	return p
}

// SetMet notes that others were met with these keys: from now on they are the
// cluster's, whatever is configured.
func (k *Keyring) SetMet() error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.past.Met || len(k.keys) == 0 {
		return nil
	}
	p := k.past
	p.Met = true
	return k.remember(p)
}

// remember writes what becomes of the ring before it is so. It needs k.mu.
func (k *Keyring) remember(p past) error {
	p.known = true
	if k.path != "" {
		data, err := json.Marshal(p)
		if err == nil {
			err = writeFile(k.pastPath(), append(data, '\n'))
		}
		if err != nil {
			return fmt.Errorf("write what became of the keyring: %w", err)
		}
	}
	k.past = p
	k.publishOrders()
	return nil
}

func (k *Keyring) publishOrders() {
	b := encodeOrders(k.past.Orders)
	k.told.Store(&b)
}

// orders are what is known of removed keys, for other hosts.
func (k *Keyring) orders() []byte {
	if k == nil {
		return nil
	}
	if b := k.told.Load(); b != nil {
		return *b
	}
	return nil
}

// learn takes over what another host knows of removed keys. Those that were
// removed while this host was away go here too, unless the ring has no other:
// then it is said (stuck), for this host can't meet the cluster with them.
func (k *Keyring) learn(orders []keyOrder) (dropped [][]byte, stuck bool, err error) {
	if k == nil || len(orders) == 0 {
		return nil, false, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.past
	for _, o := range orders {
		p = p.with(o)
	}
	news := !slices.Equal(p.Orders, k.past.Orders)
	if news {
		if err := k.remember(p); err != nil {
			return nil, false, err
		}
	}
	keys := slices.DeleteFunc(slices.Clone(k.keys), p.removed)
	switch {
	case len(keys) == len(k.keys):
		return nil, false, nil
	case len(keys) == 0:
		return nil, news, nil
	}
	for _, key := range k.keys {
		if !hasKey(keys, key) {
			dropped = append(dropped, key)
		}
	}
	return dropped, false, k.replace(keys)
}

// parseKeyring reads the file's contents.
func parseKeyring(data []byte) ([][]byte, error) {
	var texts []string
	if err := json.Unmarshal(data, &texts); err != nil {
		return nil, fmt.Errorf("not a JSON list of keys: %w", err)
	}
	if len(texts) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d are held", len(texts), maxKeys)
	}
	keys := make([][]byte, 0, len(texts))
	for i, t := range texts {
		key, err := base64.StdEncoding.DecodeString(t)
		if err == nil {
			err = memberlist.ValidateKey(key)
		}
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		if !hasKey(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// Keys returns the keys, the primary first, not to be changed, and a channel
// that is closed when they have changed.
func (k *Keyring) Keys() (keys [][]byte, changed <-chan struct{}) {
	if k == nil {
		return nil, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys, k.changed
}

// Install adds a key, 16, 24 or 32 bytes, which from now on decrypts. In an
// empty ring it becomes the primary. To add one that is there does nothing.
func (k *Keyring) Install(key []byte) error {
	if err := memberlist.ValidateKey(key); err != nil {
		return fmt.Errorf("install key: %w", err)
	}
	return k.change(func(keys [][]byte) ([][]byte, error) {
		if !hasKey(keys, key) {
			keys = append(keys, bytes.Clone(key))
		}
		if len(keys) > maxKeys {
			return nil, fmt.Errorf("install key: the ring holds %d keys, at most %d are allowed: remove one that is no longer used", len(keys)-1, maxKeys)
		}
		return keys, nil
	})
}

// Use makes an installed key the primary. Every host must have it by then.
func (k *Keyring) Use(key []byte) error {
	return k.change(func(keys [][]byte) ([][]byte, error) {
		i := slices.IndexFunc(keys, func(have []byte) bool { return bytes.Equal(have, key) })
		if i < 0 {
			return nil, errors.New("use key: it is not in the ring: install it first")
		}
		primary := keys[i]
		return slices.Insert(slices.Delete(keys, i, i+1), 0, primary), nil
	})
}

// Remove drops a key that is not the primary, and remembers that it did. To
// remove one that isn't there does nothing.
func (k *Keyring) Remove(key []byte) error {
	return k.change(func(keys [][]byte) ([][]byte, error) {
		if len(keys) > 0 && bytes.Equal(keys[0], key) {
			return nil, errors.New("remove key: it is the primary: use another first")
		}
		return slices.DeleteFunc(keys, func(have []byte) bool { return bytes.Equal(have, key) }), nil
	})
}

// change gives a copy of the keys to edit; what it returns is written before it
// is taken.
func (k *Keyring) change(edit func([][]byte) ([][]byte, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys, err := edit(slices.Clone(k.keys))
	if err != nil {
		return err
	}
	if slices.EqualFunc(keys, k.keys, bytes.Equal) {
		return nil
	}
	if err := k.write(keys); err != nil {
		return err
	}
	if err := k.recordOrders(keys); err != nil {
		return errors.Join(err, k.write(k.keys))
	}
	k.set(keys)
	return nil
}

func (k *Keyring) replace(keys [][]byte) error {
	if err := k.write(keys); err != nil {
		return err
	}
	k.set(keys)
	return nil
}

func (k *Keyring) set(keys [][]byte) {
	k.keys = keys
	close(k.changed)
	k.changed = make(chan struct{})
}

// recordOrders remembers which keys go with this change, and of those that come back that
// they are no longer removed. It needs k.mu.
func (k *Keyring) recordOrders(keys [][]byte) error {
	p := k.past
	for _, key := range k.keys {
		if !hasKey(keys, key) {
			p = p.with(keyOrder{hashOf(key), p.next(), true})
		}
	}
	for _, key := range keys {
		if p.removed(key) && !hasKey(k.keys, key) {
			p = p.with(keyOrder{hashOf(key), p.next(), false})
		}
	}
	if begun := len(k.keys) == 0; !begun && slices.Equal(p.Orders, k.past.Orders) {
		return nil
	}
	return k.remember(p)
}

func (k *Keyring) write(keys [][]byte) error {
	if k.path == "" {
		return nil
	}
	texts := make([]string, len(keys))
	for i, key := range keys {
		texts[i] = base64.StdEncoding.EncodeToString(key)
	}
	data, err := json.MarshalIndent(texts, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(k.path, append(data, '\n')); err != nil {
		return fmt.Errorf("write keyring: %w", err)
	}
	return nil
}

func hasKey(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(have []byte) bool { return bytes.Equal(have, key) })
}

// writeFile replaces a file for good, whole or not at all, and makes its folder
// if there is none.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(path, data)
}
