package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
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
	if err := notAnothers(dir); err != nil {
		return nil, err
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

// notAnothers keeps root off the data of a daemon that runs as another user: what root writes there that one can't read.
func notAnothers(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return nil // it is made, or said by whoever needs it
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	name := strconv.FormatUint(uint64(owner.Uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return fmt.Errorf("data_dir %s belongs to user %s, who could not read what root writes there: start the daemon as that user (systemctl start meibo, or runuser -u %s -- meibo agent …), or chown it", dir, name, name)
}

func openLock(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
