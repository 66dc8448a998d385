package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// What changed is read when nothing has happened for settleFor, so that
	// files which are being written are not read half.
	settleFor = 50 * time.Millisecond
	// pollEvery is how often a directory is read though nothing was heard: not
	// every file system tells, a symlink can lead elsewhere, and time passes.
	pollEvery = 5 * time.Second
)

// watchDir calls load now, on each change in a directory, and from time to time,
// until ctx ends. The directory may be a symlink that is
// swapped, or hold such, as Kubernetes mounts do.
func watchDir(ctx context.Context, dir string, log *slog.Logger, load func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	defer watcher.Close()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	settle := time.NewTimer(0)
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			settle.Reset(settleFor)
			continue
		case err := <-watcher.Errors:
			log.WarnContext(ctx, "directory not watched well", "dir", dir, "err", err)
		case <-settle.C:
		case <-poll.C:
		}
		watchAnew(watcher, dir)
		load()
	}
}

// watchAnew watches what is at a path now: it may be another directory than
// before. It comes ahead of reading, or changes in between were missed. What
// cannot be watched, reading complains of.
func watchAnew(watcher *fsnotify.Watcher, dir string) {
	for _, path := range watcher.WatchList() {
		_ = watcher.Remove(path) // it is gone already if the directory is
	}
	if dir != "" {
		_ = watcher.Add(dir)
	}
}
