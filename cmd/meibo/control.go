package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"meibo/cluster/httpapi"
	"meibo/cluster/retry"
)

// controlName is the control socket's name in the folder that it is in.
const controlName = "control.sock"

// runFolder is the folder of sockets that a service manager makes for the daemon.
const runFolder = "/run/meibo"

// controlLook is how often it is looked for whether the control socket is still there.
const controlLook = 5 * time.Second

// maxSocketPath is what a socket's address has room for, on Linux.
const maxSocketPath = 107

// controlFolders are those that the control socket may be in, the best first.
func controlFolders(dataDir string) []string {
	folders := filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY")) // of systemd
	return append(folders, runFolder, dataDir)
}

// serveControl serves the control socket for as long as ctx lives, in a domain of failure of its own.
func (d *daemon) serveControl(ctx context.Context) {
	said := ""
	for again := newListenBackoff(); ctx.Err() == nil; {
		err := d.serveControlOnce(ctx)
		if err == nil {
			continue // ctx has ended
		}
		if err.Error() != said {
			said = err.Error()
			d.log.Error("no control socket; commands of operators are refused, will try again", "err", err)
		}
		retry.Wait(ctx, again.Next())
	}
}

func (d *daemon) serveControlOnce(ctx context.Context) error {
	path, cleanUp, err := controlPath(d.started.DataDir)
	if err != nil {
		return err
	}
	defer cleanUp()
	server, err := httpapi.NewServer(httpapi.ServerConfig{Handler: d.api, Addrs: []string{"unix://" + path}, Control: true, Logger: d.log})
	if err != nil {
		return err
	}
	d.control.Store(&path)
	defer d.control.Store(nil)
	ctx, end := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		if awaitNone(ctx, path) {
			end(&fs.PathError{Op: "control socket", Path: path, Err: errors.New("was deleted")})
		}
	})
	err = server.Run(ctx)
	cause := context.Cause(ctx)
	end(nil)
	watching.Wait()
	if deleted := (*fs.PathError)(nil); err == nil && errors.As(cause, &deleted) {
		return deleted
	}
	return err
}

// awaitNone waits until the socket's file is gone, as after somebody cleaned its folder: who listens is not told. It is
// false when ctx has ended first.
func awaitNone(ctx context.Context, path string) bool {
	ticker := time.NewTicker(controlLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
}

// controlPath chooses where the control socket is to be: in the first folder that can be written and in which no other
// daemon has its own; a new folder for a daemon that keeps nothing.
func controlPath(dataDir string) (path string, cleanUp func(), err error) {
	if dataDir == "" {
		dir, err := os.MkdirTemp("", "meibo-")
		return filepath.Join(dir, controlName), func() { os.RemoveAll(dir) }, err
	}
	var errs []error
	for _, folder := range controlFolders(dataDir) {
		if folder == dataDir {
			errs = append(errs, os.MkdirAll(folder, 0o700))
		}
		path := filepath.Join(folder, controlName)
		if err := canBind(path); err != nil {
			errs = append(errs, err)
			continue
		}
		return path, func() {}, nil
	}
	return "", nil, errors.Join(errs...)
}

// canBind is why a socket can't be made at the path.
func canBind(path string) error {
	if len(path) > maxSocketPath {
		return &fs.PathError{Op: "listen", Path: path, Err: errors.New("longer than a socket's address can be")}
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return errors.Join(&fs.PathError{Op: "listen", Path: path, Err: errors.New("another daemon has it")}, conn.Close())
	}
	const write, search = 2, 1
	if err := syscall.Access(filepath.Dir(path), write|search); err != nil {
		return &fs.PathError{Op: "access", Path: filepath.Dir(path), Err: err}
	}
	return nil
}

// controlAt is the path of the control socket at the moment, or "".
func (d *daemon) controlAt() string {
	if path := d.control.Load(); path != nil {
		return *path
	}
	return ""
}

// isKeptBy reports whether a folder is a user's, and nobody else may write to it.
func isKeptBy(folder string, uid uint32) bool {
	info, err := os.Stat(folder)
	if err != nil || info.Mode().Perm()&0o022 != 0 {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && owner.Uid == uid
}

// isTrusted reports whether a socket file is one that a command may entrust a key to: whoever made it is root, this user,
// the user that the packages make for the daemon, or, for root, any user who alone has the folder. Anybody can answer on
// a port and name a path.
func isTrusted(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	if owner.Uid == 0 || int(owner.Uid) == os.Geteuid() {
		return true
	}
	if os.Geteuid() == 0 && isKeptBy(filepath.Dir(path), owner.Uid) {
		return true
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(owner.Uid), 10))
	return err == nil && u.Username == "meibo"
}
