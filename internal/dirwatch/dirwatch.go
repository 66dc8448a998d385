// Package dirwatch tells when something may have changed in a directory.
package dirwatch

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// What changed is read when nothing has happened for settleFor, so that
	// files which are being written are not read half, and after settleAtMost in
	// any case.
	settleFor    = 50 * time.Millisecond
	settleAtMost = 500 * time.Millisecond
)

// pollEvery is how often a directory is read though nothing was heard: not every
// file system tells, a symlink can lead elsewhere, and time passes.
var pollEvery = 5 * time.Second

// Watch calls load now, on each change in one of the directories that dirs
// returns, and from time to time, until ctx ends. Directories may be symlinks
// that are swapped, or hold such, as Kubernetes mounts do; what is not there is
// left out. dirs is called ahead of each load, which sees at least what it saw.
func Watch(ctx context.Context, log *slog.Logger, dirs func() []string, load func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch directories: %w", err)
	}
	defer watcher.Close()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	settle := time.NewTimer(0)
	defer settle.Stop()
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			if since.IsZero() {
				since = time.Now()
			}
			settle.Reset(min(settleFor, time.Until(since.Add(settleAtMost))))
			continue
		case err := <-watcher.Errors:
			log.WarnContext(ctx, "directory not watched well", "dirs", watcher.WatchList(), "err", err)
		case <-settle.C:
		case <-poll.C:
		}
		since = time.Time{}
		watchAnew(watcher, dirs())
		load()
	}
}

// watchAnew watches what is at some paths now: there may be other directories
// than before. It comes ahead of reading, or changes in between were missed. What
// cannot be watched, reading complains of.
func watchAnew(watcher *fsnotify.Watcher, dirs []string) {
	for _, path := range watcher.WatchList() {
		_ = watcher.Remove(path) // it is gone already if the directory is
	}
	for _, dir := range dirs {
		if dir != "" { // which would be the working directory
			_ = watcher.Add(dir)
		}
	}
}
