package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"meibo/cluster/atomicfile"
)

// The folders under DataDir, as Consul names them, and the bound of one file.
const (
	servicesDir = "services"
	checksDir   = "checks"
	stateDir    = "checks/state"

	tempSuffix  = ".tmp"
	damagedMark = ".damaged-"
	maxFile     = 1 << 20 // far above any definition that the API lets in
)

// store keeps files under DataDir. With an empty dir it keeps nothing and never
// fails. Its callers order its calls.
type store struct {
	dir    string
	logger *slog.Logger
}

// file is one file to be written.
type file struct {
	path string // as made by name
	data []byte
}

// name is the path, below DataDir, of what has the ID. The hash keeps any ID
// whatever, with slashes or dots or longer than a file name may be, inside.
func name(dir, id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(dir, hex.EncodeToString(sum[:]))
}

// open makes the folders and takes away what a crash left half written.
func (s *store) open() error {
	if s.dir == "" {
		return nil
	}
	err := s.makeDirs()
	for _, dir := range []string{servicesDir, checksDir, stateDir} {
		entries, _ := os.ReadDir(filepath.Join(s.dir, dir))
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), tempSuffix) {
				os.Remove(filepath.Join(s.dir, dir, e.Name())) // in vain at worst: it is written over when its turn comes
			}
		}
	}
	return err
}

func (s *store) makeDirs() error {
	for _, dir := range []string{servicesDir, checksDir, stateDir} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// put writes all the files or none: first each beside its place, synced, then
// all renamed in the order given. When a rename fails those before it are undone.
func (s *store) put(files ...file) (err error) {
	if s.dir == "" || len(files) == 0 {
		return nil
	}
	if err := s.makeDirs(); err != nil {
		return err
	}
	staged := 0
	defer func() {
		if err != nil {
			for _, f := range files[:staged] {
				os.Remove(s.path(f) + tempSuffix)
			}
		}
	}()
	for _, f := range files {
		staged++
		if err := writeSynced(s.path(f)+tempSuffix, f.data); err != nil {
			return err
		}
	}
	return s.rename(files)
}

func (s *store) path(f file) string { return filepath.Join(s.dir, f.path) }

// rename puts the staged files into their places, or none of them.
func (s *store) rename(files []file) (err error) {
	var undo []func()
	defer func() {
		if err != nil {
			for _, u := range undo {
				u()
			}
		}
	}()
	for _, f := range files {
		path := s.path(f)
		former, readErr := os.ReadFile(path)
		if err := os.Rename(path+tempSuffix, path); err != nil {
			return err
		}
		undo = append(undo, func() { s.undo(path, former, readErr == nil) })
	}
	return s.syncDirs(files)
}

// undo puts back what was at a path before.
func (s *store) undo(path string, former []byte, existed bool) {
	err := os.Remove(path)
	if existed {
		err = writeFile(path, former)
	}
	if err != nil {
		s.logger.Error("cannot bring back a file after a write that failed", "file", path, "err", err)
	}
}

// syncDirs makes the renames last. One sync for each folder is enough.
func (s *store) syncDirs(files []file) error {
	synced := map[string]bool{}
	for _, f := range files {
		dir := filepath.Dir(s.path(f))
		if synced[dir] {
			continue
		}
		synced[dir] = true
		if err := atomicfile.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// writeSynced writes a file that only its owner may read, and waits until it is
// on the disk. What it could not finish it leaves to its caller to remove.
func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// writeFile replaces a file without waiting for the disk.
func writeFile(path string, data []byte) error {
	temp := path + tempSuffix
	err := os.WriteFile(temp, data, 0o600)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}

// putState writes a file that may be lost with the power: the state of a check,
// which its next run brings back. It outlives the process, which is what it is for.
func (s *store) putState(f file) error {
	if s.dir == "" {
		return nil
	}
	return writeFile(s.path(f), f.data)
}

// remove deletes files in the order given; one that is not there is no error.
func (s *store) remove(paths ...string) error {
	if s.dir == "" {
		return nil
	}
	var gone []file
	for _, path := range paths {
		err := os.Remove(filepath.Join(s.dir, path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			gone = append(gone, file{path: path})
		}
	}
	return s.syncDirs(gone)
}

// list returns the paths of the files kept in a folder.
func (s *store) list(dir string) ([]string, error) {
	if s.dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.Contains(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// read returns a file's bytes; fs.ErrNotExist if it is not there.
func (s *store) read(path string) ([]byte, error) {
	if s.dir == "" {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(filepath.Join(s.dir, path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}

// setAside renames a file that cannot be understood, so that it is neither
// lost nor read again, and says so.
func (s *store) setAside(path string, why error) {
	if errors.Is(why, fs.ErrPermission) { // no damage: whose it is may be mended
		s.logger.Error("file can't be read and stays as it is: what it holds is not known here until this user may read it and the daemon is started again", "file", path, "err", why)
		return
	}
	from := filepath.Join(s.dir, path)
	to := from + damagedMark + time.Now().UTC().Format("20060102T150405")
	if err := os.Rename(from, to); err != nil {
		s.logger.Error("file is damaged and cannot be set aside: remove it", "file", from, "why", why, "err", err)
		return
	}
	s.logger.Error("damaged file set aside: what it held is gone until it is registered again", "file", to, "why", why)
}
