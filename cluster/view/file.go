package view

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"meibo/cluster/atomicfile"
	"meibo/cluster/feed/frame"
	"meibo/cluster/retry"
)

const (
	// DefaultKeep is for how long contents that nobody asks for stay on disk.
	DefaultKeep = 30 * 24 * time.Hour
	// writeEvery is the least time between two writes for changes that can wait.
	writeEvery = 30 * time.Second
	// writeSoon is how long a new name may take to be on disk; names that come
	// together are written together.
	writeSoon = 800 * time.Millisecond
	// A write may take processor time worth noticing where much is known, as on a
	// server: after one that took so long, new names wait up to soonShare times as
	// long, writeEvery at most, and changes that can wait everyShare times as long,
	// lastRetry at most. One of less than 16 ms changes neither pace.
	soonShare, everyShare = 50, 1000
	// firstRetry and lastRetry bound the pauses between writes that fail.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	// maxAside is how many files that were set aside are kept.
	maxAside = 3
)

// FileConfig is what a File needs. Path and NodeID are required.
type FileConfig struct {
	// Path is the file; its folder is made, for this user alone, if it is
	// missing.
	Path string
	// NodeID and Datacenter are this host's. A file of another datacenter is set
	// aside, and one of another node unless one of Keys proves that it is of this
	// cluster: it is this host's from before it lost its data_dir, and its node ID
	// with it, or that of a host it was copied from.
	NodeID, Datacenter string
	// Keys returns the keys of gossip, the primary first, and a channel that is
	// closed when they change; nil, or no keys: the file is only guarded
	// against damage. A gossip.Keyring's Keys fits.
	Keys func() ([][]byte, <-chan struct{})
	// Keep is for how long contents stay without a question; 0: DefaultKeep.
	Keep time.Duration
	// Logger gets what an operator wants to know; nil: nobody.
	Logger *slog.Logger
}

// Kept is what a File keeps: a View. Both are called from one goroutine and must
// not take long.
type Kept interface {
	Export() *Export
	Load() *State
}

// File is the last known good view on disk (VIEWS rules 23 to 25). Whatever
// happens to the disk is said in the log and holds up nobody.
type File struct {
	cfg    FileConfig
	logger *slog.Logger
}

// NewFile checks cfg. It touches nothing on disk.
func NewFile(cfg FileConfig) (*File, error) {
	if cfg.Path == "" || cfg.NodeID == "" {
		return nil, errors.New("view file: it needs a path and this host's node ID: set Path and NodeID")
	}
	if cfg.Keep == 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &File{cfg: cfg, logger: cfg.Logger}, nil
}

// keys returns the keys to seal with and open by; never none.
func (f *File) keys() (keys [][]byte, changed <-chan struct{}) {
	if f.cfg.Keys != nil {
		keys, changed = f.cfg.Keys()
	}
	if len(keys) == 0 {
		keys = [][]byte{nil}
	}
	return keys, changed
}

// Load returns what the file holds; nil when there is none that counts. One that
// is another's, or damaged, is set aside. Why is said in the log.
func (f *File) Load() *Export {
	b, err := readBounded(f.cfg.Path, maxSealed)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, ErrDamaged):
		f.setAside(err)
		return nil
	case err != nil:
		f.logger.Error("last known view cannot be read, this host begins without it", "path", f.cfg.Path, "err", err)
		return nil
	}
	keys, _ := f.keys()
	e, of, err := open(b, keys)
	if err == nil {
		err = f.isOurs(of, keys)
	}
	if errors.Is(err, errNoKey) && f.isKeyless(b) {
		err = errKeyless
	}
	if err != nil {
		f.setAside(err)
		return nil
	}
	f.logger.Info("last known view read from disk", "path", f.cfg.Path, "history", e.Current.History.ID,
		"index", e.Current.Index, "services", len(e.Current.Names), "nodes", len(e.Current.Nodes), "written", of.Written, "by", of.NodeID)
	return e
}

// errKeyless says that nothing is wrong: the host has been given a key, and what it knew before isn't proven by it.
var errKeyless = errors.New("it is of the time before this host had a key")

// isKeyless reports whether the file is this host's, of a time when it had no key.
func (f *File) isKeyless(b []byte) bool {
	none := [][]byte{nil}
	_, of, err := open(b, none)
	return err == nil && f.isOurs(of, none) == nil
}

// isOurs refuses the file of another datacenter, and that of another node unless
// it was opened by a cluster's keys: what a member wrote counts as what it tells.
func (f *File) isOurs(of owner, keys [][]byte) error {
	proven := keys[0] != nil
	if of.NodeID != f.cfg.NodeID && !proven || of.Datacenter != f.cfg.Datacenter {
		return fmt.Errorf("it is of node %s in datacenter %s, this is node %s in %s: a copied disk?",
			of.NodeID, of.Datacenter, f.cfg.NodeID, f.cfg.Datacenter)
	}
	return nil
}

// setAside renames the file, for people to look at, and keeps the newest few
// such.
func (f *File) setAside(why error) {
	aside := f.cfg.Path + ".set-aside-" + time.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(f.cfg.Path, aside); err != nil {
		f.logger.Error("last known view does not count and cannot be set aside; it will be written anew",
			"path", f.cfg.Path, "reason", why, "err", err)
		return
	}
	level := slog.LevelError
	if errors.Is(why, errKeyless) {
		level = slog.LevelInfo
	}
	f.logger.Log(context.Background(), level, "last known view does not count, set aside; it will be filled anew",
		"path", f.cfg.Path, "reason", why, "aside", aside)
	old, err := filepath.Glob(globQuote(f.cfg.Path) + ".set-aside-*") // in the order of time
	for len(old) > maxAside && err == nil {
		err = os.Remove(old[0])
		old = old[1:]
	}
	if err != nil {
		f.logger.Warn("older views that were set aside cannot be removed", "err", err)
	}
}

