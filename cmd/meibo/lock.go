package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"meibo/cmd/meibo/config"
)

// lockDataDir keeps a second daemon off what one keeps there: its keys, its services, its catalog. It comes before
// anything there is read; the error says whose it is. Close ends it; so does the end of the process. Where nothing can be
// locked, as nothing can be written, the daemon goes on without, as it does with all else that it would keep.
func lockDataDir(cfg *config.Config, log *slog.Logger) (io.Closer, error) {
	none := io.NopCloser(nil)
	dir := cfg.DataDir
	if dir == "" {
		return none, nil
	}
	f, err := openLock(cfg.LockPath())
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	switch {
	case err == nil:
	case errors.Is(err, syscall.EWOULDBLOCK):
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		return nil, fmt.Errorf("data_dir %s is another meibo's (pid %s): stop that, or give this one a data_dir of its own", dir, strings.TrimSpace(string(holder)))
	default:
		log.Warn("data_dir can't be locked: see that no other daemon uses it", "err", err)
		if f != nil {
			f.Close()
		}
		return none, nil
	}
	if f.Truncate(0) == nil {
		fmt.Fprintln(f, os.Getpid()) // for whoever finds it locked
	}
	return f, nil
}

func openLock(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
