package mesh

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Changes are read when nothing has happened for settleFor, so that files which
// are being written are not read half, and after settleAtMost in any case.
const (
	settleFor    = 20 * time.Millisecond
	settleAtMost = 200 * time.Millisecond
)

// WatchConfig says what [Watch] watches.
type WatchConfig struct {
	// Dir is the directory of the documents; required. It may be a symlink
	// that is swapped, or hold such, as Kubernetes mounts do.
	Dir     string
	Options Options
	// Logger gets what goes wrong with watching; nil is [slog.Default].
	Logger *slog.Logger
	// PollEvery is how often the directory is read though nothing was heard,
	// since not every file system tells; zero is five seconds.
	PollEvery time.Duration
}

// Watch reads and compiles the documents of a directory, hands the result to
// notify, and does so again when what they say has changed, or what is wrong
// with them. The mesh is nil if there is an error; one that was handed over
// before stays good. Calls come one at a time. Watch returns nil when ctx ends.
func Watch(ctx context.Context, config WatchConfig, notify func(Documents, *Mesh, error)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch documents: %w", err)
	}
	defer watcher.Close()
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.PollEvery == 0 {
		config.PollEvery = 5 * time.Second
	}
	w := &watch{WatchConfig: config, watcher: watcher, notify: notify}
	return w.run(ctx)
}

type watch struct {
	WatchConfig
	watcher *fsnotify.Watcher
	notify  func(Documents, *Mesh, error)
	// read is the fingerprint of what was read last, told of what was handed
	// over last.
	read, told string
}

// run waits for events, for them to settle, and for the next poll.
func (w *watch) run(ctx context.Context) error {
	poll := time.NewTicker(w.PollEvery)
	defer poll.Stop()
	settle := time.NewTimer(0)
	defer settle.Stop()
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.watcher.Events:
			if since.IsZero() {
				since = time.Now()
			}
			settle.Reset(min(settleFor, time.Until(since.Add(settleAtMost))))
		case err := <-w.watcher.Errors:
			w.Logger.WarnContext(ctx, "documents not watched well", "dir", w.Dir, "err", err)
			settle.Reset(settleFor)
		case <-settle.C:
			since = time.Time{}
			w.load(ctx)
		case <-poll.C:
			if since.IsZero() {
				w.load(ctx)
			}
		}
	}
}

// load reads the directory and hands over what is new.
func (w *watch) load(ctx context.Context) {
	w.listen(ctx)
	files, err := readFiles(w.Dir, isMeshFile)
	read := fingerprint(files, err)
	if read == w.read {
		return
	}
	w.read = read
	var documents Documents
	var mesh *Mesh
	if err == nil {
		documents = parseFiles(w.Dir, files, kinds...)
		mesh, err = documents.Compile(w.Options)
	}
	if told := fmt.Sprint(documents.Hash(), err); told != w.told {
		w.told = told
		w.notify(documents, mesh, err)
	}
}

// listen watches the directory anew: at its path there may be another one now,
// and the watch of the old one would stay. It does so before the directory is
// read, or changes in between were missed.
func (w *watch) listen(ctx context.Context) {
	for _, path := range w.watcher.WatchList() {
		_ = w.watcher.Remove(path) // It is gone already if the directory is.
	}
	if err := w.watcher.Add(w.Dir); err != nil {
		w.Logger.WarnContext(ctx, "documents not watched", "dir", w.Dir, "err", err)
	}
}

func fingerprint(files []sourceFile, err error) string {
	h := sha256.New()
	for _, file := range files {
		fmt.Fprintf(h, "%q %d\n", file.name, len(file.data))
		h.Write(file.data)
	}
	return fmt.Sprintf("%x %v", h.Sum(nil), err)
}