// Run keeps v on disk until ctx ends (VIEWS rule 24): at most every 30 s when
// something changed; at once for the first base set, on the loss of the servers,
// when the primary key changes, and at the end; within a second for a new name.
// Where a write costs much, new names and changes wait for longer.
// It always returns nil.
func (f *File) Run(ctx context.Context, v Kept) error {
	w := &fileWriter{File: f, view: v, timer: time.NewTimer(time.Hour), backoff: retry.Backoff{Min: firstRetry, Max: lastRetry}}
	defer w.timer.Stop()
	w.timer.Stop()
	w.saw = v.Load()
	w.primary, _ = f.primary()
	if w.saw.HasBase() && !f.exists() {
		w.due(0)
	}
	for {
		_, keysChanged := f.keys()
		select {
		case <-ctx.Done():
			w.last()
			return nil
		case <-w.saw.Superseded():
			w.schedule()
		case <-keysChanged:
			w.rekey()
		case <-w.timer.C:
			w.write()
		}
	}
}

func (f *File) primary() (key string, changed <-chan struct{}) {
	keys, changed := f.keys()
	return string(keys[0]), changed
}

func (f *File) exists() bool {
	_, err := os.Stat(f.cfg.Path)
	return err == nil
}

// fileWriter is one Run.
type fileWriter struct {
	*File
	view    Kept
	saw     *State // the newest state that was looked at
	primary string

	timer   *time.Timer
	at      time.Time     // when the timer goes off; zero: it doesn't
	wrote   time.Time     // the last time, for better or worse
	took    time.Duration // the last write, but for the disk
	changed bool          // something isn't on disk
	failing bool
	backoff retry.Backoff // between writes that fail
	pause   time.Duration // after the last that did
}

// schedule judges how soon the newest state must be on disk.
func (w *fileWriter) schedule() {
	old := w.saw
	w.saw = w.view.Load()
	w.changed = true
	switch {
	case w.saw.HasBase() && !old.HasBase(), old.Fresh() && !w.saw.Fresh():
		w.due(0)
	case w.saw.filled > old.filled:
		w.due(max(writeSoon, min(soonShare*w.took, writeEvery)-time.Since(w.wrote)))
	default:
		w.due(max(0, max(writeEvery, min(everyShare*w.took, lastRetry))-time.Since(w.wrote)))
	}
}

// rekey has the file sealed anew when the primary key is another one.
func (w *fileWriter) rekey() {
	was := w.primary
	w.primary, _ = w.File.primary()
	if w.primary != was && w.exists() {
		w.changed = true
		w.due(0)
	}
}

// due sees to it that the file is written after d at the latest; while writing
// fails, not before the pause is over.
func (w *fileWriter) due(d time.Duration) {
	at := time.Now().Add(d)
	if due := w.wrote.Add(w.pause); w.failing && at.Before(due) {
		at = due
	}
	if w.at.IsZero() || at.Before(w.at) {
		w.at = at
		w.timer.Reset(time.Until(at))
	}
}

// last writes what isn't on disk yet, at the end.
func (w *fileWriter) last() {
	if w.view.Load() != w.saw || w.changed {
		w.write()
	}
}

// write brings what is known to disk. A failure is said once, and tried again
// at a growing pause.
func (w *fileWriter) write() {
	w.at = time.Time{}
	w.saw = w.view.Load()
	if !w.saw.HasBase() {
		return // what a file says must be worth more than nothing
	}
	began := time.Now()
	sealed, err := w.save(w.view.Export(), w.saw.Fresh())
	w.took, w.wrote = max(0, sealed.Sub(began)), time.Now()
	if err == nil {
		if w.failing {
			w.logger.Info("last known view is on disk again", "path", w.cfg.Path)
		}
		w.failing, w.changed = false, false
		w.backoff.Reset()
		return
	}
	w.pause = w.backoff.Next()
	if !w.failing {
		w.logger.Error("last known view cannot be written, answers go on from memory; tried again",
			"path", w.cfg.Path, "err", err)
	}
	w.failing = true
	w.due(w.pause)
}

// save writes an export in the file's place, and returns when all was made and the
// disk's part began. Nothing is dropped by age unless it is fresh: a clock that is
// wrong at boot must not empty the file.
func (f *File) save(e *Export, fresh bool) (sealed time.Time, err error) {
	now := time.Now()
	if fresh {
		e.dropUnasked(now, f.cfg.Keep)
	} else {
		e.countFrom(now)
	}
	keys, _ := f.keys()
	if err := os.MkdirAll(filepath.Dir(f.cfg.Path), 0o700); err != nil {
		return sealed, err
	}
	err = atomicfile.WriteTo(f.cfg.Path, func(w io.Writer) error {
		b := bufio.NewWriterSize(w, frame.Full)
		err := seal(b, e, owner{NodeID: f.cfg.NodeID, Datacenter: f.cfg.Datacenter, Written: now.UTC()}, keys[0])
		sealed = time.Now()
		return errors.Join(err, b.Flush())
	})
	return sealed, err
}
