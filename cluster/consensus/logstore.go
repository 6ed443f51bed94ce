package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// Buckets of raft.db.
var (
	bucketLog    = []byte("log")    // index, 64 bits big endian, to entry
	bucketStable = []byte("stable") // Raft's key to value
)

// A value in either bucket is a version octet, the content, and the CRC32C
// of key, version and content: bbolt's pages have no checksum of their own.
// The content of an entry is its type (8 bits), term, time of appending in
// Unix nanoseconds or 0 (64 bits each, little endian), the length of its
// extensions (32 bits), these, and its data.
const (
	valueVersion = 1
	sumSize      = 4
	entryHead    = 1 + 8 + 8 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal makes a value of what append writes behind the version octet.
func seal(key []byte, size int, content func([]byte) []byte) []byte {
	v := content(append(make([]byte, 0, 1+size+sumSize), valueVersion))
	return binary.LittleEndian.AppendUint32(v, checksum(key, v))
}

func checksum(key, v []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, v)
}

// unseal returns the content of a value. It is part of value.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < 1+sumSize {
		return nil, fmt.Errorf("%w: value of %d bytes", ErrDamaged, len(value))
	}
	v, sum := value[:len(value)-sumSize], binary.LittleEndian.Uint32(value[len(value)-sumSize:])
	if got := checksum(key, v); got != sum {
		return nil, fmt.Errorf("%w: checksum %08x, want %08x", ErrDamaged, got, sum)
	}
	if v[0] != valueVersion {
		return nil, fmt.Errorf("value version %d is unknown (this program knows %d): upgrade this server", v[0], valueVersion)
	}
	return v[1:], nil
}

func logKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func encodeEntry(key []byte, l *raft.Log) []byte {
	return seal(key, entryHead+len(l.Extensions)+len(l.Data), func(b []byte) []byte {
		var appended uint64
		if !l.AppendedAt.IsZero() {
			appended = uint64(l.AppendedAt.UnixNano())
		}
		b = append(b, byte(l.Type))
		b = binary.LittleEndian.AppendUint64(b, l.Term)
		b = binary.LittleEndian.AppendUint64(b, appended)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(l.Extensions)))
		b = append(b, l.Extensions...)
		return append(b, l.Data...)
	})
}

// decodeEntry fills l; it keeps nothing of value.
func decodeEntry(key, value []byte, l *raft.Log) error {
	c, err := unseal(key, value)
	if err != nil {
		return err
	}
	if len(key) != 8 || len(c) < entryHead || uint64(binary.LittleEndian.Uint32(c[17:])) > uint64(len(c)-entryHead) {
		return fmt.Errorf("%w: entry of %d bytes", ErrDamaged, len(c))
	}
	ext := int(binary.LittleEndian.Uint32(c[17:]))
	*l = raft.Log{
		Index: binary.BigEndian.Uint64(key),
		Type:  raft.LogType(c[0]),
		Term:  binary.LittleEndian.Uint64(c[1:]),
	}
	if at := binary.LittleEndian.Uint64(c[9:]); at != 0 {
		l.AppendedAt = time.Unix(0, int64(at))
	}
	if ext > 0 {
		l.Extensions = append([]byte(nil), c[entryHead:entryHead+ext]...)
	}
	l.Data = append([]byte(nil), c[entryHead+ext:]...)
	return nil
}

// boltStore is raft.LogStore and raft.StableStore over one bbolt file.
type boltStore struct {
	db   *bolt.DB
	file *os.File // db's own, to unlock when db can't be closed
}

// IsMonotonic says that entries have no gaps: Raft then drops all of them
// when it installs a snapshot, instead of leaving ones that conflict.
func (s *boltStore) IsMonotonic() bool { return true }

// FirstIndex implements raft.LogStore.
func (s *boltStore) FirstIndex() (uint64, error) { return s.edge((*bolt.Cursor).First) }

// LastIndex implements raft.LogStore.
func (s *boltStore) LastIndex() (uint64, error) { return s.edge((*bolt.Cursor).Last) }

