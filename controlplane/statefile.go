package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/chancery-mesh/chancery/internal/atomicfile"
)

// stateGap is the least time between two writes of a state.
const stateGap = time.Second

// stateFile keeps on disk what must outlive the process and may be a second
// old.
type stateFile struct {
	path    string
	state   func() (any, error)
	log     *slog.Logger
	changes chan struct{}
	failed  bool
}

func newStateFile(path string, log *slog.Logger, state func() (any, error)) *stateFile {
	return &stateFile{path: path, state: state, log: log, changes: make(chan struct{}, 1)}
}

// changed has the state written, soon.
func (f *stateFile) changed() { kick(f.changes) }

// run writes what changes, until ctx ends and once more then.
func (f *stateFile) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			select {
			case <-f.changes:
				f.write()
			default:
			}
			return
		case <-f.changes:
			f.write()
			sleep(ctx, stateGap)
		}
	}
}

// write writes the state; if it cannot, it shall be tried again.
func (f *stateFile) write() {
	state, err := f.state()
	if err == nil {
		err = writeState(f.path, state)
	}
	if err != nil {
		f.changed()
	}
	if err != nil && !f.failed {
		f.log.Error("state not saved", "path", f.path, "err", err)
	}
	f.failed = err != nil
}

func writeState(path string, state any) error {
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, data, 0o600)
}

// readState reads what writeState wrote, if anything.
func readState(path string, state any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, state)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
