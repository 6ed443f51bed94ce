package resolvconf

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// statInterval is how often files are looked at in case the kernel told
	// nothing: network file systems, a directory that was itself replaced.
	statInterval = 5 * time.Second
	// settle is how long a file must be left alone before it is read, so that
	// one that is being written is read once. A writer that never stops is cut
	// short by statInterval.
	settle = 50 * time.Millisecond
)

// watch calls changed, from one goroutine, at the start and whenever one of the
// files may have changed, until ctx ends. A file is watched by its directory,
// which sees it renamed over, and by the directory that a symbolic link leads
// to.
func watch(ctx context.Context, files []string, logger *slog.Logger, changed func()) error {
	var events <-chan fsnotify.Event
	var faults <-chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		events, faults = watcher.Events, watcher.Errors
	} else {
		logger.Warn("resolv.conf is looked at every 5 s only", "err", err)
	}
	ticker := time.NewTicker(statInterval)
	defer ticker.Stop()
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		if watcher != nil {
			watchDirs(watcher, files)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			quiet.Reset(settle)
			continue
		case err := <-faults:
			logger.Warn("watch of resolv.conf is incomplete", "err", err)
			continue
		case <-quiet.C:
		case <-ticker.C:
		}
		changed()
	}
}

// watchDirs watches the directories the files are in now. A directory that is
// watched already, or cannot be, changes nothing.
func watchDirs(watcher *fsnotify.Watcher, files []string) {
	want := make(map[string]bool)
	for _, file := range files {
		want[filepath.Dir(file)] = true
		if target, err := filepath.EvalSymlinks(file); err == nil {
			want[filepath.Dir(target)] = true
		}
	}
	have := watcher.WatchList()
	for _, dir := range have {
		if !want[dir] {
			_ = watcher.Remove(dir)
		}
		delete(want, dir)
	}
	for dir := range want {
		_ = watcher.Add(dir) // not there yet: the ticker tries again
	}
}
