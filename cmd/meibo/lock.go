package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockName is the file in data_dir that a daemon holds locked for as long as it lives.
const lockName = "lock"

// lockDataDir keeps a second daemon off what one keeps there: its keys, its services, its catalog. It comes before
// anything there is read. Close ends it; so does the end of the process. dir "": nothing is kept, nothing locked.
func lockDataDir(dir string) (io.Closer, error) {
	if dir == "" {
		return io.NopCloser(nil), nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data_dir %s is another meibo's (pid %s): stop that, or give this one a data_dir of its own", dir, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("data_dir: lock %s: %w", path, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid()) // for whoever finds it locked
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	return f, nil
}
