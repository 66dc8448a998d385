package audit

import (
	"context"
	"time"
)

// maxChunk is about how much is written at once.
const maxChunk = 1 << 20

// writer brings entries from the queue to the sink. One goroutine uses it.
type writer struct {
	*DecisionLog
	encoder *encoder
	entries []entry
	lines   []byte
}

// writeAll writes until the queue is empty.
func (w *writer) writeAll(ctx context.Context) {
	for {
		entries, dropped, sequence := w.queue.take(w.entries)
		w.entries = entries
		if len(entries) == 0 && dropped == 0 {
			return
		}
		for left := entries; len(left) > 0; {
			n := w.writeChunk(ctx, left)
			w.queue.release(left[:n])
			left = left[n:]
		}
		if dropped > 0 {
			w.writeDropped(ctx, sequence, dropped)
		}
	}
}

// writeChunk writes the first n entries. A sink that fails is tried again until
// it works or ctx ends.
func (w *writer) writeChunk(ctx context.Context, entries []entry) (n int) {
	for {
		n, durably := w.encode(entries)
		err := w.append(durably)
		settle(entries[:n], err)
		switch {
		case err == nil:
			w.metrics.logged.Add(float64(n))
			return n
		case !pause(ctx):
			w.metrics.dropped.Add(float64(n))
			w.log.Error("decisions not recorded", "count", n)
			return n
		}
	}
}

// writeDropped writes that n decisions are missing.
func (w *writer) writeDropped(ctx context.Context, sequence, n uint64) {
	w.log.Warn("decisions dropped", "count", n)
	for {
		w.lines = w.encoder.dropped(w.lines[:0], sequence, n)
		if w.append(false) == nil || !pause(ctx) {
			return
		}
	}
}

// encode fills lines with the first n entries, and says whether somebody waits
// for any of them.
func (w *writer) encode(entries []entry) (n int, durably bool) {
	w.lines = w.lines[:0]
	for n < len(entries) && len(w.lines) < maxChunk {
		e := &entries[n]
		if e.receipt != nil && !e.receipt.state.CompareAndSwap(waiting, encoded) {
			e.unavailable() // who waited has given up
			e.receipt = nil
		}
		durably = durably || e.receipt != nil
		w.lines = w.encoder.decision(w.lines, &e.Decision)
		n++
	}
	return n, durably
}

// append gives lines to the sink.
func (w *writer) append(durably bool) error {
	begin := time.Since(w.begin)
	w.busySince.Store(int64(begin))
	err := w.config.Sink.Append(w.lines, durably)
	w.busySince.Store(0)
	w.metrics.duration.Observe((time.Since(w.begin) - begin).Seconds())
	failed := err != nil
	if w.failing.Swap(failed) != failed {
		w.config.Failing(err)
		if failed {
			w.log.Error("decisions cannot be recorded", "err", err)
		} else {
			w.log.Info("decisions are recorded again")
		}
	}
	return err
}

// settle tells who waits. What could not be recorded is not acted upon, so
// that is what will be recorded.
func settle(entries []entry, err error) {
	for i := range entries {
		e := &entries[i]
		if e.receipt == nil {
			continue
		}
		if err != nil {
			e.unavailable()
			e.receipt.done <- ErrUnavailable
		} else {
			e.receipt.done <- nil
		}
		e.receipt = nil
	}
}

// pause waits before the next attempt, unless ctx ends.
func pause(ctx context.Context) bool {
	timer := time.NewTimer(retryAfter)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
