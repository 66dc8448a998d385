package ca

import (
	"errors"
	"fmt"
	"sync"
)

// compactAbove is how many lines too many are left alone.
const compactAbove = 1000

var errClosed = errors.New("certificate authority is closed")

// ledger is the file that entries are appended to. Entries that arrive while
// others are on their way to the disk go there together: the disk's latency
// is paid once for all of them (group commit).
type ledger struct {
	path string
	disk disk

	// writing is held by the one who writes to the file.
	writing sync.Mutex
	file    appendFile
	size    int64 // of what is on disk for sure
	lines   int
	broken  error

	mu   sync.Mutex
	open *batch // that takes more entries; nil if none waits
}

// batch is what goes to the disk together.
type batch struct {
	ledger *ledger
	data   []byte
	lines  int
	// lead is taken by the first who waits: it writes for the others.
	lead sync.Once
	err  error
}

// newLedger opens the file to append to after its first size bytes, which are
// whole lines; the rest is cut off.
func newLedger(d disk, path string, size int64, lines int) (*ledger, error) {
	file, err := d.openAppend(path, size)
	if err != nil {
		return nil, err
	}
	return &ledger{path: path, disk: d, file: file, size: size, lines: lines}, nil
}

// add queues an entry behind all that were added before. It is on disk when
// wait returns nil; somebody must wait.
func (l *ledger) add(e entry) *batch {
	line := e.line()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = &batch{ledger: l}
	}
	l.open.data = append(l.open.data, line...)
	l.open.lines++
	return l.open
}

func (b *batch) wait() error {
	b.lead.Do(func() { b.err = b.ledger.commit(b) })
	return b.err
}

// commit writes a batch once the one before it is on disk; until then it
// takes more entries.
func (l *ledger) commit(b *batch) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	l.open = nil
	l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	_, err := l.file.Write(b.data)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return l.takeBack(err)
	}
	l.size += int64(len(b.data))
	l.lines += b.lines
	return nil
}

// takeBack cuts off what was written of a batch that is not wholly on disk.
// If that fails as well, nobody knows what the file holds, and nothing is
// written until it is read again.
func (l *ledger) takeBack(err error) error {
	err = fmt.Errorf("write %s: %w", l.path, err)
	undo := l.file.Truncate(l.size)
	if undo == nil {
		undo = l.file.Sync()
	}
	if undo != nil {
		l.broken = fmt.Errorf("%w; nothing is signed or revoked until it is mended: see to the disk and restart", err)
		return l.broken
	}
	return err
}

// worthCompacting reports whether most lines, and not just a few, say nothing
// any more.
func (l *ledger) worthCompacting(alive int) bool {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.lines > 2*alive+compactAbove
}

// compact replaces the file with the lines that content, called when nothing
// is being written, returns.
func (l *ledger) compact(content func() (data []byte, lines int)) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.broken != nil {
		return l.broken
	}
	data, lines := content()
	if err := l.disk.write(l.path, data); err != nil {
		return err
	}
	// The open file is no longer the one with the name.
	file, err := l.disk.openAppend(l.path, int64(len(data)))
	if err != nil {
		l.broken = fmt.Errorf("%w; nothing is signed or revoked until the control plane is restarted", err)
		return l.broken
	}
	_ = l.file.Close()
	l.file, l.size, l.lines = file, int64(len(data)), lines
	return nil
}

func (l *ledger) close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.broken = errClosed
	return l.file.Close()
}
