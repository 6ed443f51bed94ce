// Package atomicfile replaces files so that a crash leaves the old one or the
// new one, whole.
package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Write puts data in the place of the file at path, readable by its owner alone
// (0600). When it returns nil the file is on the disk under its name: it was
// synced before it was renamed, and its folder after. The folder must exist. On
// an error the file of before stands, except where only the folder's sync
// failed. Two calls for one path may run at once: one of them is the last.
func Write(path string, data []byte) error {
	return WriteTo(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteTo is [Write] of what fill writes.
func WriteTo(path string, fill func(io.Writer) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(dir)
}

// Remove removes the file at path, if there is one, for good.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir has what was made, renamed and removed in a folder outlast a crash.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
