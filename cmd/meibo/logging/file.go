package logging

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// File says where log files go and when a new one is begun, as Consul has it.
type File struct {
	// Path is what the names of the files begin with: "/var/log/meibo.log" makes
	// /var/log/meibo-TIME.log, where TIME is in nanoseconds since 1970; a
	// directory, or what ends in a separator, makes DIR/meibo-TIME.log. Without an
	// extension it is .log. A device or pipe is written to as it is. "": no file.
	Path     string
	Bytes    int64         // a file of this many bytes is full; 0: never
	Duration time.Duration // a file is written to for so long; 0: 24 hours
	MaxFiles int           // older files that are kept; 0: all; below 0: none
}

const defaultDuration = 24 * time.Hour

// file is the log file that is written to now. One that was moved or deleted
// is begun anew, as is its directory.
type file struct {
	File
	dir, stem, ext string
	now            func() time.Time

	f       *os.File // nil: none is open
	info    fs.FileInfo
	size    int64
	created time.Time
}

func newFile(cfg File) *file {
	if cfg.Duration <= 0 {
		cfg.Duration = defaultDuration
	}
	w := &file{File: cfg, now: time.Now}
	w.dir, w.stem = filepath.Split(cfg.Path)
	if info, err := os.Stat(cfg.Path); err == nil && info.IsDir() {
		w.dir, w.stem = cfg.Path, ""
	}
	if w.stem == "" {
		w.stem = "meibo"
	}
	if w.ext = filepath.Ext(w.stem); w.ext == "" {
		w.ext = ".log"
	}
	w.stem = strings.TrimSuffix(w.stem, w.ext)
	return w
}

func (w *file) write(l line) (bool, error) {
	var err error
	gone := w.f != nil && w.gone()
	if w.f == nil || gone || w.full() {
		if err = w.begin(); w.f == nil {
			return false, err
		}
		gone = w.gone() // then it goes where nobody will find it
	}
	n, failed := w.f.Write(l.text)
	if failed != nil {
		if n > 0 { // no half lines: the next one may fit again
			_ = w.f.Truncate(w.size)
		}
		return false, failed
	}
	w.size += int64(n)
	return !gone, err
}

// full reports whether the file has its size or age.
func (w *file) full() bool {
	return w.info.Mode().IsRegular() && (w.Bytes > 0 && w.size >= w.Bytes || w.now().Sub(w.created) >= w.Duration)
}

// gone reports whether the file isn't the one of its name any more.
func (w *file) gone() bool {
	info, err := os.Stat(w.f.Name())
	return err != nil && errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, w.info)
}

// begin opens a new file. On an error the one there is stays.
func (w *file) begin() error {
	f, err := w.open()
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if w.f != nil {
		_ = w.f.Close()
	}
	w.f, w.info, w.size, w.created = f, info, info.Size(), w.now()
	return w.prune()
}

func (w *file) open() (*os.File, error) {
	const flags = os.O_APPEND | os.O_CREATE | os.O_WRONLY
	if info, err := os.Stat(w.Path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return os.OpenFile(w.Path, flags, 0)
	}
	if w.dir != "" {
		if err := os.MkdirAll(w.dir, 0o750); err != nil {
			return nil, err
		}
	}
	name := w.stem + "-" + strconv.FormatInt(w.now().UnixNano(), 10) + w.ext
	return os.OpenFile(filepath.Join(w.dir, name), flags, 0o640)
}

// prune removes the oldest files but the one that is written to.
func (w *file) prune() error {
	if w.MaxFiles == 0 || !w.info.Mode().IsRegular() {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(w.dir, "."))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the directory went just now; the next line begins it anew
	}
	if err != nil {
		return err
	}
	var old []int64
	for _, e := range entries {
		if at, ok := w.time(e.Name()); ok && e.Type().IsRegular() && e.Name() != filepath.Base(w.f.Name()) {
			old = append(old, at)
		}
	}
	slices.Sort(old)
	var errs []error
	for _, at := range old[:max(0, len(old)-max(0, w.MaxFiles))] {
		if err := os.Remove(filepath.Join(w.dir, w.stem+"-"+strconv.FormatInt(at, 10)+w.ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// time returns TIME of a file's name, if it is one of ours.
func (w *file) time(name string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, w.stem+"-")
	if !ok {
		return 0, false
	}
	if digits, ok = strings.CutSuffix(digits, w.ext); !ok {
		return 0, false
	}
	at, err := strconv.ParseInt(digits, 10, 64)
	return at, err == nil && strconv.FormatInt(at, 10) == digits
}

// Close implements io.Closer.
func (w *file) Close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}
