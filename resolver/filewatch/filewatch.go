// Package filewatch tells when files may have changed.
package filewatch

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// statInterval is how often files are looked at in case the kernel told
	// nothing: network file systems, a directory that was itself replaced.
	statInterval = 5 * time.Second
	// DefaultSettle is Config.Settle where that is zero.
	DefaultSettle = 50 * time.Millisecond
)

// Config says what is watched.
type Config struct {
	What  string   // for the log: "hosts files"
	Files []string // a directory stands for the files in it, not those further below
	// Settle is how long the files must be left alone before they are read, so
	// that one that is being written is read once. A writer that never stops is
	// cut short after 5 s.
	Settle  time.Duration
	Logger  *slog.Logger // required
	Changed func()       // called from one goroutine
}

// Run calls Changed at the start and whenever one of the files may have changed,
// every 5 s at least, until ctx ends; whoever is called looks whether it is so.
// A file is watched by its directory, which sees it renamed over, and by the
// directory that a symbolic link leads to.
func Run(ctx context.Context, cfg Config) {
	if cfg.Settle <= 0 {
		cfg.Settle = DefaultSettle
	}
	var events <-chan fsnotify.Event
	var faults <-chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		events, faults = watcher.Events, watcher.Errors
	} else {
		cfg.Logger.Warn(cfg.What+" are looked at every 5 s only", "err", err)
	}
	ticker := time.NewTicker(statInterval)
	defer ticker.Stop()
	quiet := time.NewTimer(cfg.Settle)
	defer quiet.Stop()
	for {
		if watcher != nil {
			watchDirs(watcher, cfg.Files)
		}
		select {
		case <-ctx.Done():
			return
		case <-events:
			quiet.Reset(cfg.Settle)
			continue
		case err := <-faults:
			cfg.Logger.Warn("watch of "+cfg.What+" is incomplete", "err", err)
			continue
		case <-quiet.C:
		case <-ticker.C:
		}
		cfg.Changed()
	}
}

// watchDirs watches the directories the files are in now. A directory that is
// watched already, or cannot be, changes nothing.
func watchDirs(watcher *fsnotify.Watcher, files []string) {
	want := make(map[string]bool)
	for _, file := range files {
		want[filepath.Dir(file)] = true
		target, err := filepath.EvalSymlinks(file)
		if err != nil {
			continue
		}
		want[filepath.Dir(target)] = true
		entries, err := os.ReadDir(target)
		if err != nil {
			continue // a file
		}
		want[target] = true
		for _, e := range entries {
			if e.Type()&fs.ModeSymlink == 0 {
				continue
			}
			if target, err := filepath.EvalSymlinks(filepath.Join(target, e.Name())); err == nil {
				want[filepath.Dir(target)] = true
			}
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
