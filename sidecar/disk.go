package sidecar

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// persistPause is the least time between two writes of changed endpoints.
const persistPause = time.Second

// disk keeps the last good state on disk abreast of what is held. A disk that
// fails does not stop change: it is loud, and what is there stays.
type disk struct {
	held *held
	log  *slog.Logger

	mu    sync.Mutex
	files *lastGood
	// live is the revision that Envoy is getting or has.
	live  *revision
	dirty chan struct{}
}

func newDisk(files *lastGood, h *held, log *slog.Logger) *disk {
	return &disk{files: files, held: h, log: log, dirty: make(chan struct{}, 1)}
}

// begin writes a revision that Envoy is about to get.
func (d *disk) begin(rev *revision) {
	d.do(func() error {
		d.live = rev
		return d.files.begin(d.held.snapshot(rev))
	})
}

// resume says that rev is what the files hold.
func (d *disk) resume(rev *revision) {
	d.do(func() error { d.live = rev; return nil })
}

// retreat says that Envoy goes back to rev, which is in that generation, and
// that later ones are not good.
func (d *disk) retreat(rev *revision, generation string) {
	d.do(func() error { d.live = rev; return d.files.retreat(generation) })
	d.changed()
}

// acknowledge and promote move the live revision on.
func (d *disk) acknowledge() { d.do(d.files.acknowledge) }

func (d *disk) promote() { d.do(d.files.promote) }

// changed has the state written soon: something moved within the revision.
func (d *disk) changed() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

// run writes what changed, at most once in persistPause, until ctx ends.
func (d *disk) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.dirty:
		}
		d.do(func() error {
			if d.live == nil {
				return nil
			}
			return d.files.update(d.held.snapshot(d.live))
		})
		if !sleep(ctx, persistPause) {
			return nil
		}
	}
}

func (d *disk) do(f func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := f(); err != nil {
		d.log.Error("last good state not written", "err", err)
	}
}
