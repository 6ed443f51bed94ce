package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"meibo/cluster/atomicfile"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Files in Config.Dir.
const (
	fileLog      = "raft.db"
	fileLock     = "raft.lock"
	dirSnapshots = "snapshots" // made by raft.FileSnapshotStore
)

// lockTimeout bounds the wait for a file that another process has open.
const lockTimeout = time.Second

// deadlyOpens is how many openings in a row must have ended the process for the file
// to be looked at before the next. A single one may have been kill -9. If it is sound
// the next has to wait, for deadlyPause at first, twice as long each time, and
// deadlyPauseMost in the end.
const (
	deadlyOpens     = 2
	deadlyPause     = 10 * time.Second
	deadlyPauseMost = 10 * time.Minute
)

// errDeadly means that the files aren't opened for now.
var errDeadly = errors.New("raft log is not opened")

// stores are what Raft keeps its things in.
type stores struct {
	log       raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	close     func() error
}

func memoryStores() *stores {
	m := raft.NewInmemStore()
	return &stores{log: m, stable: m, snapshots: raft.NewInmemSnapshotStore(), close: func() error { return nil }}
}

func (r *Replica) openStores() (*stores, error) {
	if r.cfg.Dir == "" {
		return memoryStores(), nil
	}
	if err := os.MkdirAll(r.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make raft directory: %w", err)
	}
	l, err := lockDir(r.cfg.Dir)
	if err != nil {
		return nil, err
	}
	s, err := r.openLocked(l)
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return s, nil
}

// openLocked opens log and snapshots. Where that is allowed it sets aside
// what is damaged, one of the two or both, and goes on; else both go aside, and
// the server's ID with them.
func (r *Replica) openLocked(l *lock) (*stores, error) {
	if r.cfg.OnDamage == Refuse {
		if err := r.checkRetired(); err != nil {
			return nil, errors.Join(err, r.setAllAside())
		}
	}
	for range 3 {
		s, err := r.openFiles(l)
		if err == nil || !errors.Is(err, ErrDamaged) {
			return s, err
		}
		if r.cfg.OnDamage == Refuse {
			err = r.retire(err) // first: the files may be gone, and the ID in use, never
			return nil, errors.Join(err, r.setAllAside())
		}
		from := fileLog
		if errors.Is(err, errSnapshots) {
			from = dirSnapshots
		}
		if renameErr := r.setFileAside(from); renameErr != nil {
			return nil, errors.Join(err, renameErr)
		}
		r.logger.Error("raft files are damaged, go on without them: entries may be lost", "err", err, "file", from)
	}
	return nil, fmt.Errorf("open raft files in %s: %w, and so are those made in their place", r.cfg.Dir, ErrDamaged)
}

// errSnapshots says that there are snapshots, and none can be read.
var errSnapshots = fmt.Errorf("snapshots are %w", ErrDamaged)

// setAllAside renames log and snapshots, whichever there are.
func (r *Replica) setAllAside() error {
	return errors.Join(r.setFileAside(fileLog), r.setFileAside(dirSnapshots), atomicfile.SyncDir(r.cfg.Dir))
}

// setFileAside renames a file to FILE.bad-TIME and takes that down.
func (r *Replica) setFileAside(name string) error {
	from := filepath.Join(r.cfg.Dir, name)
	to := from + ".bad-" + time.Now().UTC().Format("20060102T150405.000")
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set damaged file aside: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setAside = append(r.setAside, to)
	return nil
}

