package gossip

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// maxKeys bounds a ring: each packet is tried with every key.
const maxKeys = 16

// Keyring holds the keys of the cluster: the first, the primary, encrypts; all
// decrypt. It is kept in a file as Consul keeps serf/local.keyring: a JSON list
// of base64, the primary first. Safe for concurrent use; a nil Keyring is
// empty.
type Keyring struct {
	path string // "": in memory only

	mu      sync.Mutex // guards following
	keys    [][]byte   // never changed in place
	changed chan struct{}
}

// OpenKeyring reads the ring kept at path ("": none is kept) and adds initial,
// the configured key (nil: none). Where the file has keys already, the
// configured one can decrypt, and is no longer the primary; a new file begins
// with it.
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
		}
	}
	if len(initial) == 0 {
		return k, nil
	}
	if err := k.Install(initial); err != nil {
		return nil, err
	}
	return k, nil
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

// Remove drops a key that is not the primary. To remove one that isn't there
// does nothing.
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
	k.keys = keys
	close(k.changed)
	k.changed = make(chan struct{})
	return nil
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

// writeFile replaces a file, mode 0600, whole or not at all.
func writeFile(path string, data []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// mirror makes memberlist's ring equal to keys. memberlist's RemoveKey shifts
// the list in place under its readers, unless the key is the last: so what
// stands behind a key that goes is taken out with it and put back.
func mirror(ring *memberlist.Keyring, keys [][]byte) error {
	for _, key := range keys {
		if err := ring.AddKey(key); err != nil {
			return err
		}
	}
	if len(keys) > 0 {
		if err := ring.UseKey(keys[0]); err != nil {
			return err
		}
	}
	have := slices.Clone(ring.GetKeys())
	first := slices.IndexFunc(have, func(key []byte) bool { return !hasKey(keys, key) })
	if first < 0 {
		return nil
	}
	for _, key := range slices.Backward(have[first:]) {
		if err := ring.RemoveKey(key); err != nil {
			return err
		}
	}
	for _, key := range have[first:] {
		if hasKey(keys, key) {
			if err := ring.AddKey(key); err != nil {
				return err
			}
		}
	}
	return nil
}
