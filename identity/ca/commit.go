package ca

import (
	"errors"
	"fmt"
	"sync"
)

var errClosed = errors.New("certificate authority is closed")

// ledger is the file that entries are appended to. Entries that arrive while
// others are on their way to the disk go there together: the disk's latency
// is paid once for all of them (group commit).
type ledger struct {
	path string
	disk disk

	// writing is held by the one who writes to the file.
	writing sync.Mutex
	file    appendFile // nil: to be opened
	size    int64      // of what is on disk for sure
	lines   int
	closed  bool

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
	if err := l.write(b.data); err != nil {
		return fmt.Errorf("write %s: %w", l.path, err)
	}
	l.size += int64(len(b.data))
	l.lines += b.lines
	return nil
}

// write appends to what is on disk for sure. After an error nobody knows what
// the file holds beyond that: it is opened anew next time, which cuts it off.
func (l *ledger) write(data []byte) (err error) {
	if l.closed {
		return errClosed
	}
	if l.file == nil {
		if l.file, err = l.disk.openAppend(l.path, l.size); err != nil {
			return err
		}
	}
	_, err = l.file.Write(data)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		_ = l.file.Close()
		l.file = nil
	}
	return err
}

// length returns the number of lines.
func (l *ledger) length() int {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.lines
}

// compact replaces the file with the lines that content, called when nothing
// is being written, returns.
func (l *ledger) compact(content func() (data []byte, lines int)) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.closed {
		return errClosed
	}
	data, lines := content()
	if err := l.disk.write(l.path, data); err != nil {
		return err
	}
	// The open file is no longer the one with the name.
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file, l.size, l.lines = nil, int64(len(data)), lines
	return nil
}

func (l *ledger) close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.closed = true
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
