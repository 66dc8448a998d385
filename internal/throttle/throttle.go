// Package throttle bounds what each of many keys may attempt, in a fixed amount
// of memory.
package throttle

import (
	"sync/atomic"
	"time"
)

// Throttle lets a few attempts of each key pass at once, and then one in each
// interval. Its memory is fixed: keys share slots, by a hash that nobody else
// knows, so a flood of keys pushes none out. That two meet in a slot costs an
// attempt now and then, and lets none through.
type Throttle struct {
	// arrivals are theoretical arrival times (GCRA), in nanoseconds: how far one is
	// ahead of now is how many attempts were made.
	arrivals []atomic.Int64
	interval int64
	burst    int64
}

const slots = 1 << 16

// New returns a Throttle for burst attempts at once, and one in each interval.
func New(burst int, interval time.Duration) *Throttle {
	return &Throttle{make([]atomic.Int64, slots), interval.Nanoseconds(), int64(burst)}
}

// Allows reports whether Take would.
func (t *Throttle) Allows(key uint64, now time.Time) bool {
	_, ok := t.next(t.arrivals[key%slots].Load(), now)
	return ok
}

// Take counts an attempt, and reports whether it may be made.
func (t *Throttle) Take(key uint64, now time.Time) bool {
	slot := &t.arrivals[key%slots]
	for {
		old := slot.Load()
		next, ok := t.next(old, now)
		if !ok || slot.CompareAndSwap(old, next) {
			return ok
		}
	}
}

func (t *Throttle) next(old int64, now time.Time) (next int64, ok bool) {
	begin, full := now.UnixNano(), t.burst*t.interval
	// What is further ahead was there before the clock was set back.
	if old < begin || old > begin+2*full {
		old = begin
	}
	next = old + t.interval
	return next, next-begin <= full
}

// GiveBack uncounts an attempt.
func (t *Throttle) GiveBack(key uint64) { t.arrivals[key%slots].Add(-t.interval) }