func (r *Replica) openFiles(l *lock) (*stores, error) {
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(r.cfg.Dir, snapshotsKept, newLogger(r.logger, r.isAlone))
	if err != nil {
		return nil, fmt.Errorf("open raft snapshots in %s: %w", r.cfg.Dir, err)
	}
	newest, err := newestReadable(snapshots)
	if err != nil {
		return nil, fmt.Errorf("open raft snapshots in %s: %w", filepath.Join(r.cfg.Dir, dirSnapshots), err)
	}
	path := filepath.Join(r.cfg.Dir, fileLog)
	var db *boltStore
	err = l.attempt(path, func() error {
		if db, err = openLog(path); err == nil && db.isWasteful(compactAbove) {
			db, err = r.compact(path, db)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	// bbolt syncs what is in its file, not that the file is there.
	if err := atomicfile.SyncDir(r.cfg.Dir); err != nil {
		return nil, errors.Join(err, db.close())
	}
	closeAll := func() error { return errors.Join(db.close(), l.close()) }
	if err := protect(func() error { return db.follow(newest, r.cfg.OnDamage) }); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft log %s: %w", path, err), db.close())
	}
	return &stores{log: db, stable: db, snapshots: snapshots, close: closeAll}, nil
}

// newestReadable returns the newest snapshot whose checksum is right, nil if
// there are no snapshots at all.
func newestReadable(s raft.SnapshotStore) (*raft.SnapshotMeta, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, meta := range list {
		_, rc, err := s.Open(meta.ID)
		if err == nil {
			return meta, rc.Close()
		}
		errs = append(errs, fmt.Errorf("%s: %w", meta.ID, err))
	}
	if len(list) > 0 {
		return nil, fmt.Errorf("%w: %w", errSnapshots, errors.Join(errs...))
	}
	return nil, nil
}

// follow checks that the log joins the snapshot, which may be nil. A log that
// was set aside took term and vote with it. Where that is allowed the
// snapshot's term is put in its place, so that terms don't go back.
func (s *boltStore) follow(newest *raft.SnapshotMeta, onDamage OnDamage) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	var index, term uint64
	if newest != nil {
		index, term = newest.Index, newest.Term
	}
	if first > index+1 {
		return fmt.Errorf("%w: it begins at entry %d, the newest snapshot that can be read ends at %d", ErrDamaged, first, index)
	}
	if newest != nil {
		if err := s.dropSuperseded(index, term); err != nil {
			return err
		}
	}
	key := []byte("CurrentTerm") // as Raft names it
	have, err := s.GetUint64(key)
	if err != nil && !errors.Is(err, errNotFound) {
		return err
	}
	if err != nil && newest != nil && onDamage == Refuse {
		return fmt.Errorf("%w: there are snapshots, and the log with this server's vote is gone", ErrDamaged)
	}
	if have < term {
		return s.SetUint64(key, term)
	}
	return nil
}

// dropSuperseded empties a log that a leader's snapshot took the place of: it
// ends before the snapshot, or says otherwise. Raft does so when it installs
// one, unless the process is killed before it gets there.
func (s *boltStore) dropSuperseded(index, term uint64) error {
	first, err := s.FirstIndex()
	if err != nil || first == 0 || first > index {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if last >= index {
		var l raft.Log
		if err := s.GetLog(index, &l); err != nil || l.Term == term {
			return err
		}
	}
	return s.DeleteRange(first, last)
}

// openLog opens, or makes, the log and reads all of it once.
func openLog(path string) (s *boltStore, err error) {
	if err := checkSize(path); err != nil {
		return nil, err
	}
	var file *os.File
	err = protect(func() error {
		db, err := bolt.Open(path, 0o600, &bolt.Options{
			Timeout:      lockTimeout,
			FreelistType: bolt.FreelistMapType,
			// NoFreelistSync stays off: without a freelist bbolt scans a file
			// in a goroutine of its own, where a panic can't be recovered.
			PreLoadFreelist: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
				file, err = os.OpenFile(name, flag, mode)
				return file, err
			},
		})
		if err != nil {
			return err
		}
		s = &boltStore{db: db, file: file}
		return s.prepare()
	})
	if err == nil {
		return s, nil
	}
	if s != nil {
		err = errors.Join(err, s.close())
	} else if file != nil {
		unlock(file) // where bbolt panicked nobody else would
	}
	return nil, classify(err)
}

func (s *boltStore) prepare() error {
	ok, err := s.hasBuckets()
	if err != nil {
		return err
	}
	if !ok {
		return s.create()
	}
	return s.verify()
}

// classify says of bbolt's errors what they mean here.
func classify(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return ErrInUse
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// close closes the file. bbolt's own locks can be left held by a panic in
// the midst of a transaction; then closing never ends, and all that can be
// done is to give the file to whoever opens it next.
func (s *boltStore) close() error {
	done := make(chan error, 1)
	go func() { done <- protect(s.db.Close) }()
	select {
	case err := <-done:
		return err
	case <-time.After(lockTimeout):
		unlock(s.file)
		return fmt.Errorf("close %s: a transaction is stuck after a fault", s.db.Path())
	}
}

// bbolt's meta pages, of which there are two, at the start of a file.
const (
	boltMagic    = 0xED0CDAED
	pageHeader   = 16
	metaSize     = 64
	metaChecksum = 56 // where the checksum of what is before it lies
)

// checkSize compares a file with the size that its meta pages say. One that
// is shorter would fault when it is read. A file that doesn't exist, or is
// empty, is new.
func checkSize(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return nil
	}
	want, err := sizeByMeta(f)
	if err != nil {
		return err
	}
	if info.Size() < want {
		return fmt.Errorf("%w: the file has %d bytes and should have at least %d: it was cut short", ErrDamaged, info.Size(), want)
	}
	return nil
}

// sizeByMeta returns how long the file must be.
func sizeByMeta(f io.ReaderAt) (int64, error) {
	m, err := newestMeta(f)
	if err != nil {
		return 0, err
	}
	return int64(binary.NativeEndian.Uint32(m[8:])) * int64(binary.NativeEndian.Uint64(m[40:])), nil
}

// newestMeta returns the newer of a file's valid meta pages. The second lies one page
// behind the first; should the first not say how large a page is, all sizes in use are
// tried.
func newestMeta(f io.ReaderAt) ([]byte, error) {
	var found []byte
	for _, at := range []int64{0, 4096, 8192, 16384, 32768, 65536} {
		m := make([]byte, metaSize)
		if _, err := f.ReadAt(m, at+pageHeader); err != nil {
			continue // cut short there
		}
		page := int64(binary.NativeEndian.Uint32(m[8:]))
		if !validMeta(m) || page < metaSize+pageHeader || (at != 0 && at != page) {
			continue
		}
		if found != nil && binary.NativeEndian.Uint64(m[48:]) < binary.NativeEndian.Uint64(found[48:]) {
			continue
		}
		if pages := binary.NativeEndian.Uint64(m[40:]); pages > firstPage && pages <= uint64(1<<62/page) {
			found = m
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: neither of its meta pages is valid", ErrDamaged)
	}
	return found, nil
}

func validMeta(m []byte) bool {
	h := fnv.New64a()
	h.Write(m[:metaChecksum])
	return binary.NativeEndian.Uint32(m) == boltMagic && h.Sum64() == binary.NativeEndian.Uint64(m[metaChecksum:])
}

// lock is a file that says two things: that a process uses the directory, by
// a lock that ends with the process, and how many openings of the log in a
// row have begun and not come to an end, by its content.
type lock struct{ f *os.File }

func lockDir(dir string) (*lock, error) {
	path := filepath.Join(dir, fileLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock raft directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("lock raft directory %s: %w", dir, err)
	}
	return &lock{f}, nil
}

func unlock(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

func (l *lock) close() error { return l.f.Close() }

// attempt runs open, an opening of the log at path, and counts those that ended the
// process: beforehand, and from nothing again when open returns. After some in a row
// the file is looked at without opening it. One that is sound isn't damaged: somebody
// killed the process each time, or there is no memory for it. Then the next attempt
// has to wait, the longer the more there were, and names are answered meanwhile.
func (l *lock) attempt(path string, open func() error) error {
	n, last := l.begun()
	if n >= deadlyOpens {
		if err := checkStructure(path); errors.Is(err, ErrDamaged) {
			if err := l.write(0); err != nil { // the file that is made next is another one
				return err
			}
			return fmt.Errorf("%w, and opening it ended this process %d times in a row", err, n)
		}
		again := last.Add(min(deadlyPause<<min(n-deadlyOpens, 10), deadlyPauseMost))
		if wait := time.Until(again); wait > 0 && wait <= deadlyPauseMost {
			return fmt.Errorf("%w: opening it ended this process %d times in a row, though it is sound: is there too little memory? It is tried again in %s", errDeadly, n, wait.Round(time.Second))
		}
	}
	if err := l.write(n + 1); err != nil {
		return err
	}
	err := open()
	return errors.Join(err, l.write(0))
}

// begun returns how many openings ended the process, and when the last of them began.
func (l *lock) begun() (count int, last time.Time) {
	var b [8]byte
	n, _ := l.f.ReadAt(b[:], 0) // what can't be read is as good as 0
	count, _ = strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if info, err := l.f.Stat(); err == nil {
		last = info.ModTime()
	}
	return count, last
}

func (l *lock) write(n int) error {
	if _, err := l.f.WriteAt([]byte(strconv.Itoa(n)+"\n"), 0); err != nil {
		return fmt.Errorf("write %s: %w", l.f.Name(), err)
	}
	return nil
}
