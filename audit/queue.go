package audit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// entry is a record on its way to the sink.
type entry struct {
	Decision
	size int
	// receipt is for who waits for it; nil if nobody does.
	receipt *receipt
}

// receipt is who waits for a record, and what became of it. Either the writer
// has encoded the record, or who waited has given up: never both.
type receipt struct {
	state atomic.Int32
	done  chan error // buffered
}

const (
	waiting int32 = iota
	encoded
	abandoned
)

// queue holds what is to be written, and counts what it has no room for. What
// was taken counts until it is released.
type queue struct {
	maxRecords, maxBytes int
	// ready has a token when there is something, and urgent when it should not be
	// left to gather.
	ready, urgent chan struct{}

	mu             sync.Mutex
	entries        []entry
	records, bytes int // with those that were taken
	sequence       uint64
	dropped        uint64
	closed         bool
}

func newQueue(records, bytes int) *queue {
	return &queue{maxRecords: records, maxBytes: bytes, ready: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// put copies d into the queue and numbers it, also if there is no room: a gap
// shows what is missing.
func (q *queue) put(d *Decision, r *receipt) bool {
	d.Own()
	size := d.size()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sequence++
	if q.closed || q.records >= q.maxRecords || q.bytes+size > q.maxBytes {
		q.dropped++
		return false
	}
	q.entries = append(q.entries, entry{*d, size, r})
	q.entries[len(q.entries)-1].Sequence = q.sequence
	q.records++
	q.bytes += size
	if len(q.entries) == 1 {
		signal(q.ready)
	}
	if r != nil || q.records == q.maxRecords/2 || q.bytes > q.maxBytes/2 {
		signal(q.urgent)
	}
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // there is a token already
	}
}

// wait returns when there is something to write, and has been for a while
// unless it is urgent; or when ctx ends.
func (q *queue) wait(ctx context.Context) {
	select {
	case <-q.urgent:
		return
	case <-ctx.Done():
		return
	case <-q.ready:
	}
	gather := time.NewTimer(linger)
	defer gather.Stop()
	select {
	case <-q.urgent:
	case <-ctx.Done():
	case <-gather.C:
	}
}

// take moves all entries to buffer, which it keeps the memory of, and says how
// many had no room since it was last asked, with a number for the line about it.
func (q *queue) take(buffer []entry) (entries []entry, dropped, sequence uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	entries, q.entries = q.entries, buffer[:0]
	if q.dropped > 0 {
		q.sequence++
		dropped, sequence = q.dropped, q.sequence
		q.dropped = 0
	}
	return entries, dropped, sequence
}

// release makes room for as much as was taken and is done with.
func (q *queue) release(entries []entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range entries {
		q.bytes -= entries[i].size
		entries[i] = entry{} // hold on to nothing
	}
	q.records -= len(entries)
}

// close lets nothing more in.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// len returns how many entries are not released yet.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.records
}