func (s *boltStore) edge(move func(*bolt.Cursor) ([]byte, []byte)) (index uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		if k, _ := move(tx.Bucket(bucketLog).Cursor()); k != nil {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog implements raft.LogStore. An entry that is missing between others
// is damage; one outside of them was cut off, or never was.
func (s *boltStore) GetLog(index uint64, l *raft.Log) error {
	return s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog)
		k := logKey(index)
		v := b.Get(k)
		if v == nil {
			return missing(b, index)
		}
		if err := decodeEntry(k, v, l); err != nil {
			return fmt.Errorf("entry %d of %s: %w", index, s.db.Path(), err)
		}
		return nil
	})
}

func missing(b *bolt.Bucket, index uint64) error {
	first, _ := b.Cursor().First()
	last, _ := b.Cursor().Last()
	if first != nil && binary.BigEndian.Uint64(first) < index && index < binary.BigEndian.Uint64(last) {
		return fmt.Errorf("%w: entry %d is missing", ErrDamaged, index)
	}
	return raft.ErrLogNotFound
}

// StoreLog implements raft.LogStore.
func (s *boltStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. All are on disk when it returns. A gap
// is refused: the next opening would take it for damage.
func (s *boltStore) StoreLogs(logs []*raft.Log) error {
	return s.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog)
		b.FillPercent = 0.9 // keys only grow: half-empty pages would stay so
		var last uint64
		if k, _ := b.Cursor().Last(); k != nil {
			last = binary.BigEndian.Uint64(k)
		}
		for _, l := range logs {
			if last != 0 && l.Index > last+1 {
				return fmt.Errorf("entry %d would follow %d", l.Index, last)
			}
			last = max(last, l.Index)
			k := logKey(l.Index)
			if err := b.Put(k, encodeEntry(k, l)); err != nil {
				return fmt.Errorf("entry %d: %w", l.Index, err)
			}
		}
		return nil
	})
}

// update names the file in errors.
func (s *boltStore) update(f func(*bolt.Tx) error) error {
	if err := s.db.Update(f); err != nil {
		return fmt.Errorf("%s: %w", s.db.Path(), err)
	}
	return nil
}

// DeleteRange implements raft.LogStore. Both ends are included.
func (s *boltStore) DeleteRange(lo, hi uint64) error {
	return s.update(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketLog).Cursor()
		for k, _ := c.Seek(logKey(lo)); k != nil && binary.BigEndian.Uint64(k) <= hi; k, _ = c.Next() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Set implements raft.StableStore.
func (s *boltStore) Set(key, value []byte) error {
	return s.update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketStable).Put(key, seal(key, len(value), func(b []byte) []byte { return append(b, value...) }))
	})
}

// Get implements raft.StableStore.
func (s *boltStore) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketStable).Get(key)
		if v == nil {
			return errNotFound
		}
		c, err := unseal(key, v)
		if err != nil {
			return fmt.Errorf("%q of %s: %w", key, s.db.Path(), err)
		}
		value = append([]byte(nil), c...)
		return nil
	})
	return value, err
}

// SetUint64 implements raft.StableStore.
func (s *boltStore) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (s *boltStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: %q of %s has %d bytes, want 8", ErrDamaged, key, s.db.Path(), len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// verify reads every value once, so that damage is met while the file is
// opened rather than in the middle of an election.
func (s *boltStore) verify() error {
	return s.db.View(func(tx *bolt.Tx) error {
		if err := tx.Bucket(bucketStable).ForEach(func(k, v []byte) error {
			_, err := unseal(k, v)
			return err
		}); err != nil {
			return fmt.Errorf("raft's vote: %w", err)
		}
		var last uint64
		return tx.Bucket(bucketLog).ForEach(func(k, v []byte) error {
			if len(k) != 8 {
				return fmt.Errorf("%w: key of %d bytes behind entry %d", ErrDamaged, len(k), last)
			}
			index := binary.BigEndian.Uint64(k)
			if last != 0 && index != last+1 {
				return fmt.Errorf("%w: entry %d follows %d", ErrDamaged, index, last)
			}
			last = index
			if _, err := unseal(k, v); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
			return nil
		})
	})
}

// create makes the buckets.
func (s *boltStore) create() error {
	return s.update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketLog)
		_, err2 := tx.CreateBucketIfNotExists(bucketStable)
		return errors.Join(err, err2)
	})
}

// hasBuckets spares an opening the write of create.
func (s *boltStore) hasBuckets() (ok bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		ok = tx.Bucket(bucketLog) != nil && tx.Bucket(bucketStable) != nil
		return nil
	})
	return ok, err
}
