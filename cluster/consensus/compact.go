package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"meibo/cluster/atomicfile"

	bolt "go.etcd.io/bbolt"
)

// compactAbove is the size below which raft.db isn't compacted: bbolt writes
// the list of free pages with each transaction, and that of a small file is
// short.
const compactAbove = 8 << 20

// compactBatch bounds a transaction of the copy, in bytes.
const compactBatch = 1 << 20

// isWasteful reports whether the file is larger than atLeast and more than
// half of it is free: the trace of a burst that snapshots have cut off since.
func (s *boltStore) isWasteful(atLeast int64) bool {
	info, err := s.file.Stat()
	if err != nil || info.Size() < atLeast {
		return false
	}
	stats := s.db.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * int64(s.db.Info().PageSize)
	return free > info.Size()/2
}

// compact puts a copy without free pages in the place of the file and returns
// it opened. When the copy can't be made the file goes on as it is.
func (r *Replica) compact(path string, db *boltStore) (*boltStore, error) {
	to := path + ".compact"
	if err := copyLog(to, db); err != nil {
		r.logger.Warn("raft log stays larger than it need be", "file", path, "err", errors.Join(err, os.RemoveAll(to)))
		return db, nil
	}
	if err := db.close(); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Rename(to, path), atomicfile.SyncDir(filepath.Dir(path))); err != nil {
		return nil, fmt.Errorf("compact raft log: %w", err)
	}
	r.logger.Info("raft log compacted", "file", path)
	return openLog(path)
}

// copyLog makes a copy, which is on disk and has been read when it returns.
func copyLog(to string, from *boltStore) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	err := protect(func() error {
		dst, err := bolt.Open(to, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, NoSync: true})
		if err != nil {
			return err
		}
		return errors.Join(bolt.Compact(dst, from.db, compactBatch), dst.Sync(), dst.Close())
	})
	if err != nil {
		return fmt.Errorf("copy raft log: %w", err)
	}
	dst, err := openLog(to)
	if err != nil {
		return err
	}
	return errors.Join(protect(func() error { return sameContent(from, dst) }), dst.close())
}

// sameContent compares how many keys there are; each value has been checked.
func sameContent(a, b *boltStore) error {
	count := func(s *boltStore) (n [2]int, err error) {
		err = s.db.View(func(tx *bolt.Tx) error {
			n = [2]int{tx.Bucket(bucketLog).Stats().KeyN, tx.Bucket(bucketStable).Stats().KeyN}
			return nil
		})
		return n, err
	}
	before, err := count(a)
	after, err2 := count(b)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("%w: the copy has %d entries and %d values, not %d and %d", ErrDamaged, after[0], after[1], before[0], before[1])
	}
	return nil
}
